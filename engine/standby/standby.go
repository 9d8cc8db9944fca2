// Package standby sees to it that one node is the active one and the others
// are ready. Only the lease decides which. It must not know what an active
// node does.
package standby

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// TTL is how long a lease lasts that isn't renewed: the time after which
// another node takes over from one that died.
const TTL = 4 * time.Second

const (
	renewEvery   = TTL / 4
	acquireEvery = 500 * time.Millisecond
	callWait     = TTL / 2 // for one call of the storage
)

// errLost is why a node stops being the active one without wanting to.
var errLost = errors.New("the lease couldn't be renewed in time")

// Roles is what a node does as the active one, and as a standby.
type Roles struct {
	// Active is called when this node holds the lease. Its context ends when
	// the lease is lost or Run's context ends; it must then return soon, and
	// the lease is released.
	Active func(context.Context, plugin.Fence) error
	// Standby is called whenever this node doesn't get the lease, about twice a
	// second, when it has lost it because it couldn't be renewed, and when Active
	// has failed. It is told why: plugin.ErrHeld, what is wrong with the storage,
	// or Active's error. It returns at once.
	Standby func(why error)
}

// Run tries to acquire the lease for node and has it play its roles, again and
// again, until ctx ends. If Active fails the first time, Run returns its error:
// a person is watching. Later it is tried again.
func Run(ctx context.Context, leases plugin.Leases, node string, log *slog.Logger, do Roles) error {
	led := false
	waits := waiting{log: log, node: node, tell: do.Standby}
	for ; ctx.Err() == nil; pause(ctx, acquireEvery) {
		fence, err := acquire(ctx, leases, node)
		if err != nil {
			waits.on(ctx, err)
			continue
		}
		waits.said = nothing
		log.Info("this node holds the lease", "node", node, "fence", fence)
		err = hold(ctx, leases, fence, log, do.Active)
		switch {
		case errors.Is(err, errLost):
			waits.on(ctx, err)
		case err != nil && !led:
			return err
		case err != nil && ctx.Err() == nil:
			log.Error("this node can't take traffic; it tries again", "node", node, "reason", err)
			do.Standby(err)
		}
		led = true
	}
	return nil
}

// waiting says that a node waits for the lease: in the log once for each time
// that it begins to, or what it waits for changes.
type waiting struct {
	log  *slog.Logger
	node string
	tell func(error)
	said why
}

// why is what a node waits for.
type why uint8

const (
	nothing why = iota
	theLease
	theStorage
)

func (w *waiting) on(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // it waits no longer
	}
	before := w.said
	w.said = theStorage
	if errors.Is(err, plugin.ErrHeld) {
		w.said = theLease
	}
	switch {
	case w.said == before:
	case w.said == theLease:
		w.log.Info("this node is a standby", "node", w.node, "reason", err)
	default:
		w.log.Error("this node takes no traffic: it can't get the lease", "node", w.node, "reason", err)
	}
	w.tell(err)
}

func acquire(ctx context.Context, leases plugin.Leases, node string) (plugin.Fence, error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	return leases.Acquire(ctx, node, TTL)
}

// hold leads until the lease is lost or ctx ends. An error of lead's is
// returned unless it comes of that; errLost, with why, if the lease couldn't be
// renewed.
func hold(ctx context.Context, leases plugin.Leases, fence plugin.Fence, log *slog.Logger, lead func(context.Context, plugin.Fence) error) error {
	term, end := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { renew(term, leases, fence, end) })

	err := lead(term, fence)
	cause := context.Cause(term)
	end(nil)
	renewing.Wait()

	release(ctx, leases, fence, log)
	switch {
	case errors.Is(err, plugin.ErrFenced) || cause != nil && ctx.Err() == nil:
		log.Warn("this node is no longer the active one", "fence", fence, "reason", errors.Join(cause, err))
		if errors.Is(cause, errLost) {
			return cause
		}
		return nil
	case ctx.Err() != nil:
		log.Info("this node stops being the active one", "fence", fence)
	}
	return err
}

// renew extends the lease until its context ends, and ends it when it can't.
func renew(term context.Context, leases plugin.Leases, fence plugin.Fence, end context.CancelCauseFunc) {
	valid := time.Now().Add(TTL)
	for pause(term, renewEvery) {
		began := time.Now()
		ctx, cancel := context.WithDeadline(term, earlier(began.Add(callWait), valid))
		err := leases.Renew(ctx, fence, TTL)
		cancel()
		switch {
		case err == nil:
			valid = began.Add(TTL)
		case errors.Is(err, plugin.ErrFenced):
			end(err)
			return
		}
		if !time.Now().Add(renewEvery).Before(valid) {
			end(lost(err))
			return
		}
	}
}

// lost says why a lease was lost; err is of the last try to renew it.
func lost(err error) error {
	if err == nil {
		return errLost // the machine stood still
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// release lets go of the lease also when ctx has ended: that is when it
// matters, because another node waits for it.
func release(ctx context.Context, leases plugin.Leases, fence plugin.Fence, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callWait)
	defer cancel()
	if err := leases.Release(ctx, fence); err != nil {
		log.Warn("releasing the lease failed; it runs out by itself", "fence", fence, "reason", err)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// pause waits and tells whether the wait was full.
func pause(ctx context.Context, d time.Duration) bool {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-waiting.Done()
	return ctx.Err() == nil
}

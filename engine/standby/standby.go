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
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// TTL is how long a lease lasts that isn't renewed: the time after which
// another node takes over from one that died.
const TTL = 3 * time.Second

const (
	renewEvery  = TTL / 4
	askEvery    = 250 * time.Millisecond
	callWait    = time.Second     // for one call of the storage
	reservedFor = 5 * time.Second // for the node that a lease is handed over to
	failedPause = 2 * time.Second // after a term that couldn't begin: others may be able to
)

// errCeded ends a term whose lease is handed over.
var errCeded = errors.New("the lease is handed over")

// ErrNotHeld is what HandOver returns on a node that has no lease, or is about
// to lose the one that it has.
var ErrNotHeld = errors.New("this node holds no lease that it could hand over")

// Roles is what a node does as the active one, and as a standby.
type Roles struct {
	// Active is called when this node holds the lease. Its context ends when
	// the lease is lost or handed over, or Run's context ends; it must then
	// return soon. The lease is renewed until it has, and then given up.
	Active func(context.Context, Term) error
	// Standby is called when this node waits for the lease: when it begins to,
	// and whenever it has asked for it in vain. err is what is wrong; nil: another
	// node has the lease. It returns at once.
	Standby func(err error)
	// Heir names the node that is to have the lease when Run's context ends;
	// empty: whoever comes first. It returns at once.
	Heir func() string
}

// Term is the time for which a node holds a lease.
type Term struct {
	Fence plugin.Fence
	Began time.Time // just before the lease was acquired
}

// Member is a node that takes part. Its methods, but for Run, may be called
// from any goroutine at any time.
type Member struct {
	leases plugin.Leases
	node   string
	log    *slog.Logger
	do     Roles
	meter  *meter

	epoch     time.Time
	valid     atomic.Int64                 // until when the lease is ours: nanoseconds since epoch
	known     atomic.Pointer[plugin.Lease] // as of the last look
	handovers chan *handover

	view view // Run's own
}

// handover asks for the end of a term.
type handover struct {
	to   string
	done chan error
}

// New returns a member that Run makes take part.
func New(leases plugin.Leases, node string, log *slog.Logger, metrics *plugin.Metrics, do Roles) *Member {
	m := &Member{
		leases: leases, node: node, log: log.With("node", node), do: do,
		epoch: time.Now(), handovers: make(chan *handover), view: view{node: node},
	}
	m.known.Store(&plugin.Lease{})
	m.meter = newMeter(metrics, m)
	return m
}

// Holds tells whether the lease is still this node's, by the monotonic clock of
// this machine: not if the process has stood still for too long to have renewed
// it. It costs 30 ns. A clock that stands still too, as that of a machine that
// was put to sleep may, isn't noticed until the next renewal: then the fence
// alone keeps this node from writing.
func (m *Member) Holds() bool { return time.Since(m.epoch) < time.Duration(m.valid.Load()) }

// Known is the lease as this node saw it last: a standby looks four times a second.
func (m *Member) Known() plugin.Lease { return *m.known.Load() }

// Active says who is the active node: "node a is active".
func (m *Member) Active() string {
	l := m.Known()
	switch {
	case l.State == plugin.LeaseReserved:
		return fmt.Sprintf("node %s takes over", l.Next)
	case l.State == plugin.LeaseHeld && (l.Node != m.node || m.Holds()):
		return fmt.Sprintf("node %s is active", l.Node)
	}
	return "no node is active"
}

// HandOver ends this node's term and gives the lease to another node, which has
// 5 s to come for it; then anybody may have it. It returns once the lease is
// reserved. ErrNotHeld: there was nothing to give.
func (m *Member) HandOver(ctx context.Context, to string) error {
	h := &handover{to: to, done: make(chan error, 1)}
	asking := time.NewTimer(callWait)
	defer asking.Stop()
	select {
	case m.handovers <- h:
	case <-asking.C:
		return ErrNotHeld
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-h.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run tries to acquire the lease and plays the roles, again and again, until ctx
// ends. If Active fails on a node that got the lease at once when it was
// started, Run returns its error: a person is watching. Later, or if the storage
// is gone by then, it is tried again.
func (m *Member) Run(ctx context.Context) error {
	waited := false
	for wait := time.Duration(0); pause(ctx, wait); {
		wait = askEvery
		term, err := m.take(ctx)
		if err != nil {
			m.wait(ctx, err)
			waited = true
			continue
		}
		failure, released := m.hold(ctx, term)
		if failure != nil && released && !waited {
			return failure
		}
		if failure != nil {
			m.log.Error("this node can't take traffic; it tries again", "fence", term.Fence, "error", failure)
			m.becomes(Storage, failure)
			wait = failedPause
		}
		waited = true
	}
	return nil
}

// take looks how the lease stands and acquires it if it can be had.
func (m *Member) take(ctx context.Context) (Term, error) {
	lease, err := call(ctx, m.leases.Lease)
	if err != nil {
		m.meter.failed.Inc()
		return Term{}, err
	}
	m.known.Store(&lease)
	why, err := m.view.consider(lease)
	if err != nil {
		return Term{}, err
	}
	term := Term{Began: time.Now()}
	term.Fence, err = call(ctx, func(ctx context.Context) (plugin.Fence, error) { return m.leases.Acquire(ctx, m.node, TTL) })
	if errors.Is(err, plugin.ErrHeld) {
		return term, plugin.ErrHeld // another was faster
	}
	if err != nil {
		m.meter.failed.Inc()
		m.view.unsure = true
		return term, err
	}
	m.view.acquired(term.Fence)
	m.known.Store(&plugin.Lease{Node: m.node, Fence: term.Fence, State: plugin.LeaseHeld, Left: TTL})
	m.extend(term.Began)
	m.log.Info(taken(why, m.node, lease), "fence", term.Fence, "reason", why)
	m.meter.change(roleActive, why)
	return term, nil
}

// wait says that this node waits for the lease: in the log once for each time
// that it begins to, or what it waits for changes.
func (m *Member) wait(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // it waits no longer
	}
	if m.view.first() {
		why := Start
		if !errors.Is(err, plugin.ErrHeld) {
			why = Storage
		}
		m.meter.change(roleStandby, why)
	}
	switch news := m.view.news(m.Known(), err); {
	case !news:
	case errors.Is(err, errNamesake):
		m.log.Warn("this node is a standby: another process that is named " + m.node + " is active")
	case errors.Is(err, plugin.ErrHeld):
		m.log.Info("this node is a standby: " + m.Active())
	default:
		m.log.Error("this node takes no traffic: it can't get the lease", "error", err)
	}
	if errors.Is(err, plugin.ErrHeld) {
		err = nil
	}
	m.do.Standby(err)
}

// hold plays the active role until the lease is lost or handed over, or ctx
// ends. It returns the role's error unless it comes of that.
func (m *Member) hold(ctx context.Context, t Term) (failure error, released bool) {
	term, end := context.WithCancelCause(ctx)
	// What is under way comes to rest under the lease.
	held, letGo := context.WithCancel(context.WithoutCancel(ctx))
	var ceded *handover
	var lost error // why the lease is no longer ours
	var keeping sync.WaitGroup
	keeping.Go(func() {
		if lost = m.keep(held, t); lost != nil {
			m.loses(t, lost)
			end(lost)
		}
	})
	keeping.Go(func() {
		select {
		case ceded = <-m.handovers:
			end(errCeded)
		case <-term.Done():
		}
	})
	failure = m.do.Active(term, t)
	end(nil)
	letGo()
	keeping.Wait()
	m.valid.Store(0)
	if lost == nil && errors.Is(failure, plugin.ErrFenced) {
		lost = failure
		m.loses(t, lost)
	}
	if lost != nil {
		ceded.answer(fmt.Errorf("%w: %w", ErrNotHeld, lost))
		m.view.lost(trouble(lost))
		return nil, false
	}
	if ceded != nil {
		m.cede(ctx, t, ceded)
		return nil, false
	}
	if ctx.Err() != nil {
		m.leave(ctx, t)
		return nil, false
	}
	return failure, m.release(ctx, t)
}

// loses says why this node has lost its lease, at once: the end of what it did
// under it may take a while.
func (m *Member) loses(t Term, lost error) {
	why := Renewal
	if errors.Is(lost, plugin.ErrFenced) {
		why = Fenced
	}
	m.log.Warn("no longer the active node: "+lost.Error(), "fence", t.Fence, "reason", why)
	m.meter.change(roleStandby, why)
	m.do.Standby(trouble(lost))
}

// trouble is what is wrong with the storage, so that a lease was lost; nil:
// nothing is.
func trouble(lost error) error {
	if l, ok := errors.AsType[*lostError](lost); ok {
		return l.storage
	}
	return nil
}

// answer tells who has asked.
func (h *handover) answer(err error) {
	if h != nil {
		h.done <- err
	}
}

// cede hands the lease over.
func (m *Member) cede(ctx context.Context, t Term, h *handover) {
	err := m.bequeath(ctx, t, h.to)
	h.answer(err)
	switch {
	case err == nil:
		m.log.Info("no longer the active node: it hands over to node "+h.to, "fence", t.Fence, "reason", Handover)
		m.becomes(Handover, nil)
	case errors.Is(err, plugin.ErrFenced):
		m.log.Warn("no longer the active node: another took the lease before it was handed over", "fence", t.Fence, "reason", Fenced)
		m.becomes(Fenced, nil)
	default:
		m.log.Error("no longer the active node: it couldn't hand over", "fence", t.Fence, "reason", Storage, "error", err)
		m.becomes(Storage, err)
	}
}

// bequeath reserves the lease for another node, and says here what is known.
func (m *Member) bequeath(ctx context.Context, t Term, to string) error {
	_, err := call(context.WithoutCancel(ctx), func(ctx context.Context) (none struct{}, err error) {
		return none, m.leases.Handover(ctx, t.Fence, to, reservedFor)
	})
	if err != nil {
		m.meter.failed.Inc()
		return fmt.Errorf("hand over to node %s: %w", to, err)
	}
	m.known.Store(&plugin.Lease{Node: m.node, Fence: t.Fence, State: plugin.LeaseReserved, Next: to, Left: reservedFor})
	return nil
}

// leave gives up the lease of a node that stops.
func (m *Member) leave(ctx context.Context, t Term) {
	heir := m.do.Heir()
	if heir == "" {
		m.log.Info("this node stops being the active one", "fence", t.Fence)
		m.release(ctx, t)
		return
	}
	m.log.Info("this node stops being the active one and hands over to node "+heir, "fence", t.Fence)
	if err := m.bequeath(ctx, t, heir); err != nil {
		m.log.Warn("handing over failed: the lease runs out by itself", "fence", t.Fence, "error", err)
	}
}

// becomes makes a standby of the active node.
func (m *Member) becomes(why Reason, wrong error) {
	m.view.lost(wrong)
	m.meter.change(roleStandby, why)
	m.do.Standby(wrong)
}

// release lets go of the lease also when ctx has ended: that is when it
// matters, because another node waits for it.
func (m *Member) release(ctx context.Context, t Term) (released bool) {
	_, err := call(context.WithoutCancel(ctx), func(ctx context.Context) (none struct{}, err error) {
		return none, m.leases.Release(ctx, t.Fence)
	})
	if err != nil {
		m.meter.failed.Inc()
		m.log.Warn("releasing the lease failed; it runs out by itself", "fence", t.Fence, "error", err)
	}
	return err == nil
}

func (m *Member) extend(began time.Time) { m.valid.Store(int64(began.Add(TTL).Sub(m.epoch))) }

// call bounds a call of the storage.
func call[R any](ctx context.Context, do func(context.Context) (R, error)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	return do(ctx)
}

// pause waits and tells whether the wait was full.
func pause(ctx context.Context, d time.Duration) bool {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-waiting.Done()
	return ctx.Err() == nil
}

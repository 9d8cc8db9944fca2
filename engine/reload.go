package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/revisions"
)

// openWait is how long the opening of what is new may take: policies are tried,
// perhaps after others that are being tried already. Who asks for it waits a minute.
const openWait = 50 * time.Second

var errSlowOpening = fmt.Errorf("opening what is new isn't done within %v", openWait)

// errNothingToReload is what Refresh says on a node that has no file.
var errNothingToReload = errors.New("nothing to reload: the server runs without a configuration file")

// Refresh reads the configuration anew and takes it: see Reload.
func (e *Engine) Refresh(ctx context.Context) (changed []string, err error) {
	if e.options.Load == nil {
		return nil, errNothingToReload
	}
	c, err := e.options.Load()
	if err != nil {
		e.log.Error("the configuration was not reloaded: the one before stays in force", "error", err)
		return nil, err
	}
	return e.Reload(ctx, c)
}

// Reload takes another configuration, whole or not at all, and returns the
// keys of what has changed: the instances that were closed and opened, opened,
// or closed. All others stay up, with their connections and what is under way.
// The policies are always read anew, and those that are read are put in force;
// they count as changed if their settings have. What the books or the pipeline are made of
// changes between two terms: for a moment, of up to pauseWait and the time that
// it takes to read the spool, this node answers as a standby does. Limits,
// retention and the life of notifications change without.
//
// An error names the key that it comes from; then everything is as it was. A
// *message.Failure: the node stops. Only one Reload is at work: another waits
// for its turn until ctx ends. One that has begun isn't cut off.
func (e *Engine) Reload(ctx context.Context, next Config) (changed []string, err error) {
	if err := e.take(ctx, e.reloads); err != nil {
		return nil, err
	}
	defer func() { <-e.reloads }()
	changed, err = e.reload(e.leading, next)
	if err != nil {
		e.log.Error("the configuration was not reloaded: the one before stays in force", "error", err)
		return nil, err
	}
	e.log.Info("configuration reloaded", "changed", changed)
	return changed, nil
}

func (e *Engine) reload(ctx context.Context, next Config) ([]string, error) {
	d, err := compare(e.config, next)
	if err != nil {
		return nil, err
	}
	r := &reload{engine: e, from: e.config, to: next, difference: d}
	for _, step := range []func(context.Context) error{
		r.openNew, r.takeTurn, r.pauseTerm, r.closeDoors, r.openDoors, r.exchangePolicy, r.exchangeWatchers, r.exchangePusher, r.resumeTerm,
	} {
		if err := step(ctx); err != nil {
			r.takeBack()
			return nil, err
		}
	}
	for _, conclude := range r.conclusions {
		conclude()
	}
	return d.keys, nil
}

// reload is the way from one configuration to another. Each of its steps
// leaves behind how to take it back, and what is to be done once all have
// succeeded.
type reload struct {
	engine   *Engine
	from, to Config
	difference

	found    *revisions.Found
	source   *revisions.Source // nil: it stays
	watchers []*watcher
	pusher   *openPusher
	doors    []*door
	pause    *pause // nil: this node isn't the active one, or needn't pause

	undo        []func() error
	broken      bool // a step couldn't be undone
	conclusions []func()
}

func (r *reload) onFailure(undo func() error) { r.undo = append(r.undo, undo) }
func (r *reload) onSuccess(conclude func())   { r.conclusions = append(r.conclusions, conclude) }

// takeBack undoes the steps, the last one first. A node that can't go back to
// where it was ends: whoever watches over it starts it anew.
func (r *reload) takeBack() {
	for _, undo := range slices.Backward(r.undo) {
		err := undo()
		if err == nil {
			continue
		}
		r.broken = true
		if !r.engine.draining() { // now, and not when no other term can be kept from beginning
			r.engine.fail(fmt.Errorf("the configuration before a reload couldn't be put back: %w", err))
		}
	}
}

// openNew opens what is new beside what runs.
func (r *reload) openNew(ctx context.Context) error {
	e := r.engine
	ctx, cancel := context.WithTimeoutCause(ctx, openWait, errSlowOpening)
	defer cancel()
	if err := r.findPolicies(ctx); err != nil {
		return err
	}
	for _, i := range r.observers.in {
		w, err := e.openWatcher(ctx, r.to, i)
		if err != nil {
			return err
		}
		r.onFailure(w.Close)
		r.watchers = append(r.watchers, w)
	}
	if err := r.openPusher(ctx); err != nil {
		return err
	}
	for _, i := range r.transports.in {
		d, err := e.openDoor(ctx, r.to, i)
		if err != nil {
			return err
		}
		r.onFailure(func() error {
			d.metrics.Close()
			return nil
		})
		r.doors = append(r.doors, d)
	}
	return nil
}

// takeTurn waits until no term is beginning. Until it has succeeded one may: a
// node mustn't hold a lease and wait for a policy to compile.
func (r *reload) takeTurn(ctx context.Context) error {
	e := r.engine
	if err := e.take(context.WithoutCancel(ctx), e.turn); err != nil {
		return err
	}
	r.onFailure(func() error {
		<-e.turn
		return nil
	})
	r.onSuccess(func() { <-e.turn })
	return nil
}

// pauseTerm ends the running term if the change concerns it.
func (r *reload) pauseTerm(context.Context) error {
	e := r.engine
	t := e.term.Load()
	if t == nil || !r.term {
		return nil
	}
	p := newPause()
	select {
	case t.pauses <- p:
	case <-t.over:
		return nil // by itself
	}
	<-p.over
	r.pause = p
	r.onFailure(func() error {
		defer close(p.resume)
		if r.broken {
			return nil // a door is missing: the lease is given back
		}
		if err := r.beginTerm(); err != nil {
			e.log.Error("after a reload that failed no term can be begun: the lease is given back", "error", err)
		}
		return nil
	})
	return nil
}

// resumeTerm puts the configuration in force and begins the next term with it;
// one that goes on is told what else it must keep to.
func (r *reload) resumeTerm(context.Context) error {
	r.engine.config = r.to
	r.onFailure(func() error {
		r.engine.config = r.from
		return nil
	})
	if t := r.engine.term.Load(); t != nil {
		t.pipeline.Bound(r.to.Limits, r.to.Retention, r.to.Notifications)
	}
	return r.beginTerm()
}

func (r *reload) beginTerm() error {
	if r.pause == nil {
		return nil
	}
	select {
	case r.pause.resume <- struct{}{}:
		return <-r.pause.begun
	case <-r.pause.gone:
		return nil // the lease is lost, or the node stops
	}
}

// closeDoors closes the doors that go or change: the new ones may need their
// addresses. What is being sent through them ends first.
func (r *reload) closeDoors(ctx context.Context) error {
	var closing sync.WaitGroup
	var out []*slot
	for _, s := range *r.engine.slots.Load() {
		if !r.transports.keeps(s.name) {
			out = append(out, s)
		}
	}
	errs := make([]error, len(out))
	for i, s := range out {
		d := s.vacate()
		r.onFailure(func() error { return r.putBack(ctx, s, d.instance) })
		closing.Go(func() {
			s.drain(drainWait)
			errs[i] = d.end()
		})
	}
	closing.Wait()
	return errors.Join(errs...)
}

// putBack opens a door again that was closed for one that failed.
func (r *reload) putBack(ctx context.Context, s *slot, i Instance) error {
	d, err := r.engine.openDoor(ctx, r.from, i)
	if err != nil {
		return err
	}
	if err := r.engine.serveUntilReady(ctx, d); err != nil {
		return err
	}
	s.fill(d)
	return nil
}

// openDoors opens the new doors in the places of the old ones.
func (r *reload) openDoors(ctx context.Context) error {
	e := r.engine
	before := *e.slots.Load()
	var after []*slot
	for _, s := range before {
		if r.transports.keeps(s.name) {
			after = append(after, s)
		}
	}
	for _, d := range r.doors {
		r.onFailure(d.end)
		if err := e.serveUntilReady(ctx, d); err != nil {
			return err
		}
		after = append(after, r.place(before, d))
	}
	e.slots.Store(&after)
	r.onFailure(func() error {
		e.slots.Store(&before)
		return nil
	})
	return nil
}

// place puts a door where one of its name stood, or in a place of its own.
func (r *reload) place(slots []*slot, d *door) *slot {
	for _, s := range slots {
		if s.name == d.instance.Name {
			s.fill(d)
			r.onFailure(func() error { // nothing is sent through it when it closes
				s.vacate()
				s.drain(drainWait)
				return nil
			})
			return s
		}
	}
	return r.engine.newSlot(d)
}

// exchangeWatchers lets the new observers watch instead of the old ones.
func (r *reload) exchangeWatchers(context.Context) error {
	e := r.engine
	before := e.watchers
	var after, gone []*watcher
	for _, w := range before {
		if r.observers.keeps(w.instance.Name) {
			after = append(after, w)
		} else {
			gone = append(gone, w)
		}
	}
	if err := e.admin.Exchange(routesOf(gone), routesOf(r.watchers)); err != nil {
		return r.to.wrong("observers", err)
	}
	after = append(after, r.watchers...)
	use := func(list []*watcher) {
		e.watchers = list
		e.observers.Use(watching(list))
	}
	use(after)
	r.onFailure(func() error {
		use(before)
		return e.admin.Exchange(routesOf(r.watchers), routesOf(gone))
	})
	r.onSuccess(func() {
		for _, w := range gone {
			e.admin.Close(w.routes, drainWait)
			r.closed(w.instance, w.Close())
		}
	})
	return nil
}

// openPusher opens who is to wake apps, if that is somebody new.
func (r *reload) openPusher(ctx context.Context) (err error) {
	if !r.push {
		return nil
	}
	r.pusher, err = r.engine.openPusher(ctx, r.to)
	if err == nil {
		r.onFailure(r.pusher.close)
	}
	return err
}

// exchangePusher lets the new one wake apps instead of the old one. A term that
// goes on learns of it with its other bounds.
func (r *reload) exchangePusher(context.Context) error {
	if !r.push {
		return nil
	}
	current := &r.engine.pusher.current
	before := current.Swap(r.pusher)
	r.onFailure(func() error {
		current.Store(before)
		return nil
	})
	r.onSuccess(func() {
		if before != nil {
			r.closed(before.instance, before.close())
		}
	})
	return nil
}

func routesOf(watchers []*watcher) []*admin.Scope {
	scopes := make([]*admin.Scope, len(watchers))
	for i, w := range watchers {
		scopes[i] = w.routes
	}
	return scopes
}

// closed notes that something old couldn't be closed in order: that is no
// reason to go back.
func (r *reload) closed(i Instance, err error) {
	if err != nil {
		r.engine.log.Warn("what a reload has replaced wasn't closed in order", "plugin", i.Plugin.Name, "instance", i.Name, "error", err)
	}
}

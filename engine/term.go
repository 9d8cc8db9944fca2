package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/revisions"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/engine/standby"
)

// drainWait is how long messages that are under way may take to come to rest
// when a node stops, or a transport is exchanged.
const drainWait = 5 * time.Second

// handoverWait is the same when another node is about to take over, or has: what
// isn't answered by then is sent again there, as the same request.
const handoverWait = 500 * time.Millisecond

// pauseWait is the same for a term that ends because the next one begins with
// another configuration: nobody is served meanwhile, and there is always some
// peer that is silent. Within it SIP asks three times (RFC 3261 §17.1.2.2).
const pauseWait = 2 * time.Second

// term is the time during which this node is the active one, with one
// configuration: everything whose memory must not be older than the disk is
// opened when it begins and closed when it ends.
type term struct {
	ctx    context.Context
	end    context.CancelCauseFunc
	tenure *tenure
	pauses chan *pause   // a reload asks for one
	over   chan struct{} // closed when the term has ended

	book       *revisions.Book // nil: it has yet to be asked
	committer  *spool.Committer
	stopWrites context.CancelFunc
	committing sync.WaitGroup
	fenced     error // why the committer has ended, unless it was told to

	accounts  plugin.Accounts
	verifying sync.RWMutex // held for reading while accounts is asked from a door
	closed    bool         // guarded by verifying
	charging  plugin.Charging
	routes    *admin.Scope
	gauges    *plugin.Metrics   // of the pipeline
	books     []*plugin.Metrics // where the books count

	pipeline *pipeline.Pipeline
	running  sync.WaitGroup
}

// pause is how a reload holds up a node that is the active one: the running
// term ends, and another begins, under the same lease, when it is told to.
type pause struct {
	over   chan struct{} // closed when the term has ended
	resume chan struct{} // one for each beginning; closed when no more are wanted
	begun  chan error    // what became of each
	gone   chan struct{} // closed when no term is begun any more
}

func newPause() *pause {
	return &pause{
		over: make(chan struct{}), resume: make(chan struct{}), begun: make(chan error, 1), gone: make(chan struct{}),
	}
}

// serveTerms works until ctx ends. plugin.ErrFenced: another node has taken over.
func (e *Engine) serveTerms(ctx context.Context, held standby.Term) error {
	e.noTerm.Store(nil)
	e.unfollow()
	defer func() { e.follow(e.leading) }()
	if e.take(ctx, e.turn) != nil {
		return nil // the node stops, or the lease is lost already
	}
	lease := &tenure{fence: held.Fence, began: held.Began}
	t, err := e.begin(ctx, lease)
	<-e.turn
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // it was to end before it had begun
	}
	for t != nil {
		p := t.serve()
		if p == nil {
			return e.finish(t, e.restWait())
		}
		err = e.finish(t, pauseWait)
		if err != nil {
			e.log.Warn("what ended for a reload didn't end in order", "error", err)
		}
		close(p.over)
		t, err = e.beginAgain(ctx, lease, p), nil
	}
	return err
}

// beginAgain begins a term when the reload says so, until one succeeds. It
// returns nil when no more are wanted: then the lease is given back, and the
// node tries again.
func (e *Engine) beginAgain(ctx context.Context, lease *tenure, p *pause) *term {
	defer close(p.gone)
	for range p.resume {
		t, err := e.begin(ctx, lease)
		if ctx.Err() != nil {
			err = nil // the lease is lost, or the node stops: that isn't the configuration's fault
		}
		p.begun <- err
		if t != nil || ctx.Err() != nil {
			return t
		}
	}
	return nil
}

// begin opens what a term needs and lets messages go. The caller has the turn,
// or a reload has it for him.
func (e *Engine) begin(ctx context.Context, lease *tenure) (*term, error) {
	if e.draining() || ctx.Err() != nil { // after a reload that was cut off, doors may be missing
		return nil, context.Canceled
	}
	e.beginning.Store(true)
	defer e.beginning.Store(false)
	began := time.Now()
	t := &term{
		tenure: lease, committer: spool.NewCommitter(e.storage, lease.fence, e.log), routes: admin.NewTermScope(),
		pauses: make(chan *pause), over: make(chan struct{}),
	}
	t.ctx, t.end = context.WithCancelCause(ctx)
	t.committer.Count(e.counting.commits)
	t.startWrites()
	err := e.remember(t)
	if err == nil {
		err = e.leadPolicies(t)
	}
	if err == nil {
		err = e.openBooks(t)
	}
	if err != nil {
		return nil, errors.Join(err, t.stop())
	}
	// What is under way may end in peace: the pipeline's context outlives the
	// term's until it is drained.
	t.pipeline = e.newPipeline(context.WithoutCancel(ctx), t)
	err = t.pipeline.Restore(t.ctx)
	if err == nil {
		err = e.admin.Exchange(nil, []*admin.Scope{t.routes})
	}
	if err != nil {
		return nil, errors.Join(err, t.closeBooks(), t.stop())
	}
	if lease.since.IsZero() {
		lease.since = time.Now()
		e.counting.takeovers.Observe(lease.since.Sub(lease.began))
	}
	snapshot := t.pipeline.Snapshot()
	e.log.Info("takes traffic", "waiting", snapshot["waiting"], "bindings", snapshot["bindings"], "took", time.Since(began).Round(time.Millisecond))
	t.running.Go(t.pipeline.Run)
	e.term.Store(t)
	e.plays(roleActive)
	e.announce.Do(func() { e.started(e.admin.Addr()) })
	return t, nil
}

// remember reads what stays in memory for a tenure: the secret of the
// installation, and what other nodes have seen.
func (e *Engine) remember(t *term) (err error) {
	if !t.tenure.since.IsZero() {
		return nil
	}
	t.tenure.secret, err = spool.Secret(t.ctx, e.storage, t.committer)
	if err != nil {
		return err
	}
	if err := e.seen.CatchUp(t.ctx, time.Now()); err != nil {
		return fmt.Errorf("rebuild submissions: %w", err)
	}
	return nil
}

// serve returns when the term is to end. What it returns is why, if a reload
// wants that.
func (t *term) serve() *pause {
	defer close(t.over)
	select {
	case <-t.ctx.Done():
		return nil
	case p := <-t.pauses:
		return p
	}
}

// restWait is how long a term that ends for good may take to come to rest.
func (e *Engine) restWait() time.Duration {
	if !e.draining() || e.heir() != "" {
		return handoverWait // another node goes on
	}
	return drainWait
}

// finish lets a term come to rest, for as long as limit allows, and closes what
// it has opened.
func (e *Engine) finish(t *term, limit time.Duration) error {
	began := time.Now()
	e.ending.Store(&began)
	defer e.ending.Store(nil)
	e.term.Store(nil)
	var closing sync.WaitGroup
	closing.Go(func() { e.admin.Close(t.routes, limit) })
	t.pipeline.Drain(limit)
	t.running.Wait()
	closing.Wait()
	if standby.Lost(t.ctx) {
		t.committer.Abandon()
	}
	err := errors.Join(t.closeBooks(), t.stop())
	e.seen.Wrote(t.committer.Written())
	return err
}

// startWrites lets the committer write. Writers end before it does: it has a
// context of its own.
func (t *term) startWrites() {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.ctx))
	t.stopWrites = stop
	t.committing.Go(func() {
		if t.fenced = t.committer.Run(ctx); t.fenced != nil {
			t.end(t.fenced)
		}
	})
}

// stop lets the committer write what is left.
func (t *term) stop() error {
	if t.book != nil {
		t.book.End()
	}
	t.stopWrites()
	t.committing.Wait()
	t.end(nil)
	t.gauges.Close()
	for _, scope := range t.books {
		scope.Retire()
	}
	return t.fenced
}

func (e *Engine) openBooks(t *term) (err error) {
	c, shared := e.config, &plugin.Shared{}
	t.accounts, err = plugin.Open[plugin.Accounts](t.ctx, c.Accounts.Plugin, e.bookEnv(c.Accounts, t, shared), c.Accounts.Settings)
	if err != nil {
		return c.wrong(c.Accounts.Key(), err)
	}
	t.charging, err = plugin.Open[plugin.Charging](t.ctx, c.Charging.Plugin, e.bookEnv(c.Charging, t, shared), c.Charging.Settings)
	if err != nil {
		return errors.Join(c.wrong(c.Charging.Key(), err), t.accounts.Close())
	}
	return nil
}

func (e *Engine) bookEnv(i Instance, t *term, shared *plugin.Shared) plugin.Env {
	env := e.env(i)
	env.Metrics = e.counting.ofBook(i, env)
	t.books = append(t.books, env.Metrics)
	env.Tables = spool.NewTables(i.Plugin.Name, e.storage, t.committer)
	env.Admin, env.Shared = t.routes, shared
	return env
}

func (e *Engine) newPipeline(ctx context.Context, t *term) *pipeline.Pipeline {
	slots := *e.slots.Load()
	doors := make(map[string]pipeline.Door, len(slots))
	for _, s := range slots {
		i := s.current.Load().instance
		doors[i.Name] = pipeline.Door{Transport: s, Plugin: i.Plugin.Name, Protocol: i.Plugin.Protocol, Registrar: i.Plugin.Registrar}
	}
	t.gauges = e.options.Metrics.Scope()
	return pipeline.New(ctx, pipeline.Parts{
		Policy: e.book, Zone: e.config.Zone, Accounts: t.accounts, Charging: t.charging, Pusher: &e.pusher,
		Tables: spool.NewTables(e.config.Charging.Plugin.Name, e.storage, t.committer),
		Doors:  doors,
		Spool:  spool.New(e.storage, t.committer), Seen: e.seen,
		Locations: spool.NewLocations(e.storage, t.committer), Log: e.log,
		Meter: e.counting.messages, Metrics: t.gauges, Observers: &e.observers, Limits: e.config.Limits,
		Retention: e.config.Retention, Notifications: e.config.Notifications, Key: t.tenure.derive("names"),
	})
}

// verify asks accounts for a door, which doesn't know when a term ends.
func (t *term) verify(ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
	t.verifying.RLock()
	defer t.verifying.RUnlock()
	if t.closed {
		return plugin.Account{}, message.FailForNow(message.Standby, "this node is no longer the active one")
	}
	return t.accounts.Verify(ctx, c)
}

func (t *term) closeBooks() error {
	t.verifying.Lock()
	defer t.verifying.Unlock()
	t.closed = true
	return errors.Join(t.charging.Close(), t.accounts.Close())
}

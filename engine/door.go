package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// readyWait is how long an exchanged door may take to open, and to close.
const readyWait = 10 * time.Second

// door is a transport instance, and the gate that it gets: the same one for
// its whole life, while terms come and go.
type door struct {
	engine    *Engine
	instance  Instance
	transport plugin.Transport
	metrics   *plugin.Metrics
	wrong     func(error) error // names the instance's key

	ready chan struct{}
	once  sync.Once
	stop  context.CancelFunc
	ended chan struct{} // closed when Serve has returned
	err   error         // why Serve has returned, unless it was told to; to be read after ended

	told atomic.Pointer[told] // so that Tenure, which is asked for each request, derives its key once
}

// told is what a door was told of a tenure.
type told struct {
	of     *tenure
	tenure plugin.Tenure
}

func (e *Engine) openDoor(ctx context.Context, c Config, i Instance) (*door, error) {
	env := e.env(i)
	transport, err := plugin.Open[plugin.Transport](ctx, i.Plugin, env, i.Settings)
	if err != nil {
		env.Metrics.Close()
		return nil, c.wrong(i.Key(), err)
	}
	return &door{
		engine: e, instance: i, transport: transport, metrics: env.Metrics,
		wrong: func(err error) error { return c.wrong(i.Key(), err) },
		ready: make(chan struct{}), ended: make(chan struct{}),
	}, nil
}

// serve opens a door to the world. One that fails before it is ready fails
// for whoever awaits it; later it ends the node.
func (e *Engine) serve(d *door) {
	ctx, stop := context.WithCancel(e.open)
	d.stop = stop
	e.serving.Go(func() {
		defer close(d.ended)
		defer stop()
		err := d.transport.Serve(ctx, d)
		if ctx.Err() != nil {
			return // it was told to
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		d.err = d.wrong(err)
		if d.isReady() {
			e.fail(d.err)
		}
	})
}

// serveUntilReady serves a door and returns once it is open, or has failed.
func (e *Engine) serveUntilReady(ctx context.Context, d *door) error {
	e.serve(d)
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	return d.await(ctx)
}

// await waits until a door is open. An error is why it will never be, or that
// ctx has ended before.
func (d *door) await(ctx context.Context) error {
	select {
	case <-d.ready:
		return nil
	case <-d.ended:
		return d.err
	case <-ctx.Done():
		return d.wrong(fmt.Errorf("it doesn't open: %w", ctx.Err()))
	}
}

// end closes a door that serves. It returns when everything is let go.
func (d *door) end() error {
	d.stop()
	timer := time.NewTimer(readyWait)
	defer timer.Stop()
	select {
	case <-d.ended:
		d.metrics.Close()
		return nil
	case <-timer.C:
		return d.wrong(fmt.Errorf("it isn't closed after %v", readyWait))
	}
}

// Ready is plugin.Gate.
func (d *door) Ready() { d.once.Do(func() { close(d.ready) }) }

// isReady tells whether the door is open.
func (d *door) isReady() bool {
	select {
	case <-d.ready:
		return true
	default:
		return false
	}
}

// Active is plugin.Gate. While the storage refuses writes nothing can be taken:
// who knocks is to know before anything is asked of him.
func (d *door) Active() *message.Failure {
	t, failure := d.engine.active()
	if failure != nil {
		return failure
	}
	if err := t.committer.Failure(); err != nil {
		return &message.Failure{Reason: message.StorageDown, Temporary: true, RetryAfter: time.Second, Err: err}
	}
	return nil
}

// Tenure is plugin.Gate.
func (d *door) Tenure() (plugin.Tenure, *message.Failure) {
	t, failure := d.engine.active()
	if failure != nil {
		return plugin.Tenure{}, failure
	}
	if last := d.told.Load(); last != nil && last.of == t.tenure {
		return last.tenure, nil
	}
	now := &told{of: t.tenure, tenure: t.tenure.of(d.instance.Name)}
	d.told.Store(now)
	return now.tenure, nil
}

// Authenticate is plugin.Gate.
func (d *door) Authenticate(ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
	t, failure := d.engine.active()
	if failure != nil {
		return plugin.Account{}, failure
	}
	return t.verify(ctx, c)
}

// Register is plugin.Gate.
func (d *door) Register(ctx context.Context, r plugin.Registration) ([]plugin.Binding, error) {
	t, failure := d.engine.active()
	if failure != nil {
		return nil, failure
	}
	return t.pipeline.Register(ctx, d.instance.Name, r)
}

// Submit is plugin.Gate.
func (d *door) Submit(a plugin.Arrival) plugin.Ticket {
	t, failure := d.engine.active()
	if failure != nil {
		return refusal{failure}
	}
	return t.pipeline.Submit(d.instance.Name, a)
}

// Lost is plugin.Gate.
func (d *door) Lost(ctx context.Context, flow string) error {
	t, failure := d.engine.active()
	if failure != nil {
		return failure
	}
	return t.pipeline.Lost(ctx, d.instance.Name, flow)
}

// Reachable is plugin.Gate.
func (d *door) Reachable() {
	if t, failure := d.engine.active(); failure == nil {
		t.pipeline.Reachable(d.instance.Name)
	}
}

// Find is plugin.Gate.
func (d *door) Find(ctx context.Context, account, publicID string) (plugin.Submitted, error) {
	t, failure := d.engine.active()
	if failure != nil {
		return plugin.Submitted{}, failure
	}
	return t.pipeline.Find(ctx, account, publicID)
}

// Cancel is plugin.Gate.
func (d *door) Cancel(ctx context.Context, account string, which plugin.Which) (int, error) {
	t, failure := d.engine.active()
	if failure != nil {
		return 0, failure
	}
	return t.pipeline.CancelOf(ctx, account, which)
}

// Replace is plugin.Gate.
func (d *door) Replace(ctx context.Context, account, publicID string, by plugin.Replacement) error {
	t, failure := d.engine.active()
	if failure != nil {
		return failure
	}
	return t.pipeline.Replace(ctx, d.instance.Name, account, publicID, by)
}

// Report is plugin.Gate.
func (d *door) Report(ctx context.Context, peerID string, s plugin.Status) error {
	t, failure := d.engine.active()
	if failure != nil {
		return failure
	}
	return t.pipeline.Report(ctx, d.instance.Name, peerID, s)
}

// refusal is the ticket of a message that found no active node.
type refusal struct{ failure *message.Failure }

// Accepted is plugin.Ticket.
func (r refusal) Accepted(context.Context) (plugin.Answer, error) { return plugin.Answer{}, r.failure }

// First is plugin.Ticket.
func (r refusal) First(context.Context) plugin.Outcome {
	return plugin.Outcome{State: plugin.OutcomeFailed, Failure: r.failure}
}

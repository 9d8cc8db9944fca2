package engine

import (
	"context"
	"sync"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// door is a transport instance, and the gate that it gets: the same one for
// its whole life, while terms come and go.
type door struct {
	engine    *Engine
	instance  Instance
	transport plugin.Transport

	ready chan struct{}
	once  sync.Once
}

// Ready is plugin.Gate.
func (d *door) Ready() { d.once.Do(func() { close(d.ready) }) }

// Active is plugin.Gate.
func (d *door) Active() *message.Failure {
	_, failure := d.engine.active()
	return failure
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

// Package loop is the smallest transport: whatever is sent out through it
// comes back in as a message from its recipient to its sender. It serves as an
// echo for trying a configuration, and as the tutorial for writing a
// transport: everything that the contract asks for is here, in one file.
package loop

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Config is what an operator may set.
type Config struct {
	Depth int `yaml:"depth" doc:"messages that may wait to come back, 1 to 65,536"`
}

// Validate is plugin.Config.
func (c Config) Validate() error {
	if c.Depth < 1 || c.Depth > 65536 {
		return &plugin.InvalidKey{Key: "depth", Expected: "a number of messages from 1 to 65536"}
	}
	return nil
}

// Plugin is what plugins/standard lists.
var Plugin = plugin.DefineTransport("loop", "an echo: what is sent out through it comes back", Config{Depth: 16}, New)

// Loop is a transport without a network.
type Loop struct {
	waiting chan turn
}

// turn is a message that comes back, and where to say whether it was accepted.
type turn struct {
	arrival  plugin.Arrival
	accepted chan error
}

// New opens a loop.
func New(_ context.Context, _ plugin.Env, c Config) (plugin.Transport, error) {
	return &Loop{waiting: make(chan turn, c.Depth)}, nil
}

// Serve hands in what comes back, one after the other, so that order is kept.
func (l *Loop) Serve(ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-l.waiting:
			if inactive := gate.Active(); inactive != nil {
				t.accepted <- inactive
				continue
			}
			ticket := gate.Submit(t.arrival)
			go func() { // waiting for the disk must not hold up the next one
				_, err := ticket.Accepted(ctx)
				t.accepted <- err
			}()
		}
	}
}

// Send turns a message round and waits until it is accepted.
func (l *Loop) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	if m.Hops == 0 {
		return plugin.Receipt{}, message.Fail(message.TooManyHops, "it went round too often")
	}
	t := turn{arrival: comesBack(m, route), accepted: make(chan error, 1)}
	select {
	case l.waiting <- t:
	default:
		return plugin.Receipt{}, &message.Failure{Reason: message.Overloaded, Temporary: true, RetryAfter: time.Second}
	}
	select {
	case err := <-t.accepted:
		return plugin.Receipt{Final: true}, err
	case <-ctx.Done():
		return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "waiting for the echo: %w", ctx.Err())
	}
}

// comesBack makes the echo. A repeated delivery makes the same key, so it is
// known as a repeat.
func comesBack(m *message.Message, route plugin.Route) plugin.Arrival {
	echo := &message.Message{
		From: m.Recipient, Recipient: m.From, ContentType: m.ContentType, Body: m.Body,
		Hops: m.Hops - 1, Peer: "loop",
	}
	account := plugin.Account{ID: m.Recipient.String(), Identities: []message.Address{m.Recipient}}
	return plugin.Arrival{Message: echo, Account: account, Key: "loop " + route.Reference}
}

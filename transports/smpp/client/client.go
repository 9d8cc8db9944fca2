// Package client is the door to an SMSC, for which SMPP (3.4, 3.3, 5.0) calls us
// an ESME: it binds, hands messages over with submit_sm, and takes in what
// deliver_sm brings, messages of mobile phones and delivery receipts. An
// instance is a vendor: one system_id at one SMSC.
//
// It must not know what happens behind the gate, and knows sessions and PDUs by
// what wire and translate say of them.
package client

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/certificates"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

const (
	// activeEvery is how often we ask whether this node is the active one: only
	// then it binds, since an SMSC sends to whoever is bound.
	activeEvery = 200 * time.Millisecond
	// drainWithin bounds how long what is under way on a bind may take when it is
	// to end, and partingWithin that and unbind.
	drainWithin   = 1500 * time.Millisecond
	partingWithin = 2500 * time.Millisecond
	// acceptWithin bounds how long the SMSC waits until a message of its is on
	// disk.
	acceptWithin = 30 * time.Second
	// inWindow is how many requests of the SMSC may be under way on a bind.
	inWindow = 500
)

// Client is an instance at work.
type Client struct {
	config       Config
	instance     string
	networks     []netip.Prefix // that an SMSC may come from to ask for a bind
	pace         *pace
	binds        binds
	waiting      atomic.Int64         // messages whose Send waits
	certificates *certificates.Dialer // of a connection over TLS; nil: there is none
	metrics      *metrics
	counters     wire.Counters
	watched      *plugin.Observers
	log          *slog.Logger

	// Serve sets these.
	gate      plugin.Gate
	reporters *reporters
}

// New opens an instance. It connects when it is served.
func New(_ context.Context, env plugin.Env, config Config) (*Client, error) {
	networks, err := networksOf(config.Outbind.Networks)
	if err != nil {
		return nil, fmt.Errorf("outbind.networks: %w", err)
	}
	if config.Account == "" {
		config.Account = env.Instance
	}
	config.Dialect.Version = versions[config.Version]
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var files *certificates.Dialer
	if config.TLS.Enabled {
		if files, err = certificates.OpenDialer(config.TLS.files(), log); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
	}
	c := &Client{
		config:       config,
		instance:     env.Instance,
		networks:     networks,
		pace:         newPace(config.Rate),
		certificates: files,
		watched:      env.Observers,
		log:          log,
	}
	c.metrics = newMetrics(env.Metrics, c)
	return c, nil
}

// Open is New as plugin.DefineTransport wants it.
func Open(ctx context.Context, env plugin.Env, config Config) (plugin.Transport, error) {
	return New(ctx, env, config)
}

// Serve keeps the binds while this node is the active one. That an SMSC can't be
// reached is no reason to end.
func (c *Client) Serve(ctx context.Context, gate plugin.Gate) error {
	c.gate = gate
	c.reporters = newReporters()
	defer c.reporters.close()
	var serving sync.WaitGroup
	defer serving.Wait()
	if c.config.Outbind.Listen != "" {
		listener, err := wire.Listen(ctx, c.config.Outbind.Listen, wire.ListenConfig{Log: c.log})
		if err != nil {
			return fmt.Errorf("outbind: %w", err)
		}
		serving.Go(func() { listener.Serve(ctx, c.outbound) })
	}
	gate.Ready()
	for {
		if gate.Active() == nil {
			c.keepAll(ctx)
		}
		if !pause(ctx, activeEvery) {
			return nil
		}
	}
}

// keepAll keeps all binds until this node is no longer the active one, or ctx
// ends.
func (c *Client) keepAll(ctx context.Context) {
	ctx, stop := c.whileActive(ctx)
	defer stop()
	var keeping sync.WaitGroup
	defer keeping.Wait()
	if len(c.config.Connect) > 0 {
		for i, mode := range c.config.modes() {
			keeping.Go(func() { c.keep(ctx, mode, i+1) })
		}
	}
	<-ctx.Done()
}

// whileActive returns a context that ends when this node is no longer the active
// one.
func (c *Client) whileActive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	if c.gate.Active() != nil {
		stop()
		return ctx, stop
	}
	go func() {
		defer stop()
		for pause(ctx, activeEvery) && c.gate.Active() == nil {
		}
	}()
	return ctx, stop
}

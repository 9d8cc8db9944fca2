// Package server is the door for ESMEs, for whom SMPP (3.4, 3.3, 5.0) calls us an
// SMSC: they bind to us, submit messages, ask about them and change them, and get
// deliver_sm. It says who may bind and what for, and translates between PDUs and
// the words of engine/message with the help of translate.
//
// It must not know what happens behind the gate, and nothing of sockets, windows
// and timers: these are the wire's.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/certificates"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

const (
	// partWithin bounds the orderly end of sessions when the door closes: what is
	// under way, and unbind.
	partWithin = 1500 * time.Millisecond
	// unboundConnections are connections beyond the sessions that there may be: those
	// that haven't bound yet.
	unboundConnections = 200
)

// Door is an SMPP server at work.
type Door struct {
	config       Config
	listen       []listen
	certificates *certificates.Store // of listeners that speak TLS; nil: there is none
	wire         wire.Config
	instance     string
	node         string
	table        *table
	guard        guard
	knocks       knocks
	tasks        tasks
	refusals     lines
	comings      lines
	goings       lines
	metrics      *metrics
	watched      *plugin.Observers
	log          *slog.Logger

	// Serve sets these.
	gate           plugin.Gate
	working        context.Context // ends when nothing is waited for any more: later than Serve's
	bindings       *bindings
	authenticating *plugin.Deadlines
	accepting      *plugin.Deadlines
	inTurn         *plugin.Deadlines

	mu        sync.Mutex
	listeners []*wire.Listener
}

// New opens the door's plugin. Its sockets are opened by Serve.
func New(_ context.Context, env plugin.Env, config Config) (*Door, error) {
	listen, err := config.listeners()
	if err != nil {
		return nil, err
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	store, err := config.TLS.store(log)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	d := &Door{
		config: config, listen: listen, certificates: store,
		instance: env.Instance, node: env.Node,
		table:    newTable(config.Limits.Binds),
		refusals: lines{most: refusalsPerMinute}, comings: lines{most: comingsPerMinute}, goings: lines{most: comingsPerMinute},
		watched: env.Observers, log: log,
		wire: wire.Config{
			Limits:      wire.Limits{Window: config.Window, InWindow: config.InWindow},
			MaxPDU:      config.Limits.PDU,
			EnquireLink: config.EnquireLink,
			Response:    config.Response,
			Idle:        config.Idle,
			Bind:        bindWithin,
			Counters:    &wire.Counters{},
			Log:         log,
		},
	}
	d.metrics = newMetrics(env.Metrics, d)
	return d, nil
}

// Open is New as plugin.DefineTransport wants it.
func Open(ctx context.Context, env plugin.Env, config Config) (plugin.Transport, error) {
	return New(ctx, env, config)
}

// Serve opens the sockets and answers until ctx ends. Then ESMEs are unbound: what
// has been accepted by then is answered. Their bindings stay, since they come
// back.
func (d *Door) Serve(ctx context.Context, gate plugin.Gate) error {
	if err := d.open(ctx); err != nil {
		return fmt.Errorf("smpp: %w", err)
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	d.begin(working, gate)
	var serving, watching sync.WaitGroup
	for i, l := range d.listeners {
		serving.Go(func() { d.accept(working, l, d.listen[i].secure) })
	}
	watching.Go(func() { d.bindings.keep(ctx) })
	watching.Go(func() { d.sendAway(ctx) })
	watching.Go(func() { d.recheckAll(ctx) })
	gate.Ready()
	<-ctx.Done()
	errs := d.closeListeners()
	d.bindings.closing.Store(true)
	d.table.unbindAll(working, partWithin)
	stop()
	watching.Wait()
	serving.Wait()
	d.tasks.close()
	return errs
}

// begin makes ready what needs the gate.
func (d *Door) begin(working context.Context, gate plugin.Gate) {
	d.gate, d.working = gate, working
	d.authenticating = plugin.NewDeadlines(working, authenticateWithin)
	d.accepting = plugin.NewDeadlines(working, acceptWithin)
	d.inTurn = plugin.NewDeadlines(working, inTurn)
	d.bindings = newBindings(d)
	d.tasks.open()
}

// open opens the listeners, all or none.
func (d *Door) open(ctx context.Context) error {
	for _, l := range d.listen {
		c := wire.ListenConfig{
			Connections: d.config.Limits.Binds + unboundConnections,
			PerAddress:  d.config.Limits.ConnectionsPerAddress,
			Strangers:   true,
			Handshake:   bindWithin,
			Log:         d.log,
		}
		if l.secure {
			c.TLS = d.certificates.Config()
		}
		listener, err := wire.Listen(ctx, l.address.String(), c)
		if err != nil {
			return errors.Join(err, d.closeListeners())
		}
		d.mu.Lock()
		d.listeners = append(d.listeners, listener)
		d.mu.Unlock()
	}
	return nil
}

func (d *Door) closeListeners() error {
	var errs []error
	for _, l := range d.opened() {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (d *Door) opened() []*wire.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listeners
}

func (d *Door) accept(ctx context.Context, l *wire.Listener, secure bool) {
	l.Serve(ctx, func(ctx context.Context, conn net.Conn) { d.newSession(conn, secure, l).run(ctx) })
}

// Addrs returns the addresses that the door listens on; none before it is ready.
func (d *Door) Addrs() []netip.AddrPort {
	var addresses []netip.AddrPort
	for _, l := range d.opened() {
		addresses = append(addresses, l.Addr())
	}
	return addresses
}

// tasks are what waits for the gate, or for the network, on goroutines of its own:
// no more than the wire lets in.
type tasks struct {
	mu      sync.Mutex
	isOpen  bool
	running sync.WaitGroup
}

func (t *tasks) open() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isOpen = true
}

// run begins a task, while the door is served.
func (t *tasks) run(task func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOpen {
		t.running.Go(task)
	}
}

// close waits for the tasks. No other begins.
func (t *tasks) close() {
	t.mu.Lock()
	t.isOpen = false
	t.mu.Unlock()
	t.running.Wait()
}

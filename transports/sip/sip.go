// Package sip is the door for SIP: registrations (RFC 3261 §10) with the flows
// and the push parameters of clients (RFC 5626, RFC 8599), page-mode messages in
// both directions (RFC 3428) and digest authentication (RFC 8760). It hands
// everything to the gate, and defends itself: against who guesses passwords, asks
// too much, or says that he is somebody else.
//
// It must not know what happens behind the gate: no policy, no storage, no
// money. Sockets and transactions are the business of its wire, what a message is
// in SIP that of translate, and other servers that of trunk.
package sip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Plugin is the SIP transport.
var Plugin = plugin.DefineTransport("sip", "SIP over UDP, TCP, TLS and WebSockets: REGISTER and MESSAGE with digest authentication", defaults, open).AsRegistrar()

// Deadlines of what is asked behind the gate.
const (
	// authenticateWithin bounds the check of credentials: it holds up what comes
	// behind it from the same source.
	authenticateWithin = 5 * time.Second
	// acceptWithin bounds a message or a registration. The client gives up after
	// 32 s (RFC 3261 §17.1.2.2, Timer F).
	acceptWithin = 30 * time.Second
)

// idleMargin is how much longer than a registration lasts a client's connection
// may be silent: not every client sends keep-alives, and each registers again in
// time.
const idleMargin = time.Minute

// Door is a SIP transport at work.
type Door struct {
	config     Config
	listen     []wire.Listener
	instance   string
	endpoint   atomic.Pointer[wire.Endpoint]
	wire       wire.Config
	names      names // set by Serve, which knows where we listen
	peers      peers
	streams    *streams
	losses     *losses
	tenures    tenures
	guard      *guard
	rates      *rates
	waiters    *waiters
	gate       plugin.Gate
	metrics    *metrics
	complaints *complaints
	log        *slog.Logger

	authenticating *plugin.Deadlines
	accepting      *plugin.Deadlines
}

// New opens the door's plugin. Its sockets are opened by Serve.
func New(_ context.Context, env plugin.Env, config Config) (*Door, error) {
	listen, err := config.listeners()
	if err != nil {
		return nil, err
	}
	peers, err := newPeers(config.Peers)
	if err != nil {
		return nil, err
	}
	config.Domains, config.Aliases = lower(config.Domains), lower(config.Aliases)
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	secrets, err := config.certificates(log)
	if err != nil {
		return nil, err
	}
	m := newMetrics(env.Metrics)
	d := &Door{
		config:     config,
		listen:     listen,
		instance:   env.Instance,
		peers:      peers,
		streams:    newStreams(),
		tenures:    tenures{lifetime: config.NonceLifetime, opened: time.Now()},
		guard:      newGuard(config.Registration.Max, env.Metrics, log),
		rates:      newRates(config.Limits, env.Metrics),
		waiters:    newWaiters(),
		metrics:    m,
		complaints: newComplaints(m, log),
		log:        log,
	}
	d.losses = newLosses(config.Limits.Connections, d.tellLost)
	d.wire = wire.Config{
		MaxBody:   config.Limits.Body,
		MaxUDP:    udpAnyway,
		TLS:       secrets,
		WebSocket: wire.WebSocket{Path: config.WebSocket.Path, Origins: config.WebSocket.Origins},
		Limits: wire.Limits{
			MaxConnections: config.Limits.Connections,
			MaxPerAddress:  config.Limits.ConnectionsPerAddress,
			Idle:           config.Registration.Max + idleMargin,
		},
		Closed: d.ended, Instance: env.Instance, Observers: env.Observers, Metrics: env.Metrics, Log: log,
	}
	return d, nil
}

func lower(names []string) []string {
	names = slices.Clone(names) // the others share the array
	for i, name := range names {
		names[i] = strings.ToLower(name)
	}
	return names
}

func open(ctx context.Context, env plugin.Env, config Config) (plugin.Transport, error) {
	return New(ctx, env, config)
}

// Serve opens the sockets and answers until ctx ends. What was not answered by
// then stays unanswered: the client repeats it, and whoever is active then
// recognises what was accepted.
func (d *Door) Serve(ctx context.Context, gate plugin.Gate) error {
	endpoint, err := wire.Listen(d.listen, d.wire)
	if err != nil {
		return fmt.Errorf("sip: %w", err)
	}
	defer endpoint.Close()
	d.gate = gate
	d.names = newNames(d.config.Domains, d.config.Aliases, endpoint.Addrs())
	d.authenticating = plugin.NewDeadlines(ctx, authenticateWithin)
	d.accepting = plugin.NewDeadlines(ctx, acceptWithin)
	d.endpoint.Store(endpoint)
	gate.Ready()
	var watching sync.WaitGroup
	watching.Go(func() { d.complaints.watch(ctx, endpoint.Counts) })
	watching.Go(func() { d.sendAway(ctx) })
	endpoint.Serve(ctx, d.handle)
	d.waiters.close()
	d.losses.close()
	watching.Wait()
	return nil
}

// Addrs returns the addresses that the door listens on; none before it is ready.
func (d *Door) Addrs() []netip.AddrPort {
	if e := d.endpoint.Load(); e != nil {
		return e.Addrs()
	}
	return nil
}

// Counts returns what the door's endpoint counted.
func (d *Door) Counts() wire.Counts {
	if e := d.endpoint.Load(); e != nil {
		return e.Counts()
	}
	return wire.Counts{}
}

// handle answers one request, or has a waiter do it.
func (d *Door) handle(ctx context.Context, x *wire.Exchange) {
	if x.Method == "ACK" {
		x.Abandon() // never answered (RFC 3261 §17)
		return
	}
	o := originOf(x, d.peerOf(x))
	if !d.isAdmitted(x, &o, time.Now()) {
		return
	}
	if failure := d.gate.Active(); failure != nil {
		d.refuse(x, failure) // OPTIONS too: by it others learn who is active
		return
	}
	refusal := requestRefusal(x)
	if refusal == nil {
		refusal = d.followRoute(x, o.peer)
	}
	if refusal != nil {
		d.answer(x, *refusal)
		return
	}
	switch x.Method {
	case "OPTIONS":
		d.answer(x, wire.Reply{Status: 200, Headers: capabilities})
	case "MESSAGE":
		d.message(ctx, x, &o)
	case "REGISTER":
		d.register(ctx, x, &o)
	}
}

// requestRefusal is the answer to a request that isn't one for us, whoever sends
// it and whomever it is for; nil: it is.
func requestRefusal(x *wire.Exchange) *wire.Reply {
	if wire.IsSecure(x.URI) && !x.Flow.IsSecure() {
		// What sips promises was broken on the way here already (RFC 3261 §26.2.2):
		// over such a flow this isn't a scheme that we know.
		return &wire.Reply{Status: 416, Phrase: "Unsupported URI Scheme"}
	}
	switch x.Method {
	case "MESSAGE", "REGISTER", "OPTIONS":
	case "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "NOTIFY":
		// There is nothing that it could belong to. A CANCEL has no effect on a
		// MESSAGE anyway (RFC 3261 §9.2).
		return &wire.Reply{Status: 481}
	default:
		return &wire.Reply{Status: 405, Headers: []wire.Header{{Name: "Allow", Value: allow}}}
	}
	if unsupported := required(x); unsupported != "" {
		return &wire.Reply{Status: 420, Headers: []wire.Header{{Name: "Unsupported", Value: unsupported}}}
	}
	if x.ToTag != "" && x.Method != "REGISTER" {
		return &wire.Reply{Status: 481} // of a dialog, and we have none (RFC 3261 §12.2.2)
	}
	return nil
}

const allow = "MESSAGE, OPTIONS, REGISTER"

// capabilities are what OPTIONS tells (RFC 3261 §11). Which types pass, the
// policy says, for each message.
var capabilities = []wire.Header{
	{Name: "Allow", Value: allow}, {Name: "Accept", Value: "*/*"}, {Name: "Accept-Encoding", Value: encodings}, {Name: "Supported", Value: "path, outbound"},
}

// required returns the extensions that a request insists on and that we don't
// have (RFC 3261 §8.2.2.3): a registration may insist on path (RFC 3327) and on
// outbound (RFC 5626).
func required(x *wire.Exchange) string {
	if x.Get("Require") == "" && x.Get("Proxy-Require") == "" {
		return ""
	}
	fields := slices.Concat(x.All("Require"), x.All("Proxy-Require"))
	extensions, ok := wire.List(fields)
	if !ok {
		return strings.Join(fields, ", ")
	}
	return strings.Join(slices.DeleteFunc(extensions, func(extension string) bool {
		known := strings.EqualFold(extension, "path") || strings.EqualFold(extension, "outbound")
		return known && x.Method == "REGISTER"
	}), ", ")
}

// answer sends the final response to a request, and counts it.
func (d *Door) answer(x *wire.Exchange, reply wire.Reply) {
	d.metrics.answered(x.Method, reply.Status)
	x.Answer(reply)
}

// refuse answers with what the table says of a failure.
func (d *Door) refuse(x *wire.Exchange, failure *message.Failure) {
	d.metrics.refused[failure.Reason].Inc()
	if failure.Reason == message.Unauthenticated && !failure.Temporary {
		d.challenge(x, d.realm(x), false, time.Now())
		return
	}
	d.answer(x, finalFor(failure))
}

// begin makes the exchange a transaction: from here on retransmissions are
// absorbed. If it returns false there is nothing left to do.
func (d *Door) begin(x *wire.Exchange) bool {
	err := x.Begin()
	if err == wire.ErrFull {
		d.refuse(x, message.FailForNow(message.Overloaded, "too many requests at once"))
	}
	return err == nil
}

// realm is the domain in which a request's sender has its account: that of its
// From if it is ours, else the first.
func (d *Door) realm(x *wire.Exchange) string {
	if u, err := wire.ParseURI(x.From.URI); err == nil {
		if d.names.hasDomain(u.Host) {
			return strings.ToLower(u.Host)
		}
	}
	return d.config.Domains[0]
}

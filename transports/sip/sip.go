// Package sip is the door for SIP: registrations (RFC 3261 §10), page-mode
// messages in both directions (RFC 3428) and digest authentication (RFC 8760).
// It translates between SIP and the words of engine/message and hands
// everything to the gate.
//
// It must not know what happens behind the gate: no policy, no storage, no
// money. Sockets and transactions are the business of its wire.
package sip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Plugin is the SIP transport.
var Plugin = plugin.DefineTransport("sip", "SIP over UDP: REGISTER and MESSAGE with digest authentication", defaults, open).AsRegistrar()

// Deadlines of what is asked behind the gate.
const (
	// authenticateWithin bounds the check of credentials: it holds up what comes
	// behind it from the same source.
	authenticateWithin = 5 * time.Second
	// acceptWithin bounds a message or a registration. The client gives up after
	// 32 s (RFC 3261 §17.1.2.2, Timer F).
	acceptWithin = 30 * time.Second
)

// Door is a SIP transport at work.
type Door struct {
	config    Config
	listen    []netip.AddrPort
	instance  string
	endpoint  atomic.Pointer[wire.Endpoint]
	wire      wire.Config
	nonces    *nonces
	waiters   *waiters
	gate      plugin.Gate
	challenge challenger

	authenticating *plugin.Deadlines
	accepting      *plugin.Deadlines
}

// New opens the door's plugin. Its sockets are opened by Serve.
func New(_ context.Context, env plugin.Env, config Config) (*Door, error) {
	listen, err := config.addresses()
	if err != nil {
		return nil, err
	}
	config.Domains = slices.Clone(config.Domains)
	for i, domain := range config.Domains {
		config.Domains[i] = strings.ToLower(domain)
	}
	secret, err := openSecret(env.DataDir, env.Instance)
	if err != nil {
		return nil, err
	}
	n := newNonces(config.NonceLifetime, secret, time.Now())
	return &Door{
		config:    config,
		listen:    listen,
		instance:  env.Instance,
		wire:      wire.Config{MaxBody: config.Limits.Body, Log: env.Log},
		nonces:    n,
		challenge: challenger{nonces: n, algorithms: config.Algorithms},
		waiters:   newWaiters(),
	}, nil
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
	d.authenticating = plugin.NewDeadlines(ctx, authenticateWithin)
	d.accepting = plugin.NewDeadlines(ctx, acceptWithin)
	d.endpoint.Store(endpoint)
	gate.Ready()
	endpoint.Serve(ctx, d.handle)
	d.waiters.close()
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
	switch x.Method {
	case "MESSAGE", "REGISTER", "OPTIONS":
	case "ACK":
		x.Abandon() // never answered (RFC 3261 §17)
		return
	case "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "NOTIFY":
		x.Answer(wire.Reply{Status: 481}) // there is nothing that it could belong to
		return
	default:
		x.Answer(wire.Reply{Status: 405, Headers: []wire.Header{{Name: "Allow", Value: allow}}})
		return
	}
	if failure := d.gate.Active(); failure != nil {
		d.refuse(x, failure)
		return
	}
	if unsupported := required(x); unsupported != "" {
		x.Answer(wire.Reply{Status: 420, Headers: []wire.Header{{Name: "Unsupported", Value: unsupported}}})
		return
	}
	switch x.Method {
	case "OPTIONS":
		x.Answer(wire.Reply{Status: 200, Headers: capabilities})
	case "MESSAGE":
		d.message(ctx, x)
	case "REGISTER":
		d.register(ctx, x)
	}
}

const allow = "MESSAGE, OPTIONS, REGISTER"

// capabilities are what OPTIONS tells (RFC 3261 §11). Which types pass, the
// policy says, for each message.
var capabilities = []wire.Header{{Name: "Allow", Value: allow}, {Name: "Accept", Value: "*/*"}}

// required returns the extensions that a request insists on (RFC 3261 §8.2.2.3):
// we have none.
func required(x *wire.Exchange) string {
	if x.Get("Require") == "" && x.Get("Proxy-Require") == "" {
		return ""
	}
	return strings.Join(slices.Concat(x.All("Require"), x.All("Proxy-Require")), ", ")
}

// refuse answers with what the table says of a failure.
func (d *Door) refuse(x *wire.Exchange, failure *message.Failure) {
	if failure.Reason == message.Unauthenticated && !failure.Temporary {
		x.Answer(d.challenge.reply(x, d.realm(x), false, time.Now()))
		return
	}
	x.Answer(finalFor(failure))
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
		if host := strings.ToLower(u.Host); slices.Contains(d.config.Domains, host) {
			return host
		}
	}
	return d.config.Domains[0]
}

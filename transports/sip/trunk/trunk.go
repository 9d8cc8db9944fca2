// Package trunk hands messages over to other SIP servers: to a gateway or a proxy
// of a partner's, or to whichever server serves the recipient's domain (RFC
// 3263). An instance is one such next hop, with credentials of its own or none.
// Messages from there come in through the SIP door, which trusts its peers.
//
// It must not know who registers, nor what happens behind the gate. Sockets and
// transactions are the business of wire, servers that of resolve.
package trunk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/certificates"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/resolve"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Plugin is a trunk to other SIP servers.
var Plugin = plugin.DefineTransport("sip-trunk", "SIP to other servers: MESSAGE to a next hop, or to the recipient's domain (RFC 3263)", defaults, open).Speaking("sip")

// Trunk is an instance at work.
type Trunk struct {
	config       Config
	next         *sip.Uri // nil: the servers of the recipient's domain
	listen       []wire.Listener
	servers      []netip.AddrPort     // of DNS
	certificates *certificates.Dialer // of connections over TLS
	wire         wire.Config
	login        *login
	avoided      *avoided
	windows      *windows
	health       health
	complaints   *complaints
	metrics      *metrics
	registry     *plugin.Metrics
	log          *slog.Logger
	work         atomic.Pointer[work]
}

// work is what a trunk has while it is served.
type work struct {
	endpoint *wire.Endpoint
	resolver *resolve.Resolver
	gate     plugin.Gate
	own      []netip.AddrPort // where we listen, also on all addresses
}

// New opens an instance. Its sockets are opened by Serve.
func New(_ context.Context, env plugin.Env, config Config) (*Trunk, error) {
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dialer, err := certificates.OpenDialer(config.TLS, log)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	t := &Trunk{
		config:       config,
		certificates: dialer,
		login:        newLogin(config.Username, config.Password, config.Realm),
		avoided:      newAvoided(),
		windows:      newWindows(),
		complaints:   newComplaints(log),
		registry:     env.Metrics,
		log:          log,
	}
	if t.next, err = config.nextHop(); err != nil {
		return nil, fmt.Errorf("next_hop: %w", err)
	}
	if t.listen, err = config.listeners(); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if t.servers, err = config.nameServers(); err != nil {
		return nil, fmt.Errorf("name_servers: %w", err)
	}
	t.wire = wire.Config{
		Workers: 4, Backlog: 64, Pending: 1024, Finished: 10_000, // what comes in are probes
		Instance: env.Instance, Observers: env.Observers, Metrics: env.Metrics, Log: log,
	}
	t.metrics = newMetrics(env.Metrics, t)
	return t, nil
}

func open(ctx context.Context, env plugin.Env, config Config) (plugin.Transport, error) {
	return New(ctx, env, config)
}

// Serve keeps the sockets open, and asks the next hop whether it is there, until
// ctx ends.
func (t *Trunk) Serve(ctx context.Context, gate plugin.Gate) error {
	t.wire.DialTLS = t.certificates.Config("")
	endpoint, err := t.bind()
	if err != nil {
		return fmt.Errorf("sip-trunk: %w", err)
	}
	defer endpoint.Close()
	resolver := resolve.New(ctx, resolve.Config{Servers: t.servers, Metrics: t.registry})
	defer resolver.Close()
	w := &work{endpoint: endpoint, resolver: resolver, gate: gate, own: append(endpoint.Addrs(), wire.Reachable(endpoint.Addrs())...)}
	t.work.Store(w)
	defer t.work.Store(nil)
	gate.Ready()
	var probing sync.WaitGroup
	if t.next != nil && t.config.Probe.Every > 0 {
		probing.Go(func() { t.keepProbing(ctx, w) })
	}
	endpoint.Serve(ctx, t.handle(gate))
	probing.Wait()
	return nil
}

// bind opens the sockets: where it isn't said which, one for each of the families
// that this machine has.
func (t *Trunk) bind() (*wire.Endpoint, error) {
	endpoint, err := wire.Listen(t.listen, t.wire)
	if err == nil || t.config.Listen != "" {
		return endpoint, err
	}
	for _, one := range t.listen {
		if endpoint, again := wire.Listen([]wire.Listener{one}, t.wire); again == nil {
			return endpoint, nil
		}
	}
	return nil, err
}

// isOurs tells whether a hop would lead a message back to us.
func (w *work) isOurs(hop wire.Target) bool { return slices.Contains(w.own, hop.Address) }

// Addrs returns the addresses of the UDP sockets; none before Serve.
func (t *Trunk) Addrs() []netip.AddrPort {
	if w := t.work.Load(); w != nil {
		return w.endpoint.Addrs()
	}
	return nil
}

const allow = "OPTIONS"

// handle answers what the next hop asks on our flows. Its messages aren't among
// it: they come to the SIP door.
func (t *Trunk) handle(gate plugin.Gate) wire.Handler {
	return func(_ context.Context, x *wire.Exchange) {
		switch failure := gate.Active(); {
		case x.Method == "ACK":
			x.Abandon() // never answered (RFC 3261 §17)
		case failure != nil:
			x.Answer(wire.Reply{Status: 503, RetryAfter: retryAfterStandby})
		case x.Method == "OPTIONS":
			x.Answer(wire.Reply{Status: 200, Headers: []wire.Header{{Name: "Allow", Value: allow}}})
		default:
			x.Answer(wire.Reply{Status: 405, Headers: []wire.Header{{Name: "Allow", Value: allow}}})
		}
	}
}

// retryAfterStandby is when to ask a node again that isn't the active one.
const retryAfterStandby = 5 * time.Second

var errNotOpen = errors.New("the trunk isn't open")

// unavailable is a failure before anything was sent.
func unavailable(err error) *message.Failure {
	return message.FailForNow(message.Unavailable, "%w", err)
}

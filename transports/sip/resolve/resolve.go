// Package resolve finds the servers of a SIP domain (RFC 3263): which transport
// they want (NAPTR), where they are (SRV, A, AAAA), and in what order to try
// them. What name servers say is kept for as long as they say so, and read as
// what a stranger says: bounded, and only if it is an answer to the question.
//
// It must not know what is sent there, nor whether a server works: who finds one
// silent tries the next.
package resolve

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/miekg/dns"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Limits of what one URI leads to.
const (
	maxHops    = 16
	maxServers = 8 // of SRV, whose addresses are looked up
)

// Config says whom a resolver asks.
type Config struct {
	Servers []netip.AddrPort // name servers in order of preference; empty: those of /etc/resolv.conf
	Metrics *plugin.Metrics
}

// Resolver finds servers. Its methods may be called from any goroutine.
type Resolver struct {
	servers   servers
	preferred atomic.Int32 // the name server that answered last
	queries   *plugin.Counter
	failures  *plugin.Counter

	// What tests replace.
	now    func() time.Time
	draw   func(n int) int       // a number from 0 to n-1
	routed func(netip.Addr) bool // whether this machine has a way there

	ctx     context.Context // of look-ups, which several callers wait for
	stop    context.CancelFunc
	flights sync.WaitGroup

	mu        sync.Mutex
	inquiries map[question]*inquiry
	open      int // look-ups under way
}

// New returns a resolver. Its look-ups end with ctx; Close waits for that.
func New(ctx context.Context, config Config) *Resolver {
	r := &Resolver{
		servers: servers{configured: config.Servers, file: resolvConf},
		queries: config.Metrics.Counter("sip_dns_queries_total", "Questions sent to name servers, repeats included."),
		failures: config.Metrics.Counter("sip_dns_failures_total",
			"Questions to a name server without a usable answer: silence, a refusal, or something else than what was asked."),
		now:       time.Now,
		draw:      rand.IntN,
		routed:    isRouted,
		inquiries: map[question]*inquiry{},
	}
	r.ctx, r.stop = context.WithCancel(ctx)
	return r
}

// Close ends what is under way.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.stop() // no look-up begins behind it
	r.mu.Unlock()
	r.flights.Wait()
}

// Hops returns where to send a request with that URI, at most 16 hops, the best
// one first (RFC 3263 §4). A connection over TLS is to be checked against the
// host of the URI, whatever name DNS gives the server (RFC 5922 §4). Errors are
// *message.Failure: UnknownRecipient, if there is no such host, or it doesn't
// serve SIP; Unbuildable, if the URI wants a transport that isn't ours;
// Unavailable, temporary, if no name server answers, or ctx ends.
func (r *Resolver) Hops(ctx context.Context, u sip.Uri) ([]wire.Target, error) {
	t, err := targetOf(u)
	if err != nil {
		return nil, err
	}
	var hops []wire.Target
	switch {
	case t.address.IsValid():
		hops = t.append(nil, t.firstNetwork(), t.port, t.address)
	case t.port != 0:
		hops, err = r.byAddress(ctx, t, t.firstNetwork())
	default:
		hops, err = r.byService(ctx, t)
	}
	switch {
	case errors.Is(err, errNotServed):
		return nil, message.Fail(message.UnknownRecipient, "%s: %w", t.host, err)
	case err != nil:
		return nil, message.FailForNow(message.Unavailable, "look up %s: %w", t.host, err)
	case len(hops) == 0:
		return nil, message.Fail(message.UnknownRecipient, "%s has no address", t.host)
	}
	return hops[:min(len(hops), maxHops)], nil
}

// errNotServed is that of a domain that says that it has no servers.
var errNotServed = errors.New("doesn't serve SIP")

// byService finds servers by the services of a domain (RFC 3263 §4.1, §4.2).
func (r *Resolver) byService(ctx context.Context, t target) ([]wire.Target, error) {
	services, err := r.services(ctx, t)
	if err != nil {
		return nil, err
	}
	found, served, err := r.located(ctx, services)
	switch {
	case err != nil:
		return nil, err
	case len(found) > 0:
		return r.addressesOf(ctx, t, found)
	case !served:
		return nil, errNotServed
	}
	return r.byAddress(ctx, t, services[0].network)
}

// services returns the services by which servers are to be found, in order of
// preference: what NAPTR says, else one for each transport (RFC 3263 §4.1).
func (r *Resolver) services(ctx context.Context, t target) ([]serviceName, error) {
	if t.network == "" {
		answer, err := r.ask(question{t.host, dns.TypeNAPTR}).wait(ctx)
		if err != nil {
			return nil, err
		}
		if services := servicesIn(answer.pointers, t.secure); len(services) > 0 {
			return services, nil
		}
	}
	var services []serviceName
	for _, network := range t.networks() {
		services = append(services, serviceName{network, servicePrefix(network) + t.host})
	}
	return services, nil
}

// located returns the servers of services, in order of preference. served is
// false if there are none because the domain says so (RFC 2782: a target of
// "."). What can't be looked up is an error only if there is nothing else.
func (r *Resolver) located(ctx context.Context, services []serviceName) (found []located, served bool, err error) {
	inquiries := make([]*inquiry, len(services))
	for i, s := range services {
		inquiries[i] = r.ask(question{s.name, dns.TypeSRV})
	}
	served = true
	for i, s := range services {
		answer, failed := inquiries[i].wait(ctx)
		if failed != nil {
			err = failed
			continue
		}
		for _, server := range arrange(answer.servers, r.draw) {
			if server.host == "." {
				served = false
				continue
			}
			found = append(found, located{s.network, server})
		}
	}
	if len(found) > 0 {
		return found[:min(len(found), maxServers)], true, nil
	}
	return nil, served, err
}

// addressesOf returns the addresses of servers. What can't be looked up is an
// error only if there is nothing else.
func (r *Resolver) addressesOf(ctx context.Context, t target, servers []located) (hops []wire.Target, err error) {
	lookups := make([]lookup, len(servers))
	for i, s := range servers {
		lookups[i] = r.lookUp(s.host)
	}
	for i, s := range servers {
		addresses, failed := lookups[i].wait(ctx, r.draw)
		if failed != nil {
			err = failed
		}
		hops = t.append(hops, s.network, s.port, addresses...)
	}
	if len(hops) > 0 {
		return hops, nil
	}
	return nil, err
}

// byAddress finds a server by the addresses of its name alone.
func (r *Resolver) byAddress(ctx context.Context, t target, network string) ([]wire.Target, error) {
	addresses, err := r.lookUp(t.host).wait(ctx, r.draw)
	if len(addresses) == 0 && err != nil {
		return nil, err
	}
	return t.append(nil, network, t.port, addresses...), nil
}

// lookup is one for the addresses of a name, of both families.
type lookup struct{ six, four *inquiry }

func (r *Resolver) lookUp(host string) lookup {
	return lookup{r.ask(question{host, dns.TypeAAAA}), r.ask(question{host, dns.TypeA})}
}

// wait returns the addresses, those of IPv6 first (RFC 6724 §2.1) but for a
// family to which there is no way, each family beginning anywhere, so that all
// servers of a name have their share.
func (l lookup) wait(ctx context.Context, draw func(int) int) ([]netip.Addr, error) {
	six, err6 := l.six.wait(ctx)
	four, err4 := l.four.wait(ctx)
	switch {
	case six.unrouted && !four.unrouted:
		six.addresses = nil
	case four.unrouted && !six.unrouted:
		four.addresses = nil
	}
	return append(rotated(six.addresses, draw), rotated(four.addresses, draw)...), errors.Join(err6, err4)
}

func rotated(addresses []netip.Addr, draw func(int) int) []netip.Addr {
	if len(addresses) == 0 {
		return nil
	}
	first := draw(len(addresses))
	return append(append([]netip.Addr(nil), addresses[first:]...), addresses[:first]...)
}

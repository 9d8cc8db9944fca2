package sip

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// maxPerFlow is how many devices of one connection are remembered.
const maxPerFlow = 64

// streams remembers over which connection each device has registered, for
// messages that are too large for UDP. A device may have several bindings, one
// for each flow (RFC 5626 §4.2). Of a proxy in a path it remembers the newest
// connection: that one leads to all devices behind it.
type streams struct {
	mu       sync.Mutex
	accounts map[string][]stream
	flows    map[string][]string // by the flow's ID: the accounts that are on it, as often as they are
	proxies  map[netip.Addr]wire.Flow
	clients  map[wire.Flow]struct{} // over which a client has registered, whether it names its device or not
}

// stream is a way to a device over a connection.
type stream struct {
	aor      message.Address
	instance string
	flow     wire.Flow
	contact  string
	expires  time.Time
}

func newStreams() *streams {
	return &streams{accounts: map[string][]stream{}, flows: map[string][]string{}, proxies: map[netip.Addr]wire.Flow{}, clients: map[wire.Flow]struct{}{}}
}

// note keeps what a registration says that came in some way.
func (s *streams) note(r plugin.Registration, w way, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.route != "" {
		if w.flow.ID != "" {
			s.proxies[w.flow.Remote.Addr()] = w.flow
		}
		return
	}
	if r.All {
		s.remove(r.Account.ID, func(o stream) bool { return o.aor == r.AOR })
	}
	for _, b := range r.Bindings {
		if b.Device == "" {
			continue
		}
		s.remove(r.Account.ID, func(o stream) bool {
			return o.aor == r.AOR && o.instance == b.Device && (o.flow == w.flow || o.contact == b.Contact)
		})
		if w.flow.ID == "" || !b.Expires.After(now) || len(s.flows[w.flow.ID]) >= maxPerFlow {
			continue
		}
		s.flows[w.flow.ID] = append(s.flows[w.flow.ID], r.Account.ID)
		s.accounts[r.Account.ID] = append(s.accounts[r.Account.ID], stream{r.AOR, b.Device, w.flow, b.Contact, b.Expires})
	}
}

// of returns a way to the device of a binding over a connection.
func (s *streams) of(b *plugin.Binding, now time.Time) (stream, bool) {
	if b.Device == "" {
		return stream{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.accounts[b.Account] {
		if o.aor == b.AOR && o.instance == b.Device && o.expires.After(now) {
			return o, true
		}
	}
	return stream{}, false
}

// through returns a connection of the proxy at an address.
func (s *streams) through(proxy netip.Addr) (wire.Flow, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	flow, found := s.proxies[proxy]
	return flow, found
}

// noteClient keeps a connection over which a client has registered.
func (s *streams) noteClient(flow wire.Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[flow] = struct{}{}
}

// countClients returns over how many connections clients have registered.
func (s *streams) countClients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// someClients returns up to n connections over which clients have registered.
func (s *streams) someClients(n int) []wire.Flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	var some []wire.Flow
	for flow := range s.clients {
		if len(some) >= n {
			break
		}
		some = append(some, flow)
	}
	return some
}

// closed forgets a connection.
func (s *streams) closed(flow wire.Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, flow)
	if s.proxies[flow.Remote.Addr()] == flow {
		delete(s.proxies, flow.Remote.Addr())
	}
	for _, account := range slices.Clone(s.flows[flow.ID]) {
		s.remove(account, func(o stream) bool { return o.flow == flow })
	}
}

// remove forgets some of an account's streams.
func (s *streams) remove(account string, which func(stream) bool) {
	kept := s.accounts[account][:0]
	for _, o := range s.accounts[account] {
		if !which(o) {
			kept = append(kept, o)
			continue
		}
		s.leave(o.flow.ID, account)
	}
	if len(kept) == 0 {
		delete(s.accounts, account)
		return
	}
	clear(s.accounts[account][len(kept):])
	s.accounts[account] = kept
}

func (s *streams) leave(flow, account string) {
	on := s.flows[flow]
	if i := slices.Index(on, account); i >= 0 {
		on = slices.Delete(on, i, i+1)
	}
	if len(on) == 0 {
		delete(s.flows, flow)
		return
	}
	s.flows[flow] = on
}

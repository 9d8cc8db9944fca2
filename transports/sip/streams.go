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

// streams remembers over which connection each device has registered: for
// messages that are too large for UDP, to close those that a device has replaced,
// and to tell of those that have ended. A device may have several bindings, one
// for each flow (RFC 5626 §4.2). Of a proxy in a path it remembers the newest
// connection: that one leads to all devices behind it.
type streams struct {
	mu       sync.Mutex
	accounts map[string][]stream
	flows    map[string][]string // by the flow's ID: the accounts that are on it, as often as they are
	proxies  map[netip.Addr]wire.Flow
	clients  map[wire.Flow]struct{} // over which a client has registered, whether it names its device or not
	bound    map[string]bool        // by the flow's ID: those that bindings are on; whether some of them aren't in accounts
}

// stream is a way to a device over a connection.
type stream struct {
	aor      message.Address
	instance string
	reg      string // the reg-id
	flow     wire.Flow
	contact  string
	expires  time.Time
}

func newStreams() *streams {
	return &streams{
		accounts: map[string][]stream{}, flows: map[string][]string{}, proxies: map[netip.Addr]wire.Flow{},
		clients: map[wire.Flow]struct{}{}, bound: map[string]bool{},
	}
}

// note keeps what a registration says that came in some way. It returns the
// connections of clients that are replaced by that, and that nobody else uses.
func (s *streams) note(r plugin.Registration, w way, now time.Time) (replaced []wire.Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.route != "" {
		if w.flow.ID != "" {
			s.proxies[w.flow.Remote.Addr()] = w.flow
		}
		return nil
	}
	if r.All {
		s.remove(r.Account.ID, func(o stream) bool { return o.aor == r.AOR })
	}
	for i := range r.Bindings {
		replaced = append(replaced, s.bind(&r, &r.Bindings[i], w.flow, now)...)
	}
	return slices.DeleteFunc(replaced, s.isUsed)
}

// bind keeps a binding, and returns the connections on which it was before. One
// over UDP replaces none: a client may have a connection only for what is too
// large for UDP.
func (s *streams) bind(r *plugin.Registration, b *plugin.Binding, flow wire.Flow, now time.Time) (before []wire.Flow) {
	lives := b.Expires.After(now) && flow.ID != ""
	if lives {
		s.bound[flow.ID] = s.bound[flow.ID] || b.Device == "" || len(s.flows[flow.ID]) >= maxPerFlow
	}
	if b.Device == "" {
		return nil
	}
	s.remove(r.Account.ID, func(o stream) bool {
		if o.aor != r.AOR || o.instance != b.Device {
			return false
		}
		if lives && o.flow != flow && (o.reg == b.RegID || o.contact == b.Contact) {
			before = append(before, o.flow)
			return true
		}
		return o.flow == flow || o.contact == b.Contact
	})
	if lives && len(s.flows[flow.ID]) < maxPerFlow {
		s.flows[flow.ID] = append(s.flows[flow.ID], r.Account.ID)
		s.accounts[r.Account.ID] = append(s.accounts[r.Account.ID], stream{r.AOR, b.Device, b.RegID, flow, b.Contact, b.Expires})
	}
	return before
}

// isUsed tells whether a connection is somebody else's besides, as far as is
// known.
func (s *streams) isUsed(flow wire.Flow) bool {
	_, isClients := s.clients[flow]
	return !isClients || s.bound[flow.ID] || len(s.flows[flow.ID]) > 0
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

// closed forgets a connection. It returns whether there were bindings on it, once.
func (s *streams) closed(flow wire.Flow) (wasBound bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, wasBound = s.bound[flow.ID]
	delete(s.bound, flow.ID)
	delete(s.clients, flow)
	if s.proxies[flow.Remote.Addr()] == flow {
		delete(s.proxies, flow.Remote.Addr())
	}
	for _, account := range slices.Clone(s.flows[flow.ID]) {
		s.remove(account, func(o stream) bool { return o.flow == flow })
	}
	return wasBound
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

package resolve

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameServer is one that has a zone, and does what a test wants besides.
type nameServer struct {
	address netip.AddrPort

	mu      sync.Mutex
	records []dns.RR
	asked   []string
	other   otherAnswer
}

// otherAnswer replaces the zone's answer; nil: it stays. silent: nothing is said.
type otherAnswer func(network string, asked *dns.Msg) (reply *dns.Msg, silent bool)

func (s *nameServer) answers(other otherAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.other = other
}

// serveZone starts a name server on UDP and TCP.
func serveZone(t *testing.T, records ...string) *nameServer {
	t.Helper()
	s := &nameServer{}
	s.set(t, records...)
	packets, streams := listenTwice(t)
	s.address = packets.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, server := range []*dns.Server{{PacketConn: packets}, {Listener: streams}} {
		network := "udp"
		if server.Listener != nil {
			network = "tcp"
		}
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) { s.serve(network, w, m) })
		ended := make(chan error, 1)
		go func() { ended <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-ended
		})
	}
	return s
}

// listenTwice listens on UDP and TCP at one port, which somebody else may have
// over one of them.
func listenTwice(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		streams, err := net.Listen("tcp4", packets.LocalAddr().String())
		if err == nil {
			return packets, streams
		}
		packets.Close()
	}
	t.Fatal("no port is free")
	return nil, nil
}

// set replaces the zone.
func (s *nameServer) set(t *testing.T, records ...string) {
	t.Helper()
	var parsed []dns.RR
	for _, text := range records {
		record, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(text, err)
		}
		parsed = append(parsed, record)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = parsed
}

func (s *nameServer) serve(network string, w dns.ResponseWriter, m *dns.Msg) {
	q := m.Question[0]
	s.mu.Lock()
	s.asked = append(s.asked, dns.TypeToString[q.Qtype]+" "+q.Name)
	answer := s.other
	s.mu.Unlock()
	reply := s.reply(m)
	if answer != nil {
		other, silent := answer(network, m)
		if silent {
			return
		}
		if other != nil {
			reply = other
		}
	}
	if network == "udp" {
		reply.Truncate(payload)
	}
	_ = w.WriteMsg(reply) // who asked may be gone
}

// reply follows aliases as a recursive server does.
func (s *nameServer) reply(m *dns.Msg) *dns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := new(dns.Msg).SetReply(m)
	name, known := m.Question[0].Name, false
	for range 4 {
		alias := ""
		for _, record := range s.records {
			h := record.Header()
			known = known || strings.HasSuffix(h.Name, name)
			if h.Name == name && h.Rrtype == m.Question[0].Qtype {
				reply.Answer = append(reply.Answer, record)
			}
			if cname, ok := record.(*dns.CNAME); ok && h.Name == name {
				reply.Answer = append(reply.Answer, record)
				alias = cname.Target
			}
		}
		if alias == "" {
			break
		}
		name = alias
	}
	if len(reply.Answer) == 0 {
		soa, _ := dns.NewRR("example.com. 60 IN SOA ns.example.com. admin.example.com. 1 3600 600 86400 30")
		reply.Ns = []dns.RR{soa}
		if !known {
			reply.Rcode = dns.RcodeNameError
		}
	}
	return reply
}

// questions returns what was asked since the last call, sorted.
func (s *nameServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	slices.Sort(asked)
	return asked
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newResolver asks these servers. It draws the first of everything.
func newResolver(t *testing.T, servers ...*nameServer) (*Resolver, *clock) {
	t.Helper()
	var config Config
	for _, s := range servers {
		config.Servers = append(config.Servers, s.address)
	}
	r, c := New(t.Context(), config), &clock{now: time.Now()}
	r.now, r.draw, r.routed = c.read, func(int) int { return 0 }, func(netip.Addr) bool { return true }
	t.Cleanup(r.Close)
	return r, c
}

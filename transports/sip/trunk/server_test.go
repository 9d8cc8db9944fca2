package trunk

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
	"github.com/imgate/imgate/transports/sip/wire"
)

// soon is how long something may take that takes milliseconds.
const soon = 10 * time.Second

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// server is a SIP server of somebody else's.
type server struct {
	endpoint *wire.Endpoint
	requests chan *wire.Exchange // what came, answered or not; those beyond its room are forgotten

	mu      sync.Mutex
	respond func(x *wire.Exchange) *wire.Reply // nil: silence
	stop    func()
}

// ok answers everything with 200.
func ok(*wire.Exchange) *wire.Reply { return &wire.Reply{Status: 200} }

// always answers everything alike.
func always(status int) func(*wire.Exchange) *wire.Reply {
	return func(*wire.Exchange) *wire.Reply { return &wire.Reply{Status: status} }
}

func silent(*wire.Exchange) *wire.Reply { return nil }

// serve starts a server that listens over networks on ports of the system's
// choice.
func serve(t plugintest.T, respond func(*wire.Exchange) *wire.Reply, networks ...string) *server {
	t.Helper()
	var listeners []wire.Listener
	for _, network := range networks {
		listeners = append(listeners, wire.Listener{Network: network, Address: netip.AddrPortFrom(loopback, 0)})
	}
	return serveAt(t, respond, wire.Config{}, listeners...)
}

func serveAt(t plugintest.T, respond func(*wire.Exchange) *wire.Reply, config wire.Config, listeners ...wire.Listener) *server {
	t.Helper()
	endpoint, err := wire.Listen(listeners, config)
	if err != nil {
		t.Fatalf("the server can't listen: %v", err)
	}
	s := &server{endpoint: endpoint, requests: make(chan *wire.Exchange, 256), respond: respond}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		endpoint.Serve(ctx, s.handle)
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		endpoint.Close()
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) handle(_ context.Context, x *wire.Exchange) {
	if x.Begin() != nil {
		return
	}
	s.mu.Lock()
	respond := s.respond
	s.mu.Unlock()
	reply := respond(x)
	select {
	case s.requests <- x:
	default:
	}
	if reply == nil {
		return // what is begun and isn't answered is silence
	}
	x.Answer(*reply)
}

// answers replaces what the server says.
func (s *server) answers(respond func(*wire.Exchange) *wire.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.respond = respond
}

// address is where it listens, by the order of its networks.
func (s *server) address(i int) string { return s.endpoint.Addrs()[i].String() }

// next waits for a request of a method.
func (s *server) next(t *testing.T, method string) *wire.Exchange {
	t.Helper()
	deadline := time.After(soon)
	for {
		select {
		case x := <-s.requests:
			if x.Method == method {
				return x
			}
		case <-deadline:
			t.Fatalf("no %s within %s", method, soon)
		}
	}
}

// count is how many requests of a method have come, which are forgotten.
func (s *server) count(method string) (n int) {
	for {
		select {
		case x := <-s.requests:
			if x.Method == method {
				n++
			}
		default:
			return n
		}
	}
}

// gate notes what a trunk tells it.
type gate struct {
	plugin.Gate
	ready     chan struct{}
	reachable chan struct{}
	inactive  atomic.Bool
}

func newGate() *gate {
	return &gate{ready: make(chan struct{}), reachable: make(chan struct{}, 16)}
}

func (g *gate) Ready() { close(g.ready) }
func (g *gate) Active() *message.Failure {
	if g.inactive.Load() {
		return message.FailForNow(message.Standby, "another node is active")
	}
	return nil
}
func (g *gate) Reachable() { g.reachable <- struct{}{} }

// local are the defaults, on this machine and without probes.
func local() Config {
	c := defaults
	c.Listen, c.Domain, c.Probe.Every = "127.0.0.1:0", "a.example", 0
	return c
}

func openTrunk(t *testing.T, config Config) (*Trunk, *gate) {
	t.Helper()
	for _, mistake := range plugin.Mistakes(config.Validate()) {
		if !strings.HasPrefix(mistake.Error(), "probe.every") { // tests haven't the time
			t.Fatal(mistake)
		}
	}
	trunk, err := New(t.Context(), plugin.Env{Instance: "trunk"}, config)
	if err != nil {
		t.Fatal(err)
	}
	return trunk, start(t, trunk)
}

// start serves a trunk until the test ends.
func start(t testing.TB, trunk *Trunk) *gate {
	t.Helper()
	g := newGate()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- trunk.Serve(ctx, g) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-g.ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return g
}

func testMessage() *message.Message {
	return &message.Message{
		Received: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		From:     message.Address{User: "alice", Host: "a.example"}, DisplayName: "Alice",
		Recipient:   message.Address{User: "bob", Host: "b.example"},
		ContentType: "text/plain", Body: []byte("hello"), Hops: 69,
	}
}

func delivery() plugin.Route {
	return plugin.Route{Transport: "trunk", Reference: message.NewPublicID() + ".0a1b2c3d"}
}

// fails checks a failure.
func fails(t *testing.T, what string, err error, reason message.Reason, temporary bool) {
	t.Helper()
	f, ok := errors.AsType[*message.Failure](err)
	if !ok || f.Reason != reason || f.Temporary != temporary {
		t.Errorf("%s: %v, want %s, temporary %t", what, err, reason, temporary)
	}
}

func received[V any](t *testing.T, what string, c <-chan V) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(soon):
		t.Fatalf("%s: not within %s", what, soon)
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, soon)
		}
	}
}

// secureServer listens over TLS with a certificate.
func secureServer(t *testing.T, certificate tls.Certificate, respond func(*wire.Exchange) *wire.Reply) *server {
	t.Helper()
	config := wire.Config{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	return serveAt(t, respond, config, wire.Listener{Network: "tls", Address: netip.AddrPortFrom(loopback, 0)})
}

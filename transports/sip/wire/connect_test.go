package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestConnect reaches servers over each network, there and back.
func TestConnect(t *testing.T) {
	authority := newAuthority(t)
	for family, address := range loopbacks() {
		for _, network := range []string{"udp", "tcp", "tls"} {
			t.Run(network+" "+family, func(t *testing.T) {
				came := make(chan *Exchange, 1)
				server := openEach(t, network, address, Config{TLS: authority.server("sip.example.org")}, func(_ context.Context, x *Exchange) {
					x.Answer(Reply{Status: 200})
					came <- x
				})
				back := make(chan *Exchange, 1)
				e := openOn(t, []Listener{{network, address}}, Config{TLS: authority.server("sip.example.com"), DialTLS: &tls.Config{RootCAs: authority.pool}}, func(_ context.Context, x *Exchange) {
					x.Answer(Reply{Status: 202})
					back <- x
				})
				target := Target{network, server.Addrs()[0], "sip.example.org"}
				flow, err := e.Connect(t.Context(), target)
				if err != nil {
					t.Fatal(err)
				}
				if response, err := e.Do(t.Context(), flow, testOutgoing); err != nil || response.Status != 200 {
					t.Errorf("%+v, %v", response, err)
				}
				x := <-came
				if want := e.Addrs()[0].Port(); x.Via.Port != want {
					t.Errorf("Via has port %d, want that of the listener, %d", x.Via.Port, want)
				}
				if response, err := server.Do(t.Context(), x.Flow, testOutgoing); err != nil || response.Status != 202 {
					t.Errorf("back: %+v, %v", response, err)
				}
				if x := <-back; x.Flow != flow || x.Certificate() != nil {
					t.Errorf("back on %v, want %v", x.Flow, flow)
				}
				if again, err := e.Connect(t.Context(), target); again != flow || err != nil {
					t.Errorf("again %v, %v", again, err)
				}
			})
		}
	}
}

// TestConnectChecksTheName: the certificate has to be for the name asked for,
// from an authority that is known.
func TestConnectChecksTheName(t *testing.T) {
	authority := newAuthority(t)
	server := openEach(t, "tls", loopbacks()["IPv4"], Config{TLS: authority.server("sip.example.org")}, echo)
	for _, test := range []struct {
		name  string
		roots *x509.CertPool
		ok    bool
	}{
		{"sip.example.org", authority.pool, true},
		{"", authority.pool, true}, // its address
		{"sip.example.net", authority.pool, false},
		{"sip.example.org", newAuthority(t).pool, false},
		{"sip.example.org", nil, false},
	} {
		config := Config{DialTLS: &tls.Config{RootCAs: test.roots}}
		if test.roots == nil {
			config.DialTLS = nil
		}
		e := open(t, config, echo)
		flow, err := e.Connect(t.Context(), Target{"tls", server.Addrs()[0], test.name})
		if (err == nil) != test.ok {
			t.Errorf("%q: %v, %v", test.name, flow, err)
		}
		var refused *tls.CertificateVerificationError
		if !test.ok && !errors.As(err, &refused) {
			t.Errorf("%q: %v", test.name, err)
		}
	}
}

// TestConnectMakesOneAttempt for all who ask at once, and another one only after
// a while if it fails, or when the connection is gone.
func TestConnectMakesOneAttempt(t *testing.T) {
	server := openEach(t, "tcp", loopbacks()["IPv4"], Config{}, echo)
	e := open(t, Config{}, echo)
	flows := connectAll(t, e, Target{Network: "tcp", Address: server.Addrs()[0]})
	for _, flow := range flows[1:] {
		if flow != flows[0] {
			t.Errorf("%v and %v", flow, flows[0])
		}
	}
	waitFor(t, func() bool { return server.Counts().Accepted == 1 })
	if !e.Dismiss(flows[0]) {
		t.Error("not dismissed")
	}
	waitFor(t, func() bool { return !e.Connected(flows[0]) })
	if again := connectAll(t, e, Target{Network: "tcp", Address: server.Addrs()[0]}); again[0] == flows[0] || !e.Connected(again[0]) {
		t.Errorf("again %v", again[0])
	}
}

func connectAll(t *testing.T, e *Endpoint, target Target) []Flow {
	t.Helper()
	flows := make([]Flow, 20)
	var all sync.WaitGroup
	for i := range flows {
		all.Go(func() {
			var err error
			if flows[i], err = e.Connect(t.Context(), target); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return flows
}

func TestConnectBacksOff(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Network: "tcp", Address: addrPort(listener.Addr())}
	listener.Close()
	e := open(t, Config{}, echo)
	_, first := e.Connect(t.Context(), target)
	_, second := e.Connect(t.Context(), target)
	if first == nil || first != second {
		t.Errorf("%v, then %v", first, second)
	}
	if !strings.Contains(first.Error(), "connect to tcp "+target.Address.String()) {
		t.Error(first)
	}
}

func TestDiallings(t *testing.T) {
	table, now := newDiallings(), time.Now()
	target := func(i int) Target {
		return Target{"tcp", netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1)), ""}
	}
	attempt := func(i int) (*dialling, bool) {
		d, first, err := table.find(target(i), now)
		if err != nil {
			t.Fatal(err)
		}
		return d, first
	}
	d, first := attempt(0)
	if again, second := attempt(0); !first || second || again != d {
		t.Errorf("%v %v", first, second)
	}
	table.fail(d, errors.New("refused"), now)
	if _, again := attempt(0); again {
		t.Error("another attempt at once")
	}
	now = now.Add(dialPause)
	d, first = attempt(0)
	if !first {
		t.Error("no other attempt after a second")
	}
	table.fail(d, errors.New("refused"), now)
	for i := 1; i < maxDialled; i++ {
		attempt(i)
	}
	if _, _, err := table.find(target(maxDialled), now); err != errTooManyTargets {
		t.Errorf("%v", err)
	}
	now = now.Add(dialPause)
	attempt(maxDialled) // in place of the one that failed
	if _, _, err := table.find(target(0), now); err != errTooManyTargets {
		t.Errorf("%v", err)
	}
}

func TestConnectFails(t *testing.T) {
	address := netip.MustParseAddrPort("127.0.0.1:1")
	e := open(t, Config{}, echo)
	if _, err := e.Connect(t.Context(), Target{Network: "udp", Address: netip.MustParseAddrPort("[::1]:1")}); err != ErrNoFlow {
		t.Errorf("another family: %v", err)
	}
	if _, err := e.Connect(t.Context(), Target{Network: "ws", Address: address}); err == nil {
		t.Error("a WebSocket was dialled")
	}
	listening, err := Listen(nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	listening.Close()
	if _, err := listening.Connect(t.Context(), Target{Network: "tcp", Address: address}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	hung, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := e.Connect(ctx, Target{Network: "tls", Address: addrPort(hung.Addr())}); err != context.DeadlineExceeded {
		t.Errorf("a server that says nothing: %v", err)
	}
}

// TestDialledConnectionIsIdle: it ends after three minutes of silence, and
// nobody has to say anything at first.
func TestDialledConnectionIsIdle(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		conn := b.newConnection("tcp", pipe{ours, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(somewhere))})
		d, _, _ := b.dialled.find(Target{Network: "tcp", Address: netip.MustParseAddrPort(somewhere)}, time.Now())
		synctest.Wait() // Serve runs
		conn.open, conn.dialled = true, d
		if !b.serve(conn) {
			t.Fatal("not served")
		}
		b.dialled.succeed(d, conn)
		start, c := time.Now(), &caller{theirs, t}
		time.Sleep(time.Minute)
		c.say(hello("a"))
		if got := c.hear(); got != "200 OK" {
			t.Error(got)
		}
		if got := c.ends().Sub(start); got != time.Minute+dialledIdle {
			t.Errorf("ended after %v", got)
		}
		<-b.closed
		synctest.Wait()
		if n := len(b.dialled.byTarget); n != 0 || b.Counts().Connections != 0 {
			t.Errorf("%d are still there", n)
		}
	})
}

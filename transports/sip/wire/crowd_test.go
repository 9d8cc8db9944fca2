package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSilentCrowd: hundreds of clients that begin a handshake and say no more
// keep nobody waiting for a second, from their own address neither, and take a
// bounded part of the memory.
func TestSilentCrowd(t *testing.T) {
	const crowd = 600
	authority := newAuthority(t)
	for _, network := range []string{"tls", "ws", "wss"} {
		t.Run(network, func(t *testing.T) {
			limits := Limits{HandshakeTimeout: time.Minute} // longer than anybody may wait
			e := openEach(t, network, loopbacks()["IPv4"], Config{TLS: authority.server("sip.example.com"), Limits: limits}, echo)
			before := memory()
			for i := range crowd {
				conn, err := net.Dial("tcp", e.Addrs()[0].String())
				if err != nil {
					t.Skipf("only %d connections: %v", i, err)
				}
				defer conn.Close()
				if i%2 == 0 {
					_, _ = conn.Write([]byte("\x16\x03\x01\x02\x00\x01\x00")) // fails if it had to give way
				}
			}
			start := time.Now()
			client := &tls.Config{RootCAs: authority.pool, ServerName: "sip.example.com"}
			p := dialEach(t, e, network, client)
			p.say(hello("a"))
			if got := status(p.hear()); got != "200 OK" {
				t.Error(got)
			}
			if took := time.Since(start); took > 5*time.Second { // five times what we promise: the machine may be busy
				t.Errorf("served after %v", took)
			}
			if n := e.Counts(); n.EndedDisplaced == 0 || n.Connections > 256 {
				t.Errorf("%+v", n)
			}
			if now := memory(); now > before+16<<20 {
				t.Errorf("%d octets more", now-before)
			}
		})
	}
}

// TestStrangersGiveWay: whoever opens connections on which nobody proves to be a
// client, even if he asks something now and then, keeps nobody else out: neither
// from another address nor, in a NAT, from his own.
func TestStrangersGiveWay(t *testing.T) {
	tests := []struct {
		name   string
		limits Limits
		from   string // of the stranger number %d
	}{
		{"too many in all", Limits{MaxConnections: 3}, "198.51.100.%d:1"},
		{"too many of one address", Limits{MaxPerAddress: 3}, "198.51.100.1:%d"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{Limits: test.limits}, func(t *testing.T, b *bubble) {
				known := b.known("198.51.100.1:200")
				first := b.call(fmt.Sprintf(test.from, 1))
				asking := b.call(fmt.Sprintf(test.from, 2))
				asking.say(hello("a"))
				asking.hear()
				later := b.known("198.51.100.1:201")
				first.ends()
				last := b.call(fmt.Sprintf(test.from, 3))
				asking.ends()
				last.say(hello("b"))
				if got := last.hear(); got != "200 OK" {
					t.Error(got)
				}
				for _, c := range []*caller{known, later} {
					if !c.isOpen() {
						t.Error("a client that we know had to give way")
					}
				}
				if n := b.Counts(); n.EndedDisplaced != 2 || n.TooMany+n.TooManyOfOne != 0 || n.Connections != 3 {
					t.Errorf("%+v", n)
				}
			})
		})
	}
}

// TestIdleIsSmall: what a connection costs that has sent requests and now does
// nothing, the server's side alone as far as the peer's can be left out.
func TestIdleIsSmall(t *testing.T) {
	const n = 300
	most := map[string]uint64{"tls": 24 << 10, "ws": 18 << 10, "wss": 28 << 10}
	authority := newAuthority(t)
	client := &tls.Config{RootCAs: authority.pool, ServerName: "sip.example.com"}
	for _, network := range []string{"tls", "ws", "wss"} {
		t.Run(network, func(t *testing.T) {
			e := openEach(t, network, netip.MustParseAddrPort("127.0.0.1:0"), Config{Workers: 2, Limits: Limits{MaxPerAddress: n}, TLS: authority.server("sip.example.com")}, echo)
			before := memory()
			for range n {
				conn, err := net.Dial("tcp", e.Addrs()[0].String())
				if err != nil {
					t.Skip(err)
				}
				defer conn.Close()
				idle(t, network, conn, client)
			}
			if got := e.Counts().Connections; got != n {
				t.Fatalf("%d connections", got)
			}
			each := (memory() - before) / n
			t.Logf("%d octets each", each)
			if each > most[network] {
				t.Errorf("%d octets each", each)
			}
		})
	}
}

// idle sends requests on a connection and takes the answers.
func idle(t *testing.T, network string, conn net.Conn, client *tls.Config) {
	t.Helper()
	if isSecure(network) {
		conn = tls.Client(conn, client)
	}
	say := []byte(hello("a"))
	if network != "tls" {
		if _, err := conn.Write([]byte(upgradeRequest)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		say = frame(frameText, string(say))
	}
	for range 3 { // repetitions too: they take the same way
		if _, err := conn.Write(say); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkLoopbackOf is BenchmarkLoopbackTCP over the other networks, the
// peer's share included.
func BenchmarkLoopbackOf(b *testing.B) {
	authority := newAuthority(b)
	client := &tls.Config{RootCAs: authority.pool, ServerName: "sip.example.com"}
	for _, network := range []string{"tls", "ws", "wss"} {
		b.Run(network, func(b *testing.B) {
			e := openEach(b, network, loopbacks()["IPv4"], Config{TLS: authority.server("sip.example.com")}, func(_ context.Context, x *Exchange) {
				if x.Begin() == nil {
					x.Answer(Reply{Status: 200})
				}
			})
			var calls atomic.Int64
			before := cpu(b)
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				p := dialEach(b, e, network, client)
				for pb.Next() {
					p.say(strings.Replace(hello(fmt.Sprint(calls.Add(1))), "z9hG4bK1", fmt.Sprint("z9hG4bK", calls.Load()), 1))
					p.hear()
				}
			})
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "CPU-µs/op")
		})
	}
}

// dialEach opens a connection and makes its handshakes.
func dialEach(t testing.TB, e *Endpoint, network string, client *tls.Config) talker {
	t.Helper()
	switch network {
	case "tls":
		return dialTLS(t, e, client)
	case "ws":
		return dialSocket(t, e, nil)
	default:
		return dialSocket(t, e, client)
	}
}

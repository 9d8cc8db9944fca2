package wire

import (
	"crypto/tls"
	"net"
	"net/netip"
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
			var p interface {
				say(string)
				hear() string
			}
			switch network {
			case "tls":
				p = dialTLS(t, e, client)
			case "ws":
				p = dialSocket(t, e, nil)
			default:
				p = dialSocket(t, e, client)
			}
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

// TestIdleIsSmall: what a connection costs that has sent a request and now does
// nothing, the server's side alone as far as the peer's can be left out.
func TestIdleIsSmall(t *testing.T) {
	const n = 200
	most := map[string]uint64{"tls": 64 << 10, "ws": 32 << 10, "wss": 64 << 10} // both sides together
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

// idle sends a request on a connection and takes the answer.
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
	if _, err := conn.Write(say); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
}

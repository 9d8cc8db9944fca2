package wire

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// talker is a peer's side of a connection, whatever it carries.
type talker interface {
	net.Conn
	say(text string)
	hear() string
}

// opened makes the handshakes of a network on a connection in a bubble.
func (b *bubble) opened(network string, a *authority) talker {
	b.t.Helper()
	conn := b.call(somewhere).Conn
	if isSecure(network) {
		secure := tls.Client(conn, &tls.Config{RootCAs: a.pool, ServerName: "sip.example.com"})
		if err := secure.Handshake(); err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { conn.Close() }) // without a word that nobody would read
		conn = secure
	}
	if network == "tls" {
		return &tcpPeer{bufio.NewReader(conn), conn, b.t}
	}
	return upgraded(b.t, conn)
}

func (b *bubble) openedSocket() *socketPeer {
	b.t.Helper()
	return upgraded(b.t, b.call(somewhere).Conn)
}

// TestHandshakeDeadline: a handshake has five seconds, whatever is said.
func TestHandshakeDeadline(t *testing.T) {
	authority := newAuthority(t)
	slowly := func(text string) func(*caller) {
		return func(c *caller) {
			for _, octet := range text {
				if _, err := c.Write([]byte(string(octet))); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}
	}
	tests := []struct {
		name, network string
		play          func(*caller)
	}{
		{"silence", "tls", func(*caller) {}},
		{"silence", "ws", func(*caller) {}},
		{"silence", "wss", func(*caller) {}},
		{"an octet a second", "tls", slowly("\x16\x03\x01\x02\x00\x01\x00")},
		{"an octet a second", "ws", slowly(upgradeRequest)},
		{"half a request", "ws", func(c *caller) { c.say(upgradeRequest[:60]) }},
		{"TLS and no request", "wss", func(c *caller) {
			go tls.Client(c.Conn, &tls.Config{RootCAs: authority.pool, ServerName: "sip.example.com"}).Handshake()
			time.Sleep(6 * time.Second)
		}},
	}
	for _, test := range tests {
		t.Run(test.network+" "+test.name, func(t *testing.T) {
			inBubbleOf(t, test.network, Config{TLS: authority.server("sip.example.com")}, func(t *testing.T, b *bubble) {
				c := b.call(somewhere)
				played := make(chan struct{})
				go func() {
					defer close(played)
					test.play(c)
				}()
				time.Sleep(5*time.Second - time.Nanosecond)
				synctest.Wait()
				if n := b.Counts(); n.Connections != 1 {
					t.Errorf("too early: %+v", n)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				c.Close()
				if n := b.Counts(); n.EndedHandshake != 1 || n.Connections != 0 || b.connections.opening.Len() != 0 {
					t.Errorf("%+v", n)
				}
				<-played
				synctest.Wait()
			})
		})
	}
}

func TestWebSocketDeadlines(t *testing.T) {
	pong := frame(0x8a, "")
	answering := func(n int) func(p *socketPeer) {
		return func(p *socketPeer) {
			for range n {
				if opcode, payload := p.frame(); opcode != 0x89 {
					p.t.Fatalf("frame %x %q", opcode, payload)
				}
				p.write(pong)
			}
		}
	}
	begin := func(callID string, then func(p *socketPeer)) func(p *socketPeer) {
		return func(p *socketPeer) {
			p.say(hello(callID))
			p.hear()
			then(p)
		}
	}
	tests := []struct {
		name  string
		play  func(p *socketPeer)
		after time.Duration
		cause cause
	}{
		{"silence", func(*socketPeer) {}, 10 * time.Second, causeSlowSender},
		{"pings and no message", func(p *socketPeer) {
			for range 3 {
				p.write(frame(0x89, ""))
				p.frame()
				time.Sleep(3 * time.Second)
			}
		}, 10 * time.Second, causeSlowSender},
		{"half a message", begin("keep", func(p *socketPeer) { p.write(frame(0x01, hello("a"))) }), 10 * time.Second, causeSlowSender},
		{"half a frame", begin("keep", func(p *socketPeer) { p.write(frame(frameText, hello("a"))[:40]) }), 10 * time.Second, causeSlowSender},
		{"half a ping", begin("keep", func(p *socketPeer) { p.write(frame(0x89, "hello")[:8]) }), 5 * time.Second, causeSlowSender},
		{"an empty fragment a second", begin("keep", func(p *socketPeer) {
			p.write(frame(0x01, ""))
			for range 9 {
				time.Sleep(time.Second)
				p.write(frame(0x00, ""))
			}
		}), 10 * time.Second, causeSlowSender},
		{"stranger who answers pings", begin("a", answering(1)), time.Minute, causeIdle},
		{"client who answers no pings", begin("keep", func(p *socketPeer) { p.frame() }), pingAfter + unacknowledged, causePeer},
		{"client who answers pings", begin("keep", answering(30)), 31*pingAfter + unacknowledged, causePeer},
		{"client who pings", begin("keep", func(p *socketPeer) {
			for range 100 {
				time.Sleep(40 * time.Second)
				p.say("\r\n\r\n")
				p.hear()
			}
			p.frame()
		}), 4000*time.Second + pingAfter + unacknowledged, causePeer},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubbleOf(t, "ws", Config{}, func(t *testing.T, b *bubble) {
				p, start := b.openedSocket(), time.Now()
				test.play(p)
				if test.cause != causeSlowSender || test.after != 5*time.Second {
					p.untilClose()
				} else {
					_, _ = io.Copy(io.Discard, p.Reader)
				}
				if got := time.Since(start); got != test.after {
					t.Errorf("ended after %v, want %v", got, test.after)
				}
				p.Close()
				<-b.closed
				if n := b.counters.ended(test.cause); n != 1 || b.Counts().Connections != 0 {
					t.Errorf("%+v", b.Counts())
				}
			})
		})
	}
}

// untilClose reads until the Close frame comes.
func (p *socketPeer) untilClose() {
	p.t.Helper()
	for {
		if opcode, _ := p.frame(); opcode == frameClose {
			return
		}
	}
}

// TestSlowReadersOfEach: who doesn't read loses the connection, over each
// network, and nobody else waits.
func TestSlowReadersOfEach(t *testing.T) {
	authority := newAuthority(t)
	for _, network := range []string{"tls", "ws", "wss"} {
		for _, test := range []struct {
			name  string
			size  int
			after time.Duration
			cause cause
		}{
			{"a write takes too long", 100, 5 * time.Second, causeSlowReader},
			{"too much waits", maxQueued / 2, 0, causeSlowReader},
		} {
			t.Run(network+" "+test.name, func(t *testing.T) {
				inBubbleOf(t, network, Config{TLS: authority.server("sip.example.com")}, func(t *testing.T, b *bubble) {
					slow, good := b.opened(network, authority), b.opened(network, authority)
					slow.say(hello("a"))
					flow := <-b.flows
					start := time.Now()
					conn := b.connections.find(flow)
					for range 3 {
						_ = conn.send(make([]byte, test.size), flow.Remote)
					}
					good.say(hello("b"))
					if got := status(good.hear()); got != "200 OK" || time.Since(start) != 0 {
						t.Errorf("%s after %v", got, time.Since(start))
					}
					if f := <-b.closed; f != flow || time.Since(start) != test.after {
						t.Errorf("%v after %v", f, time.Since(start))
					}
					b.writers.Wait()
					if b.counters.ended(test.cause) != 1 {
						t.Errorf("%+v", b.Counts())
					}
				})
			})
		}
	}
}

// TestHandshakesGiveWay: the oldest handshake, of the same address if that has
// too many, gives way to who comes; a client that we know doesn't.
func TestHandshakesGiveWay(t *testing.T) {
	tests := []struct {
		name   string
		limits Limits
	}{
		{"too many handshakes", Limits{MaxHandshakes: 2}},
		{"too many of one address", Limits{MaxPerAddress: 3}},
		{"too many in all", Limits{MaxConnections: 3}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubbleOf(t, "ws", Config{Limits: test.limits}, func(t *testing.T, b *bubble) {
				served := b.openedSocket()
				served.say(hello("keep"))
				served.hear()
				synctest.Wait() // the server knows that too
				first, second := b.call(somewhere), b.call(somewhere)
				synctest.Wait()
				start := time.Now()
				third := b.openedSocket()
				first.ends()
				if !second.isOpen() || time.Since(start) > time.Millisecond {
					t.Errorf("after %v", time.Since(start))
				}
				for _, p := range []*socketPeer{served, third} {
					p.say(hello("a"))
					if got := status(p.hear()); got != "200 OK" {
						t.Error(got)
					}
				}
				if n := b.Counts(); n.EndedDisplaced != 1 {
					t.Errorf("%+v", n)
				}
				served.Close()
				third.Close()
			})
		})
	}
}

// TestCloseTellsWebSockets: they hear that we go away, behind the last answer.
func TestCloseTellsWebSockets(t *testing.T) {
	authority := newAuthority(t)
	for _, network := range []string{"ws", "wss"} {
		inBubbleOf(t, network, Config{TLS: authority.server("sip.example.com")}, func(t *testing.T, b *bubble) {
			p := b.opened(network, authority).(*socketPeer)
			p.say(hello("a"))
			p.hear()
			flow := <-b.flows
			if err := b.connections.find(flow).send([]byte("last"), flow.Remote); err != nil {
				t.Error(err)
			}
			b.stop()
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.Close()
			}()
			if got := p.hear(); got != "last" {
				t.Errorf("%q", got)
			}
			if opcode, payload := p.frame(); opcode != frameClose || payload != "\x03\xe9" {
				t.Errorf("frame %x %q", opcode, payload)
			}
			p.Close()
			<-done
		})
	}
}

// TestTLSSaysGoodbye: a peer can tell the end from an attack that cuts the
// connection short (RFC 8446 §6.1).
func TestTLSSaysGoodbye(t *testing.T) {
	authority := newAuthority(t)
	inBubbleOf(t, "tls", Config{TLS: authority.server("sip.example.com")}, func(t *testing.T, b *bubble) {
		p := b.opened("tls", authority)
		p.say(hello("a"))
		p.hear()
		start := time.Now()
		if n, err := p.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != time.Minute {
			t.Errorf("%d octets, %v after %v", n, err, time.Since(start))
		}
	})
}

// TestDismissedWebSocket hears that it should come back elsewhere.
func TestDismissedWebSocket(t *testing.T) {
	inBubbleOf(t, "ws", Config{}, func(t *testing.T, b *bubble) {
		p := b.openedSocket()
		p.say(hello("keep"))
		p.hear()
		flow := <-b.flows
		if !b.Dismiss(flow) {
			t.Error("nothing is under way")
		}
		if opcode, payload := p.frame(); opcode != frameClose || payload != "\x03\xe9" {
			t.Errorf("frame %x %q", opcode, payload)
		}
		if b.Connected(flow) {
			t.Error("requests could still be sent on it")
		}
		p.Close()
		if f := <-b.closed; f != flow || b.Counts().EndedDismissed != 1 {
			t.Errorf("%v, %+v", f, b.Counts())
		}
	})
}

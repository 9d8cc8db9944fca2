package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// read returns the message that the endpoint sends next, and nothing behind it.
func (c *caller) read() []byte {
	c.t.Helper()
	f, b := framer{maxBody: maxBody}, newBudget(lots)
	for {
		n, err := c.Read(f.room(b))
		if err != nil {
			c.t.Fatal(err)
		}
		f.add(n)
		if u := f.next(); u.kind == unitMessage {
			return u.data
		}
	}
}

// respond is the answer of a peer to a request of ours.
func respond(t testing.TB, packet []byte, status int) string {
	t.Helper()
	request, _, refusal := Parse(packet, maxBody)
	if refusal != nil {
		t.Fatalf("we sent %q: %v", packet, refusal)
	}
	request.Flow = testFlow
	reply, err := AppendReply(nil, request, Reply{Status: status}, "theirs")
	if err != nil {
		t.Fatal(err)
	}
	return string(reply)
}

// TestDoOnAStream: a request goes out once, on its connection; what ends the
// connection ends the transaction at once.
func TestDoOnAStream(t *testing.T) {
	tests := []struct {
		name   string
		play   func(c *caller, b *bubble)
		status int
		err    error
		after  time.Duration
		within time.Duration // the caller's deadline
	}{
		{"answered", func(c *caller, b *bubble) {
			packet := c.read()
			if !strings.Contains(string(packet), "\r\nVia: SIP/2.0/TCP 192.0.2.9:5060;rport;branch=") {
				b.t.Errorf("%q", packet)
			}
			time.Sleep(20 * time.Second)
			c.say(respond(b.t, packet, 480))
		}, 480, nil, 20 * time.Second, time.Minute},
		{"provisional first", func(c *caller, b *bubble) {
			packet := c.read()
			c.say(respond(b.t, packet, 100))
			time.Sleep(20 * time.Second)
			c.say(respond(b.t, packet, 200))
		}, 200, nil, 20 * time.Second, time.Minute},
		{"half-open", func(c *caller, b *bubble) {
			c.read()
			_ = c.SetReadDeadline(time.Now().Add(40 * time.Second)) // a pipe has deadlines
			if n, _ := io.Copy(io.Discard, c); n > 0 {
				b.t.Errorf("%d octets more", n)
			}
		}, 0, ErrTimeout, 32 * time.Second, time.Minute},
		{"closed before the answer", func(c *caller, _ *bubble) {
			c.read()
			time.Sleep(time.Second)
			c.Close()
		}, 0, ErrNoFlow, time.Second, time.Minute},
		{"closed behind a provisional", func(c *caller, b *bubble) {
			c.say(respond(b.t, c.read(), 100))
			c.Close()
		}, 0, ErrNoFlow, 0, time.Minute},
		{"closed behind the answer", func(c *caller, b *bubble) {
			c.say(respond(b.t, c.read(), 200))
			c.Close()
		}, 200, nil, 0, time.Minute},
		{"broken", func(c *caller, _ *bubble) {
			c.read()
			c.say("\x00")
		}, 0, ErrNoFlow, 0, time.Minute},
		{"not read", func(*caller, *bubble) {}, 0, ErrNoFlow, 5 * time.Second, time.Minute},
		{"the endpoint is closed", func(c *caller, b *bubble) {
			c.read()
			b.Close()
		}, 0, ErrClosed, 0, time.Minute},
		{"the context ends", func(c *caller, _ *bubble) { c.read() }, 0, context.DeadlineExceeded, 3 * time.Second, 3 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				c := b.call(somewhere)
				c.say(hello("keep"))
				c.hear()
				flow := <-b.flows
				start := time.Now()
				go test.play(c, b)
				ctx, cancel := context.WithTimeout(t.Context(), test.within)
				defer cancel()
				response, err := b.Do(ctx, flow, testOutgoing)
				if !errors.Is(err, test.err) || err == nil && response.Status != test.status {
					t.Errorf("%v, %v", response, err)
				}
				if took := time.Since(start); took != test.after {
					t.Errorf("took %v, want %v", took, test.after)
				}
				if b.Counts().Repeats != 0 {
					t.Error("a request was repeated on a connection")
				}
				synctest.Wait()
			})
		})
	}
}

// TestAnswerOfAnother: what comes on another connection doesn't answer a request,
// though whoever sends it has seen the request.
func TestAnswerOfAnother(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		device, other := b.call(somewhere), b.call(somewhere)
		other.say(hello("keep2"))
		other.hear()
		<-b.flows
		device.say(hello("keep"))
		device.hear()
		flow := <-b.flows
		go func() {
			packet := device.read()
			other.say(respond(t, packet, 603))
			synctest.Wait()
			if n := b.Counts().Unmatched; n != 1 {
				t.Errorf("%d unmatched", n)
			}
			device.say(respond(t, packet, 200))
		}()
		if response, err := b.Do(t.Context(), flow, testOutgoing); err != nil || response.Status != 200 {
			t.Errorf("%v, %v", response, err)
		}
	})
}

func TestLeadsTo(t *testing.T) {
	for _, test := range []struct {
		sent, came string
		want       bool
	}{
		{"udp;192.0.2.9:5060;192.0.2.1:4000", "udp;192.0.2.9:5060;192.0.2.1:4001", true},
		{"udp;192.0.2.9:5060;192.0.2.1:4000", "udp;192.0.2.9:5060;192.0.2.2:4000", false},
		{"udp;192.0.2.9:5060;192.0.2.1:4000", "tcp;192.0.2.9:5060;192.0.2.1:4000;A", false},
		{"udp;[::1]:5060;[2001:db8::1]:4000", "udp;[::1]:5060;[2001:db8::2]:4000", true},
		{"udp;[::1]:5060;[2001:db8::1]:4000", "udp;[::1]:5060;[2001:db8:0:1::1]:4000", false},
		{"tcp;192.0.2.9:5060;192.0.2.1:4000;A", "tcp;192.0.2.9:5060;192.0.2.1:4000;A", true},
		{"tcp;192.0.2.9:5060;192.0.2.1:4000;A", "tcp;192.0.2.9:5060;192.0.2.1:4000;B", false},
		{"tcp;192.0.2.9:5060;192.0.2.1:4000;A", "udp;192.0.2.9:5060;192.0.2.1:4000", false},
	} {
		sent, err := ParseFlow(test.sent)
		came, err2 := ParseFlow(test.came)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if got := sent.leadsTo(came); got != test.want {
			t.Errorf("sent on %s, came on %s: %t", test.sent, test.came, got)
		}
	}
}

// TestDoNeedsStream: what is too large for a datagram is refused unless the
// caller says so, and goes on a connection in any case.
func TestDoNeedsStream(t *testing.T) {
	server := open(t, Config{}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	e := open(t, Config{}, func(context.Context, *Exchange) {})
	flow := Flow{Network: "udp", Local: e.Addrs()[0], Remote: server.Addrs()[0]}
	size := func(o Outgoing) int {
		packet, err := appendRequest(nil, &o, &way{transport: "UDP", sentBy: e.sockets[0].sentBy}, strings.Repeat("b", branchLength))
		if err != nil {
			t.Fatal(err)
		}
		return len(packet)
	}
	o := testOutgoing
	o.Body = make([]byte, 1000)
	o.Body = make([]byte, 1000+1300-size(o))
	if size(o) != 1300 {
		t.Fatal(size(o))
	}
	if _, err := e.Do(t.Context(), flow, o); err != nil {
		t.Errorf("1300 octets: %v", err)
	}
	o.Body = append(o.Body, 0)
	if _, err := e.Do(t.Context(), flow, o); err != ErrNeedsStream {
		t.Errorf("1301 octets: %v", err)
	}
	o.MaxDatagram = 1301
	if _, err := e.Do(t.Context(), flow, o); err != nil {
		t.Errorf("1301 octets by the caller's wish: %v", err)
	}
	o.Body = append(o.Body, make([]byte, MaxDatagram)...)
	o.MaxDatagram = 2 * MaxDatagram
	if _, err := e.Do(t.Context(), flow, o); err != ErrNeedsStream {
		t.Errorf("more than a datagram holds: %v", err)
	}
}

func TestDoOnAStreamTakesMore(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		c := b.call(somewhere)
		c.say(hello("keep"))
		c.hear()
		flow := <-b.flows
		go func() { c.say(respond(t, c.read(), 200)) }()
		o := testOutgoing
		o.Body = make([]byte, 60_000)
		if response, err := b.Do(t.Context(), flow, o); err != nil || response.Status != 200 {
			t.Errorf("%v, %v", response, err)
		}
		o.Body = make([]byte, maxHead+maxBody)
		if _, err := b.Do(t.Context(), flow, o); err != ErrTooLarge {
			t.Errorf("%v", err)
		}
		o.Body, o.URI = nil, "sip:a@b\r\n"
		if _, err := b.Do(t.Context(), flow, o); err != ErrUnsafe || !b.Connected(flow) {
			t.Errorf("%v", err)
		}
	})
}

// TestFlowIsOneConnection: whoever has the same addresses, or the same flow but
// for the ID, is somebody else.
func TestFlowIsOneConnection(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		first := b.call(somewhere)
		first.say(hello("keep1"))
		first.hear()
		flow := <-b.flows
		first.Close()
		<-b.closed
		second := b.call(somewhere)
		second.say(hello("keep2"))
		second.hear()
		next := <-b.flows
		if flow.Remote != next.Remote || flow.ID == next.ID || len(flow.ID) < 20 {
			t.Errorf("%v, then %v", flow, next)
		}
		made := next
		made.ID = ""
		for _, f := range []Flow{flow, made} {
			if _, err := b.Do(t.Context(), f, testOutgoing); err != ErrNoFlow || b.Connected(f) {
				t.Errorf("%v: %v", f, err)
			}
		}
		if !b.Connected(next) || !second.isOpen() {
			t.Error("the second connection suffered")
		}
	})
}

// TestStreamKeepsOrder: requests of one connection come to the handler in the
// order in which they were sent.
func TestStreamKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		e, c, stop := served(t, Config{Backlog: 2}, func(_ context.Context, x *Exchange) {
			got = append(got, x.CallID)
			time.Sleep(time.Millisecond)
			x.Answer(Reply{Status: 200})
		})
		var want []string
		var all strings.Builder
		for i := range 200 {
			want = append(want, fmt.Sprint(i))
			all.WriteString(hello(want[i]))
		}
		go c.say(all.String())
		for range want {
			c.hear()
		}
		stop()
		e.Close()
		if strings.Join(got, " ") != strings.Join(want, " ") || e.Counts().Overflows != 0 {
			t.Errorf("%v", got)
		}
	})
}

package sip

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func TestPardons(t *testing.T) {
	var p pardons
	for i := range maxPardons + 10 {
		p.grant(pardon{count: uint32(i)})
	}
	if len(p.granted) != maxPardons || len(p.ring) != maxPardons {
		t.Errorf("%d are kept", len(p.granted))
	}
	for count, want := range map[uint32]bool{9: false, 10: true, maxPardons + 9: true} {
		if got := p.use(pardon{count: count}); got != want {
			t.Errorf("%d: %t, want %t", count, got, want)
		}
		if p.use(pardon{count: count}) {
			t.Errorf("%d is good twice", count)
		}
	}
}

// inTransaction is the same request in another transaction: as a proxy, or a
// client that knows other ways, repeats it.
func inTransaction(n int, request string) string {
	return strings.Replace(request, "branch=z9hG4bK", fmt.Sprintf("branch=z9hG4bKother%d-", n), 1)
}

// TestRefusedForNowMayComeAgain: the very same request, from where it came, and
// nothing else under its credentials.
func TestRefusedForNowMayComeAgain(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, nil)
	c, elsewhere := newClient(t, d), newClient(t, d)
	c.login()
	request := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "Hello")
	say := func(c *client, n int, request, status string) {
		t.Helper()
		c.send(inTransaction(n, request))
		want(t, c.receive(), status)
	}
	for i, reason := range []message.Reason{message.StorageDown, message.Overloaded, message.Draining, message.Standby} {
		g.refuse(&message.Failure{Reason: reason, Temporary: true, RetryAfter: time.Second})
		say(c, i, request, "503 Service Unavailable")
	}
	g.refuse(message.FailForNow(message.ChargingFailed, "not now"))
	say(c, 10, request, "500 Server Internal Error")
	g.refuse(nil)
	for i, other := range []string{
		strings.Replace(request, "Hello", "Adieu", 1),
		strings.Replace(request, "CSeq: 2 ", "CSeq: 3 ", 1),
		strings.Replace(request, "Call-ID: call", "Call-ID: calls", 1),
		strings.Replace(request, ";tag=f", ";tag=g", 1),
	} {
		say(c, 20+i, other, "401 Unauthorized")
	}
	say(elsewhere, 30, request, "401 Unauthorized")
	say(c, 40, request, "202 Accepted")
	say(c, 41, request, "401 Unauthorized")

	request = c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "Hello")
	g.refuse(message.Fail(message.Forbidden, "no"))
	say(c, 50, request, "403 Forbidden")
	g.refuse(nil)
	say(c, 51, request, "401 Unauthorized")
}

// TestTooManyAtOnceMayComeAgain: what is refused because too much is under way
// is refused behind its credentials.
func TestTooManyAtOnceMayComeAgain(t *testing.T) {
	g := &gate{hold: make(chan struct{})}
	config := defaults
	config.Listen = []string{"udp://127.0.0.1:0"}
	d, err := New(t.Context(), plugin.Env{Instance: "sip"}, config)
	if err != nil {
		t.Fatal(err)
	}
	d.wire.Pending = 1
	serveDoor(t, g, d)
	c := newClient(t, d)
	c.login()
	c.send(c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "one"))
	second := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "two")
	c.send(second)
	want(t, c.receive(), "503 Service Unavailable")
	close(g.hold)
	want(t, c.receive(), "202 Accepted")
	c.send(second) // the same transaction even: it was never begun
	want(t, c.receive(), "202 Accepted")
}

// TestUnknownIsNotAnswered: whether a message was kept isn't known; its
// retransmission is handed in as what it is.
func TestUnknownIsNotAnswered(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		g := &gate{}
		d := openDoor(t, g, nil)
		c := newClientOver(t, d, network)
		c.login()
		g.refuse(message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown))
		request := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "Hello")
		for n := range 3 {
			c.send(request)
			waitFor(t, func() bool { return len(g.submitted()) == n+1 && d.Counts().Pending == 0 })
		}
		c.send(c.request("OPTIONS", bob, "", ""))
		want(t, c.receive(), "200 OK", "CSeq: 3 OPTIONS") // nothing was answered before
		g.refuse(nil)
		c.send(request)
		want(t, c.receive(), "202 Accepted")
		for _, a := range g.submitted() {
			if a.Key != g.submitted()[0].Key {
				t.Errorf("%s: the keys %q and %q", network, g.submitted()[0].Key, a.Key)
			}
		}
	}
}

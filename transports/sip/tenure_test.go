package sip

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// standby is what the gate of a node says that waits for the lease.
var standby = &message.Failure{Reason: message.Standby, Temporary: true, RetryAfter: time.Second}

// TestInheritedNonces: whoever was active before made them; they are good for a
// while, counted from when this node, and this door, began.
func TestInheritedNonces(t *testing.T) {
	now := time.Now()
	before := newNonces(time.Hour, testTenure, now.Add(-time.Hour))
	since := plugin.Tenure{Fence: 2, Since: now, Key: testTenure.Key}
	reloaded := plugin.Tenure{Fence: 1, Since: now.Add(-time.Hour), Key: testTenure.Key}
	for name, after := range map[string]*nonces{
		"a node that takes over, and started long ago": newNonces(time.Hour, since, now.Add(-time.Hour)),
		"a node that took over long ago, and reloads":  newNonces(time.Hour, reloaded, now),
	} {
		id, err := after.check(before.make("r", "here", "source", now), "r", now)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			source string
			after  time.Duration
			good   bool
		}{
			{"here", 0, true}, {"here", inheritedFor, true}, {"here", inheritedFor + time.Second, false}, {"elsewhere", 0, false},
		} {
			if inherited, good := after.inherited(id, c.source, now.Add(c.after)); !inherited || good != c.good {
				t.Errorf("%s: from %s after %s: inherited %t, good %t", name, c.source, c.after, inherited, good)
			}
		}
		id, err = after.check(after.make("r", "here", "source", now), "r", now)
		if inherited, good := after.inherited(id, "elsewhere", now.Add(time.Hour)); err != nil || inherited || !good {
			t.Errorf("%s: its own: inherited %t, good %t, %v", name, inherited, good, err)
		}
	}
}

// TestTenuresForgetAtAChange: a node that was active, wasn't, and is again
// doesn't know which counts were used meanwhile, nor takes its own for known.
func TestTenuresForgetAtAChange(t *testing.T) {
	now := time.Now()
	all := tenures{lifetime: time.Hour, opened: now.Add(-time.Hour)}
	first := all.under(plugin.Tenure{Fence: 1, Since: now.Add(-time.Hour)})
	id, err := first.check(first.make("r", "here", "source", now), "r", now)
	if err != nil || first.use("a", id, 1, now) != nil || first.use("a", id, 1, now) != errReplay {
		t.Fatalf("a count is used once: %v", err)
	}
	second := all.under(plugin.Tenure{Fence: 3, Since: now})
	if inherited, good := second.inherited(id, "here", now); second == first || !inherited || !good {
		t.Errorf("inherited %t, good %t", inherited, good)
	}
	if err := second.use("a", id, 1, now); err != nil {
		t.Errorf("a count that may not have been used: %v", err)
	}
	if err := second.use("a", id, 1, now); err != errReplay {
		t.Errorf("and was now: %v", err)
	}
	for _, fence := range []plugin.Fence{3, 1} {
		if all.under(plugin.Tenure{Fence: fence, Since: now}) != second {
			t.Errorf("fence %d begins anew", fence)
		}
	}
	if n := testing.AllocsPerRun(100, func() { all.under(plugin.Tenure{Fence: 3}) }); n > 0 {
		t.Errorf("%v allocations for each request", n)
	}
}

// onPortOf dials a door from the port of a client that has gone: its requests
// come from the source that they came from before.
func onPortOf(t *testing.T, c *client, d *Door) *client {
	t.Helper()
	local := c.addr()
	c.conn.Close()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(addressOf(d, "udp")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	next := *c
	next.conn = &packets{Conn: conn, network: "udp"}
	return &next
}

// TestRepeatAtTheNextNode: a message that was under way when a node died, and is
// repeated as it was to the next, passes there, once; from elsewhere it doesn't,
// and a registration doesn't.
func TestRepeatAtTheNextNode(t *testing.T) {
	tenure := func(fence plugin.Fence, since time.Time) *gate {
		return &gate{tenure: plugin.Tenure{Fence: fence, Since: time.Now(), Key: [32]byte{7}}}
	}
	taken := tenure(2, time.Now())
	next := openDoor(t, taken, nil)
	c := newClient(t, openDoor(t, tenure(1, time.Now()), nil))
	c.login()
	message := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "")
	const registrar = "sip:sip.example.com"
	register := c.request("REGISTER", registrar, c.credentials("REGISTER", registrar), "")
	c.send(message)
	want(t, c.receive(), "202 Accepted")

	elsewhere := newClient(t, next)
	elsewhere.send(message)
	want(t, elsewhere.receive(), "401 Unauthorized", "stale=true")

	c = onPortOf(t, c, next)
	c.send(message)
	want(t, c.receive(), "202 Accepted")
	c.send(register)
	want(t, c.receive(), "401 Unauthorized", "stale=true")
	c.send(strings.Replace(message, "z9hG4bK", "z9hG4bKx", 1)) // another transaction, the same count
	want(t, c.receive(), "401 Unauthorized", "stale=true")

	// This node loses the lease and gets it back: what it knew is forgotten.
	taken.becomes(nil, plugin.Tenure{Fence: 4, Since: time.Now(), Key: [32]byte{7}})
	c.send(strings.Replace(message, "z9hG4bK", "z9hG4bKy", 1))
	want(t, c.receive(), "202 Accepted")
	c.login()
	want(t, c.register(""), "200 OK")
}

// TestStandbyAnswers503 to all that can be answered, whoever asks, without
// remembering it, and again when it is active takes the same request.
func TestStandbyAnswers503(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		for _, failure := range []*message.Failure{standby, {Reason: message.Draining, Temporary: true, RetryAfter: time.Second}} {
			g := &gate{}
			d := openDoor(t, g, nil)
			c := newClientOver(t, d, network)
			c.login()
			requests := []string{c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "x")}
			for _, method := range []string{"REGISTER", "OPTIONS", "BYE", "INVITE", "CANCEL", "WHATEVER"} {
				requests = append(requests, c.request(method, "sip:sip.example.com", "", ""))
			}
			g.becomes(failure, plugin.Tenure{})
			c.send(c.request("ACK", bob, "", "")) // is never answered
			for _, request := range requests {
				c.send(request)
				want(t, c.receive(), "503 Service Unavailable", "Retry-After: 1\r\n")
			}
			if n := d.Counts().Pending; n != 0 {
				t.Errorf("%s: %d transactions", network, n)
			}
			g.becomes(nil, plugin.Tenure{Fence: 1})
			c.send(requests[0])
			want(t, c.receive(), "202 Accepted") // on the same connection, of the same transaction
		}
	}
}

// TestLeaseLostMeanwhile: a request that has found an active node which then is
// none gets 503 and no challenge.
func TestLeaseLostMeanwhile(t *testing.T) {
	c := newClient(t, openDoor(t, &gate{lost: standby}, nil))
	c.send(c.request("REGISTER", "sip:sip.example.com", "", ""))
	want(t, c.receive(), "503 Service Unavailable")
}

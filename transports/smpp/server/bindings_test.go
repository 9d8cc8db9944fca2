package server

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// TestBindingFollowsSessions: an account can be reached from its first receiver to
// the end of its last one.
func TestBindingFollowsSessions(t *testing.T) {
	g := newGate()
	d := serve(t, g, nil)
	boundAs(t, d, pdu.BindTransmitterID)
	one := boundAs(t, d, pdu.BindReceiverID)
	r := g.nextChange(t)
	own := acme().Identities[0]
	if len(r.Bindings) != 1 || !r.All || r.AOR != own || r.Account.ID != "acc-acme" {
		t.Fatalf("%+v", r)
	}
	b, window := r.Bindings[0], Defaults.Window
	if b.Contact != "smpp:acme" || b.Device != "acme" || b.Flow != "n1" || b.AOR != own || b.Account != "acc-acme" || b.Window != window {
		t.Errorf("%+v", b)
	}
	if left := time.Until(b.Expires); left > bindingFor || left < bindingFor-time.Minute {
		t.Errorf("it lasts %s", left)
	}
	two := boundAs(t, d, pdu.BindTransceiverID)
	second := g.nextChange(t)
	if len(second.Bindings) != 1 || second.Bindings[0].Window != 2*window || second.CallID != r.CallID || second.CSeq <= r.CSeq {
		t.Errorf("%+v after %+v", second, r)
	}
	one.conn.Close()
	if r = g.nextChange(t); len(r.Bindings) != 1 || r.Bindings[0].Window != window {
		t.Errorf("with a receiver left: %+v", r)
	}
	two.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
	if r = g.nextChange(t); len(r.Bindings) != 0 || !r.All {
		t.Errorf("after the last one: %+v", r)
	}
	waitFor(t, "nothing to be left", func() bool { return len(d.bindings.accounts()) == 0 })
}

// TestBindingIsRefreshed, before it ends, and what failed is repeated.
func TestBindingIsRefreshed(t *testing.T) {
	g := newGate()
	g.refuses = message.FailForNow(message.StorageDown, "down")
	d := serve(t, g, nil)
	e := boundAs(t, d, pdu.BindReceiverID)
	waitFor(t, "the binding to be due", func() bool { return len(d.bindings.accounts()) == 1 })
	now := time.Now()
	g.set(func() { g.refuses = nil })
	waitFor(t, "the first try", func() bool { return d.bindings.isTold("acc-acme") })
	d.bindings.refresh(now.Add(lookEvery + time.Second))
	g.nextChange(t)
	d.bindings.refresh(now.Add(refreshEvery))
	if n := len(g.changes); n != 1 {
		t.Errorf("refreshed %d times too early", n-1)
	}
	d.bindings.refresh(now.Add(refreshEvery + 2*lookEvery))
	if r := g.nextChange(t); len(r.Bindings) != 1 {
		t.Errorf("%+v", r)
	}
	g.set(func() { g.refuses = message.FailForNow(message.StorageDown, "down") })
	e.conn.Close()
	waitFor(t, "the end", func() bool { return d.table.count() == 0 })
	waitFor(t, "the try to end it", func() bool { return d.bindings.idle() })
	g.set(func() { g.refuses = nil })
	d.bindings.refresh(now.Add(2 * refreshEvery))
	if r := g.nextChange(t); len(r.Bindings) != 0 {
		t.Errorf("%+v", r)
	}
}

// isTold tells whether it was tried to tell the engine of an account.
func (bs *bindings) isTold(account string) bool {
	k := bs.hold(account)
	defer bs.release(account, k)
	k.turn.Lock()
	defer k.turn.Unlock()
	return k.last != nil
}

// idle tells whether nobody is about to tell anything.
func (bs *bindings) idle() bool {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, k := range bs.known {
		if k.users > 0 {
			return false
		}
	}
	return true
}

// TestBindingOfAnotherNode: who isn't active tells nothing, and forgets who has
// gone.
func TestBindingOfAnotherNode(t *testing.T) {
	g := newGate()
	d := serve(t, g, nil)
	e := boundAs(t, d, pdu.BindReceiverID)
	g.nextChange(t)
	g.set(func() { g.inactive = message.FailForNow(message.StorageDown, "down") })
	e.conn.Close()
	waitFor(t, "it to be forgotten", func() bool { return len(d.bindings.accounts()) == 0 })
	if n := len(g.changes); n != 1 {
		t.Errorf("%d changes", n)
	}
}

// TestOutbind: an ESME that isn't there is told to bind when something is there for
// it, once a minute at most, and gets it over the connection that we made.
func TestOutbind(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	g := newGate()
	g.attribute(attributeOutbind, listener.Addr().String())
	d := serve(t, g, func(c *Config) { c.Outbind.Password = "secret" })
	e := boundAs(t, d, pdu.BindReceiverID)
	g.nextChange(t)
	e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
	r := g.nextChange(t)
	if len(r.Bindings) != 1 || time.Until(r.Bindings[0].Expires) < 24*time.Hour {
		t.Fatalf("after the last session: %+v", r)
	}
	route := plugin.Route{Transport: "esmes", Reference: "r", Binding: &r.Bindings[0]}
	for range 3 {
		if _, err := d.Send(t.Context(), outgoing("hello"), route); message.AsFailure(err).Reason != message.Unavailable {
			t.Errorf("%v", err)
		}
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	called := newESME(t, conn)
	q := called.next()
	if body, ok := q.Body.(*wire.Outbind); !ok || body.SystemID != "imgate" || body.Password != "secret" {
		t.Fatalf("%+v", q)
	}
	called.want(bindAs(pdu.BindReceiverID, "acme", "acme"), wire.ROK)
	if r = g.nextChange(t); len(r.Bindings) != 1 || r.Bindings[0].Flow != "n1" {
		t.Errorf("%+v", r)
	}
	done := sendLater(t.Context(), d, outgoing("hello"), route)
	called.answer(called.next(), wire.ROK)
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
	listener.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond))
	if conn, err := listener.Accept(); err == nil {
		conn.Close()
		t.Error("it is told twice in a minute")
	}
}

func TestKnocks(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var k knocks
	if !k.may("a", now) || k.may("a", now.Add(outbindEvery-1)) || !k.may("b", now) || !k.may("a", now.Add(outbindEvery)) {
		t.Error("not once a minute each")
	}
	if len(k.last) != 1 {
		t.Errorf("%v", k.last)
	}
}

// TestInactiveNode: ESMEs are unbound, after what is under way is answered, and
// find who is active.
func TestInactiveNode(t *testing.T) {
	g := newGate()
	hold := make(chan struct{})
	g.ticket = func(int) plugin.Ticket { return ticket{hold: hold} }
	d := serve(t, g, nil)
	e := boundAs(t, d, pdu.BindTransceiverID)
	answer, err := e.say(shortOf(pdu.SubmitSMID, number1, number2, "x"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the message", func() bool { return len(g.arrived()) == 1 })
	g.set(func() { g.inactive = message.FailForNow(message.Draining, "") })
	select {
	case <-e.peer.gone:
		t.Error("hung up before the answer")
	case q := <-e.heard:
		t.Errorf("%s before the answer", wire.Name(q.ID))
	case <-time.After(2 * watchEvery):
	}
	close(hold)
	if q := e.next(); q.ID != pdu.UnbindID {
		t.Errorf("%s", wire.Name(q.ID))
	}
	if a, err := e.await(t.Context(), answer); err != nil || a.Status != wire.ROK {
		t.Errorf("%+v, %v", a, err)
	}
	e.ends()
	dial(t, d).want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.RSysErr)
}

func TestFarewell(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		reason message.Reason
		stay   time.Duration
		leaves bool
	}{
		{"", 0, false},
		{message.Standby, stayFor, true},
		{message.Draining, 0, true},
		{message.StorageDown, stayWithoutStorage, true},
		{message.Overloaded, 0, false},
	} {
		var why *message.Failure
		if test.reason != "" {
			why = message.FailForNow(test.reason, "")
		}
		var f farewell
		if f.due(why, now) && test.stay > 0 {
			t.Errorf("%s: they leave at once", test.reason)
		}
		if test.stay > 0 && f.due(why, now.Add(test.stay-1)) {
			t.Errorf("%s: they leave too early", test.reason)
		}
		if f.due(why, now.Add(test.stay)) != test.leaves {
			t.Errorf("%s: leaves %t", test.reason, !test.leaves)
		}
		f.due(nil, now)
		if f.reason != "" {
			t.Error("it isn't forgotten when the node is active again")
		}
	}
}

// TestEndOfServe: ESMEs are unbound, who doesn't answer is left, and the next door
// opens on the same address.
func TestEndOfServe(t *testing.T) {
	g := newGate()
	c := Defaults
	c.Listen = []string{"tcp://127.0.0.1:0"}
	d, err := New(t.Context(), plugin.Env{Instance: "esmes"}, c)
	if err != nil {
		t.Fatal(err)
	}
	end := serveDoor(t, g, d)
	polite := boundAs(t, d, pdu.BindTransceiverID)
	deaf := dial(t, d)
	deaf.want(bindAs(pdu.BindTransmitterID, "acme", "acme"), wire.ROK)
	deaf.mu.Lock() // it answers nothing
	began := time.Now()
	c.Listen = []string{"tcp://" + d.Addrs()[0].String()}
	next, err := New(t.Context(), plugin.Env{Instance: "esmes"}, c)
	if err != nil {
		t.Fatal(err)
	}
	end()
	deaf.mu.Unlock()
	if took := time.Since(began); took > 2*partWithin {
		t.Errorf("it took %s", took)
	}
	if q := polite.next(); q.ID != pdu.UnbindID {
		t.Errorf("%s", wire.Name(q.ID))
	}
	polite.ends()
	deaf.ends()
	if r := g.nextChange(t); len(r.Bindings) != 1 || len(g.changes) != 1 {
		t.Errorf("%+v", g.changes)
	}
	serveDoor(t, newGate(), next)
	boundAs(t, next, pdu.BindTransceiverID)
}

// TestAddressTaken: Serve says why the door can't be opened, and lets go of what it
// has.
func TestAddressTaken(t *testing.T) {
	d := serve(t, newGate(), nil)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	c := Defaults
	c.Listen = []string{"tcp://" + free.Addr().String(), "tcp://" + d.Addrs()[0].String()}
	other, err := New(t.Context(), plugin.Env{}, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Serve(context.WithoutCancel(t.Context()), newGate()); err == nil {
		t.Error("served twice on one address")
	}
	again, err := net.Listen("tcp", free.Addr().String())
	if err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
}

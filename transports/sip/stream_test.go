package sip

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestRegisterAndMessageOverTCP(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, nil)
	c := newClientOver(t, d, "tcp")
	c.login()
	want(t, c.register("Contact: <sip:1001@192.0.2.9:5060;transport=tcp>\r\n"), "200 OK", "Contact: <sip:1001@192.0.2.9:5060;transport=tcp>;expires=3600\r\n")
	want(t, c.message("", strings.Repeat("long ", 4000)), "202 Accepted")
	if a := g.submitted(); len(a) != 1 || len(a[0].Message.Body) != 20_000 || a[0].Call != "call" {
		t.Errorf("%d messages", len(a))
	}
	r := plugin.Route{Reference: "ref", Binding: &g.bound()[0]}
	sent := d.sendLater(t, testMessage(), r)
	got := c.receive()
	if !strings.HasPrefix(got, "MESSAGE sip:1001@192.0.2.9:5060;transport=tcp SIP/2.0\r\n") || !strings.Contains(got, "Via: SIP/2.0/TCP ") {
		t.Error(got)
	}
	c.send(answer(got, "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}
}

// TestClosedConnectionIsKnownAtOnce: nobody waits for a device whose connection
// has ended, nobody calls it back, and it is reached once it has registered
// again.
func TestClosedConnectionIsKnownAtOnce(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, nil)
	c := newClientOver(t, d, "tcp")
	c.login()
	const contact = "Contact: <sip:1001@192.0.2.9;transport=tcp>;+sip.instance=\"<urn:uuid:1>\"\r\n"
	want(t, c.register(contact), "200 OK")
	binding := g.bound()[0]
	flow, err := parseWay(binding.Flow)
	if err != nil {
		t.Fatal(err)
	}
	c.conn.Close()
	waitFor(t, func() bool { return !d.endpoint.Load().Connected(flow.flow) })
	if _, err := d.Send(t.Context(), testMessage(), plugin.Route{Reference: "ref", Binding: &binding}); !isFailure(err, message.Unavailable, true) {
		t.Errorf("%v", err)
	}
	waitFor(t, func() bool { _, found := d.streams.of(&binding, time.Now()); return !found })

	again := newClientOver(t, d, "tcp")
	again.login()
	again.cseq = c.cseq
	want(t, again.register(contact), "200 OK")
	sent := d.sendLater(t, testMessage(), plugin.Route{Reference: "ref", Binding: &g.bound()[0]})
	again.send(answer(again.receive(), "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}
}

// TestClientThatReconnects: bindings over connections that are gone end, so that a
// client that names no device, and has a new port each time, doesn't run into a
// limit.
func TestClientThatReconnects(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, nil)
	udp := newClient(t, d)
	udp.login()
	want(t, udp.register("Contact: <sip:1001@192.0.2.9:1>\r\n"), "200 OK")
	for i := range 3 {
		c := newClientOver(t, d, "tcp")
		c.login()
		c.cseq = 10 * i
		contact := fmt.Sprintf("<sip:1001@192.0.2.9:500%d;transport=tcp>", i)
		got := c.register("Contact: " + contact + "\r\n")
		want(t, got, "200 OK", "Contact: "+contact+";", "Contact: <sip:1001@192.0.2.9:1>;")
		if n := strings.Count(got, "Contact: "); n != 2 || len(g.bound()) != 2 {
			t.Errorf("connection %d: %d contacts, %d bindings", i, n, len(g.bound()))
		}
		c.conn.Close()
		waitFor(t, func() bool { return len(g.bound()) == 1 })
	}
}

func flowOf(t *testing.T, b plugin.Binding) wire.Flow {
	t.Helper()
	w, err := parseWay(b.Flow)
	if err != nil {
		t.Fatal(err)
	}
	return w.flow
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatal("it didn't happen within 10 s")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestUDPBindingOutlivesARestart, and one over TCP doesn't.
func TestUDPBindingOutlivesARestart(t *testing.T) {
	g := &gate{}
	var udp *client
	var listen []string
	var bindings []plugin.Binding
	test := t
	t.Run("before", func(t *testing.T) {
		d := openDoor(t, g, nil)
		listen = []string{"udp://" + addressOf(d, "udp").String(), "tcp://" + addressOf(d, "tcp").String()}
		udp = newClient(test, d)
		for _, c := range []*client{udp, newClientOver(t, d, "tcp")} {
			c.login()
			want(t, c.register(fmt.Sprintf("Contact: <sip:1001@%s>\r\n", c.addr())), "200 OK")
		}
		bindings = g.bound()
	})
	d := openDoor(t, g, func(c *Config) { c.Listen = listen })
	sent := d.sendLater(t, testMessage(), plugin.Route{Reference: "ref", Binding: &bindings[0]})
	udp.send(answer(udp.receive(), "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}
	if _, err := d.Send(t.Context(), testMessage(), plugin.Route{Reference: "ref", Binding: &bindings[1]}); !isFailure(err, message.Unavailable, true) {
		t.Errorf("%v", err)
	}
}

// TestLargeMessages: what is too large for UDP goes over a connection of the
// same device, else over UDP up to the limit.
func TestLargeMessages(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, func(c *Config) { c.Limits.UDPMessage = 4000 })
	udp, tcp := newClient(t, d), newClientOver(t, d, "tcp")
	udp.login()
	tcp.login()
	const contact = "Contact: <sip:1001@192.0.2.9:%s>;+sip.instance=\"<urn:uuid:%d>\";reg-id=%d\r\n"
	want(t, udp.register(fmt.Sprintf(contact, "1", 1, 1)), "200 OK")
	tcp.cseq = udp.cseq
	want(t, tcp.register(fmt.Sprintf(contact, "2;transport=tcp", 1, 2)), "200 OK")
	udp.cseq = tcp.cseq
	want(t, udp.register(fmt.Sprintf(contact, "3", 2, 1)), "200 OK")
	both, alone := g.bound()[0], g.bound()[2]

	for _, test := range []struct {
		name    string
		size    int
		binding plugin.Binding
		over    *client // nil: it is too large
		uri     string
	}{
		{"small", 100, both, udp, "sip:1001@192.0.2.9:1"},
		{"large", 2000, both, tcp, "sip:1001@192.0.2.9:2;transport=tcp"},
		{"very large", 60_000, both, tcp, "sip:1001@192.0.2.9:2;transport=tcp"},
		{"large, without TCP", 2000, alone, udp, "sip:1001@192.0.2.9:3"},
		{"very large, without TCP", 4000, alone, nil, ""},
	} {
		m := testMessage()
		m.Body = []byte(strings.Repeat("x", test.size))
		sent := d.sendLater(t, m, plugin.Route{Reference: "ref", Binding: &test.binding})
		if test.over == nil {
			if r := <-sent; !isFailure(r.err, message.TooLarge, false) {
				t.Errorf("%s: %v", test.name, r.err)
			}
			continue
		}
		got := test.over.receive()
		if !strings.HasPrefix(got, "MESSAGE "+test.uri+" SIP/2.0\r\n") {
			t.Errorf("%s: %s", test.name, got)
		}
		test.over.send(answer(got, "200 OK"))
		if r := <-sent; r.err != nil {
			t.Errorf("%s: %v", test.name, r.err)
		}
	}
	tcp.cseq = udp.cseq
	want(t, tcp.register(fmt.Sprintf(contact, "2;transport=tcp", 1, 2)+"Expires: 0\r\n"), "200 OK")
	if _, found := d.streams.of(&both, time.Now()); found {
		t.Error("a connection without a registration is used")
	}
}

func TestStreams(t *testing.T) {
	now := time.Now()
	s := newStreams()
	var reg string
	register := func(flow, instance, contact string, lifetime time.Duration, all bool) {
		r := plugin.Registration{Account: account1001, AOR: account1001.Identities[0], All: all}
		if !all {
			r.Bindings = []plugin.Binding{{Device: instance, RegID: reg, Contact: contact, Expires: now.Add(lifetime)}}
		}
		s.note(r, way{flow: wire.Flow{Network: "tcp", ID: flow}}, now)
	}
	of := func(instance string, at time.Time) string {
		o, _ := s.of(&plugin.Binding{Account: account1001.ID, AOR: account1001.Identities[0], Device: instance}, at)
		return o.flow.ID
	}
	register("a", "<1>", "sip:x", time.Minute, false)
	reg = "2"
	register("b", "<1>", "sip:y", time.Hour, false)
	reg = ""
	register("b", "", "sip:z", time.Hour, false)
	if got := of("<1>", now); got != "a" {
		t.Errorf("%q", got)
	}
	if got := of("<1>", now.Add(2*time.Minute)); got != "b" {
		t.Errorf("after the first has expired: %q", got)
	}
	register("a", "<1>", "sip:x", 0, false)
	s.closed(wire.Flow{Network: "tcp", ID: "b"})
	if got := of("<1>", now) + of("", now); got != "" {
		t.Errorf("%q", got)
	}
	register("c", "<1>", "sip:x", time.Minute, false)
	register("c", "", "", 0, true)
	for i := range 2 * maxPerFlow {
		register("d", fmt.Sprint(i), fmt.Sprint("sip:", i), time.Minute, false)
	}
	if n := len(s.accounts[account1001.ID]); n != maxPerFlow {
		t.Errorf("%d devices of a connection are remembered", n)
	}
	s.closed(wire.Flow{Network: "tcp", ID: "d"})
	s.closed(wire.Flow{Network: "tcp", ID: "a"})
	s.closed(wire.Flow{Network: "tcp", ID: "c"})
	if len(s.accounts)+len(s.flows)+len(s.proxies)+len(s.bound) != 0 {
		t.Errorf("%v %v are left", s.accounts, s.flows)
	}
}

package sip

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// browser is the contact of a client that can't be connected to (RFC 7118 §5.2).
const browser = "Supported: path, outbound\r\nContact: <sip:1001@k3x9.invalid;transport=ws;ob>;+sip.instance=\"<urn:uuid:%d>\";reg-id=%d\r\n"

// TestFlows: over each network a client registers, sends, is sent to over its own
// connection and nothing else, and when that has ended the gate is told once.
func TestFlows(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		for _, network := range []string{"tcp", "tls", "ws", "wss"} {
			t.Run(network+" "+host, func(t *testing.T) {
				g := &gate{}
				d := openDoor(t, g, onAll(t, host))
				c := newClientOver(t, d, network)
				c.login()
				want(t, c.register(fmt.Sprintf(browser, 1, 1)), "200 OK", "Require: outbound\r\n", "Flow-Timer: 120\r\n", "sip:1001@k3x9.invalid;transport=ws;ob>")
				want(t, c.message("", "hello"), "202 Accepted")
				want(t, c.message("", strings.Repeat("long ", 4000)), "202 Accepted")

				binding := g.bound()[0]
				m := testMessage()
				m.Body = []byte(strings.Repeat("x", 30_000))
				sent := d.sendLater(t, m, plugin.Route{Reference: "ref", Binding: &binding})
				request := c.receive()
				line, via := "MESSAGE sip:1001@k3x9.invalid;transport=ws;ob SIP/2.0\r\n", "Via: SIP/2.0/"+strings.ToUpper(network)+" "+host+":"
				if !strings.HasPrefix(request, line) || !strings.Contains(request, via) || !strings.HasSuffix(request, string(m.Body)) {
					t.Errorf("%.400s", request)
				}
				c.send(answer(strings.TrimSuffix(request, string(m.Body)), "200 OK"))
				if r := <-sent; r.err != nil {
					t.Error(r.err)
				}

				c.conn.Close()
				waitFor(t, func() bool { return len(g.lostFlows()) > 0 })
				if got := g.lostFlows(); len(got) != 1 || got[0] != binding.Flow || len(g.bound()) != 0 {
					t.Errorf("lost %v, %d bindings", got, len(g.bound()))
				}
				if _, err := d.Send(t.Context(), testMessage(), plugin.Route{Reference: "ref", Binding: &binding}); !isFailure(err, message.Unavailable, true) {
					t.Errorf("%v", err)
				}
			})
		}
	}
}

// TestReplacedFlowIsClosed once nobody else is on it.
func TestReplacedFlowIsClosed(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, onAll(t, "127.0.0.1"))
	old, fresh := newClientOver(t, d, "ws"), newClientOver(t, d, "tls")
	old.login()
	fresh.login()
	for i := range 2 {
		contact := strings.Replace(browser, "k3x9", fmt.Sprintf("old%d", i), 1)
		want(t, old.register(fmt.Sprintf(contact, i, 1)), "200 OK")
	}
	flow := flowOf(t, g.bound()[0])
	fresh.cseq = 100
	register := func(device, reg int) {
		t.Helper()
		contact := strings.Replace(browser, "k3x9", fmt.Sprintf("new%d-%d", device, reg), 1)
		want(t, fresh.register(fmt.Sprintf(contact, device, reg)), "200 OK")
	}
	register(0, 2) // another flow of the same device
	register(0, 1)
	want(t, old.message("", "hello"), "202 Accepted")
	if !d.endpoint.Load().Connected(flow) {
		t.Fatal("the other device's flow is closed")
	}
	register(1, 1)
	waitFor(t, func() bool { return !d.endpoint.Load().Connected(flow) })
	if _, err := old.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection isn't closed")
	}
	want(t, fresh.message("", "hello"), "202 Accepted")
}

// TestReplacedFlows: who else is on a connection keeps it open.
func TestReplacedFlows(t *testing.T) {
	now := time.Now()
	flow := func(id string) wire.Flow { return wire.Flow{Network: "tls", ID: id} }
	bind := func(device, reg, contact string) plugin.Binding {
		return plugin.Binding{Device: device, RegID: reg, Contact: contact, Expires: now.Add(time.Hour)}
	}
	for name, test := range map[string]struct {
		first, then []plugin.Binding
		over        wire.Flow
		replaces    bool
	}{
		"the same flow":           {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{bind("d", "1", "a")}, flow("old"), false},
		"another connection":      {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{bind("d", "1", "b")}, flow("new"), true},
		"a peer's own connection": {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{bind("d", "1", "b")}, flow("new"), false},
		"without a reg-id":        {[]plugin.Binding{bind("d", "", "a")}, []plugin.Binding{bind("d", "", "b")}, flow("new"), true},
		"the same contact":        {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{bind("d", "2", "a")}, flow("new"), true},
		"another flow":            {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{bind("d", "2", "b")}, flow("new"), false},
		"another device":          {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{bind("e", "1", "b")}, flow("new"), false},
		"nobody says who":         {[]plugin.Binding{bind("", "", "a")}, []plugin.Binding{bind("", "", "a")}, flow("new"), false},
		"somebody else besides":   {[]plugin.Binding{bind("d", "1", "a"), bind("e", "1", "c")}, []plugin.Binding{bind("d", "1", "b")}, flow("new"), false},
		"somebody unknown":        {[]plugin.Binding{bind("d", "1", "a"), bind("", "", "c")}, []plugin.Binding{bind("d", "1", "b")}, flow("new"), false},
		"over UDP":                {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{bind("d", "1", "b")}, wire.Flow{Network: "udp"}, false},
		"the end of the binding":  {[]plugin.Binding{bind("d", "1", "a")}, []plugin.Binding{{Device: "d", RegID: "1", Contact: "a"}}, flow("new"), false},
	} {
		s := newStreams()
		r := plugin.Registration{Account: account1001, AOR: account1001.Identities[0], Bindings: test.first}
		s.note(r, way{flow: flow("old")}, now)
		if name != "a peer's own connection" {
			s.noteClient(flow("old"))
		}
		r.Bindings = test.then
		replaced := s.note(r, way{flow: test.over}, now)
		if slices.Contains(replaced, flow("old")) != test.replaces {
			t.Errorf("%s: %v", name, replaced)
		}
	}
}

// TestOutbound: only a client that knows of flows is told of them, and nobody
// behind a proxy that doesn't.
func TestOutbound(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, edge)
	const (
		contact  = "Contact: <sip:1001@192.0.2.9>;+sip.instance=\"<urn:uuid:1>\";reg-id=1\r\n"
		supports = "Supported: outbound, path\r\n"
	)
	for _, test := range []struct {
		network, headers string
		outbound, timer  bool
	}{
		{"tcp", contact + supports, true, true},
		{"tcp", contact + "Require: outbound\r\n" + supports, true, true},
		{"tcp", contact, false, false},
		{"tcp", "Contact: <sip:1001@192.0.2.9>;+sip.instance=\"<urn:uuid:1>\"\r\n" + supports, false, false},
		{"tcp", supports, false, false},
		{"udp", contact + supports, true, false},
		{"udp", contact + supports + "Path: <sip:core.example.com;lr>, <sip:t@edge.example.com;lr;ob>\r\n", true, false},
		{"udp", contact + supports + "Path: <sip:t@edge.example.com;lr;ob>, <sip:old.example.com;lr>\r\n", false, false},
		{"tcp", contact + supports + "Via: SIP/2.0/TCP 192.0.2.9\r\n", false, false},
	} {
		c := newClientOver(t, d, test.network)
		c.login()
		got := c.register(test.headers)
		want(t, got, "200 OK")
		if strings.Contains(got, "Require: outbound\r\n") != test.outbound || strings.Contains(got, "Flow-Timer: 120\r\n") != test.timer {
			t.Errorf("%s %q: %s", test.network, test.headers, got)
		}
	}
	c := newClient(t, d)
	c.login()
	want(t, c.message("Require: outbound\r\n", "hello"), "420 Bad Extension", "Unsupported: outbound\r\n")
}

// TestFlowsOfBefore: bindings over connections that this door never had are found
// gone when something is to be sent, or with the next registration.
func TestFlowsOfBefore(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, func(c *Config) { c.PushProviders = []string{"fcm"} })
	dead := func(id string) plugin.Binding {
		return plugin.Binding{
			Account: account1001.ID, AOR: account1001.Identities[0], Transport: "sip", Contact: "sip:" + id + "@192.0.2.9", Q: 1000,
			Flow: "wss;127.0.0.1:443;127.0.0.1:1;" + id, Expires: time.Now().Add(time.Hour),
		}
	}
	proxied, sleeper := dead("c"), dead("d")
	proxied.Flow += " <sip:edge.example.com;lr>"
	sleeper.Push = plugin.Push{Provider: "fcm", ID: "1"}
	g.bind(dead("a"), dead("b"), proxied, sleeper)
	for _, b := range g.bound()[0:3:3] {
		if _, err := d.Send(t.Context(), testMessage(), plugin.Route{Reference: "ref", Binding: &b}); !isFailure(err, message.Unavailable, true) {
			t.Errorf("%v", err)
		}
		if b.Contact == dead("a").Contact {
			waitFor(t, func() bool { return len(g.lostFlows()) == 1 })
		}
	}
	waitFor(t, func() bool { return len(g.lostFlows()) == 2 })
	if len(g.bound()) != 2 {
		t.Errorf("%v", g.bound())
	}
	g.bind(append(g.bound(), dead("e"))...)
	c := newClient(t, d)
	c.login()
	got := c.register("Contact: <sip:1001@192.0.2.9>\r\n")
	if strings.Contains(got, "sip:e@") || !strings.Contains(got, "sip:c@") || !strings.Contains(got, "sip:d@") {
		t.Error(got)
	}
	waitFor(t, func() bool { return len(g.lostFlows()) == 4 })
	for _, b := range g.bound() {
		if b.Asleep != (b.Push != plugin.Push{}) {
			t.Errorf("%+v", b)
		}
	}
	want(t, c.register(""), "200 OK", "sip:d@")
	if n := len(g.lostFlows()); n != 4 {
		t.Errorf("%d losses: who sleeps is told of again", n)
	}
}

// TestUDPIsNeverLost: over UDP there is nothing that could be gone, if the door has
// no socket of that family now: it may have one again.
func TestUDPIsNeverLost(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, func(c *Config) { c.Listen = []string{"tcp://127.0.0.1:0"} })
	over := func(flow string) plugin.Binding {
		return plugin.Binding{Account: account1001.ID, AOR: account1001.Identities[0], Transport: "sip", Contact: "sip:a@192.0.2.9", Flow: flow}
	}
	const connection = "tcp;127.0.0.1:5060;127.0.0.1:1;gone"
	for _, b := range []plugin.Binding{over("udp;127.0.0.1:5060;127.0.0.1:1"), over(connection)} {
		if _, err := d.Send(t.Context(), testMessage(), plugin.Route{Reference: "ref", Binding: &b}); !isFailure(err, message.Unavailable, true) {
			t.Errorf("%s: %v", b.Flow, err)
		}
	}
	waitFor(t, func() bool { return slices.Contains(g.lostFlows(), connection) })
	d.losses.close()
	if got := g.lostFlows(); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// TestStandbyLosesNothing: whoever leaves it registers with the active node, and
// until then his bindings are that node's.
func TestStandbyLosesNothing(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, nil)
	c := newClientOver(t, d, "tcp")
	c.login()
	want(t, c.register("Contact: <sip:1001@192.0.2.9>\r\n"), "200 OK")
	g.becomes(message.FailForNow(message.Standby, "standby"), plugin.Tenure{})
	c.conn.Close()
	waitFor(t, func() bool { return d.streams.countClients() == 0 })
	if got := g.lostFlows(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// slowGate takes a registration in when a test lets it.
type slowGate struct {
	*gate
	began chan plugin.Registration
	goOn  chan struct{}
}

func (g *slowGate) Register(ctx context.Context, r plugin.Registration) ([]plugin.Binding, error) {
	g.began <- r
	<-g.goOn
	return g.gate.Register(ctx, r)
}

// TestConnectionEndsWhileItRegisters: the gate is told once it knows of the flow.
func TestConnectionEndsWhileItRegisters(t *testing.T) {
	g := &slowGate{&gate{ready: make(chan struct{})}, make(chan plugin.Registration), make(chan struct{})}
	config := defaults
	config.Listen = []string{"tcp://127.0.0.1:0"}
	d, err := New(t.Context(), plugin.Env{Instance: "sip"}, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, g) }()
	<-g.ready
	c := newClientOver(t, d, "tcp")
	c.login()
	const uri = "sip:sip.example.com"
	c.send(c.request("REGISTER", uri, c.credentials("REGISTER", uri)+"Contact: <sip:1001@192.0.2.9>\r\n", ""))
	flow := flowOf(t, (<-g.began).Bindings[0])
	c.conn.Close()
	waitFor(t, func() bool { return !d.endpoint.Load().Connected(flow) })
	if got := g.lostFlows(); len(got) != 0 {
		t.Errorf("%v is lost before it is there", got)
	}
	g.goOn <- struct{}{}
	waitFor(t, func() bool { return len(g.lostFlows()) == 1 && len(g.bound()) == 0 })
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := g.lostFlows(); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// TestLosses: however many there are, few are told of at once, each once.
func TestLosses(t *testing.T) {
	const flows = 10_000
	var mu sync.Mutex
	told := map[string]int{}
	var running, most int
	l := newLosses(flows, func(flow string) {
		mu.Lock()
		running++
		most = max(most, running)
		told[flow]++
		mu.Unlock()
		time.Sleep(10 * time.Microsecond) // the disk
		mu.Lock()
		running--
		mu.Unlock()
	})
	hold := make(chan struct{})
	held := newLosses(2, func(string) { <-hold })
	for i := range flows {
		l.add(fmt.Sprint(i))
		held.add(fmt.Sprint(i))
		held.add("0")
	}
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == flows
	})
	l.close()
	l.add("late")
	if most > maxLosing || len(told) != flows {
		t.Errorf("%d at once, %d in all", most, len(told))
	}
	for flow, times := range told {
		if times != 1 {
			t.Errorf("%s was told %d times", flow, times)
		}
	}
	if len(held.pending) != 2 {
		t.Errorf("%d wait", len(held.pending))
	}
	close(hold)
	held.close()
}

// TestFlowFailedBehindAProxy: one that names each client's flow ends it with 430;
// one that has the same URI for all doesn't.
func TestFlowFailedBehindAProxy(t *testing.T) {
	for path, lost := range map[string]int{"<sip:token@edge.example;lr;ob>": 1, "<sip:edge.example;lr;ob>": 0, "<sip:token@edge.example;lr>": 0} {
		g := &gate{}
		d := openDoor(t, g, edge)
		c := newClient(t, d)
		c.login()
		want(t, c.register("Contact: <sip:1001@10.0.0.1>\r\nPath: "+path+"\r\n"), "200 OK")
		bound := g.bound()[0]
		sent := d.sendLater(t, testMessage(), plugin.Route{Reference: "ref", Binding: &bound})
		c.send(answer(c.receive(), "430 Flow Failed"))
		if r := <-sent; !isFailure(r.err, message.Unavailable, true) {
			t.Errorf("%s: %+v", path, r)
		}
		d.losses.running.Wait()
		if gone := g.lostFlows(); len(gone) != lost || lost > 0 && gone[0] != bound.Flow {
			t.Errorf("%s: lost are %v", path, gone)
		}
	}
}

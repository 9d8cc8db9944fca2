package sip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// trusting makes loopback a peer that vouches for its senders.
func trusting(c *Config) {
	c.Peers = []Peer{{Name: "core", Addresses: []string{"127.0.0.0/8"}, Account: "acc-core"}}
}

// edge makes loopback a peer whose clients authenticate.
func edge(c *Config) {
	c.Peers = []Peer{{Name: "edge", Addresses: []string{"127.0.0.1"}}}
}

func TestPeerVouches(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		g := &gate{}
		c := newClientOver(t, openDoor(t, g, trusting), network)
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		ask := func(old, new string) string {
			request := strings.Replace(c.request("MESSAGE", bob, "traceparent: "+trace+"\r\nContent-Type: text/plain\r\n", "x"), "sip:1001@sip.example.com", "sip:ann@other.example", 1)
			c.send(strings.Replace(request, old, new, 1))
			return c.receive()
		}
		want(t, ask("", ""), "202 Accepted")
		a := g.submitted()[0]
		if a.Account.ID != "acc-core" || a.Account.Attributes["peer"] != "core" || !a.Account.Owns(a.Message.From) || a.Message.From.String() != "ann@other.example" ||
			a.Message.Trace != trace || a.Message.Hops != 69 || a.Call != "call" || a.Key == "" {
			t.Errorf("%s: %+v %+v", network, a, a.Message)
		}
		want(t, ask("Max-Forwards: 70", "Max-Forwards: 0"), "483 Too Many Hops")
		want(t, ask("<sip:ann@other.example>", "<tel:+1555>"), "400 Bad Request")
		// With credentials, they count. Who registers needs them.
		c.login()
		want(t, c.message("", "x"), "202 Accepted")
		if a := g.submitted()[1]; a.Account.ID != "acc-1" {
			t.Errorf("%+v", a)
		}
		c.send(c.request("REGISTER", "sip:sip.example.com", "Contact: <sip:a@b>\r\n", ""))
		want(t, c.receive(), "401 Unauthorized")
	}
}

func TestPeerWithoutAnAccountDoesNotVouch(t *testing.T) {
	c := newClient(t, openDoor(t, &gate{}, edge))
	c.send(c.request("MESSAGE", bob, "", "x"))
	want(t, c.receive(), "401 Unauthorized")
}

func TestStrangerBringsNoTrace(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	want(t, c.message("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n", "x"), "202 Accepted")
	if a := g.submitted()[0]; a.Message.Trace != "" {
		t.Errorf("%q", a.Message.Trace)
	}
}

func TestIsTrace(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if !isTrace(good) {
		t.Errorf("%q", good)
	}
	for _, bad := range []string{
		"", good[1:], good + "-x", "01" + good[2:], "ff" + good[2:], strings.ToUpper(good), strings.Replace(good, "-", "_", 1),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
	} {
		if isTrace(bad) {
			t.Errorf("%q", bad)
		}
	}
}

func TestPeersBehind(t *testing.T) {
	list, err := newPeers([]Peer{
		{Name: "net", Addresses: []string{"192.0.2.0/24", "2001:db8::/32"}},
		{Name: "one", Addresses: []string{"192.0.2.7", "::ffff:198.51.100.1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"192.0.2.1": "net", "192.0.2.7": "one", "2001:db8::1": "net", "198.51.100.1": "one", "192.0.3.1": "", "::1": "",
	} {
		got := ""
		if p := list.behind(netip.MustParseAddr(address)); p != nil {
			got = p.Name
		}
		if got != want {
			t.Errorf("%s is %q, want %q", address, got, want)
		}
	}
}

func TestRoute(t *testing.T) {
	own := "Route: <sip:sip.example.com;lr>\r\n"
	for _, test := range []struct {
		name, routes, status string
		trusted              bool
	}{
		{"our domain", own, "202 Accepted", false},
		{"our address", "Route: <sip:%s;lr>\r\n", "202 Accepted", false},
		{"ours twice", "Route: <sip:%s;lr>, <sip:SIP.example.com:15060;lr>\r\n", "202 Accepted", false},
		{"elsewhere", "Route: <sip:other.example;lr>\r\n", "403 Route Not Allowed", false},
		{"on from here", own + "Route: <sip:other.example;lr>\r\n", "403 Route Not Allowed", false},
		{"another port", "Route: <sip:127.0.0.1:1;lr>\r\n", "403 Route Not Allowed", false},
		{"a peer's wish", own + "Route: <sip:other.example;lr>\r\n", "202 Accepted", true},
		{"not a route", "Route: <sip:other.example;lr\r\n", "400 Bad Route", true},
		{"not SIP", "Route: <tel:1>\r\n", "400 Bad Route", true},
		{"empty", "Route: \r\n", "202 Accepted", false},
	} {
		change := edge
		if !test.trusted {
			change = nil
		}
		d := openDoor(t, &gate{}, change)
		c := newClient(t, d)
		c.login()
		if strings.Contains(test.routes, "%s") {
			test.routes = fmt.Sprintf(test.routes, addressOf(d, "udp"))
		}
		if got := status(c.message(test.routes, "x")); got != test.status {
			t.Errorf("%s: %s, want %s", test.name, got, test.status)
		}
	}
}

// TestStrictRouter: one that has put our URI in the place of the target.
func TestStrictRouter(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, trusting))
	c.send(c.request("MESSAGE", "sip:sip.example.com;lr", "Route: <"+bob+">\r\n", "x"))
	want(t, c.receive(), "202 Accepted")
	if a := g.submitted(); len(a) != 1 || a[0].Message.Recipient.String() != "1002@sip.example.com" {
		t.Errorf("%+v", a)
	}
}

func TestPath(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, edge)
	c := newClient(t, d)
	c.login()
	const path = "<sip:edge.example;lr;ob>, <sip:192.0.2.1:5080;lr>"
	got := c.register("Contact: <sip:1001@10.0.0.1>\r\nPath: <sip:edge.example;lr;ob>\r\nPath: <sip:192.0.2.1:5080;lr>\r\nSupported: path, outbound\r\nRequire: path\r\n")
	want(t, got, "200 OK", "Path: "+path+"\r\n")
	sent := d.sendLater(t, testMessage(), plugin.Route{Reference: "ref", Binding: &g.bound()[0]})
	request := c.receive()
	if !strings.HasPrefix(request, "MESSAGE sip:1001@10.0.0.1 SIP/2.0\r\n") || !strings.Contains(request, "\r\nRoute: "+path+"\r\n") {
		t.Error(request)
	}
	c.send(answer(request, "430 Flow Failed"))
	if r := <-sent; !isFailure(r.err, message.Unavailable, true) {
		t.Errorf("%+v", r)
	}
	if got := c.register("Contact: <sip:1001@10.0.0.1>\r\nPath: <sip:edge.example;lr>\r\n"); status(got) != "200 OK" || strings.Contains(got, "Path") {
		t.Error(got)
	}
	for _, bad := range []string{"<sip:edge.example>", "<sip:edge.example;lr", "<tel:1>", "sip:edge.example;lr", strings.Repeat("<sip:e;lr>,", 9)} {
		want(t, c.register("Contact: <sip:a@b>\r\nPath: "+bad+"\r\n"), "400 Bad Path")
	}
	stranger := newClient(t, openDoor(t, g, nil))
	stranger.login()
	want(t, stranger.register("Contact: <sip:a@b>\r\nPath: <sip:edge.example;lr>\r\n"), "403 Path Not Allowed")
}

// TestPathOutlivesItsConnection: a proxy that connects again brings all devices
// behind it with it.
func TestPathOutlivesItsConnection(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, edge)
	register := func(contact string) *client {
		c := newClientOver(t, d, "tcp")
		c.login()
		c.cseq += 10 * len(g.registrations())
		want(t, c.register("Contact: <"+contact+">\r\nPath: <sip:edge.example;lr>\r\n"), "200 OK")
		return c
	}
	first := register("sip:1001@10.0.0.1")
	r := plugin.Route{Reference: "ref", Binding: &g.bound()[0]}
	w, err := parseWay(r.Binding.Flow)
	if err != nil {
		t.Fatal(err)
	}
	first.conn.Close()
	waitFor(t, func() bool { return !d.endpoint.Load().Connected(w.flow) })
	if _, err := d.Send(t.Context(), testMessage(), r); !isFailure(err, message.Unavailable, true) {
		t.Errorf("without any connection: %v", err)
	}
	second := register("sip:1001@10.0.0.2")
	sent := d.sendLater(t, testMessage(), r)
	request := second.receive()
	if !strings.HasPrefix(request, "MESSAGE sip:1001@10.0.0.1 SIP/2.0\r\n") {
		t.Error(request)
	}
	second.send(answer(request, "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}
}

// TestLargeMessageThroughAProxy: what is too large for UDP goes over a connection
// of the proxy, to the device's own contact.
func TestLargeMessageThroughAProxy(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, edge)
	udp, tcp := newClient(t, d), newClientOver(t, d, "tcp")
	for i, c := range []*client{udp, tcp} {
		c.login()
		want(t, c.register(fmt.Sprintf("Contact: <sip:1001@10.0.0.%d>\r\nPath: <sip:edge.example;lr>\r\n", i)), "200 OK")
	}
	m := testMessage()
	m.Body = bytes.Repeat([]byte("x"), 20_000)
	sent := d.sendLater(t, m, plugin.Route{Reference: "ref", Binding: &g.bound()[0]})
	request := tcp.receive()
	if !strings.HasPrefix(request, "MESSAGE sip:1001@10.0.0.0 SIP/2.0\r\n") || !strings.Contains(request, "\r\nRoute: <sip:edge.example;lr>\r\n") {
		t.Error(request[:500])
	}
	tcp.send(answer(request, "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}
}

func TestRegisterElsewhere(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	c.login()
	for uri, status := range map[string]string{
		"sip:sip.example.com": "200 OK", "sip:" + addressOf(d, "udp").String(): "200 OK",
		"sip:other.example": "404 Not Our Domain", "sip:127.0.0.1:1": "404 Not Our Domain",
	} {
		c.send(c.request("REGISTER", uri, c.credentials("REGISTER", uri), ""))
		want(t, c.receive(), status)
	}
}

// TestForeignDomain: what no service leads to isn't relayed; what one leads to
// is taken like any other message.
func TestForeignDomain(t *testing.T) {
	const foreign = "sip:x@other.example"
	g := &gate{}
	d := openDoor(t, g, nil)
	c := newClient(t, d)
	c.login()
	ask := func(uri string) string {
		c.send(c.request("MESSAGE", uri, c.credentials("MESSAGE", uri), "x"))
		return c.receive()
	}
	want(t, ask(foreign), "202 Accepted")
	g.refuse(message.Fail(message.UnknownRecipient, "nobody"))
	want(t, ask(foreign), "403 Relaying Denied")
	want(t, ask(bob), "404 Not Found")
	want(t, ask("sip:x@"+addressOf(d, "udp").String()), "404 Not Found")
	g.refuse(message.Fail(message.Rejected, "no"))
	want(t, ask(foreign), "403 Forbidden")
}

func TestRules(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	for _, test := range []struct{ old, new, status string }{
		{"To: <sip:1002@sip.example.com>", "To: <sip:1002@sip.example.com>;tag=x", "481 Call/Transaction Does Not Exist"},
		{"Max-Forwards: 70\r\n", "", "202 Accepted"},
		{"Max-Forwards: 70", "Max-Forwards: x", "400 Bad Max-Forwards"},
		{"Max-Forwards: 70", "Max-Forwards: 256", "400 Bad Max-Forwards"},
		{"Max-Forwards: 70", "Require: path", "420 Bad Extension"},
		{"Max-Forwards: 70", "Proxy-Require: sec-agree", "420 Bad Extension"},
		{"Max-Forwards: 70", "Content-Type: ", "400 Bad Content-Type"},
		{"Max-Forwards: 70", "c: text/plain", "202 Accepted"},
		{"Max-Forwards: 70", "c: text/plain ; charset=\"a;b\";", "202 Accepted"},
		{"Max-Forwards: 70", "c: text/plain;charset=\"a", "400 Bad Content-Type"},
		{"Max-Forwards: 70", "c: text/plain;charset=\"\xff\"", "400 Bad Content-Type"},
		{"\"Ann\" <sip:1001@", "<sip:%ff@", "403 Forbidden"},
		{"Max-Forwards: 70", "Content-Encoding: br", "415 Unsupported Media Type"},
		{"Max-Forwards: 70", "Content-Encoding: gzip", "400 Bad Content-Encoding"},
		{"Max-Forwards: 70", "Content-Encoding: gzip,gzip\r\ne: gzip, gzip", "415 Unsupported Media Type"},
		{"Max-Forwards: 70", "e: Identity", "202 Accepted"},
		{"Max-Forwards: 70", "Content-Transfer-Encoding: 8Bit", "202 Accepted"},
		{"Max-Forwards: 70", "Content-Transfer-Encoding: base64", "415 Unsupported Content-Transfer-Encoding"},
		{"Max-Forwards: 70", "Content-Disposition: render", "202 Accepted"},
		{"Max-Forwards: 70", "Content-Disposition: Attachment; filename=\"a;b\"", "202 Accepted"},
		{"Max-Forwards: 70", "Content-Disposition: recipient-list", "415 Unsupported Content-Disposition"},
		{"Max-Forwards: 70", "Content-Disposition: recipient-list;handling=required", "415 Unsupported Content-Disposition"},
		{"Max-Forwards: 70", "Content-Disposition: recipient-list ;handling=Optional", "202 Accepted"},
		{"MESSAGE sip:", "MESSAGE sips:", "416 Unsupported URI Scheme"},
		{"MESSAGE sip:1002@sip.example.com", "MESSAGE im:1002@sip.example.com", "416 Unsupported URI Scheme"},
		{"MESSAGE sip:1002@sip.example.com", "MESSAGE tel:+x", "400 Bad Request-URI"},
	} {
		request := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "hello")
		c.send(strings.Replace(request, test.old, test.new, 1))
		got := c.receive()
		want(t, got, test.status)
		if strings.Contains(got, "Accept-Encoding: gzip, deflate, identity\r\n") != strings.HasPrefix(test.status, "415 Unsupported Media") {
			t.Error(got)
		}
	}
	register := func(header string) string {
		const uri = "sip:sip.example.com"
		c.send(strings.Replace(c.request("REGISTER", uri, c.credentials("REGISTER", uri)+header+"\r\n", ""), "1002@", "1001@", 1))
		return c.receive()
	}
	want(t, register("Require: Path"), "200 OK")
	for _, method := range []string{"OPTIONS", "MESSAGE"} { // of a dialog, and we have none
		c.send(strings.Replace(c.request(method, bob, "", ""), "To: <sip:1002@sip.example.com>", "To: <sip:1002@sip.example.com>;tag=x", 1))
		want(t, c.receive(), "481 Call/Transaction Does Not Exist")
	}
	for _, method := range []string{"OPTIONS", "REGISTER"} { // we are where they go: no hop more
		uri := "sip:sip.example.com"
		c.send(strings.Replace(c.request(method, uri, c.credentials(method, uri), ""), "Max-Forwards: 70", "Max-Forwards: 0", 1))
		want(t, c.receive(), "200 OK")
	}
}

func TestNothingButUTF8IsPassedOn(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	request := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob)+"Subject: \xff\r\nContent-Language: de\r\n", "x")
	c.send(strings.Replace(request, `"Ann"`, "\"\xe4\"", 1))
	want(t, c.receive(), "202 Accepted")
	m := g.submitted()[0].Message
	if m.DisplayName != "" || fmt.Sprint(m.Headers) != "[{Content-Language de}]" {
		t.Errorf("%q %q", m.DisplayName, m.Headers)
	}
}

func TestTooManyContacts(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	g.refuse(message.Fail(message.LimitReached, "too many"))
	want(t, c.register("Contact: <sip:a@b>\r\n"), "403 Forbidden")
}

// TestMetrics: each answer is counted, by method and status, and each refusal by
// its reason.
func TestMetrics(t *testing.T) {
	registry := plugin.NewMetrics()
	config := defaults
	config.Listen = []string{"udp://127.0.0.1:0"}
	c := newClient(t, serve(t, &gate{}, plugin.Env{Instance: "sip", Metrics: registry}, config))
	c.login()
	want(t, c.message("", "x"), "202 Accepted")
	want(t, c.message("Content-Type: x\r\n", "x"), "400 Bad Content-Type")
	c.send(c.request("MESSAGE", bob, c.authorization("MESSAGE", bob, "00000009", "wrong"), "x"))
	want(t, c.receive(), "401 Unauthorized")
	c.send(c.request("INVITE", bob, "", ""))
	want(t, c.receive(), "405 Method Not Allowed")
	got := map[string]float64{}
	for _, s := range registry.Series() {
		if v := s.Value(); v > 0 && strings.HasSuffix(s.Name, "requests_total") {
			got[fmt.Sprint(s.Name, s.Labels)] = v
		}
	}
	for name, n := range map[string]float64{
		"sip_requests_total[{method MESSAGE} {status 2xx}]":    1,
		"sip_requests_total[{method MESSAGE} {status 4xx}]":    1,
		"sip_requests_total[{method MESSAGE} {status 401}]":    1,
		"sip_requests_total[{method REGISTER} {status 401}]":   1,
		"sip_requests_total[{method other} {status 4xx}]":      1,
		"sip_refused_requests_total[{reason unauthenticated}]": 1,
	} {
		if got[name] != n {
			t.Errorf("%s is %v in %v", name, got[name], got)
		}
	}
}

func TestComplaints(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	m := newMetrics(nil)
	c := newComplaints(m, log)
	m.refused[message.Malformed].Add(2)
	m.refused[message.Unauthenticated].Inc()
	m.refused[message.InsufficientFunds].Inc()
	c.report(wire.Counts{Malformed: 3})
	c.report(wire.Counts{Malformed: 3})
	m.contacts.Add(1)
	c.report(wire.Counts{Malformed: 3})
	want := "level=WARN msg=\"requests refused\" reason=malformed times=5\n" +
		"level=WARN msg=\"requests refused\" reason=unauthenticated times=1\n" +
		"level=WARN msg=\"requests refused\" reason=limit-reached times=1\n"
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", out.String(), want)
	}
}

// TestWatch: a line a minute for each kind, and what is left at the end.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := newMetrics(nil)
		c := newComplaints(m, slog.New(slog.NewTextHandler(&out, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { c.watch(ctx, func() wire.Counts { return wire.Counts{} }) })
		for range 150 {
			m.refused[message.Unauthenticated].Inc()
			time.Sleep(time.Second)
		}
		cancel()
		watching.Wait()
		if got := strings.Count(out.String(), "\n"); got != 3 {
			t.Errorf("%d lines for two minutes and a half:\n%s", got, out.String())
		}
	})
}

// FuzzRoutes proves that no header of a route can bring the door down, and that
// what it keeps of a path is read back as it was.
func FuzzRoutes(f *testing.F) {
	f.Add("<sip:a;lr>, \"x\" <sip:b:5060;lr>;y=z")
	f.Add("<sip:[::1];lr>,,<tel:1")
	f.Fuzz(func(t *testing.T, value string) {
		request := "MESSAGE sip:a;lr SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\nRoute: " + value + "\r\nPath: " + value + "\r\n\r\n"
		r, _, refusal := wire.Parse([]byte(request), 100)
		if refusal != nil {
			return
		}
		x := &wire.Exchange{Request: r}
		d := &Door{names: names{domains: []string{"a"}}}
		d.followRoute(x, &Peer{})
		path, refused := pathOf(x, &Peer{})
		if refused != nil {
			return
		}
		w := way{wire.Flow{Network: "udp", Local: netip.MustParseAddrPort("192.0.2.1:1"), Remote: netip.MustParseAddrPort("192.0.2.1:2")}, path}
		if back, err := parseWay(w.String()); err != nil || back != w {
			t.Errorf("%q is read back as %q, %v", w, back, err)
		}
	})
}

func TestDisposition(t *testing.T) {
	for value, want := range map[string]bool{
		"": true, "RENDER": true, "inline;handling=required": true, "notification": true, "session": false, "x;handling=\"optional\"": true, "x;y": false,
	} {
		if got := isKnownDisposition(value); got != want {
			t.Errorf("%q: %t", value, got)
		}
	}
}

func TestNames(t *testing.T) {
	n := newNames([]string{"a.example"}, []string{"gw.example.net", "2001:db8::5"}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("0.0.0.0:5070"), netip.MustParseAddrPort("192.0.2.2:5061"), netip.MustParseAddrPort("192.0.2.3:80"), netip.MustParseAddrPort("192.0.2.4:443")})
	for text, want := range map[string]bool{
		"sip:A.example:99": true, "sip:192.0.2.1": true, "sip:192.0.2.1:5060": true, "sip:127.0.0.1:5070": true,
		"sip:GW.example.net:1": true, "sip:[2001:DB8::5]": true,
		"sips:192.0.2.2": true, "sip:192.0.2.2;transport=TLS": true, "sip:192.0.2.2:5061": true, "sip:192.0.2.2": false, "sips:192.0.2.1": false,
		"sip:192.0.2.3;transport=ws": true, "sips:192.0.2.4;transport=ws": true, "sip:192.0.2.4;transport=wss": true, "sip:192.0.2.4;transport=ws": false,
		"sip:b.example": false, "sip:192.0.2.1:5061": false, "sip:127.0.0.1": false, "sip:[::1]:5060": false,
	} {
		u, err := wire.ParseURI(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.include(u); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

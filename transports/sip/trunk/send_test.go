package trunk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestSend(t *testing.T) {
	s := serve(t, ok, "udp")
	config := local()
	config.NextHop = "sip:" + s.address(0)
	trunk, _ := openTrunk(t, config)
	m := testMessage()
	m.Headers = []message.Header{{Name: "Subject", Value: "s"}}
	expires := time.Hour
	m.Received, m.Expires = time.Now(), &expires
	route := delivery()
	receipt, err := trunk.Send(t.Context(), m, route)
	if err != nil || !receipt.Final {
		t.Fatal(receipt, err)
	}
	x := s.next(t, "MESSAGE")
	for _, check := range []struct{ what, got, want string }{
		{"Request-URI", x.URIText, "sip:bob@b.example"},
		{"From", x.Get("From"), `"Alice" <sip:alice@a.example>;tag=` + route.Reference},
		{"To", x.Get("To"), "<sip:bob@b.example>"},
		{"Call-ID", x.CallID, route.Reference},
		{"CSeq", x.Get("CSeq"), "1 MESSAGE"},
		{"Max-Forwards", x.Get("Max-Forwards"), "69"},
		{"Date", x.Get("Date"), m.Received.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")},
		{"Subject", x.Get("Subject"), "s"},
		{"Expires", x.Get("Expires"), "3600"},
		{"Content-Type", x.Get("Content-Type"), "text/plain"},
		{"P-Asserted-Identity", x.Get("P-Asserted-Identity"), ""},
		{"body", string(x.Body), "hello"},
	} {
		if check.got != check.want {
			t.Errorf("%s: %q, want %q", check.what, check.got, check.want)
		}
	}
}

func TestNumbersAndIdentity(t *testing.T) {
	s := serve(t, ok, "udp")
	number := message.Address{User: "+447700900000"}
	for _, test := range []struct {
		change             func(*Config)
		uri, from, to, pai string
	}{
		{func(*Config) {}, "sip:+447700900000@" + s.address(0) + ";user=phone", "<sip:+447700900000@a.example>", "<sip:+447700900000@127.0.0.1>", ""},
		{func(c *Config) { c.UserPhone, c.Assert = false, true }, "sip:+447700900000@" + s.address(0), "<sip:+447700900000@a.example>", "<sip:+447700900000@127.0.0.1>", "<sip:+447700900000@a.example>"},
		{func(c *Config) { c.NumberDomain = "sms.example" }, "sip:+447700900000@sms.example;user=phone", "<sip:+447700900000@a.example>", "<sip:+447700900000@sms.example>", ""},
	} {
		config := local()
		config.NextHop = "sip:" + s.address(0)
		test.change(&config)
		trunk, _ := openTrunk(t, config)
		m := testMessage()
		m.From, m.Recipient, m.DisplayName = number, number, ""
		if _, err := trunk.Send(t.Context(), m, delivery()); err != nil {
			t.Fatal(err)
		}
		x := s.next(t, "MESSAGE")
		from, _, _ := strings.Cut(x.Get("From"), ";tag=")
		if x.URIText != test.uri || from != test.from || x.Get("To") != test.to || x.Get("P-Asserted-Identity") != test.pai {
			t.Errorf("%s, From %s, To %s, identity %q, want %+v", x.URIText, from, x.Get("To"), x.Get("P-Asserted-Identity"), test)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := serve(t, ok, "udp")
	config := local()
	config.NextHop = "sip:" + s.address(0)
	trunk, _ := openTrunk(t, config)
	for _, test := range []struct {
		status    int
		reason    message.Reason
		temporary bool
	}{
		{302, message.Undelivered, false}, {404, message.UnknownRecipient, false}, {401, message.Undelivered, false},
		{408, message.NoAnswer, true}, {480, message.Unavailable, true}, {415, message.UnsupportedType, false},
		{486, message.Busy, true}, {500, message.Undelivered, true}, {503, message.Unavailable, true}, {603, message.Declined, false},
	} {
		s.answers(func(*wire.Exchange) *wire.Reply {
			return &wire.Reply{Status: test.status, RetryAfter: 7 * time.Second}
		})
		_, err := trunk.Send(t.Context(), testMessage(), delivery())
		fails(t, fmt.Sprint(test.status), err, test.reason, test.temporary)
		if f := message.AsFailure(err); f.RetryAfter != 7*time.Second {
			t.Errorf("%d: after %s", test.status, f.RetryAfter)
		}
	}
}

// TestUnwrapped: a server that doesn't know envelopes gets what is in one, as the
// next request of the same delivery.
func TestUnwrapped(t *testing.T) {
	s := serve(t, func(x *wire.Exchange) *wire.Reply {
		if x.Get("Content-Type") == "message/cpim" {
			return &wire.Reply{Status: 415, Headers: []wire.Header{{Name: "Accept", Value: "text/plain"}}}
		}
		return &wire.Reply{Status: 200}
	}, "udp")
	config := local()
	config.NextHop = "sip:" + s.address(0)
	trunk, _ := openTrunk(t, config)
	m, route := testMessage(), delivery()
	m.ContentType = "message/cpim"
	m.Body = []byte("From: <sip:alice@a.example>\r\nTo: <sip:bob@b.example>\r\n\r\nContent-Type: text/plain\r\n\r\nhello")
	receipt, err := trunk.Send(t.Context(), m, route)
	if err != nil || !receipt.Final || !receipt.Unwrapped {
		t.Fatal(receipt, err)
	}
	first, second := s.next(t, "MESSAGE"), s.next(t, "MESSAGE")
	if string(first.Body) != string(m.Body) || string(second.Body) != "hello" {
		t.Errorf("%q, then %q", first.Body, second.Body)
	}
	if first.CallID != second.CallID || first.FromTag != second.FromTag || first.CSeq >= second.CSeq {
		t.Errorf("%s %d, then %s %d", first.CallID, first.CSeq, second.CallID, second.CSeq)
	}
	s.answers(always(415))
	receipt, err = trunk.Send(t.Context(), m, delivery())
	fails(t, "neither", err, message.UnsupportedType, false)
	if receipt.Final {
		t.Error(receipt)
	}
}

func TestUnbuildable(t *testing.T) {
	trunk, _ := openTrunk(t, func() Config { c := local(); c.NextHop = "sip:127.0.0.1:9"; return c }())
	for what, spoil := range map[string]func(*message.Message, *plugin.Route){
		"recipient's domain": func(m *message.Message, _ *plugin.Route) { m.Recipient.Host = "b example" },
		"sender's domain":    func(m *message.Message, _ *plugin.Route) { m.From.Host = "a>b" },
		"type":               func(m *message.Message, _ *plugin.Route) { m.ContentType = "text" },
		"reference":          func(_ *message.Message, r *plugin.Route) { r.Reference = "" },
		"header": func(m *message.Message, _ *plugin.Route) {
			m.Headers = []message.Header{{Name: "Expires", Value: "1"}}
		},
		"route": func(_ *message.Message, r *plugin.Route) { r.Address = "not a host" },
		"user":  func(_ *message.Message, r *plugin.Route) { r.Address = "sip:u@b.example" },
		"ws":    func(_ *message.Message, r *plugin.Route) { r.Address = "b.example;transport=ws" },
	} {
		m, route := testMessage(), delivery()
		spoil(m, &route)
		_, err := trunk.Send(t.Context(), m, route)
		fails(t, what, err, message.Unbuildable, false)
	}
}

func TestBeforeServe(t *testing.T) {
	trunk, err := New(t.Context(), plugin.Env{}, local())
	if err != nil {
		t.Fatal(err)
	}
	_, err = trunk.Send(t.Context(), testMessage(), delivery())
	fails(t, "not served", err, message.Unavailable, true)
}

// zone starts a name server with these records.
func zone(t *testing.T, records ...string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := func(w dns.ResponseWriter, m *dns.Msg) {
		reply := new(dns.Msg).SetReply(m)
		for _, text := range records {
			record, err := dns.NewRR(text)
			if err != nil {
				t.Error(text, err)
				continue
			}
			if record.Header().Name == m.Question[0].Name && record.Header().Rrtype == m.Question[0].Qtype {
				reply.Answer = append(reply.Answer, record)
			}
		}
		_ = w.WriteMsg(reply) // who asked may be gone
	}
	started, done := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(handler), NotifyStartedFunc: func() { close(started) }}
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-done
	})
	return conn.LocalAddr().String()
}

// deadPort is one at which nobody listens over TCP.
func deadPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestAllRefuse: the last word counts, and nothing waits.
func TestAllRefuse(t *testing.T) {
	first, second := serve(t, always(503), "tcp"), serve(t, always(503), "tcp")
	config := local()
	config.PrivateAddresses = true
	config.NameServers = []string{service(t, "_sip._tcp.", port(first, 0), port(second, 0), deadPort(t))}
	trunk, _ := openTrunk(t, config)
	_, err := trunk.Send(t.Context(), testMessage(), delivery())
	fails(t, "nobody takes it", err, message.Unavailable, true)
	second.answers(always(404))
	_, err = trunk.Send(t.Context(), testMessage(), delivery())
	fails(t, "the second says no", err, message.UnknownRecipient, false)
}

func TestContextEndsWhileSilent(t *testing.T) {
	s := serve(t, silent, "udp")
	config := local()
	config.NextHop = "sip:" + s.address(0)
	trunk, _ := openTrunk(t, config)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := trunk.Send(ctx, testMessage(), delivery())
		done <- err
	}()
	s.next(t, "MESSAGE")
	cancel()
	fails(t, "given up", <-done, message.NoAnswer, true)
	if trunk.avoided.has(wire.Target{Network: "udp", Address: s.endpoint.Addrs()[0]}, time.Now()) {
		t.Error("a server is avoided because we gave up")
	}
}

func TestLookUps(t *testing.T) {
	server := zone(t, "inside.example. 60 IN A 127.0.0.1", "ten.example. 60 IN A 10.0.0.1", "shared.example. 60 IN A 100.64.0.1")
	for _, test := range []struct {
		what      string
		change    func(*Config)
		recipient message.Address
		address   string
		reason    message.Reason
		temporary bool
	}{
		{"no such domain", nil, message.Address{User: "bob", Host: "c.example"}, "", message.UnknownRecipient, false},
		{"number without a next hop", nil, message.Address{User: "+44"}, "", message.UnknownRecipient, false},
		{"a sender leads us inside", nil, message.Address{User: "bob", Host: "inside.example"}, "", message.UnknownRecipient, false},
		{"a sender leads us to a network", nil, message.Address{User: "bob", Host: "ten.example"}, "", message.UnknownRecipient, false},
		{"a sender leads us to the provider's", nil, message.Address{User: "bob", Host: "shared.example"}, "", message.UnknownRecipient, false},
		{"a sender names an address", nil, message.Address{User: "bob", Host: "127.0.0.1"}, "", message.UnknownRecipient, false},
		{"no such next hop", func(c *Config) { c.NextHop = "sip:c.example" }, testMessage().Recipient, "", message.Unavailable, true},
		{"no such route", nil, testMessage().Recipient, "c.example", message.Unavailable, true},
	} {
		config := local()
		config.NameServers = []string{server}
		if test.change != nil {
			test.change(&config)
		}
		trunk, _ := openTrunk(t, config)
		m, route := testMessage(), delivery()
		m.Recipient, route.Address = test.recipient, test.address
		_, err := trunk.Send(t.Context(), m, route)
		fails(t, test.what, err, test.reason, test.temporary)
	}
}

// TestOurselves: a message doesn't come back to where we listen.
func TestOurselves(t *testing.T) {
	trunk, _ := openTrunk(t, local())
	route := delivery()
	route.Address = trunk.Addrs()[0].String()
	_, err := trunk.Send(t.Context(), testMessage(), route)
	fails(t, "our own address", err, message.Unavailable, true)
	own := wire.Reachable([]netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:5080")})
	if !(&work{own: own}).isOurs(wire.Target{Address: netip.MustParseAddrPort("127.0.0.1:5080")}) {
		t.Errorf("127.0.0.1 isn't among %v", own)
	}
}

// TestLarge: what is too large for a datagram goes over TCP where it can, else in
// fragments, else not at all.
func TestLarge(t *testing.T) {
	// An address that nobody else is likely to use: its port is ours over TCP too.
	own := netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(254)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))})
	udp := serveAt(t, ok, wire.Config{}, wire.Listener{Network: "udp", Address: netip.AddrPortFrom(own, 0)})
	at := udp.endpoint.Addrs()[0]
	large, larger := strings.Repeat("x", 2000), strings.Repeat("x", 9000)
	send := func(body, params string) (network string, err error) {
		config := local()
		config.NextHop = "sip:" + at.String() + params
		trunk, _ := openTrunk(t, config)
		m := testMessage()
		m.Body = []byte(body)
		_, err = trunk.Send(t.Context(), m, delivery())
		if err == nil {
			x := udp.next(t, "MESSAGE")
			if string(x.Body) != body {
				t.Errorf("a body of %d octets", len(x.Body))
			}
			network = x.Flow.Network
		}
		return network, err
	}
	check := func(what, body, params, want string) {
		t.Helper()
		if network, err := send(body, params); err != nil || network != want {
			t.Errorf("%s: over %q, %v, want %s", what, network, err, want)
		}
	}
	check("small", "hello", "", "udp")
	check("large, no TCP", large, "", "udp")
	check("large, UDP wanted", large, ";transport=udp", "udp")
	_, err := send(larger, "")
	fails(t, "too large", err, message.TooLarge, false)

	tcp := serveAt(t, ok, wire.Config{}, wire.Listener{Network: "tcp", Address: at})
	udp.requests = tcp.requests
	check("large, TCP", large, "", "tcp")
	check("larger, TCP", larger, "", "tcp")
}

// TestLargeBySRV: of the servers that DNS names, those over TCP come first.
func TestLargeBySRV(t *testing.T) {
	udp, tcp := serve(t, ok, "udp"), serve(t, ok, "tcp")
	config := local()
	config.NextHop = "sip:b.example"
	config.NameServers = []string{zone(t, "host.b.example. 60 IN A 127.0.0.1",
		fmt.Sprintf("_sip._udp.b.example. 60 IN SRV 0 0 %d host.b.example.", port(udp, 0)),
		fmt.Sprintf("_sip._tcp.b.example. 60 IN SRV 0 0 %d host.b.example.", port(tcp, 0)))}
	trunk, _ := openTrunk(t, config)
	for _, size := range []int{10, 2000} {
		m := testMessage()
		m.Body = []byte(strings.Repeat("x", size))
		if _, err := trunk.Send(t.Context(), m, delivery()); err != nil {
			t.Fatal(err)
		}
	}
	if small, large := udp.count("MESSAGE"), tcp.count("MESSAGE"); small != 1 || large != 1 {
		t.Errorf("%d over UDP, %d over TCP", small, large)
	}
}

// TestConnectionThatEnded: the next message goes over a new one.
func TestConnectionThatEnded(t *testing.T) {
	s := serve(t, ok, "tcp")
	config := local()
	config.NextHop = "sip:" + s.address(0) + ";transport=tcp"
	trunk, _ := openTrunk(t, config)
	for range 3 {
		if _, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil {
			t.Fatal(err)
		}
		flow := s.next(t, "MESSAGE").Flow
		for !s.endpoint.Dismiss(flow) {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestRequestsOfOthers: probes are answered, nothing else is let in.
func TestRequestsOfOthers(t *testing.T) {
	trunk, g := openTrunk(t, local())
	s := serve(t, ok, "udp")
	ask := func(method string) int {
		t.Helper()
		flow := wire.Flow{Network: "udp", Local: s.endpoint.Addrs()[0], Remote: trunk.Addrs()[0]}
		response, err := s.endpoint.Do(t.Context(), flow, wire.Outgoing{
			Method: method, URI: "sip:a.example", From: "<sip:x@b.example>;tag=1", To: "<sip:y@a.example>",
			CallID: message.NewPublicID(), CSeq: 1, MaxForwards: 70,
		})
		if err != nil {
			t.Fatal(method, err)
		}
		return response.Status
	}
	for method, want := range map[string]int{"OPTIONS": 200, "MESSAGE": 405, "REGISTER": 405, "INVITE": 405} {
		if got := ask(method); got != want {
			t.Errorf("%s: %d, want %d", method, got, want)
		}
	}
	g.inactive.Store(true)
	if got := ask("OPTIONS"); got != 503 {
		t.Errorf("OPTIONS on a standby: %d", got)
	}
}

// TestBothFamilies: unless it is said where from, messages go out over IPv4 and
// over IPv6.
func TestBothFamilies(t *testing.T) {
	config := local()
	config.Listen = ""
	trunk, _ := openTrunk(t, config)
	for _, address := range []netip.Addr{loopback, netip.IPv6Loopback()} {
		probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, 0)))
		if err != nil {
			t.Logf("this machine has no %s: %v", address, err)
			continue
		}
		probe.Close()
		s := serveAt(t, ok, wire.Config{}, wire.Listener{Network: "udp", Address: netip.AddrPortFrom(address, 0)})
		route := delivery()
		route.Address = s.address(0)
		if _, err := trunk.Send(t.Context(), testMessage(), route); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

package sip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestRegister(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, nil)
	c := newClient(t, d)
	c.login()
	want(t, c.register(""), "200 OK")
	want(t, c.register("Contact: \"A, B\" <sip:1001@192.0.2.1:5070;x=y>;q=0.5;+sip.instance=\"<urn:uuid:1>\";reg-id=2, <sip:1001@192.0.2.2>;expires=120\r\nExpires: 600\r\n"),
		"200 OK", "Contact: <sip:1001@192.0.2.1:5070;x=y>;expires=600;q=0.500;+sip.instance=\"<urn:uuid:1>\";reg-id=2\r\n", "Contact: <sip:1001@192.0.2.2>;expires=120\r\n", "Date: ")
	r := g.registrations()[1]
	first, second := r.Bindings[0], r.Bindings[1]
	if r.AOR.String() != "1001@sip.example.com" || r.CallID != "call" || r.CSeq != uint32(c.cseq) || r.Account.ID != "acc-1" || r.All {
		t.Errorf("%+v", r)
	}
	if first.Device != "<urn:uuid:1>" || first.RegID != "2" || first.Q != 500 || first.Contact != "sip:1001@192.0.2.1:5070;x=y" || first.Transport != "sip" ||
		first.Account != "acc-1" || first.AOR != r.AOR || first.CallID != "call" || second.Q != 1000 || second.Device != "" {
		t.Errorf("%+v %+v", first, second)
	}
	if first.Flow != fmt.Sprintf("udp;%s;%s", d.Addrs()[0], c.addr()) {
		t.Errorf("flow %q", first.Flow)
	}
	if left := time.Until(second.Expires); left < 110*time.Second || left > 121*time.Second {
		t.Errorf("expires in %s", left)
	}
	want(t, c.register("Contact: <sip:1001@192.0.2.1:5070;x=y>;expires=0\r\n"), "200 OK", "192.0.2.2")
	if len(g.bound()) != 1 {
		t.Errorf("%+v", g.bound())
	}
	if got := c.register("Contact: *\r\nExpires: 0\r\n"); status(got) != "200 OK" || strings.Contains(got, "Contact") || !g.registrations()[3].All {
		t.Error(got)
	}
	want(t, c.register("Contact: <sip:1001@192.0.2.1>;expires=4294967295\r\n"), "200 OK", "expires=7200")
	want(t, c.register("Contact: <sip:1001@192.0.2.1>;expires=99999999999\r\n"), "200 OK", "expires=3600")
	want(t, c.register("m: sip:1001@192.0.2.1;expires=61\r\n"), "200 OK", "expires=61")
}

func TestRegisterIsRefused(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, func(c *Config) { c.Limits.Contacts = 2 }))
	c.login()
	for _, test := range []struct{ headers, status string }{
		{"Contact: <sip:a@b>;expires=59\r\n", "423 Interval Too Brief"},
		{"Contact: <sip:a@b>\r\nExpires: 1\r\n", "423 Interval Too Brief"},
		{"Contact: *\r\n", "400 Bad Wildcard Contact"},
		{"Contact: *\r\nExpires: 60\r\n", "400 Bad Wildcard Contact"},
		{"Contact: *, <sip:a@b>\r\nExpires: 0\r\n", "400 Bad Wildcard Contact"},
		{"Contact: <sip:a@b>,<sip:c@d>,<sip:e@f>\r\n", "403 Too Many Contacts"},
		{"Contact: <sip:a@b\r\n", "400 Bad Contact"},
		{"Contact: <tel:1>\r\n", "400 Bad Contact"},
		{"Contact: <sips:a@b>\r\n", "400 SIPS Contact Needs TLS"},
		{"Contact: <sip:a@b@c>\r\n", "400 Bad Contact"},
		{"Contact: <sip:a@b>;q=2\r\n", "400 Bad Contact"},
		{"Contact: <sip:a@b>;+sip.instance=\"<x>\";reg-id=0\r\n", "400 Bad Instance"},
	} {
		got := c.register(test.headers)
		want(t, got, test.status)
		if strings.HasPrefix(test.status, "423") && !strings.Contains(got, "Min-Expires: 60\r\n") {
			t.Error(got)
		}
	}
	const uri = "sip:sip.example.com"
	foreign := c.request("REGISTER", uri, c.credentials("REGISTER", uri), "")
	c.send(strings.Replace(foreign, "To: <sip:1001@sip.example.com>", "To: <sip:1001@elsewhere.example.com>", 1))
	want(t, c.receive(), "404 Not Found")
	if len(g.registrations()) != 0 {
		t.Errorf("%+v", g.registrations())
	}
	g.refuse(message.Fail(message.Forbidden, "not yours"))
	want(t, c.register("Contact: <sip:a@b>\r\n"), "403 Forbidden")
	g.refuse(message.Fail(message.Malformed, "out of order"))
	want(t, c.register("Contact: <sip:a@b>\r\n"), "400 Bad Request")
	g.refuse(message.FailForNow(message.StorageDown, "disk full"))
	want(t, c.register("Contact: <sip:a@b>\r\n"), "503 Service Unavailable", "Retry-After: 5\r\n")
}

func TestParseQ(t *testing.T) {
	for s, want := range map[string]int{"1": 1000, "1.0": 1000, "1.000": 1000, "0": 0, "0.": 0, "0.7": 700, "0.05": 50, "0.123": 123} {
		if got, ok := parseQ(s); !ok || got != want {
			t.Errorf("%q: %d %t", s, got, ok)
		}
	}
	for _, s := range []string{"", "2", "1.001", "0.1234", ".5", "-1", "0.x"} {
		if got, ok := parseQ(s); ok {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestDevice(t *testing.T) {
	if got, reg, ok := device(wire.Params(`+SIP.INSTANCE="<urn:uuid:1>";x;reg-id=7`)); !ok || got != "<urn:uuid:1>" || reg != "7" {
		t.Errorf("%q %q %t", got, reg, ok)
	}
	for _, s := range []string{`+sip.instance=""`, `+sip.instance="` + strings.Repeat("x", 300) + `"`, `+sip.instance="a";reg-id=x`, "+sip.instance=\"\xff\""} {
		if got, _, ok := device(wire.Params(s)); ok {
			t.Errorf("%q: %q", s, got)
		}
	}
}

func TestWayBack(t *testing.T) {
	for _, c := range []struct{ remote, via, contact, want string }{
		{"192.0.2.1:5070", "192.0.2.1:5070", "sip:a@192.0.2.1:5070", "192.0.2.1:5070"},
		{"192.0.2.1:5070", "192.0.2.1:5070", "sip:a@192.0.2.1:5080", "192.0.2.1:5080"}, // it says so itself
		{"192.0.2.1:5070", "192.0.2.1:5070", "sip:a@192.0.2.1", "192.0.2.1:5060"},
		{"192.0.2.1:61000", "10.0.0.7:5060", "sip:a@10.0.0.7:5060", "192.0.2.1:61000"},    // a NAT
		{"192.0.2.1:61000", "192.0.2.1:5060", "sip:a@192.0.2.1:5060", "192.0.2.1:61000"},  // a NAT, and STUN
		{"192.0.2.1:5070", "192.0.2.1:5070", "sip:a@198.51.100.9:5060", "192.0.2.1:5070"}, // a third party
		{"192.0.2.1:5070", "192.0.2.1:5070", "sip:a@host.example.com", "192.0.2.1:5070"},
		{"[2001:db8::1]:5070", "2001:db8::1:5070", "sip:a@[2001:db8::1]:5080", "[2001:db8::1]:5070"},
	} {
		uri, err := wire.ParseURI(c.contact)
		if err != nil {
			t.Fatal(err)
		}
		x := exchangeFrom(t, c.remote, c.via)
		if got := wayBack(x, uri, "").flow.Remote.String(); got != c.want {
			t.Errorf("from %s, via %s, contact %s: %s, want %s", c.remote, c.via, c.contact, got, c.want)
		}
	}
}

// exchangeFrom is a request that came from remote and says that it came from via.
func exchangeFrom(t *testing.T, remote, via string) *wire.Exchange {
	t.Helper()
	host, port, _ := strings.Cut(via, ":")
	n, ok := wire.Number(port, 65535)
	if !ok {
		host, n = "["+via+"]", 0
	}
	return &wire.Exchange{Request: &wire.Request{
		Via:  wire.Via{Host: host, Port: uint16(n)},
		Flow: wire.Flow{Network: "udp", Remote: netip.MustParseAddrPort(remote)},
	}}
}

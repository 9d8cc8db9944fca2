package sip

import (
	"bytes"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"

	"github.com/imgate/imgate/transports/sip/wire"
)

func TestAssertedIdentity(t *testing.T) {
	const anonymous = `"Anonymous" <sip:anonymous@anonymous.invalid>`
	for _, test := range []struct {
		name, from, headers string
		sender, display     string
		owns, asserted      string // another identity; the attribute
		status              string // empty: it is accepted
	}{
		{name: "none", from: `"Ann" <sip:ann@other.example>`, sender: "ann@other.example", display: "Ann"},
		{name: "sip", from: anonymous, headers: "P-Asserted-Identity: \"Ann Lee\" <sip:+15551234@other.example;user=phone>\r\n", sender: "+15551234@other.example", display: "Ann Lee"},
		{name: "sips, without a name", from: `"Me" <sip:me@x.example>`, headers: "P-Asserted-Identity: <sips:ann@other.example>\r\n", sender: "ann@other.example", display: "Me"},
		{name: "tel", from: anonymous, headers: "P-Asserted-Identity: tel:+1-555-1234\r\n", sender: "+15551234", display: "Anonymous"},
		{name: "tel and sip", from: anonymous, headers: "P-Asserted-Identity: tel:+15551234, \"Ann\" <sip:ann@other.example>\r\n", sender: "ann@other.example", display: "Ann", owns: "+15551234"},
		{name: "in two fields", from: anonymous, headers: "P-Asserted-Identity: <sip:ann@other.example>\r\nP-Asserted-Identity: <tel:+15551234>\r\n", sender: "ann@other.example", display: "Anonymous", owns: "+15551234"},
		{name: "From that is none", from: `<mailto:x@y>`, headers: "P-Asserted-Identity: <sip:ann@other.example>\r\n", sender: "ann@other.example"},
		{name: "private", from: anonymous, headers: "P-Asserted-Identity: \"Ann\" <sip:ann@other.example>\r\nPrivacy: header; ID\r\n",
			sender: "anonymous@anonymous.invalid", display: "Anonymous", owns: "ann@other.example", asserted: "ann@other.example"},
		{name: "privacy none", from: anonymous, headers: "P-Asserted-Identity: <sip:ann@other.example>\r\nPrivacy: none\r\n", sender: "ann@other.example", display: "Anonymous"},
		{name: "private, and From is none", from: `<mailto:x@y>`, headers: "P-Asserted-Identity: <sip:ann@other.example>\r\nPrivacy: id\r\n", status: "400 Bad Request"},
		{name: "two of a kind", from: anonymous, headers: "P-Asserted-Identity: <sip:a@b>, <sip:c@d>\r\n", status: "400 Bad Request"},
		{name: "two numbers", from: anonymous, headers: "P-Asserted-Identity: <tel:+1>, <tel:+2>\r\n", status: "400 Bad Request"},
		{name: "three", from: anonymous, headers: "P-Asserted-Identity: <sip:a@b>, <tel:+1>, <tel:+2>\r\n", status: "400 Bad Request"},
		{name: "nonsense", from: anonymous, headers: "P-Asserted-Identity: <what>\r\n", status: "400 Bad Request"},
		{name: "an open quote", from: anonymous, headers: "P-Asserted-Identity: \"Ann <sip:a@b>\r\n", status: "400 Bad Request"},
		{name: "nobody", from: anonymous, headers: "P-Asserted-Identity: <sip:other.example>\r\n", status: "400 Bad Request"},
	} {
		g := &gate{}
		c := newClient(t, openDoor(t, g, trusting))
		request := c.request("MESSAGE", bob, test.headers+"Content-Type: text/plain\r\n", "x")
		c.send(strings.Replace(request, `"Ann" <sip:1001@sip.example.com>`, test.from, 1))
		got := c.receive()
		if test.status != "" {
			if status(got) != test.status {
				t.Errorf("%s: %s", test.name, status(got))
			}
			continue
		}
		if status(got) != "202 Accepted" {
			t.Errorf("%s: %s", test.name, status(got))
			continue
		}
		a := g.submitted()[0]
		if a.Message.From.String() != test.sender || a.Message.DisplayName != test.display || !a.Account.Owns(a.Message.From) || a.Account.Attributes["asserted"] != test.asserted {
			t.Errorf("%s: %+v %+v", test.name, a.Message, a.Account)
		}
		if n := len(a.Account.Identities); test.owns != "" && (n != 2 || a.Account.Identities[1].String() != test.owns) || test.owns == "" && n != 1 {
			t.Errorf("%s: %v", test.name, a.Account.Identities)
		}
		if len(a.Message.Headers) > 0 {
			t.Errorf("%s: %v is passed on", test.name, a.Message.Headers)
		}
	}
}

// TestAssertedByOthers: from those who aren't trusted, or who have credentials,
// it means nothing.
func TestAssertedByOthers(t *testing.T) {
	const asserted = "P-Asserted-Identity: \"Boss\" <sip:boss@sip.example.com>\r\nPrivacy: id\r\n"
	for name, peers := range map[string]func(*Config){"a stranger": nil, "a peer that doesn't vouch": edge, "a peer that vouches": trusting} {
		g := &gate{}
		c := newClient(t, openDoor(t, g, peers))
		if name != "a peer that vouches" {
			c.send(c.request("MESSAGE", bob, asserted, "x"))
			want(t, c.receive(), "401 Unauthorized")
		}
		c.login()
		want(t, c.message(asserted, "x"), "202 Accepted")
		a := g.submitted()[0]
		if a.Message.From.String() != "1001@sip.example.com" || a.Message.DisplayName != "Ann" || a.Account.ID != "acc-1" || len(a.Message.Headers) > 0 {
			t.Errorf("%s: %+v", name, a.Message)
		}
	}
}

func TestCertifiedPeers(t *testing.T) {
	list, err := newPeers([]Peer{
		{Name: "core", Certificates: []string{"Core.example.com", "sip:trunk.example.com"}},
		{Name: "mesh", Certificates: []string{"spiffe://example.com/sip"}, Addresses: []string{"192.0.2.1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{u}
	}
	for _, test := range []struct {
		what string
		cert x509.Certificate
		want string
	}{
		{"DNS name", x509.Certificate{DNSNames: []string{"x.example.com", "CORE.example.com"}}, "core"},
		{"the domain's URI", x509.Certificate{URIs: uri("sip:core.example.com")}, "core"},
		{"URI", x509.Certificate{URIs: uri("sip:trunk.example.com")}, "core"},
		{"another scheme", x509.Certificate{URIs: uri("spiffe://example.com/sip")}, "mesh"},
		{"a name under it", x509.Certificate{DNSNames: []string{"a.core.example.com", "*.example.com", "example.com"}}, ""},
		{"a user's URI", x509.Certificate{URIs: uri("sip:ann@core.example.com")}, ""},
		{"the URI's name as DNS name", x509.Certificate{DNSNames: []string{"trunk.example.com"}}, ""},
		{"nothing", x509.Certificate{}, ""},
	} {
		got := ""
		if p := list.certified(&test.cert); p != nil {
			got = p.Name
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}
}

// FuzzAsserted: whatever a peer asserts, what is read of it is an address that
// may stand in From.
func FuzzAsserted(f *testing.F) {
	for _, seed := range []string{"<sip:a@b>", "tel:+1", "\"x\" <sips:a@b>", "<sip:a%0d%0a@b>", "<sip:\"@b>", "<tel:+1;ext=2>, <sip:a@[::1]>"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		a, err := parseAsserted([]string{value})
		if err != nil {
			return
		}
		for _, address := range a.identities {
			if address.Validate() != nil || bytes.ContainsAny(wire.AppendURI(nil, address, "d.example"), "\r\n\x00") {
				t.Errorf("%q became %q", value, address)
			}
		}
	})
}

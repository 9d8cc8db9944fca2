//go:build interop

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// partnersPolicies lead to the domain of a partner, and to another of his with an
// echo behind it.
var partnersPolicies = map[string]string{
	"partner.rego": `package imgate.services.partner

match := {"domains": ["other.example.com"]}

plan.transports := ["partner"]
`,
	"backup.rego": `package imgate.services.backup

match := {"domains": ["backup.example.com"]}

plan.transports := ["partner", "echo"]
`,
	"home.rego": `package imgate.services.home

match := {"domains": ["*"]}

plan.transports := ["sip"]
`,
}

// TestTrunk: a partner's Kamailio, which asks for our credentials, over UDP and over
// TLS with its certificate checked. While it is away messages wait, or take
// another way.
func TestTrunk(t *testing.T) {
	certificate, key := selfSigned(t, proxy)
	text, err := os.ReadFile(filepath.Join("testdata", "kamailio", "partner.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("CERTIFICATE", certificate, "PRIVATE_KEY", key, "PASSWORD", password).Replace(string(text))
	for network, hop := range map[string]string{"UDP": "sip:" + proxy + ":5060", "TLS": "sips:" + proxy + ":5061"} {
		t.Run(network, func(t *testing.T) { tryTrunk(t, config, hop, certificate) })
	}
}

func tryTrunk(t *testing.T, config, hop, authority string) {
	stop := runKamailio(t, config)
	s := newServer(t, gateway)
	s.rewrite("    domains: [sip.example.com]\n", fmt.Sprintf(`    domains: [sip.example.com]
    peers: [{name: partner, addresses: [%q], account: partner@sip.example.com}]
  echo: {plugin: loop}
  partner:
    plugin: sip-trunk
    next_hop: %q
    number_domain: other.example.com
    username: gateway
    password: %s
    probe: {every: 1s, failures: 2}
    tls: {ca: %q}
`, proxy, hop, password, authority))
	givePolicies(t, s, partnersPolicies)
	s.start()
	s.importAccounts([]string{"1001", "partner"})
	send := func(to, text string) string {
		t.Helper()
		out, problems, _ := s.try("send", "1001@sip.example.com", to, text, "--password", password)
		return out + problems
	}
	expect := func(said, want string) {
		t.Helper()
		if !strings.Contains(said, want) {
			t.Errorf("the sender is told %q, want %q", said, want)
		}
	}
	ours := listenAt(t, s, "1001@sip.example.com", gateway)
	theirs := listenAt(t, s, "2001@other.example.com", proxy+":5060")

	expect(send("2001@other.example.com", "there, "+everyScript), "delivered: ")
	theirs.got("1001@sip.example.com", "there, "+everyScript)
	expect(send("nobody@other.example.com", "hello"), "404")
	back, problems, _ := s.try("send", "2001@other.example.com", "1001@sip.example.com", "back, "+everyScript, "--password", password, "--server", proxy+":5060")
	expect(back+problems, "delivered: ")
	ours.got("2001@other.example.com", "back, "+everyScript)

	stop()
	s.eventually("the partner's absence is noticed", func() bool { return strings.Contains(s.logged(), "next hop doesn't answer") })
	expect(send("2001@other.example.com", "for later"), "accepted: ")
	expect(send("2001@backup.example.com", "another way"), "delivered: ")
	ours.got("2001@backup.example.com", "another way")

	runKamailio(t, config)
	theirs = listenAt(t, s, "2001@other.example.com", proxy+":5060")
	theirs.got("1001@sip.example.com", "for later")
	if n := strings.Count(theirs.script.said.String(), "came again"); n > 0 {
		t.Errorf("%d messages came again", n)
	}
}

// inboxOf is what a client prints that listens.
type inboxOf struct{ *script }

// listenAt registers a client at a server, until the test ends.
func listenAt(t *testing.T, s *server, address, server string) inboxOf {
	t.Helper()
	p := run(t, exec.Command(s.binary, "listen", address, "--json", "--server", server, "--config", s.config), "IMGATE_PASSWORD="+password)
	if !until(func() bool { return strings.Contains(p.said.String(), "listening as") }) {
		t.Fatalf("%s can't register: %s", address, p.said.String())
	}
	return inboxOf{p}
}

func (p inboxOf) got(from, text string) {
	p.t.Helper()
	p.waitFor("a message from "+from, 1, func(e event) bool { return e["from"] == from && e["text"] == text })
}

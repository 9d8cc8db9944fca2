//go:build process || interop

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What every test with SMPP has: phones with a number each, and the account of an
// ESME with several.
const (
	subscriber = "1001@sip.example.com"
	number     = "447700900001" // of subscriber; 1002 and 1003 have the next ones
	absent     = "447700900003" // of 1003, which registers when a test wants it
	esmeID     = "acme"
	esmeSecret = "s3same77" // SMPP has room for eight
	esmeNumber = "447700900100"
)

// smppGateway is the program with a door for ESMEs and, if it has one, a vendor.
type smppGateway struct {
	*server
	door   string // where ESMEs connect
	vendor string // where we look for an SMSC
}

// startSMPP starts the program with a vendor that may not be there yet. The last two
// are further lines of the sections of the door and of the vendor.
func startSMPP(t *testing.T, door, vendor, ofDoor, ofVendor string) *smppGateway {
	t.Helper()
	s := newServer(t, "")
	g := &smppGateway{server: s, door: door, vendor: vendor}
	s.rewrite("policy:   {plugin: rego}", fmt.Sprintf("policy:   {plugin: rego, dir: %q}", writePolicies(t, s)))
	s.rewrite("accounts: {plugin: ledger}", "accounts: {plugin: ledger, number_domains: [sms.example.com]}")
	s.rewrite("transports:\n", fmt.Sprintf(`transports:
  smpp-server:
    plugin: smpp-server
    listen: ["tcp://%s"]
%s  smpp:
    plugin: smpp
    connect: [%q]
    system_id: imgate
    password: sesame
    reconnect: {min: 100ms, max: 1s}
%s`, g.door, ofDoor, g.vendor, ofVendor))
	s.start()
	for i := range 3 {
		s.imgate("account", "add", fmt.Sprintf("100%d@sip.example.com", i+1), "--password", password, "--balance", "100.00",
			"--identity", fmt.Sprintf("+44770090000%d", i+1))
	}
	s.imgate("account", "add", esmeID+"@sms.example.com", "--password", esmeSecret, "--balance", "1000.00",
		"--identity", "+"+esmeNumber, "--attribute", `smpp.senders=\+4477009001[0-9]{2}`)
	return g
}

// writePolicies writes the policies that ship, but for those that want more
// transports. sms tries again every second; numbers that begin with 4499 have a
// service of their own, once, that gives up what nobody answers for.
func writePolicies(t *testing.T, s *server) (dir string) {
	t.Helper()
	dir = filepath.Join(filepath.Dir(s.config), "policies")
	s.imgate("policy", "init", dir)
	text := func(name string) string {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sms := replaceOnce(t, text("sms.rego"), `["10s", "1m", "5m", "15m", "1h"]`, `["1s"]`)
	once := replaceOnce(t, sms, "package imgate.services.sms", "package imgate.services.once")
	write("sms.rego", sms)
	write("once.rego", replaceOnce(t, once, `plan.retry.unknown := "retry"`, `plan.retry.unknown := "fail"`))
	write("sms.yaml", replaceOnce(t, text("sms.yaml"), "    - {service: sms, prefixes: [\"4490\"",
		"    - {service: once, prefixes: [\"4499\"], attributes: {destination: sms}}\n    - {service: sms, prefixes: [\"4490\""))
	for _, pattern := range []string{"*_test.rego", "rate*", "campaigns*", "rewrite*", "numbering*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

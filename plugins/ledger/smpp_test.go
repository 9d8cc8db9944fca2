package ledger

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// TestIdentities: numbers and names without a domain are kept as they are written,
// and found again, also by another node.
func TestIdentities(t *testing.T) {
	tables := plugintest.NewTables()
	n := openNode(t, tables)
	n.add(t, entry{AOR: "acme@sms.example.com", Password: "x", Identities: []string{"+447700900001", "70007", "ACME", "Acme-Shop.2&Co"}})
	for _, refused := range []string{"", "+", "Big Shop", "ACME!", "1a", "-a", "abcdefghijklmnop", "@", "é", strings.Repeat("1", 33)} {
		if err := n.Call(t.Context(), "POST", "/v1/accounts", entry{AOR: "b@a.example", Password: "x", Identities: []string{refused}}, nil); err == nil {
			t.Errorf("%q is taken for an identity", refused)
		}
	}
	if err := n.Call(t.Context(), "POST", "/v1/accounts", entry{AOR: "b@a.example", Password: "x", Identities: []string{"ACME"}}, nil); err == nil {
		t.Error("two have one name")
	}
	if got := n.list(t)["acme@sms.example.com"].Identities; len(got) != 4 || got[2] != (message.Address{User: "ACME"}) {
		t.Errorf("listed as %v", got)
	}
	csv := "aor,password,balance,identities\nz@a.example,x,0,+447700900009 ZED;90\n"
	if _, err := runCommand(t, n, strings.NewReader(csv), "account", "import", "-"); err != nil {
		t.Fatal(err)
	}
	again := openNode(t, tables)
	for name, want := range map[string]string{
		"+447700900001": "acme@sms.example.com", "70007": "acme@sms.example.com", "Acme-Shop.2&Co": "acme@sms.example.com",
		"acme": "", "447700900001": "", "ZED": "z@a.example", "90": "z@a.example", "+447700900009": "z@a.example",
	} {
		account, err := again.accounts.Lookup(t.Context(), message.Address{User: name})
		if account.ID != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", name, account.ID, err)
		}
	}
}

// TestSystemIDs: an ESME binds as an identity without a domain, or as the user part
// of its address, if nobody else has that.
func TestSystemIDs(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: "messaging-department@acme.example", Password: "acme-pw", Identities: []string{"acme", "+447700900001"}})
	n.add(t, entry{AOR: "acme@other.example", Password: "other-pw"})
	n.add(t, entry{AOR: "shop@other.example", Password: "shop-pw"})
	n.add(t, entry{AOR: "bank@a.example", Password: "a-pw"})
	n.add(t, entry{AOR: "bank@b.example", Password: "b-pw"})
	for _, c := range []struct{ systemID, password, want string }{
		{"acme", "acme-pw", "messaging-department@acme.example"}, // who has the name goes before who has it as a part
		{"acme", "other-pw", ""},
		{"acme@other.example", "other-pw", "acme@other.example"},
		{"+447700900001", "acme-pw", "messaging-department@acme.example"},
		{"447700900001", "acme-pw", ""},
		{"messaging-department", "acme-pw", "messaging-department@acme.example"},
		{"ACME", "acme-pw", ""},
		{"shop", "shop-pw", "shop@other.example"},
		{"bank", "a-pw", ""}, {"bank", "b-pw", ""}, {"", "", ""}, {"nobody", "", ""},
	} {
		account, err := n.accounts.Verify(t.Context(), plugin.Credentials{Password: &plugin.Password{SystemID: c.systemID, Password: c.password}})
		if account.ID != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %s: %s, %v", c.systemID, c.password, account.ID, err)
		}
		if f, ok := errors.AsType[*message.Failure](err); err != nil && (!ok || f.Reason != message.Unauthenticated) {
			t.Errorf("%s: %v", c.systemID, err)
		}
	}
}

func TestSMPPAttributes(t *testing.T) {
	for _, c := range []struct{ name, value, wrong string }{
		{"binds", "4", ""}, {"binds", "0", "expected a whole number from 1 to 1000"}, {"binds", "1001", "1000"}, {"binds", "+4", "whole number"}, {"binds", "", "whole number"},
		{"tls", "required", ""}, {"tls", "yes", "expected required"},
		{"outbind", "esme.example.com:2776", ""}, {"outbind", "[2001:db8::7]:2776", ""}, {"outbind", "esme.example.com", "expected host:port"}, {"outbind", "esme.example.com:0", "expected host:port"},
		{"networks", "192.0.2.7", ""}, {"networks", "192.0.2.0/24, 2001:db8::/32,::1", ""},
		{"networks", "192.0.2.0/33", `"192.0.2.0/33": expected an address or a network`}, {"networks", "", "expected an address"},
		{"networks", "192.0.2.7,", `"": expected an address`}, {"networks", "acme.example", "expected an address"}, {"networks", "fe80::1%eth0", "expected an address"},
		{"senders", `\+4477009001[0-9]{2}|ACME`, ""}, {"senders", "(", "expected a regular expression"}, {"senders", "a)(b", "expected a regular expression"}, {"senders", "", "expected a regular expression"},
		{"rate", "100", ""}, {"rate", "1.5", "expected a whole number from 1 to 100000"},
		{"window", "50", ""}, {"window", "10001", "expected a whole number from 1 to 10000"},
		{"tls", "required", ""}, {"tls", "yes", "expected required"}, {"tls", "", "expected required"},
		{"outbind", "esme.example.com:2776", ""}, {"outbind", "[2001:db8::7]:2776", ""}, {"outbind", "esme.example.com", "expected host:port"},
		{"outbind", ":2776", "expected host:port"}, {"outbind", "esme.example.com:0", "expected host:port"}, {"outbind", "", "expected host:port"},
		{"bind", "4", "expected one of smpp.binds, smpp.networks, smpp.outbind, smpp.rate, smpp.senders, smpp.tls, smpp.window"},
	} {
		name := "smpp." + c.name
		_, err := entry{AOR: "a@b.example", Password: "x", Attributes: map[string]string{name: c.value}}.account()
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), "attributes: "+name+": ") || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s=%s: %v, want %q", name, c.value, err, c.wrong)
		}
	}
}

// TestWhoBindsFitsIntoABind: an account that is meant to bind has a password and a
// name for which SMPP has room; others may have any.
func TestWhoBindsFitsIntoABind(t *testing.T) {
	binds := map[string]string{"smpp.binds": "2", "plan": "gold"}
	const long = "messaging-department@acme.example"
	for _, c := range []struct {
		e     entry
		wrong string
	}{
		{entry{AOR: long, Password: "123456789"}, ""},
		{entry{AOR: "acme@a.example", Password: "12345678", Attributes: binds}, ""},
		{entry{AOR: "acme@a.example", Password: strings.Repeat("x", 64), Attributes: binds}, ""},
		{entry{AOR: "acme@a.example", Password: strings.Repeat("x", 65), Attributes: binds}, "password: longer than 64 octets"},
		{entry{AOR: long, Password: "x", Attributes: binds}, "identities: expected a name of at most 15 octets to bind as"},
		{entry{AOR: long, Password: "x", Attributes: binds, Identities: []string{"+4477009000012345"}}, "to bind as"},
		{entry{AOR: long, Password: "x", Attributes: binds, Identities: []string{"a@b.example", "acme"}}, ""},
	} {
		_, err := c.e.account()
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%+v: %v, want %q", c.e, err, c.wrong)
		}
	}
	n := openNode(t, plugintest.NewTables())
	out, err := runCommand(t, n, nil, "account", "add", "acme@a.example", "--attribute", "smpp.binds=2")
	_, password, _ := strings.Cut(strings.TrimSpace(out), "password: ")
	if err != nil || len(password) != 8 {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := n.accounts.Verify(t.Context(), plugin.Credentials{Password: &plugin.Password{SystemID: "acme", Password: password}}); err != nil {
		t.Error(err)
	}
}

// TestNumberDomains: in these domains a number is whoever's it is without one.
func TestNumberDomains(t *testing.T) {
	tables := plugintest.NewTables()
	n := openNode(t, tables)
	n.add(t, entry{AOR: "bob@sip.example.com", Password: "x", Identities: []string{"+447700900002", "70007"}})
	n.add(t, entry{AOR: "eve@sip.example.com", Password: "x", Identities: []string{"+447700900003", "+447700900002@sms.example.com"}})
	c := &AccountsConfig{NumberDomains: []string{"sms.example.com", "SMS.example.net"}}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	env := plugin.Env{Instance: "ledger", Log: n.book.log, Tables: tables, Admin: &node{mux: n.mux}, Shared: &plugin.Shared{}}
	if _, err := plugin.Share(env, technology, func() (*book, error) { return n.book, nil }); err != nil {
		t.Fatal(err)
	}
	opened, err := plugin.Open[plugin.Accounts](t.Context(), Accounts, env, c)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	for address, want := range map[string]string{
		"+447700900002@sms.example.com": "eve@sip.example.com", // an identity of its own goes first
		"+447700900003@sms.example.com": "eve@sip.example.com", "447700900003@sms.example.net": "eve@sip.example.com",
		"70007@sms.example.com": "bob@sip.example.com", "+70007@sms.example.com": "bob@sip.example.com",
		"+447700900003@sip.example.com": "", "+447700900009@sms.example.com": "", "bob@sms.example.com": "", "@sms.example.com": "",
	} {
		user, host, _ := strings.Cut(address, "@")
		account, err := opened.Lookup(t.Context(), message.Address{User: user, Host: host})
		if account.ID != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", address, account.ID, err)
		}
	}
	for _, domain := range []string{"", "a@b", "a b", ".a", "a:5060"} {
		wrong := AccountsConfig{NumberDomains: []string{"a.example", domain}}
		if key, ok := errors.AsType[*plugin.InvalidKey](wrong.Validate()); !ok || key.Key != "number_domains.1" {
			t.Errorf("%q: %v", domain, key)
		}
	}
	if err := (AccountsConfig{NumberDomains: slices.Repeat([]string{"a"}, 101)}).Validate(); err == nil {
		t.Error("any number of domains")
	}
}

package sip

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/transports/sip/wire"
)

func TestSecretOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	first, err := openSecret(dir, "sip")
	if err != nil {
		t.Fatal(err)
	}
	again, err := openSecret(dir, "sip")
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("another secret at the next start: %v", err)
	}
	other, err := openSecret(dir, "other")
	if err != nil || bytes.Equal(first, other) {
		t.Errorf("two instances share a secret: %v", err)
	}
	name := filepath.Join(dir, "sip", "sip.secret")
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(name, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSecret(dir, "sip"); err == nil {
		t.Error("a broken secret is taken")
	}
}

func TestNoncesOfAnEarlierProcess(t *testing.T) {
	secret, now := newSecret(), time.Now()
	before, after := newNonces(time.Hour, secret, now.Add(-time.Hour)), newNonces(time.Hour, secret, now)
	id, err := after.check(before.make("r", "here", now), "r", now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		source string
		after  time.Duration
		good   bool
	}{
		{"here", 0, true}, {"here", inheritedFor, true}, {"here", inheritedFor + time.Second, false}, {"elsewhere", 0, false},
	} {
		if inherited, good := after.inherited(id, c.source, now.Add(c.after)); !inherited || good != c.good {
			t.Errorf("%s after %s: inherited %t, good %t", c.source, c.after, inherited, good)
		}
	}
	id, err = after.check(after.make("r", "here", now), "r", now)
	if inherited, good := after.inherited(id, "elsewhere", now.Add(time.Hour)); err != nil || inherited || !good {
		t.Errorf("its own: inherited %t, good %t, %v", inherited, good, err)
	}
}

// TestRepeatAfterRestart: a message that was under way when the node died, and
// is repeated as it was, passes at the next one; from elsewhere it doesn't, and
// a registration doesn't.
func TestRepeatAfterRestart(t *testing.T) {
	dir := t.TempDir()
	c := newClient(t, openDoorIn(t, &gate{}, dir, nil))
	c.login()
	message := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "")
	const registrar = "sip:sip.example.com"
	register := c.request("REGISTER", registrar, c.credentials("REGISTER", registrar), "")

	next := openDoorIn(t, &gate{}, dir, nil)
	elsewhere := newClient(t, next)
	elsewhere.send(message)
	want(t, elsewhere.receive(), "401 Unauthorized", "stale=true")

	again := newClient(t, next)
	local := c.addr()
	c.conn.Close()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(addressOf(next, "udp")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	again.conn = &packets{Conn: conn, network: "udp"}
	again.send(message)
	want(t, again.receive(), "202 Accepted")
	again.send(register)
	want(t, again.receive(), "401 Unauthorized", "stale=true")
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

func TestOfferedAlgorithms(t *testing.T) {
	both := challenger{algorithms: []string{"MD5", "SHA-256"}}
	for agent, want := range map[string]string{
		"": "[MD5 SHA-256]", "baresip v1.0.0 (x86_64/linux)": "[MD5]", "baresip v3.5.0": "[MD5 SHA-256]", "Linphone/5.1": "[MD5 SHA-256]",
	} {
		if got := fmt.Sprint(both.offered(agent)); got != want {
			t.Errorf("%q is offered %s, want %s", agent, got, want)
		}
	}
	if got := (challenger{algorithms: []string{"SHA-256"}}).offered("baresip v1.0.0"); len(got) != 1 {
		t.Errorf("what isn't configured is offered: %v", got)
	}
}

package sip

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// town is a gate of many accounts, 1001 to 1009, with everybody's password. It
// counts whom it was asked about.
type town struct {
	gate
	right, wrong atomic.Int64
}

func (g *town) Authenticate(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	d := c.Digest
	if len(d.Username) != 4 || !strings.HasPrefix(d.Username, "100") || d.Response != respond(d, password) {
		g.wrong.Add(1)
		return plugin.Account{}, message.Fail(message.Unauthenticated, "wrong")
	}
	g.right.Add(1)
	return plugin.Account{ID: "acc-" + d.Username, Identities: []message.Address{{User: "1001", Host: "sip.example.com"}}}, nil
}

// openTown starts a door that counts.
func openTown(t *testing.T, change func(*Config)) (*town, *Door, *plugin.Metrics) {
	t.Helper()
	g, registry := &town{}, plugin.NewMetrics()
	config := defaults
	config.Listen = []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0"}
	if change != nil {
		change(&config)
	}
	d, err := New(t.Context(), plugin.Env{Instance: "sip", Metrics: registry}, config)
	if err != nil {
		t.Fatal(err)
	}
	serveGate(t, &g.gate, g, d)
	return g, d, registry
}

// countOf is what a counter of a registry has counted.
func countOf(registry *plugin.Metrics, name, label string) float64 {
	for _, s := range registry.Series() {
		if s.Name == name && len(s.Labels) > 0 && s.Labels[0].Value == label {
			return s.Value()
		}
	}
	return 0
}

// at is a client at an address of this machine, for an account.
func at(t *testing.T, d *Door, network, address, username string) *client {
	t.Helper()
	conn, err := dialAs(d, network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn, algorithm: "MD5", qop: "auth", username: username}
}

func dialAs(d *Door, network, address string) (*packets, error) {
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(address)}}
	if network == "tcp" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(address)}
	}
	conn, err := dialer.Dial(network, addressOf(d, network).String())
	if err != nil {
		return nil, err
	}
	return &packets{Conn: conn, network: network, reader: bufio.NewReader(conn)}, nil
}

// guess asks with a password.
func (c *client) guess(password string) string {
	c.t.Helper()
	c.send(c.attempt(password))
	return c.receive()
}

func (c *client) attempt(password string) string {
	const uri = "sip:sip.example.com"
	c.nc++
	return c.request("REGISTER", uri, c.authorization("REGISTER", uri, fmt.Sprintf("%08x", c.nc), password), "")
}

// isServed wants a client that has logged in to be registered promptly.
func (c *client) isServed(what string) {
	c.t.Helper()
	began := time.Now()
	if got := status(c.insist(c.attempt(password))); got != "200 OK" || time.Since(began) > promptly {
		c.t.Errorf("%s is answered %s in %v", what, got, time.Since(began))
	}
}

var changing = regexp.MustCompile(`branch=\w+|rport=\d+|127\.\d+\.\d+\.\d+:\d+|tag=\w+|CSeq: \d+|nonce="[^"]+"|Retry-After: \d+`)

// told is what an answer says, without what is new in each.
func told(answer string) string { return changing.ReplaceAllString(answer, "-") }

// TestBruteForce: who guesses at an account is locked out. Nobody else is: not
// the subscriber elsewhere, nor where he has proved himself, nor others behind
// the same address. An account that doesn't exist is locked out in the same
// words.
func TestBruteForce(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		g, d, registry := openTown(t, nil)
		proved := at(t, d, network, "127.1.0.1", "1001")
		proved.login()
		proved.isServed("the subscriber before")
		thief, ghost := at(t, d, network, "127.1.0.1", "1001"), at(t, d, network, "127.1.0.1", "nobody")
		thief.login()
		ghost.login()
		for i := range 30 { // within the first lockout, on a busy machine too
			got, other := thief.guess(fmt.Sprint("guess", i)), ghost.guess(fmt.Sprint("guess", i))
			if told(got) != told(other) {
				t.Fatalf("%s: who exists is told from who doesn't:\n%s\n%s", network, got, other)
			}
			if locked := strings.HasPrefix(status(got), "500 "); locked != (i > freeTries) || locked != (fieldOf(got, "Retry-After") != "") {
				t.Fatalf("%s: guess %d: %s", network, i, got)
			}
		}
		if n := g.wrong.Load(); n != 2*(freeTries+1) {
			t.Errorf("%s: %d passwords were tried", network, n)
		}
		if n := countOf(registry, "sip_lockouts_total", "account"); n != 2 {
			t.Errorf("%s: %v lockouts are counted", network, n)
		}
		want(t, thief.guess(password), "500 Try Again Later") // nor does he learn that it is right
		proved.isServed("the subscriber on the flow that he has proved")
		neighbour := at(t, d, network, "127.1.0.1", "1002")
		neighbour.login()
		neighbour.isServed("another account behind the same address")
		elsewhere := at(t, d, network, "127.1.0.2", "1001")
		elsewhere.login()
		elsewhere.isServed("the subscriber elsewhere")
	}
}

// TestEnumeration: who tries many names learns nothing, and is slowed down; those
// who have proved themselves from the same address aren't.
func TestEnumeration(t *testing.T) {
	g, d, registry := openTown(t, nil)
	subscriber := at(t, d, "udp", "127.1.0.1", "1009")
	subscriber.login()
	subscriber.isServed("a subscriber before")
	thief := at(t, d, "udp", "127.1.0.1", "")
	thief.login()
	began, slow := time.Now(), 0
	for i := range 300 {
		thief.username = fmt.Sprint(1000 + i) // 1001 to 1009 exist; 1009 comes from here
		if i > 10 && i%10 == 9 {
			thief.username = "1009"
		}
		got := status(thief.guess("12345"))
		switch {
		case got == "500 Try Again Later":
			slow++
		case got != "401 Unauthorized":
			t.Fatalf("name %d is answered %s after %d slow ones", i, got, slow)
		}
	}
	most := nameBurst + 2*freeTries + int64(time.Since(began)/namePause)
	if n := g.wrong.Load(); slow < 200 || n > most {
		t.Errorf("%d names were slow, %d passwords were tried", slow, n)
	}
	if countOf(registry, "sip_lockouts_total", "names") == 0 {
		t.Error("nothing is counted")
	}
	subscriber.isServed("a subscriber on his flow")
	other := at(t, d, "udp", "127.1.0.2", "1005")
	other.login()
	other.isServed("a client elsewhere")
}

// TestSpoofedGuesses: with nonces that went to himself nobody can guess in the
// name of another address, nor have it locked out.
func TestSpoofedGuesses(t *testing.T) {
	g, d, _ := openTown(t, nil)
	thief := at(t, d, "udp", "127.1.0.1", "1001")
	thief.login()
	for i := range 200 {
		spoofed := at(t, d, "udp", fmt.Sprintf("127.2.%d.1", i/4), "1001")
		spoofed.nonce = thief.nonce
		want(t, spoofed.guess(fmt.Sprint("guess", i)), "401 Unauthorized", "stale=true")
		want(t, spoofed.guess(password), "401 Unauthorized", "stale=true") // the same for the right one
	}
	if g.wrong.Load()+g.right.Load() != 0 {
		t.Errorf("%d passwords were tried", g.wrong.Load())
	}
	victim := at(t, d, "udp", "127.2.7.1", "1001")
	victim.login()
	victim.isServed("whose address was written")
}

// TestReplayFromElsewhere: credentials that somebody has seen are good for
// nobody else, and don't make his flow one that has proved anything.
func TestReplayFromElsewhere(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		_, d, _ := openTown(t, nil)
		owner, thief := at(t, d, network, "127.1.0.1", "1001"), at(t, d, network, "127.1.0.2", "1001")
		owner.login()
		owner.nc++
		const uri = "sip:sip.example.com"
		seen := owner.authorization("REGISTER", uri, fmt.Sprintf("%08x", owner.nc), password)
		owner.send(owner.request("REGISTER", uri, seen, ""))
		want(t, owner.receive(), "200 OK")
		for range 10 {
			thief.send(thief.request("REGISTER", uri, seen, ""))
			want(t, thief.receive(), "401 Unauthorized", "stale=true")
		}
		thief.login()
		for range freeTries + 1 {
			want(t, thief.guess("wrong"), "401 Unauthorized")
		}
		thief.send(thief.request("REGISTER", uri, seen, ""))
		if got := status(thief.receive()); got == "200 OK" {
			t.Errorf("%s: %s", network, got)
		}
		want(t, thief.guess("wrong"), "500 Try Again Later")
		owner.isServed("the owner")
	}
}

// TestRequestFlood: a source that asks too much is refused and then not answered.
// Who has proved himself from there doesn't notice, and others neither.
func TestRequestFlood(t *testing.T) {
	_, d, registry := openTown(t, func(c *Config) { c.Limits.RequestsPerSource = 50 })
	subscriber := at(t, d, "udp", "127.1.0.1", "1001")
	subscriber.login()
	subscriber.isServed("a subscriber before")
	other := at(t, d, "udp", "127.1.0.2", "1002")
	other.login()

	bad := at(t, d, "udp", "127.1.0.1", "x")
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	flooding.Go(func() {
		requests := []string{bad.request("OPTIONS", bob, "", ""), bad.request("INVITE", bob, "", ""), bad.request("REGISTER", bob, "", ""), bad.request("MESSAGE", bob, "", "x")}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_, _ = bad.conn.Write([]byte(requests[i%len(requests)]))
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
	var answers [600]int
	flooding.Go(func() {
		_ = bad.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			got, err := bad.conn.next()
			if err != nil {
				return
			}
			code := 0
			_, _ = fmt.Sscanf(status(got), "%d", &code)
			answers[code]++
		}
	})
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(20 * time.Millisecond) {
		subscriber.isServed("a subscriber at the address of the flood")
		other.isServed("a client elsewhere")
	}
	newcomer := at(t, d, "udp", "127.1.0.1", "1003")
	newcomer.login()
	newcomer.isServed("a new client at the address of the flood")
	close(stop)
	_ = bad.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // what is under way
	flooding.Wait()
	told, untold := countOf(registry, "sip_limited_requests_total", "source"), countOf(registry, "sip_limited_requests_total", "source_dropped")
	t.Logf("%d answers of 500; %v refusals, %v dropped", answers[500], told, untold)
	if told == 0 || untold < told || told > 500 {
		t.Errorf("%v were refused, %v dropped", told, untold)
	}
}

// TestAccountRate: an account that says too much is told to wait, and may say
// it again as it was.
func TestAccountRate(t *testing.T) {
	_, d, registry := openTown(t, func(c *Config) { c.Limits.RequestsPerAccount = 5 })
	c := at(t, d, "udp", "127.1.0.1", "1001")
	c.login()
	limited := ""
	for i := 0; limited == "" && i < 100; i++ {
		request := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "x")
		c.send(request)
		got := c.receive()
		if strings.HasPrefix(status(got), "500 ") && fieldOf(got, "Retry-After") == "1" {
			limited = request
		} else if status(got) != "202 Accepted" {
			t.Fatal(got)
		}
	}
	if limited == "" || countOf(registry, "sip_limited_requests_total", "account") == 0 {
		t.Fatal("nothing is limited")
	}
	other := at(t, d, "udp", "127.1.0.1", "1002")
	other.login()
	other.isServed("another account")
	deadline := time.Now().Add(5 * time.Second)
	for {
		c.send(limited)
		got := status(c.receive())
		if got == "202 Accepted" {
			return
		}
		if !strings.HasPrefix(got, "500 ") || time.Now().After(deadline) {
			t.Fatalf("said again: %s", got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestNonceFlood: challenges cost no memory, from however many sources they are
// asked for.
func TestNonceFlood(t *testing.T) {
	_, d, _ := openTown(t, nil)
	good := at(t, d, "udp", "127.1.0.1", "1001")
	good.login()
	before := heap()
	const sources, each = 200, 50
	for i := range sources {
		conn, err := dialAs(d, "udp", fmt.Sprintf("127.3.%d.%d", i/200, 1+i%200))
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, conn: conn, algorithm: "MD5", qop: "auth", username: "1001"}
		for range each / 10 {
			for range 10 {
				c.send(c.request("REGISTER", bob, "", ""))
			}
			for range 10 {
				c.receive()
			}
		}
		conn.Close()
		if i%50 == 49 {
			good.isServed("a client in the flood")
		}
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d challenges left %d KiB", sources*each, grown>>10)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestOversize: what has too much of something is refused, whatever that is, and
// the door goes on.
func TestOversize(t *testing.T) {
	_, d, _ := openTown(t, nil)
	good := at(t, d, "udp", "127.1.0.1", "1001")
	good.login()
	bad := at(t, d, "udp", "127.1.0.2", "1002")
	bad.login()
	via := func(n int) string {
		return strings.Repeat("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n", n)
	}
	for _, test := range []struct{ name, headers, status string }{
		{"100 Vias", via(100), "401 Unauthorized"},
		{"1,000 Vias", via(1000), "400 Too Many Headers"},
		{"a Via of 200 values", "Via: SIP/2.0/UDP 192.0.2.1" + strings.Repeat(", SIP/2.0/UDP 192.0.2.1", 200) + "\r\n", "401 Unauthorized"},
		{"a Via of 1,000 values", "Via: SIP/2.0/UDP 192.0.2.1" + strings.Repeat(", SIP/2.0/UDP 192.0.2.1", 1000) + "\r\n", "400 Header Line Too Long"},
		{"100 credentials", strings.Repeat("Authorization: Digest realm=\"sip.example.com\", username=\"x\", nonce=\"n\", uri=\"sip:sip.example.com\", response=\"r\", qop=auth, nc=00000001, cnonce=\"c\"\r\n", 100), "401 Unauthorized"},
		{"credentials of 7,000 parameters", "Authorization: Digest a=b" + strings.Repeat(",", 7000) + "\r\n", "401 Unauthorized"},
		{"200 routes", "Route: " + strings.Repeat("<sip:sip.example.com;lr>, ", 200) + "<sip:sip.example.com;lr>\r\n", "401 Unauthorized"},
	} {
		bad.send(bad.request("REGISTER", "sip:sip.example.com", test.headers, ""))
		want(t, bad.receive(), test.status)
		good.isServed("a client after " + test.name)
	}
	for name, contacts := range map[string]string{
		"100 contacts":           strings.Repeat("Contact: <sip:a@b>\r\n", 100),
		"300 contacts in a list": "Contact: <sip:a@b>" + strings.Repeat(",<sip:a@b>", 300) + "\r\n",
	} {
		want(t, bad.register(contacts), "403 Too Many Contacts")
		good.isServed("a client after " + name)
	}
}

// TestGarbage: what is no SIP, over UDP and over streams, costs nobody else
// anything.
func TestGarbage(t *testing.T) {
	_, d, _ := openTown(t, nil)
	good := at(t, d, "tcp", "127.1.0.1", "1001")
	good.login()
	before := heap()
	for i := range 2000 {
		network := "udp"
		if i%10 == 0 {
			network = "tcp"
		}
		conn, err := dialAs(d, network, fmt.Sprintf("127.4.%d.%d", i/200, 1+i%200))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(noise(i)))
		conn.Close()
		if i%200 == 0 {
			good.isServed("a client in the flood")
		}
	}
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("the flood left %d KiB", grown>>10)
	}
}

// noise is something else each time that isn't good.
func noise(i int) string {
	bytes := make([]byte, 1+i%1200)
	for j := range bytes {
		bytes[j] = byte((i + 1) * (j + 7) >> 3)
	}
	text := string(bytes)
	switch i % 5 {
	case 0:
		return text
	case 1:
		return "REGISTER sip:sip.example.com SIP/2.0\r\nVia: " + text
	case 2:
		return "\x00\x01\x00\x00\x21\x12\xa4\x42" + text // STUN, or something like it
	case 3:
		return "\x16\x03\x01\x02\x00\x01" + text // the beginning of TLS
	}
	return "GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\nX: " + text
}

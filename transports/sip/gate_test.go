package sip

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// gate is an engine that does what a test tells it.
type gate struct {
	plugin.Gate // what isn't here is never asked for
	mu          sync.Mutex
	ready       chan struct{}
	arrivals    []plugin.Arrival
	bindings    []plugin.Binding
	asked       []plugin.Registration
	gone        []string // flows

	tenure   plugin.Tenure
	inactive *message.Failure
	lost     *message.Failure // between Active and Tenure
	refused  *message.Failure // by Accepted, or by Register
	within   time.Duration
	outcome  plugin.Outcome
	panics   bool          // in Accepted
	hold     chan struct{} // Accepted waits for it, if it isn't nil
}

func (g *gate) Ready() { close(g.ready) }

func (g *gate) Active() *message.Failure {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inactive
}

// Tenure is that of the test, else that of an engine that has been active for
// ever.
func (g *gate) Tenure() (plugin.Tenure, *message.Failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tenure.Fence == 0 {
		g.tenure.Fence = 1
	}
	if g.lost != nil {
		return plugin.Tenure{}, g.lost
	}
	return g.tenure, g.inactive
}

// becomes changes what the engine is.
func (g *gate) becomes(inactive *message.Failure, tenure plugin.Tenure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inactive, g.tenure = inactive, tenure
}

// password is everybody's, and account1001 the only account.
const password = "secret"

var account1001 = plugin.Account{ID: "acc-1", Identities: []message.Address{{User: "1001", Host: "sip.example.com"}}}

func (g *gate) Authenticate(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	d := c.Digest
	if d.Username == "suspended" {
		return plugin.Account{}, message.Fail(message.Forbidden, "suspended")
	}
	if d.Username != "1001" || d.Response != respond(d, password) {
		return plugin.Account{}, message.Fail(message.Unauthenticated, "wrong")
	}
	return account1001, nil
}

// respond computes the response of RFC 7616 §3.4.1, and of RFC 2069 without qop.
func respond(d *plugin.Digest, password string) string {
	sum := func(s string) string {
		var h hash.Hash = md5.New()
		if d.Algorithm == "SHA-256" {
			h = sha256.New()
		}
		h.Write([]byte(s))
		return hex.EncodeToString(h.Sum(nil))
	}
	a1, a2 := sum(d.Username+":"+d.Realm+":"+password), sum(d.Method+":"+d.URI)
	if d.QOP == "" {
		return sum(a1 + ":" + d.Nonce + ":" + a2)
	}
	return sum(strings.Join([]string{a1, d.Nonce, d.NC, d.CNonce, d.QOP, a2}, ":"))
}

func (g *gate) Register(_ context.Context, r plugin.Registration) ([]plugin.Binding, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, r)
	if g.refused != nil {
		return nil, g.refused
	}
	if r.All {
		g.bindings = nil
	}
	for _, b := range r.Bindings {
		kept := g.bindings[:0]
		for _, old := range g.bindings {
			if old.Contact != b.Contact {
				kept = append(kept, old)
			}
		}
		g.bindings = kept
		if b.Expires.After(time.Now()) {
			g.bindings = append(g.bindings, b)
		}
	}
	return append([]plugin.Binding(nil), g.bindings...), nil
}

func (g *gate) Submit(a plugin.Arrival) plugin.Ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrivals = append(g.arrivals, a)
	return ticket{g}
}

func (g *gate) submitted() []plugin.Arrival {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]plugin.Arrival(nil), g.arrivals...)
}

func (g *gate) registrations() []plugin.Registration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]plugin.Registration(nil), g.asked...)
}

func (g *gate) bound() []plugin.Binding {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]plugin.Binding(nil), g.bindings...)
}

// Lost ends bindings, as an engine does.
func (g *gate) Lost(_ context.Context, flow string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = append(g.gone, flow)
	kept := g.bindings[:0]
	for _, b := range g.bindings {
		switch {
		case b.Flow != flow:
			kept = append(kept, b)
		case b.Push != plugin.Push{}:
			b.Asleep = true
			kept = append(kept, b)
		}
	}
	g.bindings = kept
	return nil
}

// lostFlows are those that the gate was told of.
func (g *gate) lostFlows() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.gone)
}

// bind says what is bound.
func (g *gate) bind(bindings ...plugin.Binding) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bindings = bindings
}

func (g *gate) refuse(f *message.Failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = f
}

func (g *gate) Report(context.Context, string, plugin.Status) error { return nil }

type ticket struct{ *gate }

func (t ticket) Accepted(ctx context.Context) (plugin.Answer, error) {
	if t.panics {
		panic("fault")
	}
	if t.hold != nil {
		select {
		case <-t.hold:
		case <-ctx.Done():
			return plugin.Answer{}, message.FailForNow(message.Internal, "%w: %w", ctx.Err(), plugin.ErrUnknown)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused != nil {
		return plugin.Answer{}, t.refused
	}
	return plugin.Answer{Within: t.within}, nil
}

func (t ticket) First(context.Context) plugin.Outcome { return t.outcome }

// open starts a door with a gate; both end with the test.
func openDoor(t testing.TB, g *gate, change func(*Config)) *Door {
	t.Helper()
	config := defaults
	config.Listen = []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0"}
	if change != nil {
		change(&config)
	}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	return serve(t, g, plugin.Env{Instance: "sip"}, config)
}

func serve(t testing.TB, g *gate, env plugin.Env, config Config) *Door {
	t.Helper()
	d, err := New(t.Context(), env, config)
	if err != nil {
		t.Fatal(err)
	}
	serveDoor(t, g, d)
	return d
}

// serveDoor serves a door until the end of the test.
func serveDoor(t testing.TB, g *gate, d *Door) {
	t.Helper()
	serveGate(t, g, g, d)
}

// serveGate serves a door with a gate that another one is in.
func serveGate(t testing.TB, g *gate, whole plugin.Gate, d *Door) {
	t.Helper()
	g.ready = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, whole) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	<-g.ready
}

// addressOf is where a door listens on a network.
func addressOf(d *Door, network string) netip.AddrPort {
	for i, l := range d.listen {
		if l.Network == network {
			return d.Addrs()[i]
		}
	}
	return netip.AddrPort{}
}

// packets are a connection on which whole messages are read.
type packets struct {
	net.Conn
	network string
	reader  *bufio.Reader // of a stream
	buffer  []byte        // for a datagram
}

func dialDoor(d *Door, network string) (*packets, error) {
	conn, err := dialStream(network, addressOf(d, network).String())
	if err != nil {
		return nil, err
	}
	return &packets{Conn: conn, network: network, reader: bufio.NewReader(conn)}, nil
}

func (p *packets) local() netip.AddrPort { return netip.MustParseAddrPort(p.LocalAddr().String()) }

// next reads one message; it leaves out pongs.
func (p *packets) next() (string, error) {
	if p.network == "udp" {
		if p.buffer == nil {
			p.buffer = make([]byte, wire.MaxMessage)
		}
		n, err := p.Read(p.buffer)
		return string(p.buffer[:n]), err
	}
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		line, err := p.reader.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == "\r\n" && head.Len() == 0 {
			continue
		}
		head.WriteString(line)
	}
	length, _ := strconv.Atoi(fieldOf(head.String(), "Content-Length")) // ours are right
	body := make([]byte, length)
	_, err := io.ReadFull(p.reader, body)
	return head.String() + string(body), err
}

// client is a user agent without any sense.
type client struct {
	t         testing.TB
	conn      *packets
	cseq      int
	nonce     string
	nc        int
	algorithm string
	qop       string
	username  string
}

func newClient(t testing.TB, d *Door) *client { return newClientOver(t, d, "udp") }

func newClientOver(t testing.TB, d *Door, network string) *client {
	t.Helper()
	conn, err := dialDoor(d, network)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn, algorithm: "MD5", qop: "auth", username: "1001"}
}

func (c *client) addr() netip.AddrPort { return c.conn.local() }

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) receive() string {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	packet, err := c.conn.next()
	if err != nil {
		c.t.Fatal(err)
	}
	return packet
}

// insist asks until there is an answer: over UDP the door drops what comes for a
// worker that has too much to do, and clients repeat it (RFC 3261 §17.1.2.2).
func (c *client) insist(request string) string {
	c.t.Helper()
	for range 20 {
		c.send(request)
		if c.conn.network != "udp" {
			break
		}
		_ = c.conn.SetReadDeadline(time.Now().Add(wire.T1))
		for packet, err := c.conn.next(); err == nil; packet, err = c.conn.next() {
			if fieldOf(packet, "CSeq") == fieldOf(request, "CSeq") {
				return packet
			}
		}
	}
	return c.receive()
}

// request writes a request of 1001's; headers end in CRLF each.
func (c *client) request(method, uri, headers, body string) string {
	c.cseq++
	to := uri
	if method == "REGISTER" {
		to = "sip:1001@sip.example.com"
	}
	return fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bK%d\r\nMax-Forwards: 70\r\nFrom: \"Ann\" <sip:1001@sip.example.com>;tag=f\r\nTo: <%s>\r\nCall-ID: call\r\nCSeq: %d %s\r\n%sContent-Length: %d\r\n\r\n%s",
		method, uri, strings.ToUpper(c.conn.network), c.conn.LocalAddr(), c.cseq, to, c.cseq, method, headers, len(body), body)
}

var nonceIn = regexp.MustCompile(`nonce="([^"]+)"`)

// login fetches a nonce.
func (c *client) login() {
	c.t.Helper()
	got := c.insist(c.request("REGISTER", "sip:sip.example.com", "", ""))
	found := nonceIn.FindStringSubmatch(got)
	if !strings.HasPrefix(got, "SIP/2.0 401 ") || found == nil {
		c.t.Fatalf("no challenge: %s", got)
	}
	c.nonce, c.nc = found[1], 0
}

// credentials answers the challenge with the next nonce count.
func (c *client) credentials(method, uri string) string {
	c.nc++
	return c.authorization(method, uri, fmt.Sprintf("%08x", c.nc), password)
}

func (c *client) authorization(method, uri, nc, password string) string {
	d := plugin.Digest{Method: method, Username: c.username, Realm: "sip.example.com", Nonce: c.nonce, URI: uri, Algorithm: c.algorithm, QOP: c.qop}
	value := fmt.Sprintf(`Digest username=%q, realm=%q, nonce=%q, uri=%q, algorithm=%s`, d.Username, d.Realm, d.Nonce, d.URI, d.Algorithm)
	if c.qop != "" {
		d.NC, d.CNonce = nc, `a"b`
		value += fmt.Sprintf(`, qop=%s, nc=%s, cnonce=%s`, d.QOP, d.NC, wire.Quote(d.CNonce))
	}
	return fmt.Sprintf("Authorization: %s, response=%q\r\n", value, respond(&d, password))
}

const bob = "sip:1002@sip.example.com"

// message sends an authenticated MESSAGE and returns the answer.
func (c *client) message(headers, body string) string {
	c.t.Helper()
	c.send(c.request("MESSAGE", bob, c.credentials("MESSAGE", bob)+headers, body))
	return c.receive()
}

// register sends an authenticated REGISTER and returns the answer.
func (c *client) register(headers string) string {
	c.t.Helper()
	const uri = "sip:sip.example.com"
	c.send(c.request("REGISTER", uri, c.credentials("REGISTER", uri)+headers, ""))
	return c.receive()
}

// status is the first line without the version.
func status(response string) string {
	line, _, _ := strings.Cut(response, "\r\n")
	return strings.TrimPrefix(line, "SIP/2.0 ")
}

func want(t *testing.T, response, status_ string, contains ...string) {
	t.Helper()
	if got := status(response); got != status_ {
		t.Errorf("%s, want %s", got, status_)
	}
	for _, s := range contains {
		if !strings.Contains(response, s) {
			t.Errorf("no %q in:\n%s", s, response)
		}
	}
}

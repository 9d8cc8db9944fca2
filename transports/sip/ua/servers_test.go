package ua

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua/internal/fakesip"
)

// backend is a node of a gateway that says what a test wants, and writes down
// what it is asked, without retransmissions.
type backend struct {
	conn  *net.UDPConn
	asked chan string // each request, as it came

	mu     sync.Mutex
	status string // of its answers; empty: none
	extra  string // header fields of its answers
	seen   map[string]bool
}

func startBackend(t *testing.T, status string) *backend {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{conn: conn, status: status, asked: make(chan string, 1000), seen: map[string]bool{}}
	var serving sync.WaitGroup
	serving.Go(b.serve)
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return b
}

func (b *backend) address() string { return b.conn.LocalAddr().String() }

// says sets what it answers from now on.
func (b *backend) says(status, extra string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status, b.extra = status, extra
}

func (b *backend) serve() {
	buffer := make([]byte, maxPacket)
	for {
		n, source, err := b.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		b.receive(string(buffer[:n]), source)
	}
}

func (b *backend) receive(packet string, source netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.HasPrefix(packet, "SIP/2.0 ") {
		b.asked <- packet
		return
	}
	if branch := line(packet, "Via"); !b.seen[branch] {
		b.seen[branch] = true
		b.asked <- packet
	}
	if b.status != "" {
		b.answer(packet, source)
	}
}

func (b *backend) answer(request string, to netip.AddrPort) {
	var w strings.Builder
	w.WriteString("SIP/2.0 " + b.status + "\r\n")
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		fmt.Fprintf(&w, "%s: %s\r\n", name, line(request, name))
	}
	w.WriteString(b.extra + "Content-Length: 0\r\n\r\n")
	_, _ = b.conn.WriteToUDPAddrPort([]byte(w.String()), to) // a client that has gone doesn't ask
}

// line is the value of a header field.
func line(packet, name string) string {
	_, rest, _ := strings.Cut(packet, "\r\n"+name+": ")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// withoutBranch is a request as it is at every server.
func withoutBranch(request string) string {
	branch := line(request, "Via")
	_, branch, _ = strings.Cut(branch, "branch=")
	branch, _, _ = strings.Cut(branch, ";")
	return strings.Replace(request, branch, "", 1)
}

func both(a, b *backend) Config {
	return Config{UDP: a.address(), Others: []Server{{UDP: b.address()}}}
}

// TestTheNextServerIsAskedTheSame: where the outcome is unknown, and where it is
// refused for now; and the one that answers is asked first from then on.
func TestTheNextServerIsAskedTheSame(t *testing.T) {
	for name, first := range map[string]string{"silent": "", "503": "503 Service Unavailable"} {
		t.Run(name, func(t *testing.T) {
			a, b := startBackend(t, first), startBackend(t, "202 Accepted")
			alice := dialOver(t, both(a, b), "1001", nil)
			if r := send(t, alice, "1002", "hello"); r.Code != 202 {
				t.Fatalf("%+v", r)
			}
			if one, two := <-a.asked, <-b.asked; withoutBranch(one) != withoutBranch(two) || one == two {
				t.Errorf("asked\n%s\nand\n%s", one, two)
			}
			send(t, alice, "1002", "again")
			if len(a.asked) != 0 || len(b.asked) != 1 {
				t.Error("it doesn't stay with the one that answered")
			}
			got := alice.Attempts()
			if got[0].Requests != 1 || got[0].Silent+got[0].Unavailable != 1 || got[1].Answered != 2 || got[0].Server != a.address() {
				t.Errorf("%+v", got)
			}
			// And back.
			a.says("202 Accepted", "")
			b.says("503 Service Unavailable", "")
			if r := send(t, alice, "1002", "hello"); r.Code != 202 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestRoundsUntilSomebodyTakesTraffic: while nobody does, all are asked again,
// a node that refused in a new transaction; in the end the refusal stands.
func TestRoundsUntilSomebodyTakesTraffic(t *testing.T) {
	a, b := startBackend(t, "503 Service Unavailable"), startBackend(t, "503 Service Unavailable")
	alice := dialOver(t, both(a, b), "1001", nil)
	done := make(chan Result, 1)
	go func() {
		r, err := alice.Message(t.Context(), user("1002"), "text/plain", nil, Options{})
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	<-b.asked
	<-a.asked
	again := <-a.asked
	a.says("200 OK", "")
	if r := <-done; r.Code != 200 {
		t.Errorf("%+v", r)
	}
	if line(again, "CSeq") != "1 MESSAGE" {
		t.Errorf("a new request: %s", again)
	}

	for _, n := range []*backend{a, b} { // the time may be over at either
		n.says("503 Service Unavailable", "Retry-After: 1\r\n")
	}
	began := time.Now()
	if r := send(t, alice, "1002", "x"); r.Code != 503 || r.RetryAfter != time.Second || time.Since(began) < quick.timeout() {
		t.Errorf("%+v after %s", r, time.Since(began))
	}
	b.says("", "")
	a.says("", "")
	if _, err := alice.Message(t.Context(), user("1002"), "text/plain", nil, Options{}); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("%v", err)
	}
}

// TestALateAnswerCounts, whoever is asked meanwhile.
func TestALateAnswerCounts(t *testing.T) {
	a, b := startBackend(t, ""), startBackend(t, "")
	alice := dialOver(t, both(a, b), "1001", nil)
	go func() {
		<-b.asked
		a.mu.Lock()
		defer a.mu.Unlock()
		a.status = "200 OK"
		a.answer(<-a.asked, alice.Local())
	}()
	if r := send(t, alice, "1002", "x"); r.Code != 200 {
		t.Errorf("%+v", r)
	}
	if got := alice.Attempts(); got[0].Answered != 1 || alice.chosen.Load() != 0 {
		t.Errorf("%+v", got)
	}
}

// TestUnsureRequestsAreCounted: one that was challenged after another server may
// have taken it.
func TestUnsureRequestsAreCounted(t *testing.T) {
	a, b := startBackend(t, "401 Unauthorized"), startBackend(t, "401 Unauthorized")
	for _, n := range []*backend{a, b} {
		n.says("401 Unauthorized", "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n")
	}
	alice := dialOver(t, both(a, b), "1001", nil)
	send(t, alice, "1002", "x") // from now on it has credentials
	a.says("", "")
	if r := send(t, alice, "1002", "x"); r.Code != 401 {
		t.Errorf("%+v", r)
	}
	<-b.asked
	if again := <-b.asked; line(again, "CSeq") != "4 MESSAGE" || alice.Unsure() != 1 {
		t.Errorf("%d unsure, %s", alice.Unsure(), again)
	}
}

// TestListenerIsReachedByEveryServer, answers the one that asks, and tells what
// came again; strangers aren't heard.
func TestListenerIsReachedByEveryServer(t *testing.T) {
	a, b, stranger := startBackend(t, "200 OK"), startBackend(t, ""), startBackend(t, "")
	handle, arrived := inbox()
	again := make(chan Incoming, 10)
	c := both(a, b)
	c.Again = func(m Incoming) { again <- m }
	bob := dialOver(t, c, "1002", handle)
	register(t, bob)
	deliver := func(from *backend, branch string) {
		t.Helper()
		packet := fmt.Sprintf("MESSAGE sip:1002@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s;rport\r\nMax-Forwards: 70\r\nFrom: <sip:1001@%s>;tag=t\r\nTo: <sip:1002@%s>\r\nCall-ID: c\r\nCSeq: 7 MESSAGE\r\nContent-Length: 2\r\n\r\nhi", bob.Local(), from.address(), branch, domain, domain)
		if _, err := from.conn.WriteToUDPAddrPort([]byte(packet), bob.Local()); err != nil {
			t.Fatal(err)
		}
	}
	deliver(stranger, "0")
	deliver(b, "1")
	if m := <-arrived; m.CallID != "c" || m.CSeq != 7 || m.From != (message.Address{User: "1001", Host: domain}) {
		t.Errorf("%+v", m)
	}
	if answer := <-b.asked; !strings.HasPrefix(answer, "SIP/2.0 200 ") {
		t.Error(answer)
	}
	deliver(b, "1") // a retransmission
	<-b.asked
	<-a.asked // the registration
	deliver(a, "2")
	<-a.asked
	if m := <-again; m.CSeq != 7 || len(again)+len(arrived)+len(stranger.asked) != 0 {
		t.Errorf("%+v, %d more", m, len(again)+len(arrived))
	}
}

// TestServersOverTCP: a connection to each, and one that nobody accepts is left.
func TestServersOverTCP(t *testing.T) {
	s := fake(t, fakesip.Config{})
	handle, arrived := inbox()
	nobody := Server{TCP: "127.0.0.1:1"}
	bob := dialOver(t, Config{TCP: nobody.TCP, Others: []Server{{TCP: s.Address()}}}, "1002", handle)
	alice := dialOver(t, Config{TCP: s.Address(), Others: []Server{nobody}}, "1001", nil)
	register(t, bob)
	if r := send(t, alice, "1002", strings.Repeat("x", 2*needsStream)); r.Code != 200 {
		t.Errorf("%+v", r)
	}
	<-arrived
	alice.leave(0)
	if r := send(t, alice, "1002", "hello"); r.Code != 200 || alice.Attempts()[1].Silent != 1 || alice.chosen.Load() != 0 {
		t.Errorf("%+v, %+v", r, alice.Attempts())
	}
	<-arrived
}

func TestServersOfOneNetwork(t *testing.T) {
	_, err := Dial(t.Context(), Config{Address: user("1001"), UDP: "127.0.0.1:9", Others: []Server{{TCP: "127.0.0.1:9"}}})
	if err != errNetworks {
		t.Error(err)
	}
}

func TestManyAtOnceFollowTheActiveOne(t *testing.T) {
	a, b := startBackend(t, "200 OK"), startBackend(t, "503 Service Unavailable")
	alice := dialOver(t, both(a, b), "1001", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var sending sync.WaitGroup
	codes := make([]int, 50)
	for i := range codes {
		sending.Go(func() {
			r, err := alice.Message(ctx, user("1002"), "text/plain", nil, Options{})
			if err != nil {
				t.Error(err)
			}
			codes[i] = r.Code
		})
		if i == len(codes)/2 {
			a.says("503 Service Unavailable", "")
			b.says("200 OK", "")
		}
	}
	sending.Wait()
	if slices.ContainsFunc(codes, func(c int) bool { return c != 200 }) {
		t.Errorf("%v", codes)
	}
}

// TestListenerOverTCPFollows: a node that turns standby keeps the connection, so
// the listener has to ask.
func TestListenerOverTCPFollows(t *testing.T) {
	var second atomic.Bool // takes the traffic
	a := fake(t, fakesip.Config{Standby: second.Load})
	b := fake(t, fakesip.Config{Standby: func() bool { return !second.Load() }})
	bob := dialOver(t, Config{TCP: a.Address(), Others: []Server{{TCP: b.Address()}}}, "1002", nil)
	register(t, bob)
	moved := make(chan struct{})
	b.OnRegister("1002", func() { close(moved) })
	ctx, cancel := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { bob.KeepRegistered(ctx, time.Hour, func(err error) { t.Log(err) }) })
	second.Store(true)
	<-moved
	cancel()
	keeping.Wait()
}

//go:build process

package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/transports/sip/ua"
)

// secretText is in every message of these tests and must not be in the log.
const secretText = "xyzzy-plugh-7341"

// smallLimits are low enough to be reached at once.
const smallLimits = `    limits: {body: 1000, contacts: 2, connections: 5, connections_per_address: 3}
limits: {messages: 6, per_recipient: 3, contacts: 2}
`

// excess is what is too much of something.
type excess struct {
	name   string
	exceed func(*testing.T, *server) // and checks the answer
	metric string                    // that counts it
	line   string                    // of the log, once; a regular expression
}

var excesses = []excess{
	{"octets of a body", exceedBody,
		`imgate_sip_messages_received_total{kind="too_large",transport="sip"}`, `msg="requests refused" .*reason=too-large`},
	{"header fields", exceedHeaders,
		`imgate_sip_messages_received_total{kind="too_large",transport="sip"}`, `msg="requests refused" .*reason=too-large`},
	{"connections", exceedConnections,
		`imgate_sip_refused_total{reason="connections",transport="sip"}`, `msg="connections refused: there are too many"`},
	{"connections of one address", exceedConnectionsOfOne,
		`imgate_sip_refused_total{reason="address",transport="sip"}`, `msg="connections refused: one address has too many"`},
	{"contacts in one registration", exceedContacts,
		`imgate_sip_refused_requests_total{reason="limit-reached",transport="sip"}`, `msg="requests refused" .*reason=limit-reached`},
	{"contacts of an address-of-record", exceedBindings,
		`imgate_registrations_refused_total{reason="limit-reached",transport="sip"}`, `msg="registrations are refused" .*reason="?limit-reached`},
	{"messages for one recipient", exceedRecipient,
		`imgate_messages_refused_total{reason="limit-reached",transport="sip"}`, `msg="messages are refused" .*reason="?limit-reached`},
	{"messages in all", exceedSpool,
		`imgate_messages_refused_total{reason="overloaded",transport="sip"}`, `msg="messages are refused" .*reason="?overloaded`},
	{"requests from one source", flood,
		`imgate_sip_refused_total{reason="overflow",transport="sip"}`, `msg="requests dropped: a worker has too many"`},
}

// TestLimits: what is too much of anything is refused with its right answer,
// moves a counter, and is said in one line of the log a minute, in which nothing
// of the message is. In the end the server works as before.
func TestLimits(t *testing.T) {
	s := newServerWith(t, smallLimits)
	s.flags = []string{"--log-level", "DEBUG"}
	began := time.Now()
	s.start()
	s.importAccounts([]string{"alice", "bob", "carol", "dave", "erin", "frank"})
	for _, e := range excesses {
		t.Run(e.name, func(t *testing.T) {
			before := s.metric(e.metric)
			e.exceed(t, s)
			if after := s.metric(e.metric); after <= before {
				t.Errorf("%s was %g and is %g", e.metric, before, after)
			}
		})
	}
	deliverWhatWaits(t, s)
	s.stop()
	log, most := s.logged(), 1+int(time.Since(began)/time.Minute) // one a minute
	for _, e := range excesses {
		lines := regexp.MustCompile(`level=WARN `+e.line).FindAllString(log, -1)
		if len(lines) < 1 || len(lines) > most {
			t.Errorf("%s: the log has %d lines like %s", e.name, len(lines), e.line)
		}
	}
	if strings.Contains(log, secretText) {
		t.Error("a message's text is in the log")
	}
}

// expect sends a message and compares the answer.
func expect(t *testing.T, from *ua.Agent, to, text string, code int) ua.Result {
	t.Helper()
	result := say(t, from, to, text)
	if result.Code != code {
		t.Errorf("a message to %s is answered %d %s, want %d", to, result.Code, result.Reason, code)
	}
	return result
}

func exceedBody(t *testing.T, s *server) {
	alice := dial(t, s, "alice", nil)
	defer alice.Close()
	expect(t, alice, "bob", strings.Repeat(secretText, 1000/len(secretText)+1), 413)
}

func exceedHeaders(t *testing.T, s *server) {
	for header, want := range map[string]string{
		strings.Repeat("X-More: 1\r\n", 200):                           "400 Too Many Headers",
		"X-Long: " + strings.Repeat("a", 9000) + "\r\n":                "400 Header Line Too Long",
		strings.Repeat("X-Long: "+strings.Repeat("a", 7000)+"\r\n", 6): "513 Message Too Large",
	} {
		if got := askOverUDP(t, s, header, secretText); got != want {
			t.Errorf("%d octets of header fields are answered %q, want %q", len(header), got, want)
		}
	}
}

// askOverUDP sends a MESSAGE with more header fields and returns the status and
// the phrase of the answer.
func askOverUDP(t *testing.T, s *server, header, body string) string {
	t.Helper()
	conn, err := net.Dial("udp", s.sip)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strangersMessage(conn, 1, header, body)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(quickly))
	answer := make([]byte, 65536)
	n, err := conn.Read(answer)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(answer[:n]), "\r\n")
	return strings.TrimPrefix(line, "SIP/2.0 ")
}

// strangersMessage is a MESSAGE without credentials.
func strangersMessage(conn net.Conn, n int, header, body string) string {
	network := strings.ToUpper(conn.LocalAddr().Network())
	return fmt.Sprintf("MESSAGE sip:bob@sip.example.com SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bK%d\r\n"+
		"From: <sip:alice@sip.example.com>;tag=1\r\nTo: <sip:bob@sip.example.com>\r\nCall-ID: %[3]d\r\nCSeq: 1 MESSAGE\r\n"+
		"Max-Forwards: 70\r\nContent-Type: text/plain\r\n%[4]sContent-Length: %[5]d\r\n\r\n%[6]s",
		network, conn.LocalAddr(), n, header, len(body), body)
}

// connectFrom opens a connection from an address of this machine.
func connectFrom(t *testing.T, s *server, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Timeout: quickly, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.sip)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// isLetIn tells whether the server answers a ping (RFC 5626 §4.4.1) on a
// connection, or has closed it.
func isLetIn(t *testing.T, conn net.Conn) bool {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(quickly))
	_, _ = io.WriteString(conn, "\r\n\r\n") // if it is closed, reading says so
	n, err := conn.Read(make([]byte, 2))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is neither served nor closed")
	}
	return n > 0
}

// fillUp opens a connection from each address, on which an account is proved so that
// it doesn't give way to others, and wants all to be let in but the last.
func fillUp(t *testing.T, s *server, addresses ...string) {
	t.Helper()
	s.eventually("no connections are left", func() bool { return s.metric(connectionsOpen) == 0 })
	var open []net.Conn
	defer func() {
		closeAll(open)
		s.eventually("the connections end", func() bool { return s.metric(connectionsOpen) == 0 })
	}()
	for i, address := range addresses {
		conn := connectFrom(t, s, address)
		open = append(open, conn)
		if in := isLetIn(t, conn); in != (i < len(addresses)-1) {
			t.Errorf("connection %d, from %s, is let in: %t", i+1, address, in)
		}
		if i < len(addresses)-1 {
			proveOn(t, conn)
		}
	}
}

// proveOn asks for frank's bindings on a connection, with his password.
func proveOn(t *testing.T, conn net.Conn) {
	t.Helper()
	answers := bufio.NewReader(conn)
	ask := func(cseq int, authorization string) string {
		return fmt.Sprintf("REGISTER sip:sip.example.com SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bK%d\r\n"+
			"From: <sip:frank@sip.example.com>;tag=1\r\nTo: <sip:frank@sip.example.com>\r\nCall-ID: %[1]s\r\nCSeq: %[2]d REGISTER\r\n"+
			"Max-Forwards: 70\r\n%[3]sContent-Length: 0\r\n\r\n", conn.LocalAddr(), cseq, authorization)
	}
	_, header := exchange(t, conn, answers, ask(1, ""))
	if status, _ := exchange(t, conn, answers, ask(2, credentialsFor(t, header, "frank"))); status != 200 {
		t.Errorf("frank is answered %d", status)
	}
}

const connectionsOpen = `imgate_sip_connections{network="tcp",transport="sip"}`

func exceedConnections(t *testing.T, s *server) {
	fillUp(t, s, "127.0.0.77", "127.0.0.77", "127.0.0.78", "127.0.0.78", "127.0.0.79", "127.0.0.80")
}

func exceedConnectionsOfOne(t *testing.T, s *server) {
	fillUp(t, s, "127.0.0.77", "127.0.0.77", "127.0.0.77", "127.0.0.77")
}

func exceedContacts(t *testing.T, s *server) {
	conn := connectFrom(t, s, "127.0.0.1")
	defer conn.Close()
	answers := bufio.NewReader(conn)
	register := func(cseq int, authorization string) string {
		return fmt.Sprintf("REGISTER sip:sip.example.com SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bK%d\r\n"+
			"From: <sip:erin@sip.example.com>;tag=1\r\nTo: <sip:erin@sip.example.com>\r\nCall-ID: many\r\nCSeq: %[2]d REGISTER\r\n"+
			"Contact: <sip:a@192.0.2.1>, <sip:b@192.0.2.1>\r\nm: <sip:c@192.0.2.1>\r\nMax-Forwards: 70\r\n%[3]sContent-Length: 0\r\n\r\n",
			conn.LocalAddr(), cseq, authorization)
	}
	_, header := exchange(t, conn, answers, register(1, ""))
	if status, _ := exchange(t, conn, answers, register(2, credentialsFor(t, header, "erin"))); status != 403 {
		t.Errorf("a registration of three contacts is answered %d, want 403", status)
	}
}

func exceedBindings(t *testing.T, s *server) {
	for n := range 3 {
		device := dial(t, s, "erin", nil)
		defer device.Close()
		ctx, cancel := context.WithTimeout(t.Context(), quickly)
		defer cancel()
		_, err := device.Register(ctx, time.Hour)
		refused, ok := errors.AsType[*ua.RefusedError](err)
		if full := n == 2; ok != full || full && refused.Result.Code != 403 {
			t.Errorf("device %d registers: %v", n+1, err)
		}
	}
	if n := s.metric("imgate_bindings"); n != 2 {
		t.Errorf("%g bindings", n)
	}
}

func exceedRecipient(t *testing.T, s *server) {
	alice := dial(t, s, "alice", nil)
	defer alice.Close()
	for n := range 3 {
		expect(t, alice, "bob", fmt.Sprint(secretText, n), 202)
	}
	if refused := expect(t, alice, "bob", secretText, 480); refused.RetryAfter == 0 {
		t.Error("the answer has no Retry-After")
	}
}

// exceedSpool comes when three messages wait for bob.
func exceedSpool(t *testing.T, s *server) {
	alice := dial(t, s, "alice", nil)
	defer alice.Close()
	for n := range 3 {
		expect(t, alice, "carol", fmt.Sprint(secretText, n), 202)
	}
	if refused := expect(t, alice, "dave", secretText, 503); refused.RetryAfter == 0 {
		t.Error("the answer has no Retry-After")
	}
}

// flood sends what needs no answer, faster than it can be looked at, until some
// of it is dropped. A good client is answered meanwhile.
func flood(t *testing.T, s *server) {
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := net.Dial("udp", s.sip)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for n := 0; ctx.Err() == nil; n++ {
			_, _ = io.WriteString(conn, strangersMessage(conn, n, "", secretText)) // what doesn't fit is lost, as on any network
		}
	}()
	s.eventually("some requests are dropped", func() bool {
		return s.metric(`imgate_sip_refused_total{reason="overflow",transport="sip"}`) > 0
	})
	frank := dial(t, s, "frank", nil)
	defer frank.Close()
	register(t, frank)
	stop()
	<-ended
}

// deliverWhatWaits registers bob, who gets what was accepted for him and
// nothing else; then there is room again.
func deliverWhatWaits(t *testing.T, s *server) {
	box := newMailbox()
	bob := dial(t, s, "bob", box.take)
	defer bob.Close()
	register(t, bob)
	s.eventually("bob has his messages", func() bool { return s.metric("imgate_spool_messages") == 3 })
	if n := box.distinct(); n != 3 {
		t.Errorf("bob got %d messages", n)
	}
	alice := dial(t, s, "alice", nil)
	defer alice.Close()
	expect(t, alice, "bob", secretText+" at last", 200)
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

package ua

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"

	"github.com/imgate/imgate/engine/message"
)

// maxTries is how often one request is sent again with other credentials.
const maxTries = 4

var errTooLarge = errors.New("the message is too large for UDP")

// request is what differs between the agent's requests.
type request struct {
	method  string
	uri     string
	to      string
	callID  string
	tag     string
	headers []string // whole lines, already checked
	body    []byte

	registers bool // it says where we are
}

// do sends a request until it has a final response that is not about
// credentials, or one that says that they are wrong.
func (a *Agent) do(ctx context.Context, r request) (*sip.Response, error) {
	fresh := false // whether the challenge in use is an answer to this very request
	for try := 1; ; try++ {
		authorization, err := a.login.authorize(r.method, r.uri)
		if err != nil {
			return nil, err
		}
		t := a.begin(r, authorization)
		response, err := a.transact(ctx, t)
		if err != nil {
			return nil, err
		}
		challenge := challengeIn(response)
		if challenge == nil || try == maxTries || fresh && !challenge.Stale {
			return response, nil
		}
		if t.unsure && r.method == "MESSAGE" && authorization != "" {
			a.unsure.Add(1)
		}
		a.login.challenged(challenge, response.StatusCode)
		fresh = true
	}
}

// transaction is one non-INVITE client transaction (RFC 3261 §17.1.2): with
// several servers, one with each of them for the same request.
type transaction struct {
	request
	authorization string
	cseq          uint32
	branches      []string // by server; empty: it wasn't asked yet
	answers       chan answer
	unsure        bool // a server was silent: it may have taken the request
}

func (a *Agent) begin(r request, authorization string) *transaction {
	return &transaction{
		request: r, authorization: authorization, cseq: a.cseq.Add(1),
		branches: make([]string, len(a.nodes)), answers: make(chan answer, 4*len(a.nodes)),
	}
}

// transact asks the servers until one has an answer other than 503. Then the
// next requests go there too. If none has one in time, what came last is it.
func (a *Agent) transact(ctx context.Context, t *transaction) (*sip.Response, error) {
	defer func() {
		for server := range t.branches {
			a.forget(t, server)
		}
	}()
	first := int(a.chosen.Load())
	deadline := time.Now().Add(a.config.timers.timeout())
	for n := 0; ; n++ {
		server := (first + n) % len(a.nodes)
		response, err := a.ask(ctx, t, server)
		done := err == nil && response.StatusCode != sip.StatusServiceUnavailable
		if done || errors.Is(err, errTooLarge) || !a.several() || ctx.Err() != nil || time.Now().After(deadline) {
			return response, err
		}
		t.unsure = t.unsure || err != nil
		a.leave(server)
		if server == (first+len(a.nodes)-1)%len(a.nodes) {
			if late := a.pause(ctx, t); late != nil {
				return late, nil
			}
		}
	}
}

// ask sends the request to one server and waits for an answer: from that one,
// or a late one from another. Over TCP nothing is repeated.
func (a *Agent) ask(ctx context.Context, t *transaction, server int) (*sip.Response, error) {
	node := a.nodes[server]
	l, err := a.connected(ctx, server)
	if err != nil {
		node.count(nil, err)
		return nil, err
	}
	if t.branches[server] == "" {
		t.branches[server] = sip.RFC3261BranchMagicCookie + rand.Text()
	}
	packet := a.packet(l, t, server)
	if len(packet) > needsStream && !l.isStream() && node.TCP != "" && !a.several() {
		if l = a.stream(ctx, l); l.isStream() {
			packet = a.packet(l, t, server)
		}
	}
	if len(packet) > maxDatagram && !l.isStream() {
		return nil, fmt.Errorf("%w: %d octets with its header, at most %d", errTooLarge, len(packet), maxDatagram)
	}
	a.expect(t.branches[server], waiter{link: l, server: server, answers: t.answers})
	node.requests.Add(1)
	what, err := a.exchange(ctx, l, packet, t, server)
	if err != nil {
		node.count(nil, err)
		return nil, err
	}
	a.nodes[what.server].count(what.response, nil)
	if what.response.StatusCode != sip.StatusServiceUnavailable {
		a.chosen.Store(int32(what.server))
	}
	return what.response, nil
}

// exchange sends a packet, over UDP again and again, until there is an answer.
func (a *Agent) exchange(ctx context.Context, l *link, packet []byte, t *transaction, server int) (answer, error) {
	patience := a.patience()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	interval := a.config.timers.t1
	again := time.NewTimer(interval)
	defer again.Stop()
	if l.isStream() {
		again.Stop()
	}
	if err := l.write(packet); err != nil {
		return answer{}, l.failed(err)
	}
	for {
		select {
		case what := <-t.answers:
			switch {
			case what.server == server && what.err != nil:
				return answer{}, l.failed(what.err)
			case a.isFinal(t, what, server):
				return what, nil
			case what.server == server:
				interval = a.config.timers.t2 // the server works on it
			}
		case <-again.C:
			interval = min(2*interval, a.config.timers.t2)
			again.Reset(interval)
			a.nodes[server].repeats.Add(1)
			if err := l.write(packet); err != nil {
				return answer{}, l.failed(err)
			}
		case <-timeout.C:
			return answer{}, fmt.Errorf("%w from %s within %s", ErrNoAnswer, l.conn.RemoteAddr(), patience)
		case <-ctx.Done():
			return answer{}, fmt.Errorf("%w from %s yet: %w", ErrNoAnswer, l.conn.RemoteAddr(), context.Cause(ctx))
		}
	}
}

// isFinal tells whether a request needs no other answer. A server that says 503
// keeps that answer for repetitions: it is asked in a new transaction the next
// time. Where another one is being asked, it says nothing new.
func (a *Agent) isFinal(t *transaction, what answer, asked int) bool {
	if what.err != nil || what.response.IsProvisional() {
		return false
	}
	if what.response.StatusCode != sip.StatusServiceUnavailable {
		return true
	}
	a.forget(t, what.server)
	return what.server == asked
}

// pause is the rest between two rounds in which no server had an answer; unless
// one of them has a late one.
func (a *Agent) pause(ctx context.Context, t *transaction) *sip.Response {
	timer := time.NewTimer(a.config.timers.t1)
	defer timer.Stop()
	for {
		select {
		case what := <-t.answers:
			if a.isFinal(t, what, -1) {
				a.nodes[what.server].count(what.response, nil)
				a.chosen.Store(int32(what.server))
				return what.response
			}
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil // whoever asks the next server sees it
		}
	}
}

// forget ends the transaction with a server.
func (a *Agent) forget(t *transaction, server int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pending, t.branches[server])
	t.branches[server] = ""
}

// failed says what an error of a link means. When a connection ends before the
// answer, nobody knows whether the request arrived.
func (l *link) failed(err error) error {
	server := l.conn.RemoteAddr().String()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nobodyListens(server, l.network, err)
	case l.isStream():
		return fmt.Errorf("%w from %s, which closed the connection: %w", ErrNoAnswer, server, err)
	}
	return fmt.Errorf("reach %s: %w", server, err)
}

func nobodyListens(server, network string, err error) error {
	return fmt.Errorf("nobody listens at %s (%s): is the server running? %w", server, strings.ToUpper(network), err)
}

func (a *Agent) packet(l *link, r *transaction, server int) []byte {
	var w strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&w, format+"\r\n", args...) }
	line("%s %s SIP/2.0", r.method, r.uri)
	line("Via: SIP/2.0/%s %s;branch=%s;rport", strings.ToUpper(l.network), l.local, r.branches[server])
	line("Max-Forwards: 70")
	line("From: <%s>;tag=%s", uriOf(a.config.Address), r.tag)
	line("To: <%s>", r.to)
	line("Call-ID: %s", r.callID)
	line("CSeq: %d %s", r.cseq, r.method)
	if r.registers {
		line("Contact: %s", a.contact(l))
	}
	for _, header := range r.headers {
		line("%s", header)
	}
	if r.authorization != "" {
		line("%s", r.authorization)
	}
	line("Content-Length: %d", len(r.body))
	line("")
	w.Write(r.body)
	return []byte(w.String())
}

// contact is where a link is reached. Over TCP that is another port each time,
// so the device has a name by which the server can tell that it is the same.
func (a *Agent) contact(l *link) string {
	uri := uriOf(message.Address{User: a.config.Address.User, Host: l.local.String()})
	if !l.isStream() {
		return "<" + uri + ">"
	}
	return "<" + uri + ";transport=" + transportOf(l.network) + `>;+sip.instance="<` + a.instance + `>"`
}

// transportOf is the parameter of a URI. A secure WebSocket has none of its own
// (RFC 7118 §5.2).
func transportOf(network string) string {
	if network == "wss" {
		return "ws"
	}
	return network
}

// targetOf writes who a message is for: a number without a domain as one.
func targetOf(a message.Address) string {
	if a.Host == "" {
		return "tel:" + a.User
	}
	return uriOf(a)
}

// uriOf writes an address as a SIP URI, with what a user part may not contain
// escaped (RFC 3261 §25.1).
func uriOf(a message.Address) string {
	var w strings.Builder
	w.WriteString("sip:")
	for _, b := range []byte(a.User) {
		if plainInUser(b) {
			w.WriteByte(b)
			continue
		}
		fmt.Fprintf(&w, "%%%02X", b)
	}
	w.WriteByte('@')
	w.WriteString(a.Host)
	return w.String()
}

func plainInUser(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	return strings.IndexByte("-_.!~*'()&=+$,;?/", b) >= 0
}

// login answers digest challenges, and goes on with one as long as the server
// lets it, so that most requests need one round trip (RFC 7616 §3.3).
type login struct {
	username, password string

	mu        sync.Mutex
	challenge *digest.Challenge
	header    string
	count     int
}

// authorize returns the header line for a request, or none before the first
// challenge.
func (l *login) authorize(method, uri string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.challenge == nil {
		return "", nil
	}
	l.count++
	credentials, err := digest.Digest(l.challenge, digest.Options{
		Method: method, URI: uri, Count: l.count, Username: l.username, Password: l.password,
	})
	if err != nil {
		return "", fmt.Errorf("answer the server's challenge: %w", err)
	}
	return l.header + ": " + credentials.String(), nil
}

func (l *login) challenged(c *digest.Challenge, code int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.challenge, l.count, l.header = c, 0, "Authorization"
	if code == sip.StatusProxyAuthRequired {
		l.header = "Proxy-Authorization"
	}
}

// challengeIn returns the first challenge of a response that we can answer:
// servers list them in the order of their preference (RFC 8760 §2.4).
func challengeIn(r *sip.Response) *digest.Challenge {
	name := ""
	switch r.StatusCode {
	case sip.StatusUnauthorized:
		name = "WWW-Authenticate"
	case sip.StatusProxyAuthRequired:
		name = "Proxy-Authenticate"
	default:
		return nil
	}
	for _, header := range r.GetHeaders(name) {
		c, err := digest.ParseChallenge(header.Value())
		if err == nil && supported(c) {
			return c
		}
	}
	return nil
}

func supported(c *digest.Challenge) bool {
	for i, qop := range c.QOP {
		c.QOP[i] = strings.TrimSpace(qop)
	}
	if len(c.QOP) > 0 && !c.SupportsQOP("auth") {
		return false
	}
	switch strings.ToUpper(c.Algorithm) {
	case "", "MD5", "SHA-256":
		return true
	}
	return false
}

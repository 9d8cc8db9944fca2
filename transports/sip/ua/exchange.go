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
		response, err := a.transact(ctx, r, authorization)
		if err != nil {
			return nil, err
		}
		challenge := challengeIn(response)
		if challenge == nil || try == maxTries || fresh && !challenge.Stale {
			return response, nil
		}
		a.login.challenged(challenge, response.StatusCode)
		fresh = true
	}
}

// transact is one non-INVITE client transaction (RFC 3261 §17.1.2). Over TCP
// nothing is repeated.
func (a *Agent) transact(ctx context.Context, r request, authorization string) (*sip.Response, error) {
	l, err := a.connected(ctx)
	if err != nil {
		return nil, err
	}
	branch := sip.RFC3261BranchMagicCookie + rand.Text()
	packet := a.packet(l, r, branch, authorization)
	if len(packet) > needsStream && !l.isStream() && a.config.TCP != "" {
		if l = a.stream(ctx, l); l.isStream() {
			packet = a.packet(l, r, branch, authorization)
		}
	}
	if len(packet) > maxDatagram && !l.isStream() {
		return nil, fmt.Errorf("the message is too large for UDP: %d octets with its header, at most %d", len(packet), maxDatagram)
	}
	waiting := a.open(branch)
	defer a.forget(branch)
	return a.exchange(ctx, l, packet, waiting)
}

func (a *Agent) exchange(ctx context.Context, l *link, packet []byte, waiting <-chan answer) (*sip.Response, error) {
	timeout := time.NewTimer(a.config.timers.timeout())
	defer timeout.Stop()
	interval := a.config.timers.t1
	again := time.NewTimer(interval)
	defer again.Stop()
	if l.isStream() {
		again.Stop()
	}
	if err := l.write(packet); err != nil {
		return nil, l.failed(err)
	}
	for {
		select {
		case what := <-waiting:
			if what.err != nil {
				return nil, l.failed(what.err)
			}
			if !what.response.IsProvisional() {
				return what.response, nil
			}
			interval = a.config.timers.t2 // the server works on it
		case <-again.C:
			interval = min(2*interval, a.config.timers.t2)
			again.Reset(interval)
			if err := l.write(packet); err != nil {
				return nil, l.failed(err)
			}
		case <-timeout.C:
			return nil, fmt.Errorf("%w from %s within %s", ErrNoAnswer, l.conn.RemoteAddr(), a.config.timers.timeout())
		case <-ctx.Done():
			return nil, fmt.Errorf("%w from %s yet: %w", ErrNoAnswer, l.conn.RemoteAddr(), context.Cause(ctx))
		}
	}
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

func (a *Agent) packet(l *link, r request, branch, authorization string) []byte {
	var w strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&w, format+"\r\n", args...) }
	line("%s %s SIP/2.0", r.method, r.uri)
	line("Via: SIP/2.0/%s %s;branch=%s;rport", strings.ToUpper(l.network), l.local, branch)
	line("Max-Forwards: 70")
	line("From: <%s>;tag=%s", uriOf(a.config.Address), r.tag)
	line("To: <%s>", r.to)
	line("Call-ID: %s", r.callID)
	line("CSeq: %d %s", a.cseq.Add(1), r.method)
	if r.registers {
		line("Contact: %s", a.contact(l))
	}
	for _, header := range r.headers {
		line("%s", header)
	}
	if authorization != "" {
		line("%s", authorization)
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
	return "<" + uri + `;transport=tcp>;+sip.instance="<` + a.instance + `>"`
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

package trunk

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/imgate/imgate/transports/sip/wire"
)

// Limits of challenges.
const (
	maxChallengeField = 1024 // octets
	maxSessions       = 256  // servers whose challenge is remembered
)

// login answers the challenges of servers (RFC 7616, RFC 8760), and goes on with
// one as long as the server lets it, so that most messages need one round trip.
type login struct {
	username, password, realm string

	mu       sync.Mutex
	sessions map[wire.Target]answers
}

// field is how a server, or a proxy on the way to it, asks who we are, and how it
// is told.
type field struct {
	status                 int
	challenge, credentials string
}

var fields = [...]field{
	{401, "WWW-Authenticate", "Authorization"},
	{407, "Proxy-Authenticate", "Proxy-Authorization"},
}

// fieldOf is the index of a status in fields; -1: it asks for no credentials.
func fieldOf(status int) int {
	return slices.IndexFunc(fields[:], func(f field) bool { return f.status == status })
}

// answers are the challenges that a server has, by field; nil: it has none.
type answers [len(fields)]*session

// session is the use of a challenge.
type session struct {
	challenge
	ha1, cnonce string
	fresh       bool   // it belongs to one request alone, yet
	count       uint32 // of its uses, guarded by the login's lock
}

func newLogin(username, password, realm string) *login {
	return &login{username: username, password: password, realm: realm, sessions: map[wire.Target]answers{}}
}

// known returns what a server has challenged us with before.
func (l *login) known(hop wire.Target) (a answers, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, known = l.sessions[hop]
	return a, known
}

// remember has later requests go on with challenges that were answered right.
func (l *login) remember(hop wire.Target, a answers) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.ContainsFunc(a[:], func(s *session) bool { return s != nil && s.fresh }) {
		return // it knows
	}
	for i, s := range a {
		if s != nil {
			again := *s
			again.fresh = false
			a[i] = &again
		}
	}
	for other := range l.sessions {
		if len(l.sessions) < maxSessions || l.sessions[hop] != (answers{}) {
			break
		}
		delete(l.sessions, other) // any: it is challenged again
	}
	l.sessions[hop] = a
}

// forget ends the use of a challenge that wasn't answered right.
func (l *login) forget(hop wire.Target, i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.sessions[hop]
	if a[i] = nil; a == (answers{}) {
		delete(l.sessions, hop)
		return
	}
	l.sessions[hop] = a
}

// appendCredentials appends the header fields that answer a server's challenges.
func (l *login) appendCredentials(headers []wire.Header, a answers, method, uri string) []wire.Header {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range a {
		if s != nil {
			headers = append(headers, wire.Header{Name: fields[i].credentials, Value: s.answer(l.username, method, uri)})
		}
	}
	return headers
}

// challenged takes up the challenge in a response; nil: there is none that we can
// answer.
func (l *login) challenged(r *wire.Response) *session {
	if l.username == "" {
		return nil
	}
	for _, value := range r.All(fields[fieldOf(r.Status)].challenge) {
		if c, ok := parseChallenge(value); ok && (l.realm == "" || l.realm == c.realm) {
			return &session{challenge: c, cnonce: rand.Text(), ha1: c.hash(l.username + ":" + c.realm + ":" + l.password), fresh: true}
		}
	}
	return nil
}

// answer is the value of the field with our credentials. Each use counts (RFC
// 7616 §3.4).
func (s *session) answer(username, method, uri string) string {
	s.count++
	var b strings.Builder
	fmt.Fprintf(&b, "Digest username=%s, realm=%s, nonce=%s, uri=%s", wire.Quote(username), wire.Quote(s.realm), wire.Quote(s.nonce), wire.Quote(uri))
	ha2 := s.hash(method + ":" + uri)
	text := s.ha1 + ":" + s.nonce + ":" + ha2
	if s.qop {
		count := fmt.Sprintf("%08x", s.count)
		text = s.ha1 + ":" + s.nonce + ":" + count + ":" + s.cnonce + ":auth:" + ha2
		fmt.Fprintf(&b, ", qop=auth, nc=%s, cnonce=%s", count, wire.Quote(s.cnonce))
	}
	if s.algorithm != "" {
		b.WriteString(", algorithm=" + s.algorithm)
	}
	if s.opaque != nil {
		b.WriteString(", opaque=" + wire.Quote(*s.opaque))
	}
	b.WriteString(`, response="` + s.hash(text) + `"`)
	return b.String()
}

// challenge is what a server asks (RFC 7616 §3.3).
type challenge struct {
	realm, nonce string
	opaque       *string // nil: none
	algorithm    string  // as written; empty: MD5
	qop          bool    // auth is offered; otherwise there is none
	stale        bool    // the credentials were right, and their nonce too old
}

func (c *challenge) hash(text string) string {
	if strings.EqualFold(c.algorithm, "SHA-256") {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

// parseChallenge reads one of Digest with MD5 or SHA-256 and, if it offers any
// protection, that of auth. Servers put the one first that they like best (RFC
// 8760 §2.4).
func parseChallenge(value string) (challenge, bool) {
	var c challenge
	scheme, rest, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Digest") {
		return c, false
	}
	seen := map[string]bool{}
	for rest != "" {
		item, after, ok := wire.Next(rest)
		if !ok {
			return c, false
		}
		rest = after
		name, text, ok := strings.Cut(item, "=")
		name = strings.ToLower(strings.Trim(name, " \t"))
		text = strings.Trim(text, " \t")
		if item == "" {
			continue
		}
		if !ok || seen[name] || len(text) > maxChallengeField {
			return c, false
		}
		seen[name] = true
		if !c.set(name, wire.Unquote(text)) {
			return c, false
		}
	}
	return c, seen["realm"] && c.nonce != ""
}

// set returns false for what we can't do.
func (c *challenge) set(name, value string) bool {
	switch name {
	case "realm":
		c.realm = value
	case "nonce":
		c.nonce = value
	case "opaque":
		c.opaque = &value
	case "stale":
		c.stale = strings.EqualFold(value, "true")
	case "algorithm":
		c.algorithm = value
		return strings.EqualFold(value, "MD5") || strings.EqualFold(value, "SHA-256")
	case "qop":
		for option := range strings.SplitSeq(value, ",") {
			c.qop = c.qop || strings.EqualFold(strings.Trim(option, " \t"), "auth")
		}
		return c.qop
	}
	return true
}

package trunk

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/icholy/digest"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// guard is a server that wants credentials.
type guard struct {
	status    int // 401 or 407
	algorithm string
	uses      int  // of one nonce; 0: any number
	silent    bool // it doesn't say stale

	mu    sync.Mutex
	nonce int
	used  int
	cseqs []uint32
}

const guardRealm, guardUser, guardPassword = "b.example", "imgate", `pass "word\`

func (g *guard) respond(x *wire.Exchange) *wire.Reply {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cseqs = append(g.cseqs, x.CSeq)
	challenge, credentials := "WWW-Authenticate", "Authorization"
	if g.status == 407 {
		challenge, credentials = "Proxy-Authenticate", "Proxy-Authorization"
	}
	known, fresh := g.check(x, x.Get(credentials))
	if known && fresh {
		g.used++
		return &wire.Reply{Status: 200}
	}
	if g.used > 0 || g.nonce == 0 || !known {
		g.nonce++
		g.used = 0
	}
	stale := ""
	if known && !g.silent {
		stale = ", stale=TRUE"
	}
	value := fmt.Sprintf(`Digest realm="%s", nonce="n%d", opaque="o\"p", qop="auth-int,auth"%s`, guardRealm, g.nonce, stale)
	if g.algorithm != "" {
		value += ", algorithm=" + g.algorithm
	}
	return &wire.Reply{Status: g.status, Headers: []wire.Header{
		{Name: challenge, Value: `Digest realm="b.example", nonce="x", algorithm=SHA-512-256, qop="auth"`},
		{Name: challenge, Value: value},
	}}
}

// seen are the CSeqs of what came.
func (g *guard) seen() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprint(g.cseqs)
}

// check reads credentials with another's parser.
func (g *guard) check(x *wire.Exchange, value string) (known, fresh bool) {
	c, err := digest.ParseCredentials(value)
	if err != nil || c.Username != guardUser || c.Realm != guardRealm || c.URI != x.URIText || c.Opaque != `o"p` || c.QOP != "auth" {
		return false, false
	}
	hash := func(parts ...string) string {
		text := strings.Join(parts, ":")
		if g.algorithm == "SHA-256" {
			sum := sha256.Sum256([]byte(text))
			return hex.EncodeToString(sum[:])
		}
		sum := md5.Sum([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	want := hash(hash(guardUser, guardRealm, guardPassword), c.Nonce, fmt.Sprintf("%08x", c.Nc), c.Cnonce, "auth", hash(x.Method, x.URIText))
	if c.Response != want {
		return false, false
	}
	return true, c.Nonce == fmt.Sprintf("n%d", g.nonce) && c.Nc == g.used+1 && (g.uses == 0 || g.used < g.uses)
}

func credentialed(s *server) Config {
	config := local()
	config.NextHop = "sip:" + s.address(0)
	config.Username, config.Password = guardUser, guardPassword
	return config
}

func TestDigest(t *testing.T) {
	for _, test := range []struct {
		what  string
		guard *guard
		cseqs string // of three messages
	}{
		{"401, MD5", &guard{status: 401, algorithm: "MD5"}, "[1 2 2 2]"},
		{"401, no algorithm", &guard{status: 401}, "[1 2 2 2]"},
		{"407, SHA-256", &guard{status: 407, algorithm: "SHA-256"}, "[1 2 2 2]"},
		{"a nonce for each", &guard{status: 401, algorithm: "MD5", uses: 1}, "[1 2 2 3 2 3]"},
		{"a nonce for each, and stale isn't said", &guard{status: 401, algorithm: "MD5", uses: 1, silent: true}, "[1 2 2 3 2 3]"},
	} {
		s := serve(t, test.guard.respond, "udp")
		trunk, _ := openTrunk(t, credentialed(s))
		for range 3 {
			if _, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil {
				t.Errorf("%s: %v", test.what, err)
			}
		}
		if got := test.guard.seen(); got != test.cseqs {
			t.Errorf("%s: CSeqs %s, want %s", test.what, got, test.cseqs)
		}
	}
}

// TestServerBehindProxy: both want credentials.
func TestServerBehindProxy(t *testing.T) {
	proxy, registrar := &guard{status: 407, algorithm: "MD5"}, &guard{status: 401, algorithm: "SHA-256"}
	s := serve(t, func(x *wire.Exchange) *wire.Reply {
		if reply := proxy.respond(x); reply.Status != 200 {
			return reply
		}
		return registrar.respond(x)
	}, "udp")
	trunk, _ := openTrunk(t, credentialed(s))
	for range 2 {
		if _, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil {
			t.Error(err)
		}
	}
	if got := proxy.seen(); got != "[1 2 3 2]" {
		t.Errorf("CSeqs %s", got)
	}
}

// TestManyAtOnce: messages that are under way together don't spoil each other's
// nonces for long.
func TestManyAtOnce(t *testing.T) {
	s := serve(t, (&guard{status: 401, algorithm: "MD5"}).respond, "udp")
	// This one wants each count in its order, as few do.
	trunk, _ := openTrunk(t, credentialed(s))
	var sending sync.WaitGroup
	for range 8 {
		sending.Go(func() {
			_, err := trunk.Send(t.Context(), testMessage(), delivery())
			if f := message.AsFailure(err); err != nil && !f.Temporary {
				t.Error(err)
			}
		})
	}
	sending.Wait()
}

func TestWrongCredentials(t *testing.T) {
	g := &guard{status: 401, algorithm: "MD5"}
	s := serve(t, g.respond, "udp")
	for what, change := range map[string]func(*Config){
		"password": func(c *Config) { c.Password = "wrong" },
		"realm":    func(c *Config) { c.Realm = "c.example" },
	} {
		config := credentialed(s)
		change(&config)
		trunk, _ := openTrunk(t, config)
		s.count("MESSAGE")
		_, err := trunk.Send(t.Context(), testMessage(), delivery())
		fails(t, what, err, message.Undelivered, true)
		if n := s.count("MESSAGE"); n > 2 {
			t.Errorf("%s: %d requests", what, n)
		}
		if strings.Contains(err.Error(), config.Password) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDigestOfTheRFC: the example of RFC 7616 §3.9.1.
func TestDigestOfTheRFC(t *testing.T) {
	for algorithm, want := range map[string]string{
		"MD5":     "8ca523f5e9506fed4657c9700eebdbec",
		"SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		c, ok := parseChallenge(`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=` + algorithm +
			`, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`)
		if !ok {
			t.Fatal(algorithm)
		}
		s := session{challenge: c, cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"}
		s.ha1 = c.hash("Mufasa:http-auth@example.org:Circle of Life")
		got := s.answer("Mufasa", "GET", "/dir/index.html")
		if !strings.HasSuffix(got, `response="`+want+`"`) || !strings.Contains(got, "nc=00000001") {
			t.Errorf("%s: %s", algorithm, got)
		}
	}
}

func TestParseChallenge(t *testing.T) {
	for _, test := range []struct {
		value string
		ok    bool
	}{
		{`Digest realm="r", nonce="n"`, true},
		{`digest  realm="r" ,nonce=n,`, true},
		{`Digest realm="", nonce="n", algorithm=sha-256, stale=true, charset=UTF-8`, true},
		{`Digest realm="r, nonce", nonce="a,b", qop=auth`, true},
		{`Basic realm="r"`, false},
		{`Digest realm="r"`, false},
		{`Digest nonce="n"`, false},
		{`Digest realm="r", nonce="n", nonce="m"`, false},
		{`Digest realm="r", nonce="n", qop="auth-int"`, false},
		{`Digest realm="r", nonce="n", algorithm=MD5-sess`, false},
		{`Digest realm="r", nonce="n`, false},
		{`Digest realm="r", nonce="` + strings.Repeat("n", maxChallengeField+1) + `"`, false},
		{`Digest`, false},
		{``, false},
	} {
		if c, ok := parseChallenge(test.value); ok != test.ok {
			t.Errorf("%.80s: %+v, %t", test.value, c, ok)
		}
	}
}

func FuzzParseChallenge(f *testing.F) {
	for _, seed := range []string{
		`Digest realm="r", nonce="n", opaque="", qop="auth,auth-int", algorithm=SHA-256, stale=false`,
		`Digest realm="\"\\", nonce=",", `, `Digest x=y`, "Digest \t,,,", `Digest realm="ä", nonce="n"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		c, ok := parseChallenge(value)
		if !ok {
			return
		}
		s := session{challenge: c, cnonce: "c"}
		answer := s.answer("u", "MESSAGE", "sip:b.example")
		if strings.ContainsAny(answer, "\r\n\x00") && !strings.ContainsAny(value, "\r\n\x00") {
			t.Errorf("%q becomes %q", value, answer)
		}
		// What is answered reads as what was asked.
		if again, ok := parseChallenge(answer); !ok || again.realm != c.realm || again.nonce != c.nonce || again.qop != c.qop {
			t.Errorf("%q is answered with %q", value, answer)
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	l := newLogin("u", "p", "")
	for i := range 2 * maxSessions {
		hop := wire.Target{Network: "udp", ServerName: fmt.Sprint(i)}
		l.remember(hop, answers{{fresh: true}})
		if _, known := l.known(hop); !known {
			t.Fatal("it doesn't know what it was told")
		}
	}
	if len(l.sessions) != maxSessions {
		t.Errorf("%d sessions", len(l.sessions))
	}
	hop := wire.Target{Network: "tcp"}
	l.remember(hop, answers{{fresh: true}, {fresh: true}})
	l.forget(hop, 0)
	if a, known := l.known(hop); !known || a[0] != nil || a[1] == nil {
		t.Errorf("%+v, %t", a, known)
	}
	l.forget(hop, 1)
	if _, known := l.known(hop); known {
		t.Error("nothing is remembered, and known")
	}
}

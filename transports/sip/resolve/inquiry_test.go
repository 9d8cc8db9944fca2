package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/imgate/imgate/engine/message"
)

func (r *Resolver) text(t *testing.T, uri string) string {
	t.Helper()
	hops, err := r.Hops(t.Context(), parseURI(t, uri))
	if err != nil {
		return string(message.AsFailure(err).Reason)
	}
	return hopsText(hops)
}

func TestAnswersAreKeptForTheirTime(t *testing.T) {
	t.Parallel()
	s := serveZone(t, "h.example. 60 IN A 192.0.2.1", "short.example. 0 IN A 192.0.2.1", "long.example. 999999 IN A 192.0.2.1")
	r, c := newResolver(t, s)
	for _, test := range []struct {
		host  string
		after time.Duration // since it was asked
		asks  bool
	}{
		{"h", 59 * time.Second, false}, {"h", 60 * time.Second, true},
		{"short", minTTL - 1, false}, {"short", minTTL, true},
		{"long", maxTTL - 1, false}, {"long", maxTTL, true},
		{"none", 29 * time.Second, false}, {"none", 30 * time.Second, true}, // the zone's minimum
	} {
		uri := "sip:" + test.host + ".example:5060"
		c.advance(2 * maxTTL)
		first := r.text(t, uri)
		s.questions()
		c.advance(test.after)
		if got := r.text(t, uri); got != first {
			t.Errorf("%s: first %s, then %s", uri, first, got)
		}
		if asked := s.questions(); slices.Contains(asked, "A "+test.host+".example.") != test.asks {
			t.Errorf("%s: %s later it asks %q", uri, test.after, asked)
		}
	}
}

// TestOldAnswersServeWhileNobodyAnswers (RFC 8767), and not for ever.
func TestOldAnswersServeWhileNobodyAnswers(t *testing.T) {
	t.Parallel()
	s := serveZone(t, "h.example. 60 IN A 192.0.2.1")
	r, c := newResolver(t, s)
	const uri, want = "sip:h.example:5060", "udp 192.0.2.1:5060"
	if got := r.text(t, uri); got != want {
		t.Fatal(got)
	}
	fails := true
	var mu sync.Mutex
	s.answers(func(_ string, m *dns.Msg) (*dns.Msg, bool) {
		mu.Lock()
		defer mu.Unlock()
		if !fails {
			return nil, false
		}
		return new(dns.Msg).SetRcode(m, dns.RcodeServerFailure), false
	})
	for _, step := range []time.Duration{time.Minute, 10 * time.Second, 30 * time.Minute} {
		c.advance(step)
		if got := r.text(t, uri); got != want {
			t.Errorf("%s later: %s", step, got)
		}
	}
	c.advance(time.Hour)
	if got := r.text(t, uri); got != string(message.Unavailable) {
		t.Errorf("too late: %s", got)
	}
	mu.Lock()
	fails = false
	mu.Unlock()
	if got := r.text(t, uri); got != string(message.Unavailable) {
		t.Errorf("asked again at once: %s", got)
	}
	c.advance(failureTTL)
	if got := r.text(t, uri); got != want {
		t.Errorf("name server is back: %s", got)
	}
}

// TestOneInquiryForAll: many who ask for one name make one question.
func TestOneInquiryForAll(t *testing.T) {
	t.Parallel()
	s := serveZone(t, "h.example. 60 IN A 192.0.2.1")
	hold := make(chan struct{})
	s.answers(func(string, *dns.Msg) (*dns.Msg, bool) { <-hold; return nil, false })
	r, _ := newResolver(t, s)
	inquiries := make([]*inquiry, 50)
	for i := range inquiries {
		inquiries[i] = r.ask(question{"h.example.", dns.TypeA})
	}
	close(hold)
	for _, i := range inquiries {
		if a, err := i.wait(t.Context()); err != nil || len(a.addresses) != 1 {
			t.Fatal(a, err)
		}
	}
	if asked := s.questions(); len(asked) != 1 {
		t.Errorf("asked %q", asked)
	}
}

func TestInquiriesAreBounded(t *testing.T) {
	t.Parallel()
	s := serveZone(t)
	hold := make(chan struct{})
	s.answers(func(string, *dns.Msg) (*dns.Msg, bool) { <-hold; return nil, false })
	r, _ := newResolver(t, s)
	for i := range maxOpen {
		r.ask(question{fmt.Sprintf("h%d.example.", i), dns.TypeA})
	}
	if _, err := r.ask(question{"more.example.", dns.TypeA}).wait(t.Context()); !errors.Is(err, errBusy) {
		t.Error(err)
	}
	close(hold)
	for i := range maxOpen {
		_, _ = r.ask(question{fmt.Sprintf("h%d.example.", i), dns.TypeA}).wait(t.Context())
	}
}

func TestKeptAnswersAreBounded(t *testing.T) {
	t.Parallel()
	r, c := newResolver(t, serveZone(t))
	done := make(chan struct{})
	close(done)
	for i := range 2 * maxInquiries {
		now := c.read()
		r.makeRoom(now)
		r.inquiries[question{fmt.Sprintf("h%d.example.", i), dns.TypeA}] = &inquiry{done: done, until: now.Add(time.Minute)}
	}
	if n := len(r.inquiries); n != maxInquiries {
		t.Errorf("%d are kept", n)
	}
}

func TestAliasesAreFollowedElsewhere(t *testing.T) {
	t.Parallel()
	s := serveZone(t, "end.example. 60 IN A 192.0.2.1")
	chain := map[string]string{"a.example.": "b.example.", "b.example.": "end.example."}
	for i := range 20 {
		chain[fmt.Sprintf("n%d.example.", i)] = fmt.Sprintf("n%d.example.", i+1)
	}
	s.answers(func(_ string, m *dns.Msg) (*dns.Msg, bool) { // one step at a time
		next, found := chain[m.Question[0].Name]
		if !found {
			return nil, false
		}
		reply := new(dns.Msg).SetReply(m)
		record, _ := dns.NewRR(m.Question[0].Name + " 7 IN CNAME " + next)
		reply.Answer = []dns.RR{record}
		return reply, false
	})
	r, c := newResolver(t, s)
	if got := r.text(t, "sip:a.example:5060"); got != "udp 192.0.2.1:5060" {
		t.Error(got)
	}
	if i := r.ask(question{"a.example.", dns.TypeA}); !i.until.Equal(c.read().Add(7 * time.Second)) {
		t.Errorf("kept until %s", i.until)
	}
	s.questions()
	if got := r.text(t, "sip:n0.example:5060"); got != string(message.Unavailable) {
		t.Error(got)
	}
	if asked := s.questions(); len(asked) != 2*maxAliases {
		t.Errorf("asked %d questions", len(asked))
	}
}

func TestNameServersOfTheSystem(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	s := servers{file: file}
	now := time.Now()
	want := func(what string, after time.Duration, addresses ...string) {
		t.Helper()
		now = now.Add(after)
		var texts []string
		for _, a := range s.list(now) {
			texts = append(texts, a.String())
		}
		if !slices.Equal(texts, addresses) {
			t.Errorf("%s: %q, want %q", what, texts, addresses)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want("no file", 0, "127.0.0.1:53")
	write("# here\nsearch example.com\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n")
	want("too early", rereadEvery-1, "127.0.0.1:53")
	want("file", 1, "192.0.2.1:53", "[fe80::1%eth0]:53", "192.0.2.2:53")
	write("options ndots:5\n")
	want("file without any", rereadEvery, "192.0.2.1:53", "[fe80::1%eth0]:53", "192.0.2.2:53")
	s.configured = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:5353")}
	want("configured", 0, "192.0.2.9:5353")
}

package rego

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// serving makes a service that isn't evaluated.
func serving(t testing.TB, name string, priority int, domains []string, prefixes ...string) *service {
	t.Helper()
	m := match{at: name + ".rego:3", priority: priority}
	for _, text := range domains {
		d, err := parseDomain(text)
		if err != nil {
			t.Fatal(err)
		}
		m.domains = append(m.domains, d)
	}
	for _, text := range prefixes {
		p, err := parsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		m.prefixes = append(m.prefixes, p)
	}
	if err := m.complete(); err != nil {
		t.Fatal(err)
	}
	return &service{name: name, match: m}
}

func recipient(address string) plugin.QuestionRecipient {
	user, domain, _ := strings.Cut(address, "@")
	return plugin.QuestionRecipient{Address: address, User: user, Domain: domain}
}

func TestMatch(t *testing.T) {
	domains := func(d ...string) []string { return d }
	m, errs := buildMatcher([]*service{
		serving(t, "any", 0, domains("*")),
		serving(t, "exact", 0, domains("SIP.example.com", "[2001:db8::1]", "192.0.2.1")),
		serving(t, "suffix", 0, domains("*.example.com")),
		serving(t, "longer suffix", 0, domains("*.b.example.com")),
		serving(t, "expression", 0, domains(`/sip[0-9]+\.(example|test)\.(org|com)/`)),
		serving(t, "earlier expression", 1, domains(`/.*\.info/`)),
		serving(t, "uk", 0, nil, "+44"),
		serving(t, "london", 0, nil, "4420", "4421"),
		serving(t, "exact uk", 0, domains("sip.example.com"), "44"),
		serving(t, "urgent", 10, domains("*.urgent.example.com")),
		serving(t, "urgent number", 20, nil, "999"),
		serving(t, "shadowed", -5, domains("sip.example.com")),
		serving(t, "regular numbers", 5, domains(`/voice\..*/`), "7", "77"),
	})
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	for address, want := range map[string]string{
		"alice@elsewhere.net":           "any",
		"alice@sip.example.com":         "exact",
		"alice@[2001:db8::1]":           "exact",
		"alice@192.0.2.1":               "exact",
		"alice@example.com":             "any", // a suffix is below the domain
		"alice@x.example.com":           "suffix",
		"alice@x.y.example.com":         "suffix",
		"alice@b.example.com":           "suffix",
		"alice@x.b.example.com":         "longer suffix",
		"alice@sip1.example.com":        "suffix", // before an expression
		"alice@sip12.test.org":          "expression",
		"alice@xsip12.test.org":         "any", // expressions are anchored
		"alice@sip1.info":               "earlier expression",
		"alice@sip12.test.org.net":      "any",
		"447700900000":                  "uk",
		"+447700900000":                 "uk",
		"442071838750":                  "london",
		"44":                            "uk",
		"4":                             "any",
		"44x":                           "any", // not a number
		"447700900000@sip.example.com":  "exact uk",
		"+447700900000@sip.example.com": "exact uk",
		"447700900000@x.example.com":    "suffix", // the kind of domain goes before the prefix
		"447700900000@elsewhere.net":    "uk",
		"alice@sip.urgent.example.com":  "urgent",
		"9991@sip.example.com":          "urgent number",
		"771@voice.example.com":         "regular numbers", // by priority before a suffix
		"alice@voice.example.com":       "suffix",
		"alice":                         "any",
		"":                              "any",
	} {
		got := "none"
		if s := m.service(recipient(address)); s != nil {
			got = s.name
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
	}
}

func TestMatchNone(t *testing.T) {
	m, errs := buildMatcher([]*service{serving(t, "a", 0, []string{"sip.example.com", "*.example.org", "/x+/"}, "44")})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, address := range []string{"", "alice", "44", "alice@sip.example.com", "44@example.org", "44@xy", "45@sip.example.com"} {
		if s := m.service(recipient(address)); s != nil {
			t.Errorf("%q: got %q, want none", address, s.name)
		}
	}
}

func TestMatchConflicts(t *testing.T) {
	for name, c := range map[string]struct {
		a, b *service
		want string // empty: no conflict
	}{
		"exact": {
			serving(t, "a", 0, []string{"x.example.com", "sip.example.com"}), serving(t, "b", 0, []string{"SIP.example.com"}),
			`b.rego:3: services "b" and "a" both match domain "sip.example.com" with priority 0, as does a.rego:3: give one of them a higher priority`,
		},
		"suffix": {
			serving(t, "a", 3, []string{"*.example.com"}), serving(t, "b", 3, []string{"*.example.com"}),
			`b.rego:3: services "b" and "a" both match domain "*.example.com" with priority 3`,
		},
		"any, by different ways": {
			serving(t, "a", 0, []string{"*"}, "44"), serving(t, "b", 0, nil, "+44"),
			`both match domain "*" and prefix "44"`,
		},
		"expressions": {
			serving(t, "a", 0, []string{"/a/"}, "44"), serving(t, "b", 0, []string{"/b/"}, "45"),
			`b.rego:3: services "b" and "a" both match by regular expression with priority 0`,
		},
		"other priority":            {serving(t, "a", 0, []string{"*"}), serving(t, "b", 1, []string{"*"}), ""},
		"expressions by priority":   {serving(t, "a", 0, []string{"/a/"}), serving(t, "b", 1, []string{"/b/"}), ""},
		"other prefix":              {serving(t, "a", 0, []string{"*"}, "44"), serving(t, "b", 0, []string{"*"}, "441"), ""},
		"other kind":                {serving(t, "a", 0, []string{"example.com"}), serving(t, "b", 0, []string{"*.example.com"}), ""},
		"a service and itself":      {serving(t, "a", 0, []string{"a.b", "A.b", "/x/", "/y/"}), serving(t, "b", 0, []string{"*"}), ""},
		"a domain and a suffix key": {serving(t, "a", 0, []string{"*.a.b"}), serving(t, "b", 0, []string{"a.b"}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := buildMatcher([]*service{c.a, c.b})
			err := errors.Join(errs...)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestMatchLimits(t *testing.T) {
	many := serving(t, "many", 0, []string{"*"})
	many.match.domains = make([]domainPattern, maxRows)
	many.match.prefixes = []string{"1", "2"}
	if _, errs := buildMatcher([]*service{many}); len(errs) != 1 {
		t.Errorf("%d rows: got %v", 2*maxRows, errs)
	}
	expressions := serving(t, "expressions", 0, []string{"/x/"})
	for len(expressions.match.domains) <= maxExpressions {
		expressions.match.domains = append(expressions.match.domains, expressions.match.domains[0])
	}
	if _, errs := buildMatcher([]*service{expressions}); len(errs) != 1 {
		t.Errorf("%d expressions: got %v", maxExpressions+1, errs)
	}
}

func TestParseDomainRefuses(t *testing.T) {
	for _, text := range []string{
		"", ".", "*.", "**", "*.*", "*x", "a*b", "/", "//", "/(/", "a b", "a@b", "a/b", ".a", "*..a", "ä.example.com",
		"a\n", strings.Repeat("a", maxPattern+1),
	} {
		if d, err := parseDomain(text); err == nil {
			t.Errorf("%q: got %+v", text, d)
		}
	}
}

func TestParsePrefixRefuses(t *testing.T) {
	for _, text := range []string{"", "+", "++1", "1+", "a", "4 4", "٤", strings.Repeat("1", maxPrefix+1)} {
		if p, err := parsePrefix(text); err == nil {
			t.Errorf("%q: got %q", text, p)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "44", "44@sip.example.com")
	f.Add("/a|b/", "1", "1@b")
	f.Fuzz(func(t *testing.T, domain, prefix, address string) {
		d, err := parseDomain(domain)
		if err != nil {
			return
		}
		p, err := parsePrefix(prefix)
		if err != nil {
			return
		}
		s := &service{name: "a", match: match{domains: []domainPattern{d}, prefixes: []string{p}}}
		m, errs := buildMatcher([]*service{s})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		r := recipient(address)
		if m.service(r) != nil && !strings.HasPrefix(strings.TrimPrefix(r.User, "+"), p) {
			t.Errorf("%q matches prefix %q", r.User, p)
		}
	})
}

// BenchmarkMatch looks one of 10,000 domains up.
func BenchmarkMatch(b *testing.B) {
	s := serving(b, "a", 0, []string{"*"})
	for i := range 10_000 {
		s.match.domains = append(s.match.domains, domainPattern{kind: exactPattern, text: fmt.Sprintf("d%d.example.com", i)})
	}
	m, errs := buildMatcher([]*service{s})
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	r := recipient("447700900000@d5000.example.com")
	for b.Loop() {
		if m.service(r) == nil {
			b.Fatal("no match")
		}
	}
}

package match

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

// claiming makes the rows of a service that isn't evaluated.
func claiming(t testing.TB, service string, priority int, domains []string, prefixes ...string) []Row {
	t.Helper()
	if len(domains) == 0 {
		domains = []string{"*"}
	}
	read := make([]string, 0, len(prefixes)+1)
	for _, text := range prefixes {
		p, err := ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, p)
	}
	if len(read) == 0 {
		read = AnyNumber
	}
	var rows []Row
	for _, text := range domains {
		d, err := ParseDomain(text)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, Row{
			Service: service, Domain: d, Prefixes: read, Priority: priority,
			Attributes: NoAttributes, Place: service + ".rego:3",
		})
	}
	return rows
}

// matching builds a matcher for the services that rows name.
func matching(rows ...[]Row) (*Matcher, []error) {
	var services []string
	seen := map[string]bool{}
	all := slices.Concat(rows...)
	for _, r := range all {
		if !seen[r.Service] {
			services = append(services, r.Service)
		}
		seen[r.Service] = true
	}
	return Build(services, all)
}

// found returns the name of the service that decides.
func found(m *Matcher, address string) string {
	r := regotest.Recipient(address)
	if c := m.Find(&r); c != nil {
		return c.Row.Service
	}
	return "none"
}

func TestMatch(t *testing.T) {
	domains := func(d ...string) []string { return d }
	m, errs := matching(
		claiming(t, "any", 0, domains("*")),
		claiming(t, "exact", 0, domains("SIP.example.com", "[2001:db8::1]", "192.0.2.1")),
		claiming(t, "suffix", 0, domains("*.example.com")),
		claiming(t, "longer suffix", 0, domains("*.b.example.com")),
		claiming(t, "expression", 0, domains(`/sip[0-9]+\.(example|test)\.(org|com)/`)),
		claiming(t, "earlier expression", 1, domains(`/.*\.info/`)),
		claiming(t, "uk", 0, nil, "+44"),
		claiming(t, "london", 0, nil, "4420", "4421"),
		claiming(t, "exact uk", 0, domains("sip.example.com"), "44"),
		claiming(t, "austria", 0, domains(""), "43"),
		claiming(t, "vienna", 0, domains("*"), "431"),
		claiming(t, "urgent", 10, domains("*.urgent.example.com")),
		claiming(t, "urgent number", 20, nil, "999"),
		claiming(t, "regular numbers", 5, domains(`/voice\..*/`), "7", "77"),
	)
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
		"+43123":                        "austria", // no domain goes before any, whatever the prefix
		"+43123@elsewhere.net":          "vienna",
		"43":                            "austria",
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
		if got := found(m, address); got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
	}
}

func TestMatchNone(t *testing.T) {
	m, errs := matching(claiming(t, "a", 0, []string{"sip.example.com", "*.example.org", "/x+/"}, "44"))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, address := range []string{"", "alice", "44", "alice@sip.example.com", "44@example.org", "44@xy", "45@sip.example.com"} {
		if got := found(m, address); got != "none" {
			t.Errorf("%q: got %q, want none", address, got)
		}
	}
}

func TestMatchConflicts(t *testing.T) {
	gold := func(rows []Row) []Row {
		for i := range rows {
			rows[i].Attributes = ast.NewTerm(regotest.Value(t, `{"tariff": "gold"}`))
			rows[i].Place = fmt.Sprintf("gold.yaml:%d", i+1)
		}
		return rows
	}
	for name, c := range map[string]struct {
		a, b []Row
		want string // empty: no conflict
	}{
		"exact": {
			claiming(t, "a", 0, []string{"x.example.com", "sip.example.com"}), claiming(t, "b", 0, []string{"SIP.example.com"}),
			`b.rego:3: service "b" matches domain "sip.example.com" with priority 0, and so does "a" in a.rego:3: give one of them a higher priority`,
		},
		"suffix": {
			claiming(t, "a", 3, []string{"*.example.com"}), claiming(t, "b", 3, []string{"*.example.com"}),
			`b.rego:3: service "b" matches domain "*.example.com" with priority 3, and so does "a" in a.rego:3`,
		},
		"any, by different ways": {
			claiming(t, "a", 0, []string{"*"}, "44"), claiming(t, "b", 0, nil, "+44"),
			`matches domain "*" and prefix "44" with priority 0, and so does`,
		},
		"expressions": {
			claiming(t, "a", 0, []string{"/a/"}, "44"), claiming(t, "b", 0, []string{"/b/"}, "45"),
			`b.rego:3: /b/ of service "b" and /a/ of service "a" at a.rego:3 are expressions with priority 0`,
		},
		"expressions of one service with other attributes": {
			claiming(t, "a", 0, []string{"/a/"}), gold(claiming(t, "a", 0, []string{"/b/"})),
			`gold.yaml:1: /b/ of service "a" and /a/ of service "a" at a.rego:3 are expressions`,
		},
		"rows of one service": {
			gold(claiming(t, "a", 0, []string{"a.b", "a.b"})), claiming(t, "b", 0, []string{"*"}),
			`gold.yaml:2: service "a" matches domain "a.b" with priority 0, and so it does in gold.yaml:1`,
		},
		"identical, higher": {
			claiming(t, "a", 0, []string{"a.b"}), claiming(t, "b", 1, []string{"a.b"}),
			`a.rego:3: "a.b" of service "a" is never chosen: "a.b" of service "b" at b.rego:3 has a higher priority (1, not 0)`,
		},
		"identical, lower": {
			claiming(t, "b", 1, []string{"a.b"}), claiming(t, "a", 0, []string{"a.b"}),
			`a.rego:3: "a.b" of service "a" is never chosen: "a.b" of service "b" at b.rego:3`,
		},
		"below a suffix": {
			claiming(t, "a", 0, []string{"x.y.a.b"}), claiming(t, "b", 1, []string{"*.a.b"}),
			`a.rego:3: "x.y.a.b" of service "a" is never chosen: "*.a.b" of service "b"`,
		},
		"a suffix below a suffix": {
			claiming(t, "a", 0, []string{"*.y.a.b"}), claiming(t, "b", 1, []string{"*.a.b"}),
			`a.rego:3: "*.y.a.b" of service "a" is never chosen: "*.a.b" of service "b"`,
		},
		"under any": {
			claiming(t, "a", 0, []string{"/x/"}, "4420"), claiming(t, "b", 1, nil, "44"),
			`a.rego:3: "/x/" with prefix "4420" of service "a" is never chosen: "*" with prefix "44" of service "b"`,
		},
		"an identical expression": {
			claiming(t, "a", 0, []string{"/x/"}), claiming(t, "b", 1, []string{"/x/"}),
			`a.rego:3: "/x/" of service "a" is never chosen: "/x/" of service "b"`,
		},
		"a wider prefix":            {claiming(t, "a", 0, []string{"a.b"}, "44"), claiming(t, "b", 1, []string{"a.b"}), `"a.b" with prefix "44" of service "a" is never chosen`},
		"a narrower prefix":         {claiming(t, "a", 0, []string{"a.b"}), claiming(t, "b", 1, []string{"a.b"}, "44"), ""},
		"a suffix doesn't hold it":  {claiming(t, "a", 0, []string{"a.b"}), claiming(t, "b", 1, []string{"*.a.b"}), ""},
		"other priority, narrower":  {claiming(t, "a", 0, []string{"*"}), claiming(t, "b", 1, []string{"x.y"}), ""},
		"expressions by priority":   {claiming(t, "a", 0, []string{"/a/"}), claiming(t, "b", 1, []string{"/b/"}), ""},
		"other prefix":              {claiming(t, "a", 0, []string{"*"}, "44"), claiming(t, "b", 0, []string{"*"}, "441"), ""},
		"other kind":                {claiming(t, "a", 0, []string{"example.com"}), claiming(t, "b", 0, []string{"*.example.com"}), ""},
		"a service and itself":      {claiming(t, "a", 0, []string{"a.b", "A.b", "/x/", "/y/"}), claiming(t, "b", 0, []string{"*"}), ""},
		"a domain and a suffix key": {claiming(t, "a", 0, []string{"*.a.b"}), claiming(t, "b", 0, []string{"a.b"}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := matching(c.a, c.b)
			err := errors.Join(errs...)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestConflictsAreReportedOnceEach(t *testing.T) {
	var rows []Row
	for i := range 300 {
		rows = append(rows, claiming(t, "a", 0, []string{fmt.Sprintf("d%d.example.com", i)})...)
	}
	if _, errs := matching(rows, claiming(t, "b", 1, nil)); len(errs) != 1 {
		t.Errorf("one match that is beaten by another: got %d errors", len(errs))
	}
	for i := range rows {
		rows[i].Place = fmt.Sprintf("d.yaml:%d", i)
	}
	_, errs := matching(rows, claiming(t, "b", 1, nil))
	if len(errs) != maxConflicts+1 || errs[maxConflicts].Error() != "and 200 more conflicts between domains" {
		t.Errorf("got %d errors, the last %v", len(errs), errs[len(errs)-1])
	}
}

func TestMatchLimits(t *testing.T) {
	many := claiming(t, "many", 0, []string{"*"})
	many[0].Prefixes = make([]string, MaxRows+1)
	if _, errs := matching(many); len(errs) != 1 {
		t.Errorf("%d rows: got %v", MaxRows+1, errs)
	}
	expressions := claiming(t, "expressions", 0, []string{"/x/"})
	for len(expressions) <= maxExpressions {
		expressions = append(expressions, expressions[0])
	}
	if _, errs := matching(expressions); len(errs) != 1 {
		t.Errorf("%d expressions: got %v", maxExpressions+1, errs)
	}
}

// BenchmarkWorstExpressions tries what costs most on the longest domain: it must
// leave a decision most of its 100 ms.
func BenchmarkWorstExpressions(b *testing.B) {
	var domains []string
	for i := range maxExpressionSum / maxExpressionSize {
		domains = append(domains, fmt.Sprintf("/(?:[a-z]*x?){%d}%d/", 115+i%4, i))
	}
	m, errs := matching(claiming(b, "a", 0, domains))
	if len(errs) > 0 {
		b.Fatal(errors.Join(errs...))
	}
	r := plugin.QuestionRecipient{Domain: strings.Repeat("a", 254) + "\u00e4"} // not plain: the literals don't help
	for b.Loop() {
		if c := m.Find(&r); c != nil {
			b.Fatalf("got %+v", c)
		}
	}
}

func TestExpressionsAreBounded(t *testing.T) {
	if d, err := ParseDomain("/(?:[a-z]{1,100}x){5}/"); err == nil || !strings.Contains(err.Error(), "expected a simpler expression") {
		t.Errorf("got %+v, %v", d, err)
	}
	var domains []string
	for i := range 200 {
		domains = append(domains, fmt.Sprintf("/a{0,200}%d/", i))
	}
	_, errs := matching(claiming(t, "a", 0, domains))
	if err := errors.Join(errs...); err == nil || !strings.Contains(err.Error(), "the regular expressions over domains take") {
		t.Errorf("got %v", err)
	}
}

func TestParseDomainRefuses(t *testing.T) {
	for _, text := range []string{
		".", "*.", "**", "*.*", "*x", "a*b", "/", "//", "/(/", "a b", "a@b", "a/b", ".a", "*..a", "ä.example.com",
		"a\n", strings.Repeat("a", maxPattern+1),
	} {
		if d, err := ParseDomain(text); err == nil {
			t.Errorf("%q: got %+v", text, d)
		}
	}
}

func TestParsePrefixRefuses(t *testing.T) {
	for _, text := range []string{"", "+", "++1", "1+", "a", "4 4", "٤", strings.Repeat("1", MaxPrefix+1)} {
		if p, err := ParsePrefix(text); err == nil {
			t.Errorf("%q: got %q", text, p)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "44", "44@sip.example.com")
	f.Add("/a|b/", "1", "1@b")
	f.Add("", "44", "+447700900123")
	f.Fuzz(func(t *testing.T, domain, prefix, address string) {
		d, err := ParseDomain(domain)
		if err != nil {
			return
		}
		p, err := ParsePrefix(prefix)
		if err != nil {
			return
		}
		m, errs := matching([]Row{{Service: "a", Domain: d, Prefixes: []string{p}, Attributes: NoAttributes}})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		r := regotest.Recipient(address)
		want := d.covers(r.Domain) && strings.HasPrefix(digits(r.User), p)
		if got := m.Find(&r) != nil; got != want {
			t.Errorf("%q: matches %t, want %t", address, got, want)
		}
	})
}

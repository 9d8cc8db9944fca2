package match

import (
	"math/rand/v2"

	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

// naive says who wins by trying everybody, with nothing in common with matcher
// but what the rows say.
func naive(rows []Row, r plugin.QuestionRecipient) *Row {
	var best *Row
	bestPrefix := ""
	for i := range rows {
		for _, prefix := range rows[i].Prefixes {
			if !naivelyMatches(rows[i].Domain.Text, r.Domain) || !naivelyHas(r.User, prefix) {
				continue
			}
			if best == nil || naivelyBefore(&rows[i], prefix, best, bestPrefix) {
				best, bestPrefix = &rows[i], prefix
			}
		}
	}
	return best
}

func naivelyMatches(pattern, domain string) bool {
	switch {
	case pattern == "*":
		return true
	case strings.HasPrefix(pattern, "*."):
		return strings.HasSuffix(domain, pattern[1:])
	case strings.HasPrefix(pattern, "/"):
		return domain != "" && regexp.MustCompile("(?i)^(?:"+pattern[1:len(pattern)-1]+")$").MatchString(domain)
	}
	return pattern == domain
}

func naivelyHas(user, prefix string) bool {
	number := strings.TrimPrefix(user, "+")
	return prefix == "" || strings.Trim(number, "0123456789") == "" && strings.HasPrefix(number, prefix)
}

func naivelyBefore(a *Row, prefixOfA string, b *Row, prefixOfB string) bool {
	if a.Priority != b.Priority {
		return a.Priority > b.Priority
	}
	if ka, kb := naiveKind(a.Domain.Text), naiveKind(b.Domain.Text); ka != kb {
		return ka < kb
	}
	if la, lb := len(a.Domain.Text), len(b.Domain.Text); la != lb && naiveKind(a.Domain.Text) == 1 {
		return la > lb
	}
	return len(prefixOfA) > len(prefixOfB)
}

func naiveKind(pattern string) int {
	switch {
	case pattern == "*":
		return 3
	case strings.HasPrefix(pattern, "/"):
		return 2
	case strings.HasPrefix(pattern, "*."):
		return 1
	}
	return 0
}

// TestMatcherIsTheReference makes random tables, and asks for random addresses.
// A table may have conflicts: the builder says so, and the rest must do.
func TestMatcherIsTheReference(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	good := 0
	for range 3000 {
		rows := randomRows(t, random)
		m, errs := matching(rows)
		if len(errs) > 0 {
			continue
		}
		good++
		for range 40 {
			r := regotest.Recipient(randomAddress(random))
			got, want := m.Find(&r), naive(rows, r)
			if (got == nil) != (want == nil) || got != nil && got.Place != want.Place {
				t.Fatalf("%q: got %+v, want %+v\nof %+v", r.Address, got, want, rows)
			}
		}
	}
	if good < 300 {
		t.Errorf("only %d tables had no conflict", good)
	}
}

// TestShadowedRowsAreNeverChosen tries those that the builder refuses: whoever
// is called never chosen is not, and in a table without one there is somebody
// for whom each could be.
func TestShadowedRowsAreNeverChosen(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		rows := randomRows(t, random)
		_, errs := matching(rows)
		for _, err := range errs {
			place, rest, _ := strings.Cut(err.Error(), ": ")
			if !strings.Contains(rest, "is never chosen") || strings.Contains(rest, "with prefix") {
				continue
			}
			for range 100 {
				r := regotest.Recipient(randomAddress(random))
				if best := naive(rows, r); best != nil && best.Place == place && len(best.Prefixes) == 1 {
					t.Fatalf("%q: %s is chosen, and the error was: %v", r.Address, place, err)
				}
			}
		}
	}
}

var (
	someLabels      = []string{"a", "b", "sip", "sms1", "sms22"}
	someExpressions = []string{`/sms[0-9]+\.a/`, `/.*\.b/`, `/(a|b)\.sip/`, `/SIP\..*/`, `/a\.(b|sip)+/`, `/[a-z]{1,3}\.a/`, `/(sms)+2*\..+/`}
	somePrefixes    = []string{"", "4", "44", "447", "1"}
)

func pick[T any](random *rand.Rand, of []T) T { return of[random.IntN(len(of))] }

func randomDomain(random *rand.Rand) string {
	labels := make([]string, 1+random.IntN(3))
	for i := range labels {
		labels[i] = pick(random, someLabels)
	}
	return strings.Join(labels, ".")
}

func randomRows(t testing.TB, random *rand.Rand) []Row {
	rows := make([]Row, 1+random.IntN(7))
	for i := range rows {
		text := randomDomain(random)
		switch random.IntN(8) {
		case 0, 1, 2:
			text = "*." + text
		case 3:
			text = pick(random, someExpressions)
		case 4:
			text = "*"
		case 5:
			text = ""
		}
		d, err := ParseDomain(text)
		if err != nil {
			t.Fatal(err)
		}
		rows[i] = Row{
			Service: fmt.Sprint("s", random.IntN(4)), Domain: d, Prefixes: []string{pick(random, somePrefixes)},
			Priority: random.IntN(3), Attributes: NoAttributes, Place: fmt.Sprint("row", i),
		}
		if other := pick(random, somePrefixes); other != "" && rows[i].Prefixes[0] != "" && other != rows[i].Prefixes[0] {
			rows[i].Prefixes = append(rows[i].Prefixes, other)
		}
	}
	return rows
}

func randomAddress(random *rand.Rand) string {
	user := pick(random, []string{"alice", "44", "+447700900000", "1", "45", "4x", ""})
	if random.IntN(10) == 0 {
		return user
	}
	return user + "@" + randomDomain(random)
}

// TestLiteralsAreNecessary: no expression matches without what it must have.
func TestLiteralsAreNecessary(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for _, text := range append(someExpressions, `/a+b?c{2,3}d{0,1}\.x/`, `/(?:ab)+/`, `/(ab|ac)d/`, `/^a$/`, `/(?-i:a)B/`, `/a|/`, `/()/`) {
		d, err := ParseDomain(text)
		if err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			domain := randomDomain(random)
			if d.covers(domain) && !d.expression.literals.in(domain) {
				t.Fatalf("%s matches %q, and it lacks %+v", text, domain, d.expression.literals)
			}
		}
	}
}

func TestLiterals(t *testing.T) {
	for text, want := range map[string]literals{
		`/sip[0-9]+\.example\.com/`: {prefix: "sip", suffix: ".example.com", inside: ".example.com"},
		`/Voice/`:                   {prefix: "voice", suffix: "voice", inside: "voice", whole: true},
		`/(a|bc).*/`:                {},
		`/.*\.longest\..*x/`:        {suffix: "x", inside: ".longest."},
		`/(?:ab)+/`:                 {prefix: "ab", suffix: "ab", inside: "ab"},
		`/x(yz)w?/`:                 {prefix: "xyz", inside: "xyz"},
		`/a*b/`:                     {suffix: "b", inside: "b"},
		`/a|/`:                      {},
	} {
		d, err := ParseDomain(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.expression.literals; got != want {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

func FuzzLiterals(f *testing.F) {
	f.Add(`sip[0-9]+\.example\.com`, "sip1.example.com")
	f.Add(`(?i:a|k)s+`, "ks")
	f.Fuzz(func(t *testing.T, expression, domain string) {
		d, err := ParseDomain("/" + expression + "/")
		if err != nil || d.Kind != expressionPattern {
			return
		}
		if domain != "" && d.covers(domain) != d.matches(domain, isPlain(domain)) {
			t.Errorf("%s and %q: what must be in it, %+v, is not", expression, domain, d.expression.literals)
		}
	})
}

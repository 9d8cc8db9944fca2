package rego

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

// Limits of what services may match, all services together.
const (
	maxPattern     = 256       // octets of a domain pattern
	maxPrefix      = 20        // digits of a number prefix
	maxExpressions = 1_000     // regular expressions; each may have to be tried on each message
	maxRows        = 1_000_000 // domain patterns times number prefixes
)

// matcher finds the service that decides about a message. Of several that match
// it takes the one with the highest priority, then by the kind of domain
// pattern (exact, longest suffix, expression, any), then by the longest number
// prefix.
type matcher struct {
	exact       map[string]*numberTable
	suffixes    map[string]*numberTable // keyed without the "*."
	expressions []*expression           // highest priority first
	any         *numberTable
}

// expression is a regular expression over the whole domain.
type expression struct {
	regexp  *regexp.Regexp
	numbers *numberTable
	service *service
}

// service returns the service for a recipient, nil if there is none.
func (m *matcher) service(recipient plugin.QuestionRecipient) *service {
	number := digits(recipient.User)
	best := m.exact[recipient.Domain].find(number)
	best = higher(best, m.bySuffix(recipient.Domain, number))
	best = m.byExpression(best, recipient.Domain, number)
	return higher(best, m.any.find(number))
}

func (m *matcher) bySuffix(domain, number string) (best *service) {
	for len(m.suffixes) > 0 {
		_, rest, more := strings.Cut(domain, ".")
		if !more {
			break
		}
		best = higher(best, m.suffixes[rest].find(number))
		domain = rest
	}
	return best
}

// byExpression tries only those expressions that would win over best.
func (m *matcher) byExpression(best *service, domain, number string) *service {
	if domain == "" {
		return best
	}
	for _, e := range m.expressions {
		if best != nil && best.match.priority >= e.service.match.priority {
			break
		}
		if found := e.numbers.find(number); found != nil && e.regexp.MatchString(domain) {
			return found
		}
	}
	return best
}

// higher returns the service with the higher priority, the first if they are equal.
func higher(first, second *service) *service {
	if first == nil || second != nil && second.match.priority > first.match.priority {
		return second
	}
	return first
}

// numberTable holds the services of one domain pattern by number prefix; the
// empty prefix takes recipients without a number too.
type numberTable struct {
	byPrefix map[string]*service
	lengths  []int // of the prefixes, the longest first
}

// find returns the service with the highest priority, then the longest prefix.
func (t *numberTable) find(number string) (best *service) {
	if t == nil {
		return nil
	}
	for _, length := range t.lengths {
		if length <= len(number) {
			best = higher(best, t.byPrefix[number[:length]])
		}
	}
	return best
}

// put keeps the service with the higher priority: the other one can't be chosen.
func (t *numberTable) put(prefix string, s *service) {
	t.byPrefix[prefix] = higher(t.byPrefix[prefix], s)
	if !slices.Contains(t.lengths, len(prefix)) {
		t.lengths = append(t.lengths, len(prefix))
		slices.SortFunc(t.lengths, func(a, b int) int { return b - a })
	}
}

// matcherBuilder makes a matcher and notices services that match alike.
type matcherBuilder struct {
	matcher matcher
	seen    map[matchKey]*service
	rows    int
	errs    []error
}

// matchKey is what two services must not have in common.
type matchKey struct {
	pattern  string // "" for every expression: which of two is narrower can't be known
	prefix   string
	priority int
}

// buildMatcher returns the matcher for the services, or all conflicts.
func buildMatcher(services []*service) (*matcher, []error) {
	b := matcherBuilder{
		matcher: matcher{exact: map[string]*numberTable{}, suffixes: map[string]*numberTable{}},
		seen:    map[matchKey]*service{},
	}
	for _, s := range services {
		b.add(s)
	}
	if n := len(b.matcher.expressions); n > maxExpressions {
		b.errs = append(b.errs, fmt.Errorf("%d regular expressions over domains, expected at most %d: use exact domains or suffixes", n, maxExpressions))
	}
	slices.SortStableFunc(b.matcher.expressions, func(a, b *expression) int {
		return b.service.match.priority - a.service.match.priority
	})
	return &b.matcher, b.errs
}

func (b *matcherBuilder) add(s *service) {
	if b.rows += len(s.match.domains) * len(s.match.prefixes); b.rows > maxRows {
		b.errs = append(b.errs, fmt.Errorf("%s: the domains times the prefixes of all services up to %q are %d, expected at most %d", s.match.at, s.name, b.rows, maxRows))
		return
	}
	for _, d := range s.match.domains {
		table := b.table(d, s)
		for _, prefix := range s.match.prefixes {
			if b.claim(d, prefix, s) {
				table.put(prefix, s)
			}
		}
	}
}

// claim tells whether nobody else matches the same.
func (b *matcherBuilder) claim(d domainPattern, prefix string, s *service) bool {
	key := matchKey{pattern: d.text, prefix: prefix, priority: s.match.priority}
	if d.kind == expressionPattern {
		key.pattern, key.prefix = "", ""
	}
	other, taken := b.seen[key]
	if !taken {
		b.seen[key] = s
		return true
	}
	if other == s {
		return true
	}
	b.errs = append(b.errs, conflict(d, prefix, s, other))
	return false
}

func conflict(d domainPattern, prefix string, s, other *service) error {
	alike := fmt.Sprintf("services %q and %q both match domain %q", s.name, other.name, d.text)
	switch {
	case d.kind == expressionPattern:
		alike = fmt.Sprintf("services %q and %q both match by regular expression", s.name, other.name)
	case prefix != "":
		alike += fmt.Sprintf(" and prefix %q", prefix)
	}
	return fmt.Errorf("%s: %s with priority %d, as does %s: give one of them a higher priority", s.match.at, alike, s.match.priority, other.match.at)
}

// table returns the table of numbers of a domain pattern.
func (b *matcherBuilder) table(d domainPattern, s *service) *numberTable {
	m := &b.matcher
	switch d.kind {
	case exactPattern:
		return tableOf(m.exact, d.text)
	case suffixPattern:
		return tableOf(m.suffixes, strings.TrimPrefix(d.text, "*."))
	case expressionPattern:
		e := &expression{regexp: d.regexp, numbers: newNumberTable(), service: s}
		m.expressions = append(m.expressions, e)
		return e.numbers
	}
	if m.any == nil {
		m.any = newNumberTable()
	}
	return m.any
}

func tableOf(tables map[string]*numberTable, key string) *numberTable {
	if tables[key] == nil {
		tables[key] = newNumberTable()
	}
	return tables[key]
}

func newNumberTable() *numberTable { return &numberTable{byPrefix: map[string]*service{}} }

// patternKind is the kind of a domain pattern.
type patternKind uint8

const (
	exactPattern      patternKind = iota // sip.example.com
	suffixPattern                        // *.example.com: below it, and not example.com
	expressionPattern                    // /sip[0-9]+\.example\.com/: the whole domain
	anyPattern                           // *: also recipients without a domain
)

// domainPattern is an entry of match.domains.
type domainPattern struct {
	kind   patternKind
	text   string // in lower case unless it is an expression
	regexp *regexp.Regexp
}

const expectedDomain = `"sip.example.com", "*.example.com", "*" or an expression such as "/sip[0-9]+\\.example\\.com/"`

func parseDomain(text string) (domainPattern, error) {
	lower := strings.ToLower(text)
	suffix, isSuffix := strings.CutPrefix(lower, "*.")
	switch {
	case len(text) > maxPattern:
		return domainPattern{}, fmt.Errorf("expected at most %d octets, got %d", maxPattern, len(text))
	case text == "*":
		return domainPattern{kind: anyPattern, text: text}, nil
	case len(text) > 2 && text[0] == '/' && text[len(text)-1] == '/':
		return parseExpression(text)
	case isSuffix && isDomain(suffix):
		return domainPattern{kind: suffixPattern, text: lower}, nil
	case isDomain(lower):
		return domainPattern{kind: exactPattern, text: lower}, nil
	}
	return domainPattern{}, fmt.Errorf("expected %s, got %q", expectedDomain, text)
}

func parseExpression(text string) (domainPattern, error) {
	re, err := regexp.Compile(`(?i)^(?:` + text[1:len(text)-1] + `)$`)
	if err != nil {
		return domainPattern{}, fmt.Errorf("expected a regular expression between slashes, got %q: %w", text, err)
	}
	return domainPattern{kind: expressionPattern, text: text, regexp: re}, nil
}

// isDomain tells whether s can be the host of an address: a name or an IP
// address. It is in lower case.
func isDomain(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") == "" && s[0] != '.'
}

func parsePrefix(text string) (string, error) {
	if prefix := digits(text); prefix != "" && len(prefix) <= maxPrefix {
		return prefix, nil
	}
	return "", fmt.Errorf("expected 1 to %d digits such as \"4420\", got %q", maxPrefix, text)
}

// digits returns a telephone number without its "+", "" if s isn't one.
func digits(s string) string {
	s = strings.TrimPrefix(s, "+")
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return ""
		}
	}
	return s
}

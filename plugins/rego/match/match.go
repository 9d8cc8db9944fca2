// Package match finds the service for a recipient: by the domains, number prefixes
// and priorities of rows, which it reads from data files and puts in order. It
// must not know what services decide, nor where the rows come from.
package match

import (
	"cmp"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

// Limits of what services may match, all services together.
const (
	maxExpressions = 1_000     // regular expressions; each may have to be tried on each message
	MaxRows        = 1_000_000 // domain patterns times number prefixes
)

// Matcher finds the service that decides about a message. Of several claims it
// takes the one with the highest priority, then by the kind of domain pattern
// (exact, longest suffix, expression, any), then by the longest number prefix.
type Matcher struct {
	exact       map[string]*numberTable
	suffixes    map[string]*numberTable // keyed without the "*."
	expressions []expression            // highest priority first
	any         *numberTable
	Claims      []*Claim // all of them, as they are in the files
	services    []string
}

// Claim is a service's to the recipients of a domain with a number prefix.
type Claim struct {
	*Row
	Number int // of the service
	Prefix string
}

// expression is a row with a regular expression.
type expression struct {
	*Row
	numbers *numberTable
}

// Find returns the claim that wins for a recipient, nil if there is none.
func (m *Matcher) Find(recipient *plugin.QuestionRecipient) *Claim {
	number := digits(recipient.User)
	best := m.exact[recipient.Domain].find(number)
	best = m.bySuffix(best, recipient.Domain, number)
	best = first(best, m.any.find(number))
	return m.byExpression(best, recipient.Domain, number)
}

func (m *Matcher) bySuffix(best *Claim, domain, number string) *Claim {
	for len(m.suffixes) > 0 {
		_, rest, more := strings.Cut(domain, ".")
		if !more {
			break
		}
		best = first(best, m.suffixes[rest].find(number))
		domain = rest
	}
	return best
}

// byExpression tries only those expressions that would win over best.
func (m *Matcher) byExpression(best *Claim, domain, number string) *Claim {
	if domain == "" || len(m.expressions) == 0 {
		return best
	}
	plain := isPlain(domain)
	for i := range m.expressions {
		e := &m.expressions[i]
		if best != nil && precedence(best.Row, e.Row) < 0 {
			break // and those that follow are no better
		}
		found := e.numbers.find(number)
		if found != nil && first(best, found) == found && e.Domain.matches(domain, plain) {
			best = found
		}
	}
	return best
}

// precedence is negative if a goes before b, by all but their prefixes.
func precedence(a, b *Row) int {
	return cmp.Or(
		cmp.Compare(b.Priority, a.Priority),
		cmp.Compare(a.Domain.Kind, b.Domain.Kind),
		cmp.Compare(b.Domain.length(), a.Domain.length()),
	)
}

// order is negative if a goes before b.
func order(a, b *Claim) int {
	return cmp.Or(precedence(a.Row, b.Row), cmp.Compare(len(b.Prefix), len(a.Prefix)))
}

// first returns the claim that goes before the other, a if they are equal.
func first(a, b *Claim) *Claim {
	if a == nil || b != nil && order(b, a) < 0 {
		return b
	}
	return a
}

// numberTable holds the claims to one domain pattern by number prefix.
type numberTable struct {
	any      *Claim            // of the empty prefix: recipients without a number too
	byPrefix map[string]*Claim // nil: no other
	lengths  []int             // of the other prefixes, the longest first
}

// find returns the claim that wins for a number, nil if there is none.
func (t *numberTable) find(number string) *Claim {
	if t == nil {
		return nil
	}
	best := t.any
	for _, length := range t.lengths {
		if length <= len(number) {
			best = first(best, t.byPrefix[number[:length]])
		}
	}
	return best
}

// get returns the claim to a prefix.
func (t *numberTable) get(prefix string) *Claim {
	if prefix == "" {
		return t.any
	}
	return t.byPrefix[prefix]
}

// put replaces the claim to a prefix.
func (t *numberTable) put(c *Claim) {
	if c.Prefix == "" {
		t.any = c
		return
	}
	if t.byPrefix == nil {
		t.byPrefix = map[string]*Claim{}
	}
	t.byPrefix[c.Prefix] = c
	if !slices.Contains(t.lengths, len(c.Prefix)) {
		t.lengths = append(t.lengths, len(c.Prefix))
		slices.SortFunc(t.lengths, func(a, b int) int { return b - a })
	}
}

// above returns the claim with the highest priority among those to the prefix
// and to the prefixes that it begins with.
func (t *numberTable) above(prefix string) *Claim {
	if t == nil {
		return nil
	}
	best := t.any
	for _, length := range t.lengths {
		if length > len(prefix) {
			continue
		}
		c := t.byPrefix[prefix[:length]]
		if c != nil && (best == nil || c.Priority > best.Priority) {
			best = c
		}
	}
	return best
}

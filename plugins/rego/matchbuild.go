package rego

import (
	"fmt"
	"slices"
	"strings"
)

// maxConflicts is how many are shown at once.
const maxConflicts = 100

// matcherBuilder makes a matcher and notices rows that could never be chosen.
type matcherBuilder struct {
	matcher     matcher
	services    map[string]*service
	expressions map[string]*numberTable // by their text
	byPriority  map[int]*row            // an expression of each priority
	clashes     map[clash]bool          // that were reported
	errs        []error
}

// clash is a pair of places that is reported once, however many domains are in it.
type clash struct{ place, other string }

// buildMatcher returns the matcher for rows, or all that is wrong with them.
func buildMatcher(services []*service, rows []row) (*matcher, []error) {
	b := matcherBuilder{
		matcher:     matcher{exact: map[string]*numberTable{}, suffixes: map[string]*numberTable{}},
		services:    map[string]*service{},
		expressions: map[string]*numberTable{},
		byPriority:  map[int]*row{},
		clashes:     map[clash]bool{},
	}
	for _, s := range services {
		b.services[s.name] = s
	}
	for i := range rows {
		if !b.add(&rows[i]) {
			return nil, b.errs
		}
	}
	b.findShadowed()
	b.boundExpressions()
	slices.SortStableFunc(b.matcher.expressions, func(a, b expression) int { return b.priority - a.priority })
	return &b.matcher, b.limited()
}

// boundExpressions wants them to be few and small enough to be tried on each
// message.
func (b *matcherBuilder) boundExpressions() {
	size := 0
	for _, e := range b.matcher.expressions {
		size += e.domain.expression.size
	}
	if n := len(b.matcher.expressions); n > maxExpressions {
		b.errs = append(b.errs, fmt.Errorf("%d regular expressions over domains, expected at most %d: use exact domains or suffixes", n, maxExpressions))
	}
	if size > maxExpressionSum {
		b.errs = append(b.errs, fmt.Errorf("the regular expressions over domains take %d instructions, expected at most %d: use exact domains or suffixes", size, maxExpressionSum))
	}
}

// limited returns the errors, and how many more there are than anybody reads.
func (b *matcherBuilder) limited() []error {
	if more := len(b.errs) - maxConflicts; more > 0 {
		return append(b.errs[:maxConflicts:maxConflicts], fmt.Errorf("and %d more conflicts between domains", more))
	}
	return b.errs
}

// add takes a row. It returns false if there are too many.
func (b *matcherBuilder) add(r *row) bool {
	s := b.services[r.service]
	if s == nil {
		b.errs = append(b.errs, b.unknownService(r))
		return true
	}
	if len(b.matcher.claims)+len(r.prefixes) > maxRows {
		b.errs = append(b.errs, fmt.Errorf("%s: the domains times the prefixes of all services up to %q are more than %d", r.place, s.name, maxRows))
		return false
	}
	table := b.tableFor(r)
	for _, prefix := range r.prefixes {
		b.claim(table, &claim{row: r, service: s, prefix: prefix})
	}
	return true
}

func (b *matcherBuilder) unknownService(r *row) error {
	if len(b.services) == 0 {
		return fmt.Errorf("%s: %s: there is no service %q", r.place, r.domain.text, r.service)
	}
	return fmt.Errorf("%s: %s: there is no service %q, expected one of %s", r.place, r.domain.text, r.service, strings.Join(sortedKeys(b.services), ", "))
}

// claim enters a claim unless somebody has made the same.
func (b *matcherBuilder) claim(table *numberTable, c *claim) {
	other := table.get(c.prefix)
	switch {
	case other == nil:
		table.put(c)
		b.matcher.claims = append(b.matcher.claims, c)
	case other.place == c.place && other.priority == c.priority:
		// a match that has a domain twice
	case other.priority == c.priority:
		b.report(c.row, other.row, tied(c, other))
	case other.priority > c.priority:
		b.report(c.row, other.row, shadowed(c, other))
	default:
		b.report(other.row, c.row, shadowed(other, c))
	}
}

// tableFor returns the table of numbers for a row's domain pattern.
func (b *matcherBuilder) tableFor(r *row) *numberTable {
	m := &b.matcher
	switch r.domain.kind {
	case exactPattern:
		return tableAt(m.exact, r.domain.text)
	case suffixPattern:
		return tableAt(m.suffixes, strings.TrimPrefix(r.domain.text, "*."))
	case expressionPattern:
		return b.expression(r)
	}
	if m.any == nil {
		m.any = &numberTable{}
	}
	return m.any
}

// expression enters a row with an expression. Which of two expressions is
// narrower can't be known, so that those of a priority must come to the same.
func (b *matcherBuilder) expression(r *row) *numberTable {
	same := b.byPriority[r.priority]
	if same == nil {
		b.byPriority[r.priority] = r
	} else if same.service != r.service || same.attributes.Value.Compare(r.attributes.Value) != 0 {
		b.report(r, same, fmt.Errorf("%s: %s of service %q and %s of service %q at %s are expressions with priority %d, and may match the same domain: give one of them a higher priority",
			r.place, r.domain.text, r.service, same.domain.text, same.service, same.place, r.priority))
	}
	e := expression{row: r, numbers: &numberTable{}}
	for _, prefix := range r.prefixes {
		e.numbers.put(&claim{row: r, service: b.services[r.service], prefix: prefix})
	}
	b.matcher.expressions = append(b.matcher.expressions, e)
	return tableAt(b.expressions, r.domain.text)
}

func tableAt(tables map[string]*numberTable, key string) *numberTable {
	if tables[key] == nil {
		tables[key] = &numberTable{}
	}
	return tables[key]
}

// findShadowed looks for claims that a wider one with a higher priority always
// goes before.
func (b *matcherBuilder) findShadowed() {
	for _, c := range b.matcher.claims {
		if wider := b.wider(c); wider != nil && wider.priority > c.priority {
			b.report(c.row, wider.row, shadowed(c, wider))
		}
	}
}

// wider returns the claim with the highest priority among those that take all
// that c does, as far as can be seen from how they are written.
func (b *matcherBuilder) wider(c *claim) *claim {
	m := &b.matcher
	best := m.any.above(c.prefix)
	keep := func(t *numberTable) {
		if found := t.above(c.prefix); found != nil && (best == nil || found.priority > best.priority) {
			best = found
		}
	}
	switch c.domain.kind {
	case expressionPattern:
		keep(b.expressions[c.domain.text])
		return best
	case anyPattern:
		return best
	case exactPattern:
		keep(m.exact[c.domain.text])
	}
	rest := strings.TrimPrefix(c.domain.text, "*.")
	if c.domain.kind == suffixPattern {
		keep(m.suffixes[rest])
	}
	for {
		_, parent, more := strings.Cut(rest, ".")
		if !more {
			return best
		}
		rest = parent
		keep(m.suffixes[rest])
	}
}

func (b *matcherBuilder) report(r, other *row, err error) {
	c := clash{r.place, other.place}
	if b.clashes[c] {
		return
	}
	b.clashes[c] = true
	b.errs = append(b.errs, err)
}

func tied(c, other *claim) error {
	alike := fmt.Sprintf("%s: services %q and %q both match domain %q", c.place, c.row.service, other.row.service, c.domain.text)
	if c.prefix != "" {
		alike += fmt.Sprintf(" and prefix %q", c.prefix)
	}
	return fmt.Errorf("%s with priority %d, as does %s: give one of them a higher priority, or take it out", alike, c.priority, other.place)
}

func shadowed(c, other *claim) error {
	return fmt.Errorf("%s: %s of service %q is never chosen: %s of service %q at %s has a higher priority (%d, not %d)",
		c.place, c.pattern(), c.row.service, other.pattern(), other.row.service, other.place, other.priority, c.priority)
}

// pattern is a claim's domain and prefix.
func (c *claim) pattern() string {
	if c.prefix == "" {
		return fmt.Sprintf("%q", c.domain.text)
	}
	return fmt.Sprintf("%q with prefix %q", c.domain.text, c.prefix)
}

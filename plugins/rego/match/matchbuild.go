package match

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxConflicts is how many are shown at once.
const maxConflicts = 100

// matcherBuilder makes a matcher and notices rows that could never be chosen.
type matcherBuilder struct {
	matcher     Matcher
	services    map[string]int          // their numbers
	expressions map[string]*numberTable // by their text
	byPriority  map[int]*Row            // an expression of each priority
	clashes     map[clash]bool          // that were reported
	errs        []error
}

// clash is a pair of places that is reported once, however many domains are in it.
type clash struct{ place, other string }

// Build returns the matcher for rows, or all that is wrong with them. A
// claim's number is the place of its service in services.
func Build(services []string, rows []Row) (*Matcher, []error) {
	b := matcherBuilder{
		matcher:     Matcher{exact: map[string]*numberTable{}, suffixes: map[string]*numberTable{}, services: services},
		services:    map[string]int{},
		expressions: map[string]*numberTable{},
		byPriority:  map[int]*Row{},
		clashes:     map[clash]bool{},
	}
	for i, name := range services {
		b.services[name] = i
	}
	for i := range rows {
		if !b.add(&rows[i]) {
			return nil, b.errs
		}
	}
	b.findShadowed()
	b.boundExpressions()
	slices.SortStableFunc(b.matcher.expressions, func(a, b expression) int { return b.Priority - a.Priority })
	return &b.matcher, b.limited()
}

// boundExpressions wants them to be few and small enough to be tried on each
// message.
func (b *matcherBuilder) boundExpressions() {
	size := 0
	for _, e := range b.matcher.expressions {
		size += e.Domain.expression.size
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
func (b *matcherBuilder) add(r *Row) bool {
	number, known := b.services[r.Service]
	if !known {
		b.errs = append(b.errs, b.unknownService(r))
		return true
	}
	if len(b.matcher.Claims)+len(r.Prefixes) > MaxRows {
		b.errs = append(b.errs, fmt.Errorf("%s: the domains times the prefixes of all services up to %q are more than %d", r.Place, r.Service, MaxRows))
		return false
	}
	table := b.tableFor(r)
	for _, prefix := range r.Prefixes {
		b.claim(table, &Claim{Row: r, Number: number, Prefix: prefix})
	}
	return true
}

func (b *matcherBuilder) unknownService(r *Row) error {
	if len(b.services) == 0 {
		return fmt.Errorf("%s: %s: there is no service %q", r.Place, r.Domain, r.Service)
	}
	return fmt.Errorf("%s: %s: there is no service %q, expected one of %s", r.Place, r.Domain, r.Service, strings.Join(slices.Sorted(maps.Keys(b.services)), ", "))
}

// claim enters a claim unless somebody has made the same.
func (b *matcherBuilder) claim(table *numberTable, c *Claim) {
	other := table.get(c.Prefix)
	switch {
	case other == nil:
		table.put(c)
		b.matcher.Claims = append(b.matcher.Claims, c)
	case other.Place == c.Place && other.Priority == c.Priority:
		// a match that has a domain twice
	case other.Priority == c.Priority:
		b.report(c.Row, other.Row, tied(c, other))
	case other.Priority > c.Priority:
		b.report(c.Row, other.Row, shadowed(c, other))
	default:
		b.report(other.Row, c.Row, shadowed(other, c))
	}
}

// tableFor returns the table of numbers for a row's domain pattern.
func (b *matcherBuilder) tableFor(r *Row) *numberTable {
	m := &b.matcher
	switch r.Domain.Kind {
	case exactPattern:
		return tableAt(m.exact, r.Domain.Text)
	case suffixPattern:
		return tableAt(m.suffixes, strings.TrimPrefix(r.Domain.Text, "*."))
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
func (b *matcherBuilder) expression(r *Row) *numberTable {
	same := b.byPriority[r.Priority]
	if same == nil {
		b.byPriority[r.Priority] = r
	} else if same.Service != r.Service || same.Attributes.Value.Compare(r.Attributes.Value) != 0 {
		b.report(r, same, fmt.Errorf("%s: %s of service %q and %s of service %q at %s are expressions with priority %d, and may match the same domain: give one of them a higher priority",
			r.Place, r.Domain.Text, r.Service, same.Domain.Text, same.Service, same.Place, r.Priority))
	}
	e := expression{Row: r, numbers: &numberTable{}}
	for _, prefix := range r.Prefixes {
		e.numbers.put(&Claim{Row: r, Number: b.services[r.Service], Prefix: prefix})
	}
	b.matcher.expressions = append(b.matcher.expressions, e)
	return tableAt(b.expressions, r.Domain.Text)
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
	for _, c := range b.matcher.Claims {
		if wider := b.wider(c); wider != nil && wider.Priority > c.Priority {
			b.report(c.Row, wider.Row, shadowed(c, wider))
		}
	}
}

// wider returns the claim with the highest priority among those that take all
// that c does, as far as can be seen from how they are written.
func (b *matcherBuilder) wider(c *Claim) *Claim {
	m := &b.matcher
	best := m.any.above(c.Prefix)
	keep := func(t *numberTable) {
		if found := t.above(c.Prefix); found != nil && (best == nil || found.Priority > best.Priority) {
			best = found
		}
	}
	switch c.Domain.Kind {
	case expressionPattern:
		keep(b.expressions[c.Domain.Text])
		return best
	case AnyPattern:
		return best
	case exactPattern:
		keep(m.exact[c.Domain.Text])
	}
	rest := strings.TrimPrefix(c.Domain.Text, "*.")
	if c.Domain.Kind == suffixPattern {
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

func (b *matcherBuilder) report(r, other *Row, err error) {
	c := clash{r.Place, other.Place}
	if b.clashes[c] {
		return
	}
	b.clashes[c] = true
	b.errs = append(b.errs, err)
}

func tied(c, other *Claim) error {
	what := fmt.Sprintf("domain %q", c.Domain.Text)
	if c.Prefix != "" {
		what += fmt.Sprintf(" and prefix %q", c.Prefix)
	}
	who := fmt.Sprintf("does %q", other.Row.Service)
	if other.Row.Service == c.Row.Service {
		who = "it does"
	}
	return fmt.Errorf("%s: service %q matches %s with priority %d, and so %s in %s: give one of them a higher priority, or take it out",
		c.Place, c.Row.Service, what, c.Priority, who, other.Place)
}

func shadowed(c, other *Claim) error {
	return fmt.Errorf("%s: %s of service %q is never chosen: %s of service %q at %s has a higher priority (%d, not %d)",
		c.Place, c.pattern(), c.Row.Service, other.pattern(), other.Row.Service, other.Place, other.Priority, c.Priority)
}

// pattern is a claim's domain and prefix.
func (c *Claim) pattern() string {
	if c.Prefix == "" {
		return fmt.Sprintf("%q", c.Domain.Text)
	}
	return fmt.Sprintf("%q with prefix %q", c.Domain.Text, c.Prefix)
}

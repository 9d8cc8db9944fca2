package rego

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

// candidate is a service as a recipient sees it: the claim of it that goes first.
type candidate struct {
	Service  string
	Place    string // file:line of the row
	Domain   string // the pattern
	Prefix   string
	Priority int
	Wins     bool
	Why      string // it was chosen, or not
}

// standing is a service's best claim, and what keeps it from matching.
type standing struct {
	claim    *claim
	obstacle string // empty: it matches
}

// candidates returns all services in the order of precedence, and why each was
// chosen or not: those that match, then the others by their names.
func (p *policy) candidates(r plugin.QuestionRecipient) []candidate {
	standings := make([]standing, 0, len(p.services))
	for _, s := range p.services {
		standings = append(standings, p.matcher.standing(s, &r))
	}
	slices.SortStableFunc(standings, func(a, b standing) int {
		if a.obstacle != "" || b.obstacle != "" {
			return cmp.Compare(min(len(a.obstacle), 1), min(len(b.obstacle), 1))
		}
		return order(a.claim, b.claim)
	})
	found := make([]candidate, len(standings))
	for i, s := range standings {
		found[i] = candidate{
			Service: s.claim.row.service, Place: s.claim.place, Domain: s.claim.domain.text,
			Prefix: s.claim.prefix, Priority: s.claim.priority,
			Wins: i == 0 && s.obstacle == "", Why: why(standings, i),
		}
	}
	return found
}

// why says in words what became of the i-th.
func why(standings []standing, i int) string {
	s := standings[i]
	switch {
	case s.obstacle != "":
		return s.obstacle
	case i > 0:
		return fmt.Sprintf("beaten by %s: %s", standings[0].claim.row.service, advantage(standings[0].claim, s.claim))
	case len(standings) > 1 && standings[1].obstacle == "":
		return fmt.Sprintf("it goes before %s: %s", standings[1].claim.row.service, advantage(s.claim, standings[1].claim))
	}
	return "nobody else matches"
}

// advantage says why the winner goes before the other.
func advantage(winner, other *claim) string {
	switch {
	case winner.priority != other.priority:
		return fmt.Sprintf("a higher priority, %d and not %d", winner.priority, other.priority)
	case winner.domain.kind != other.domain.kind:
		return fmt.Sprintf("%s goes before %s", winner.domain.kind, other.domain.kind)
	case winner.domain.length() != other.domain.length():
		return fmt.Sprintf("a longer suffix, %s and not %s", winner.domain.text, other.domain.text)
	}
	return fmt.Sprintf("a longer prefix, %s and not %s", winner.prefix, cmp.Or(other.prefix, "any"))
}

// standing looks through all the claims of a service: nobody is in a hurry.
func (m *matcher) standing(s *service, r *plugin.QuestionRecipient) standing {
	number := digits(r.User)
	var best, sameDomain, anyOf *claim
	for _, c := range m.claims {
		if c.service != s {
			continue
		}
		anyOf = cmp.Or(anyOf, c)
		if !c.domain.covers(r.Domain) {
			continue
		}
		sameDomain = cmp.Or(sameDomain, c)
		if strings.HasPrefix(number, c.prefix) {
			best = first(best, c)
		}
	}
	switch {
	case best != nil:
		return standing{claim: best}
	case sameDomain == nil && r.Domain == "":
		return standing{anyOf, "the recipient has no domain"}
	case sameDomain == nil:
		return standing{anyOf, fmt.Sprintf("its domains don't match %s", r.Domain)}
	case number == "":
		return standing{sameDomain, fmt.Sprintf("its domains match, and %s is no number", cmp.Or(r.User, "the recipient"))}
	}
	return standing{sameDomain, fmt.Sprintf("its domains match, and %s has none of its prefixes", number)}
}

package match

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

// Candidate is a service as a recipient sees it: the claim of it that goes first.
type Candidate struct {
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
	claim    *Claim
	obstacle string // empty: it matches
}

// Candidates returns all services in the order of precedence, and why each was
// chosen or not: those that match, then the others by their names.
func (m *Matcher) Candidates(r plugin.QuestionRecipient) []Candidate {
	standings := make([]standing, 0, len(m.services))
	for number := range m.services {
		standings = append(standings, m.standing(number, &r))
	}
	slices.SortStableFunc(standings, func(a, b standing) int {
		if a.obstacle != "" || b.obstacle != "" {
			return cmp.Compare(min(len(a.obstacle), 1), min(len(b.obstacle), 1))
		}
		return order(a.claim, b.claim)
	})
	found := make([]Candidate, len(standings))
	for i, s := range standings {
		found[i] = Candidate{
			Service: s.claim.Row.Service, Place: s.claim.Place, Domain: s.claim.Domain.Text,
			Prefix: s.claim.Prefix, Priority: s.claim.Priority,
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
		return fmt.Sprintf("beaten by %s: %s", standings[0].claim.Row.Service, advantage(standings[0].claim, s.claim))
	case len(standings) > 1 && standings[1].obstacle == "":
		return fmt.Sprintf("it goes before %s: %s", standings[1].claim.Row.Service, advantage(s.claim, standings[1].claim))
	}
	return "nobody else matches"
}

// advantage says why the winner goes before the other.
func advantage(winner, other *Claim) string {
	switch {
	case winner.Priority != other.Priority:
		return fmt.Sprintf("a higher priority, %d and not %d", winner.Priority, other.Priority)
	case winner.Domain.Kind != other.Domain.Kind:
		return fmt.Sprintf("%s goes before %s", winner.Domain.Kind, other.Domain.Kind)
	case winner.Domain.length() != other.Domain.length():
		return fmt.Sprintf("a longer suffix, %s and not %s", winner.Domain.Text, other.Domain.Text)
	}
	return fmt.Sprintf("a longer prefix, %s and not %s", winner.Prefix, cmp.Or(other.Prefix, "any"))
}

// standing looks through all the claims of a service: nobody is in a hurry.
func (m *Matcher) standing(service int, r *plugin.QuestionRecipient) standing {
	number := digits(r.User)
	var best, sameDomain, anyOf *Claim
	for _, c := range m.Claims {
		if c.Number != service {
			continue
		}
		anyOf = cmp.Or(anyOf, c)
		if !c.Domain.covers(r.Domain) {
			continue
		}
		sameDomain = cmp.Or(sameDomain, c)
		if strings.HasPrefix(number, c.Prefix) {
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

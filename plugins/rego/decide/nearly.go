package decide

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/plugins/rego/source"
)

// farthest is how many letters a name may be off to be taken for a slip.
const farthest = 2

// nearlyDocuments warns of rules whose names are nearly those of our documents,
// and which no rule uses: a service without limits works, and not as was meant.
func nearlyDocuments(declared []*declaration, c *Compiled) (doubts []string) {
	for _, d := range declared {
		for _, name := range slices.Sorted(maps.Keys(d.own)) {
			meant := meantBy(name)
			if meant == "" || c.isUsed(d.ref(name)) {
				continue
			}
			doubts = append(doubts, fmt.Sprintf("%s: nothing uses %s, was %s meant?", Position(d.own[name].Location), name, meant))
		}
	}
	return doubts
}

// strayPlans warns of packages that look like services, are none, and which no
// rule uses: what they say never counts.
func strayPlans(modules map[string]*ast.Module, c *Compiled) (doubts []string) {
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		p := modules[path].Package
		if _, ours, _ := PackageName(p); ours || source.IsTest(path) || !slices.ContainsFunc(modules[path].Rules, isAboutPlan) {
			continue
		}
		if !c.isUsed(p.Path.Append(ast.StringTerm("plan"))) {
			name := strings.TrimPrefix(p.Path.String(), ast.DefaultRootDocument.String()+".")
			doubts = append(doubts, fmt.Sprintf("%s: package %s has a plan and is no service: expected package imgate.services.NAME", Position(p.Location), name))
		}
	}
	return doubts
}

// isAboutPlan tells whether a rule is plan, or about an attribute that plans have.
func isAboutPlan(rule *ast.Rule) bool {
	ref := rule.Head.Ref()
	if len(rule.Head.Args) > 0 || ref[0].Value.Compare(ast.Var("plan")) != 0 {
		return false
	}
	return planAttributes.check(ref[1:]) == nil
}

// meantBy returns the document that a name may be a slip of, empty if none.
func meantBy(name string) string {
	if name == source.DomainsName || name == "domain" {
		return documents["match"]
	}
	best, meant := farthest+1, ""
	for _, document := range append(slices.Sorted(maps.Keys(documents)), "plan") {
		if d := levenshtein.ComputeDistance(name, document); d < best {
			best, meant = d, document
		}
	}
	if looks := documents[meant]; looks != "" {
		return looks
	}
	return meant
}

// isUsed tells whether rules other than those at ref need them.
func (c *Compiled) isUsed(ref ast.Ref) bool {
	for _, rule := range c.Compiler.GetRules(ref) {
		if len(c.Compiler.Graph.Dependents(rule)) > 0 {
			return true
		}
	}
	return false
}

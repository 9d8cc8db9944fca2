package gate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ast/location"

	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/source"
)

// From which size on something is worth a warning.
const (
	manyAlternatives = 4       // rules of one name that are all tried for each message
	manyEntries      = 1_000   // that a message makes a rule go through
	largeDocument    = 1 << 20 // octets of JSON
	maxWarnings      = 100
)

// inspection looks for what will be slow: at the rules of the services and at
// those that they use, as far as they depend on the message.
type inspection struct {
	compiler *ast.Compiler
	data     map[string]any
	found    map[string]bool // warnings
}

// inspect returns what will work, and slower than it might.
func inspect(c *ast.Compiler, s source.Source) []string {
	i := inspection{compiler: c, data: s.Data, found: map[string]bool{}}
	rules := i.perMessage()
	i.alternatives(rules)
	for rule := range rules {
		s := scope{ast.NewVarSet(), map[ast.Var]ast.Ref{}}
		for _, arg := range rule.Head.Args {
			s.bound.Update(arg.Vars())
		}
		for ; rule != nil; rule = rule.Else {
			i.body(rule.Body, s)
		}
	}
	i.documents(s.Homes)
	all := slices.SortedFunc(maps.Keys(i.found), comparePlaces)
	if len(all) > maxWarnings {
		return append(all[:maxWarnings:maxWarnings], fmt.Sprintf("and %d more warnings", len(all)-maxWarnings))
	}
	return all
}

func (i *inspection) warn(l *location.Location, format string, args ...any) {
	i.found[decide.Position(l)+": "+fmt.Sprintf(format, args...)] = true
}

// perMessage returns the rules that are evaluated for a message: those of plans
// and what they use, but for what is the same for all messages.
func (i *inspection) perMessage() map[*ast.Rule]bool {
	found := map[*ast.Rule]bool{}
	var next []*ast.Rule
	for path, module := range i.compiler.Modules {
		if _, ours, err := decide.PackageName(module.Package); source.IsTest(path) || !ours || err != nil {
			continue
		}
		for _, rule := range module.Rules {
			if rule.Head.Ref()[0].Value.Compare(ast.Var("plan")) == 0 {
				next = append(next, rule)
			}
		}
	}
	for len(next) > 0 {
		rule := next[len(next)-1]
		next = next[:len(next)-1]
		if found[rule] || !i.readsInput(rule) {
			continue
		}
		found[rule] = true
		for other := range i.compiler.Graph.Dependencies(rule) {
			next = append(next, other.(*ast.Rule))
		}
	}
	return found
}

// readsInput tells whether a rule, or one that it uses, depends on the message.
// So does a function: on its arguments.
func (i *inspection) readsInput(rule *ast.Rule) bool {
	if len(rule.Head.Args) > 0 {
		return true
	}
	c := decide.Compiled{Compiler: i.compiler}
	return c.InputOf(rule.Ref().GroundPrefix()) != nil
}

// strange gives each path of the input a value that no rule asks for.
type strange struct{}

// Resolve is ast.ValueResolver.
func (strange) Resolve(ast.Ref) (ast.Value, error) { return ast.String("\x00"), nil }

// alternatives finds rules of which OPA must try many. What its index still
// returns for a message that no rule is about, can't be told apart beforehand.
func (i *inspection) alternatives(rules map[*ast.Rule]bool) {
	seen := map[string]bool{}
	for rule := range rules {
		ref := rule.Ref().GroundPrefix()
		index := i.compiler.RuleIndex(ref)
		if index == nil || seen[ref.String()] {
			continue
		}
		seen[ref.String()] = true
		result, err := index.Lookup(strange{})
		if err != nil || result == nil || len(result.Rules) < manyAlternatives {
			continue
		}
		first := slices.MinFunc(result.Rules, func(a, b *ast.Rule) int {
			return comparePlaces(decide.Position(a.Location), decide.Position(b.Location))
		})
		i.warn(first.Location, "all %d rules of %s are tried for each message: begin each with input.… == a value, by which OPA can tell them apart, or use a table in a data file", len(result.Rules), rule.Head.Ref())
	}
}

// scope is what variables are known when an expression is evaluated, and which
// of them stand for a document.
type scope struct {
	bound     ast.VarSet
	documents map[ast.Var]ast.Ref
}

func (s scope) within() scope { return scope{s.bound.Copy(), maps.Clone(s.documents)} }

// document returns the document that a term is, nil if it is none.
func (s scope) document(t *ast.Term) ast.Ref {
	switch v := t.Value.(type) {
	case ast.Ref:
		return v
	case ast.Var:
		return s.documents[v]
	}
	return nil
}

// learn takes in what an expression has made known.
func (s scope) learn(e *ast.Expr) {
	s.bound.Update(e.Vars(ast.VarVisitorParams{SkipClosures: true}))
	if !e.IsEquality() {
		return
	}
	v, isVar := e.Operand(0).Value.(ast.Var)
	ref, isRef := e.Operand(1).Value.(ast.Ref)
	if isVar && isRef && ref.IsGround() {
		s.documents[v] = ref
	}
}

// body finds expressions that go through large data. Their order is that of
// evaluation: a variable that wasn't seen before takes all values there are.
func (i *inspection) body(body ast.Body, s scope) {
	s = s.within()
	for _, e := range body {
		i.closures(e, s)
		ast.WalkRefs(e, func(r ast.Ref) bool {
			i.search(r, s)
			return false
		})
		// In a set, and among the names of an object, OPA looks up; among values it searches.
		if e.IsCall() && e.Operator().String() == ast.Member.Name {
			i.through(s.document(e.Operand(1)))
		}
		s.learn(e)
	}
}

// closures looks into comprehensions and every.
func (i *inspection) closures(e *ast.Expr, s scope) {
	ast.WalkClosures(e, func(x any) bool {
		switch c := x.(type) {
		case *ast.ArrayComprehension:
			i.body(c.Body, s)
		case *ast.SetComprehension:
			i.body(c.Body, s)
		case *ast.ObjectComprehension:
			i.body(c.Body, s)
		case *ast.Every:
			i.through(s.document(c.Domain))
			inner := s.within()
			inner.bound.Update(c.KeyValueVars())
			i.body(c.Body, inner)
		}
		return true // each closure looks into its own
	})
}

// search warns of a reference that goes through large data.
func (i *inspection) search(r ast.Ref, s scope) {
	for n, term := range r[1:] {
		if v, ok := term.Value.(ast.Var); ok {
			if !s.bound.Contains(v) {
				i.through(r[:n+1])
			}
			return
		}
	}
}

func (i *inspection) through(r ast.Ref) {
	if n := i.entries(r); n > manyEntries {
		i.warn(r[0].Location, "each message goes through the %d entries of %s: look one up by its name instead, as in %s[input.recipient.user], or make rows of domains of them", n, r, r)
	}
}

// entries returns how many there are in the data at a reference.
func (i *inspection) entries(r ast.Ref) int {
	if len(r) == 0 || !r.HasPrefix(ast.DefaultRootRef) {
		return 0
	}
	var value any = i.data
	for _, term := range r[1:] {
		name, isName := term.Value.(ast.String)
		object, isObject := value.(map[string]any)
		if !isName || !isObject {
			return 0
		}
		value = object[string(name)]
	}
	switch v := value.(type) {
	case map[string]any:
		return len(v)
	case []any:
		return len(v)
	}
	return 0
}

// documents warns of large data.
func (i *inspection) documents(homes map[string]string) {
	for name, value := range i.data {
		text, err := json.Marshal(value)
		if err == nil && len(text) > largeDocument {
			i.found[fmt.Sprintf("%s: data.%s has %.1f MiB, which a policy holds in about ten times the memory: keep in it what rules read", homes[name], name, float64(len(text))/(1<<20))] = true
		}
	}
}

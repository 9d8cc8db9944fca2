package decide

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

// A value that holds another one twice costs nothing to make: [a, a]. Thirty
// rules that do so, one after another, make a value that nobody can compare or
// show. So what a rule makes is weighed before it is used.
const (
	guardName      = boundedPrefix + "value"
	maxBuilt       = 200_000  // values
	maxBuiltOctets = 16 << 20 // of all text in them
)

func guardBuiltin() *tester.Builtin {
	decl := types.NewFunction(types.Args(types.A), types.B)
	return &tester.Builtin{
		Decl: &ast.Builtin{Name: guardName, Decl: decl},
		Func: opa.FunctionDyn(&opa.Function{Name: guardName, Decl: decl}, func(_ topdown.BuiltinContext, terms []*ast.Term) (*ast.Term, error) {
			w := burden{mostValues: maxBuilt, mostOctets: maxBuiltOctets}
			if w.add(terms[0]) {
				return nil, fmt.Errorf("expected at most %d values, and %d MiB of text, in what a rule makes", maxBuilt, maxBuiltOctets>>20)
			}
			return ast.InternedTerm(true), nil
		}),
	}
}

// guardBodies puts guards into all bodies of a module. It comes last.
func guardBodies(module *ast.Module) {
	for _, rule := range module.Rules {
		bound := ast.NewVarSet()
		for _, arg := range rule.Head.Args {
			bound.Update(arg.Vars())
		}
		for ; rule != nil; rule = rule.Else {
			rule.Body = guarded(rule.Body, bound, rule.Head.Value, rule.Head.Key)
		}
	}
}

// guarded returns a body with guards for what its expressions make, and for what
// is made of it. bound are the variables that are known before it.
func guarded(body ast.Body, bound ast.VarSet, results ...*ast.Term) ast.Body {
	bound = bound.Copy()
	var all ast.Body
	for _, e := range body {
		guardClosures(e, bound)
		var before, after ast.Body
		for _, t := range made(e) {
			if t.Vars().DiffCount(bound) == 0 {
				before = append(before, guard(t, e))
			} else {
				after = append(after, guard(t, e))
			}
		}
		bound.Update(e.Vars(ast.VarVisitorParams{SkipClosures: true}))
		all = append(append(append(all, before...), e), after...)
	}
	for _, t := range results {
		if t != nil && isMade(t) {
			all = append(all, guard(t, all[len(all)-1]))
		}
	}
	for i, e := range all {
		e.Index = i
	}
	return all
}

// guard is the expression that weighs a term where e is.
func guard(t *ast.Term, e *ast.Expr) *ast.Expr {
	made := ast.NewExpr([]*ast.Term{ast.NewTerm(ast.MustParseRef(guardName)), t})
	made.Location = e.Location
	return made
}

// made returns what an expression makes: lists, sets and objects that hold more
// than one variable, and what comprehensions are assigned to.
func made(e *ast.Expr) []*ast.Term {
	terms, isCall := e.Terms.([]*ast.Term)
	if !isCall || e.Negated && e.IsEquality() {
		return nil
	}
	var all []*ast.Term
	for i, t := range terms[1:] {
		switch {
		case isMade(t):
			all = append(all, t)
		case ast.IsComprehension(t.Value) && e.IsEquality():
			if other := terms[2-i]; !ast.IsComprehension(other.Value) {
				all = append(all, other)
			}
		}
	}
	return all
}

// isMade tells whether a term is a list, set or object that may hold something
// more than once.
func isMade(t *ast.Term) bool {
	switch t.Value.(type) {
	case *ast.Array, ast.Set, ast.Object:
	default:
		return false
	}
	variables := 0
	ast.WalkTerms(t, func(inner *ast.Term) bool {
		switch inner.Value.(type) {
		case ast.Var, ast.Ref:
			variables++
			return true
		}
		return ast.IsComprehension(inner.Value)
	})
	return variables > 1
}

func guardClosures(e *ast.Expr, bound ast.VarSet) {
	ast.WalkClosures(e, func(x any) bool {
		switch c := x.(type) {
		case *ast.ArrayComprehension:
			c.Body = guarded(c.Body, bound, c.Term)
		case *ast.SetComprehension:
			c.Body = guarded(c.Body, bound, c.Term)
		case *ast.ObjectComprehension:
			c.Body = guarded(c.Body, bound, c.Key, c.Value)
		case *ast.Every:
			inner := bound.Copy()
			inner.Update(c.KeyValueVars())
			c.Body = guarded(c.Body, inner)
		}
		return true // each closure looks into its own
	})
}

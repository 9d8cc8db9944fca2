package decide

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// OPA goes through all of data.list[i] == data.list[j] without looking at the
// time once: the product of two lists. In two expressions it looks for each
// element of the first: x = data.list[i], x = data.list[j].

// splitter makes two expressions of such ones.
type splitter struct{ made int }

// splitBodies does it in all bodies of a module. It comes last, when safety and
// types have been checked.
func splitBodies(module *ast.Module) {
	s := &splitter{}
	for _, rule := range module.Rules {
		ast.WalkRules(rule, func(r *ast.Rule) bool {
			r.Body = s.body(r.Body)
			return false
		})
	}
	ast.WalkTerms(module, func(t *ast.Term) bool {
		switch c := t.Value.(type) {
		case *ast.ArrayComprehension:
			c.Body = s.body(c.Body)
		case *ast.SetComprehension:
			c.Body = s.body(c.Body)
		case *ast.ObjectComprehension:
			c.Body = s.body(c.Body)
		}
		return false
	})
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		if every, ok := e.Terms.(*ast.Every); ok {
			every.Body = s.body(every.Body)
		}
		return false
	})
}

func (s *splitter) body(body ast.Body) ast.Body {
	var split ast.Body
	for _, e := range body {
		split = append(split, s.expr(e)...)
	}
	for i, e := range split {
		e.Index = i
	}
	return split
}

func (s *splitter) expr(e *ast.Expr) []*ast.Expr {
	if e.Negated || !e.IsEquality() || !searches(e.Operand(0)) || !searches(e.Operand(1)) {
		return []*ast.Expr{e}
	}
	s.made++
	found := ast.VarTerm(fmt.Sprintf("%sbound%d__", ast.LocalVarPrefix, s.made)).SetLocation(e.Location)
	first := e.Copy()
	first.Terms.([]*ast.Term)[1] = found
	first.Terms.([]*ast.Term)[2] = e.Operand(0)
	second := e.Copy()
	second.Terms.([]*ast.Term)[1] = found
	return []*ast.Expr{first, second}
}

// searches tells whether a term goes through the elements of something.
func searches(t *ast.Term) bool {
	ref, ok := t.Value.(ast.Ref)
	return ok && !ref.IsGround()
}

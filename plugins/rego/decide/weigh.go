package decide

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

// inputSize is about how many values the input has.
const inputSize = 100

// local is what the variables of a rule look like.
type local struct {
	*scales
	vars  map[ast.Var]*form
	heavy *ast.Location // the first place where too much is made
}

// weigh notes what a rule makes, and returns where that is too much.
func (s *scales) weigh(rule *ast.Rule) *ast.Location {
	l := &local{scales: s, vars: map[ast.Var]*form{}}
	for ; rule != nil; rule = rule.Else {
		l.body(rule.Body)
		ref := rule.Ref()
		value := l.plain()
		if rule.Head.Value != nil {
			value = l.term(rule.Head.Value)
		}
		if rule.Head.Key != nil && rule.Head.RuleKind() == ast.MultiValue {
			value = l.many(l.term(rule.Head.Key))
		}
		ground := ref.GroundPrefix()
		for range len(ref) - len(ground) {
			value = l.many(value)
		}
		l.note(value, rule.Location)
		s.put(ground, value)
	}
	return l.heavy
}

// note returns the form of what is made somewhere, unless that is too much: then
// it goes on with little, so that numbers don't run away.
func (l *local) note(f *form, at *ast.Location) *form {
	if f.size <= maxMade {
		return f
	}
	if l.heavy == nil {
		l.heavy = at
	}
	return l.plain()
}

func (l *local) body(body ast.Body) {
	for _, e := range body {
		l.expr(e)
	}
}

// expr looks at what an expression gives to variables.
func (l *local) expr(e *ast.Expr) {
	switch terms := e.Terms.(type) {
	case *ast.Term:
		l.term(terms)
	case *ast.Every:
		l.term(terms.Domain)
		l.body(terms.Body)
	case []*ast.Term:
		if e.IsEquality() || e.IsAssignment() {
			l.unify(terms[1], terms[2])
			return
		}
		for _, arg := range terms[1:] {
			l.term(arg)
		}
		if last, ok := terms[len(terms)-1].Value.(ast.Var); ok && l.vars[last] == nil {
			l.vars[last] = l.call(terms[0])
		}
	}
}

// call is what a function returns; what builtins do isn't known.
func (l *local) call(function *ast.Term) *form {
	if ref, ok := function.Value.(ast.Ref); ok && ref.HasPrefix(ast.DefaultRootRef) {
		return l.get(ref)
	}
	return l.plain()
}

// unify gives the variables on one side what is on the other.
func (l *local) unify(a, b *ast.Term) {
	left, right := l.term(a), l.term(b)
	l.give(a, right)
	l.give(b, left)
}

func (l *local) give(t *ast.Term, f *form) {
	switch v := t.Value.(type) {
	case ast.Var:
		if l.vars[v] == nil {
			l.vars[v] = f
		}
	case *ast.Array:
		for i := range v.Len() {
			l.give(v.Elem(i), l.part(f, ast.Ref{ast.IntNumberTerm(i)}))
		}
	case ast.Object:
		v.Foreach(func(name, value *ast.Term) { l.give(value, l.part(f, ast.Ref{name})) })
	}
}

// term is what a term makes.
func (l *local) term(t *ast.Term) *form { return l.note(l.value(t), t.Location) }

func (l *local) value(t *ast.Term) *form {
	switch v := t.Value.(type) {
	case ast.Var:
		if f := l.vars[v]; f != nil {
			return f
		}
	case ast.Ref:
		return l.ref(v)
	case *ast.Array:
		parts := make(map[string]*form, v.Len())
		for i := range v.Len() {
			parts[strconv.Itoa(i)] = l.term(v.Elem(i))
		}
		return l.whole(parts)
	case ast.Set:
		parts := make(map[string]*form, v.Len())
		v.Foreach(func(member *ast.Term) { parts[strconv.Itoa(len(parts))] = l.term(member) })
		return l.whole(parts)
	case ast.Object:
		parts := make(map[string]*form, v.Len())
		v.Foreach(func(name, value *ast.Term) {
			key := name.Value.String()
			parts[key] = l.term(value)
			if !ast.IsScalar(name.Value) {
				parts["key "+key] = l.term(name)
			}
		})
		return l.whole(parts)
	case *ast.ArrayComprehension:
		l.body(v.Body)
		return l.many(l.term(v.Term))
	case *ast.SetComprehension:
		l.body(v.Body)
		return l.many(l.term(v.Term))
	case *ast.ObjectComprehension:
		l.body(v.Body)
		return l.many(l.either([]*form{l.term(v.Key), l.term(v.Value)}))
	case ast.Call:
		for _, arg := range v[1:] {
			l.term(arg)
		}
		return l.call(v[0])
	}
	return l.plain()
}

func (l *local) ref(ref ast.Ref) *form {
	switch {
	case ref.HasPrefix(ast.DefaultRootRef):
		return l.get(ref)
	case ref.HasPrefix(ast.InputRootRef):
		return l.form("input", func() form { return form{size: inputSize} })
	}
	return l.part(l.term(ref[0]), ref[1:])
}

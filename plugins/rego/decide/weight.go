package decide

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// OPA's type checker writes out what a rule makes: of x1 := [x0, x0],
// x2 := [x1, x1], and so on, it has a million values after twenty rules. So
// before it begins, what the rules make is noted with each part once, and
// weighed.
const maxMade = 200_000 // values that a rule makes, parts counted as often as they are there

// withWeights makes a compiler refuse rules that make too much.
func withWeights(c *ast.Compiler) *ast.Compiler {
	return c.WithStageAfterID(ast.StageCheckRecursion, ast.CompilerStageDefinition{
		Name: "WeighRules", MetricName: "weigh_rules", Stage: weighRules,
	})
}

// weighRules returns an error for the first expression that makes too much.
func weighRules(c *ast.Compiler) *ast.Error {
	sorted, ok := c.Graph.Sort()
	if !ok {
		return nil // rules that need each other are refused elsewhere
	}
	s := &scales{forms: map[string]*form{}, rules: &ruleTree{}}
	for _, rule := range sorted {
		if at := s.weigh(rule.(*ast.Rule)); at != nil {
			return ast.NewError(ast.CompileErr, at, "expected at most %d values in what a rule makes: what it refers to counts as often as it does so; large tables belong into data files", maxMade)
		}
	}
	return nil
}

// form is what values look like, as far as that is known without a message:
// texts and numbers are all the same. Equal forms are one.
type form struct {
	id    int
	size  float64 // values, this one too
	parts map[string]*form
	each  *form // any of the parts; nil: there are none, or nothing is known of them
}

// scales know the forms of what they have weighed.
type scales struct {
	forms map[string]*form // by what they are made of
	rules *ruleTree
}

// form returns the one that key describes.
func (s *scales) form(key string, build func() form) *form {
	if same := s.forms[key]; same != nil {
		return same
	}
	f := build()
	f.id = len(s.forms) + 1
	s.forms[key] = &f
	return &f
}

// plain is a text, a number, or what isn't known.
func (s *scales) plain() *form { return s.form("plain", func() form { return form{size: 1} }) }

// whole is a value with these parts.
func (s *scales) whole(parts map[string]*form) *form {
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		fmt.Fprintf(&key, "%q:%d,", name, parts[name].id)
	}
	return s.form(key.String(), func() form {
		f := form{size: 1, parts: parts, each: s.either(slices.Collect(maps.Values(parts)))}
		for _, part := range parts {
			f.size += part.size
		}
		return f
	})
}

// many is a list, set or object of nobody knows how many such parts.
func (s *scales) many(part *form) *form {
	return s.form(fmt.Sprint("many ", part.id), func() form { return form{size: 1 + part.size, each: part} })
}

// either is a value of one of these forms; the type checker writes out all.
func (s *scales) either(of []*form) *form {
	of = slices.DeleteFunc(slices.Clone(of), func(f *form) bool { return f == nil })
	slices.SortFunc(of, func(a, b *form) int { return a.id - b.id })
	of = slices.Compact(of)
	switch len(of) {
	case 0:
		return nil
	case 1:
		return of[0]
	}
	var key strings.Builder
	for _, f := range of {
		fmt.Fprintf(&key, "|%d", f.id)
	}
	return s.form(key.String(), func() form {
		var either form
		var each []*form
		for _, f := range of {
			either.size += f.size
			each = append(each, f.each)
		}
		either.each = s.either(each)
		return either
	})
}

// part is what a reference finds below a value.
func (s *scales) part(f *form, path ast.Ref) *form {
	for _, name := range path {
		next := f.parts[name.Value.String()]
		if next == nil {
			next = f.each
		}
		if next == nil {
			return s.plain()
		}
		f = next
	}
	return f
}

// ruleTree is what rules make, by their names.
type ruleTree struct {
	value *form // nil: there is no rule of just this name
	below map[string]*ruleTree
}

// put notes what one more rule of this name makes.
func (s *scales) put(ref ast.Ref, f *form) {
	m := s.rules
	for _, name := range ref {
		if m.below == nil {
			m.below = map[string]*ruleTree{}
		}
		key := name.Value.String()
		if m.below[key] == nil {
			m.below[key] = &ruleTree{}
		}
		m = m.below[key]
	}
	m.value = s.either([]*form{m.value, f})
}

// get returns what a reference to rules finds.
func (s *scales) get(ref ast.Ref) *form {
	m := s.rules
	for i, name := range ref {
		next := m.below[name.Value.String()]
		switch {
		case next != nil:
			m = next
		case m.value == nil && ast.IsConstant(name.Value):
			return s.plain() // what data files have
		default:
			return s.part(s.all(m), ref[i:])
		}
	}
	return s.all(m)
}

// all is what the rules of a name, and those below it, make together.
func (s *scales) all(m *ruleTree) *form {
	if len(m.below) == 0 && m.value != nil {
		return m.value
	}
	parts := map[string]*form{}
	for name, below := range m.below {
		parts[name] = s.all(below)
	}
	whole := s.whole(parts)
	if m.value == nil {
		return whole
	}
	return s.either([]*form{m.value, whole})
}

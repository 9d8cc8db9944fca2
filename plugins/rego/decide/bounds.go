package decide

import (
	"fmt"
	"regexp/syntax"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/imgate/imgate/plugins/rego/source"
)

// OPA ends an evaluation between two expressions and not within a builtin, and
// a builtin can make much of little: replace of 1,000 letters by 1,000 letters
// each makes a million. So a policy calls builtins that look at their arguments
// first. What they may be given is far more than a message needs, and takes them
// a few milliseconds at most.
const (
	maxValues  = 10_000    // in the arguments, those within each other too
	maxTexts   = 64 << 10  // octets of all text in them
	maxResult  = 512 << 10 // octets of what may come out
	maxPairs   = 1 << 20   // where each is compared with each
	maxWidth   = 3         // digits of a width or a precision in a format
	maxProgram = 2_000     // instructions of a regular expression, about
	maxSteps   = 1 << 20   // of a regular expression over a text
	maxGlob    = 256       // octets of a glob
	maxGlobbed = 1 << 10   // octets that a glob is matched with
)

// boundedPrefix begins the names that builtins with bounds have in a compiled
// policy. OPA looks for its own names first, so that they can't keep them.
const boundedPrefix = "bounded."

// bound returns an error if a builtin would have too much to do.
type bound func(args []*ast.Term) error

// unbounded are the builtins that need no bound: what they do is linear in
// texts, which are bounded all, or takes no time, or ends early.
var unbounded = []string{
	ast.Assign.Name, ast.Equality.Name, ast.Equal.Name, ast.NotEqual.Name,
	ast.GreaterThan.Name, ast.GreaterThanEq.Name, ast.LessThan.Name, ast.LessThanEq.Name,
	ast.Member.Name, ast.MemberWithKey.Name, ast.InternalPrint.Name, ast.InternalTestCase.Name, ast.Print.Name,
	ast.Count.Name, ast.ObjectGet.Name, ast.ArraySlice.Name,
	ast.StartsWith.Name, ast.EndsWith.Name, ast.Contains.Name, ast.Lower.Name, ast.Upper.Name,
	ast.Substring.Name, ast.TrimPrefix.Name, ast.TrimSuffix.Name, ast.TrimSpace.Name,
	ast.IsArray.Name, ast.IsBoolean.Name, ast.IsNull.Name, ast.IsNumber.Name, ast.IsObject.Name,
	ast.IsSet.Name, ast.IsString.Name, ast.TypeNameBuiltin.Name,
}

// bounds are those of builtins whose work isn't linear in their arguments.
var bounds = map[string]bound{
	ast.Concat.Name:       concatBound,
	ast.Replace.Name:      replaceBound,
	ast.ReplaceN.Name:     replaceManyBound,
	ast.Sprintf.Name:      sprintfBound,
	ast.Trim.Name:         pairsBound,
	ast.TrimLeft.Name:     pairsBound,
	ast.TrimRight.Name:    pairsBound,
	ast.IndexOf.Name:      pairsBound,
	ast.IndexOfN.Name:     pairsBound,
	ast.ObjectSubset.Name: subsetBound,
	ast.GlobMatch.Name:    globBound,
	ast.RegexIsValid.Name: func(args []*ast.Term) error { return regexBound(args[0], nil) },
	ast.RegexMatch.Name:   func(args []*ast.Term) error { return regexBound(args[0], args[1]) },
}

// boundsOf returns the bounds of the builtins on the list, by their names.
func boundsOf(capabilities *ast.Capabilities) map[string]bound {
	all := map[string]bound{}
	for _, b := range capabilities.Builtins {
		all[b.Name] = bounds[b.Name] // nil: it is linear
	}
	for _, name := range unbounded {
		delete(all, name)
	}
	return all
}

// withBounds makes a compiler's policies call the builtins that have bounds. It
// is the last stage: what comes before knows builtins by their names.
func (l Language) withBounds(c *ast.Compiler) *ast.Compiler {
	return c.WithStageAfterID(ast.StageBuildRequiredCapabilities, ast.CompilerStageDefinition{
		Name: "BoundBuiltins", MetricName: "bound_builtins",
		Stage: func(c *ast.Compiler) *ast.Error {
			for _, module := range c.Modules {
				ast.WalkExprs(module, l.rename)
				splitBodies(module)
				guardBodies(module)
			}
			return nil
		},
	})
}

func (l Language) rename(e *ast.Expr) bool {
	if terms, isCall := e.Terms.([]*ast.Term); isCall {
		terms[0] = l.renamed(terms[0])
	}
	for _, with := range e.With {
		with.Target = l.renamed(with.Target)
	}
	return false
}

func (l Language) renamed(operator *ast.Term) *ast.Term {
	ref, ok := operator.Value.(ast.Ref)
	if !ok {
		return operator
	}
	name := ref.String()
	if _, has := l.bounds[name]; !has {
		return operator
	}
	return ast.NewTerm(ast.MustParseRef(boundedPrefix + name)).SetLocation(operator.Location)
}

// boundedFunctions are the builtins with bounds, for a query.
func (l Language) boundedFunctions() []func(*opa.Rego) {
	var functions []func(*opa.Rego)
	for _, b := range l.BoundedBuiltins() {
		functions = append(functions, b.Func)
	}
	return functions
}

// BoundedBuiltins are the same for tests.
func (l Language) BoundedBuiltins() []*tester.Builtin {
	all := []*tester.Builtin{guardBuiltin()}
	for _, b := range l.capabilities.Builtins {
		check, has := l.bounds[b.Name]
		if !has {
			continue
		}
		function := &opa.Function{Name: boundedPrefix + b.Name, Decl: b.Decl}
		all = append(all, &tester.Builtin{
			Decl: &ast.Builtin{Name: function.Name, Decl: b.Decl},
			Func: opa.FunctionDyn(function, bounded(topdown.GetBuiltin(b.Name), b.Decl.Arity(), check)),
		})
	}
	return all
}

// bounded is a builtin that looks at its arguments first, and at a number that
// it makes: so all that a policy sees is modest.
func bounded(builtin topdown.BuiltinFunc, arity int, check bound) opa.BuiltinDyn {
	return func(c topdown.BuiltinContext, terms []*ast.Term) (*ast.Term, error) {
		args := terms[:arity]
		if err := weigh(args); err != nil {
			return nil, err
		}
		if check != nil {
			if err := check(args); err != nil {
				return nil, err
			}
		}
		var result *ast.Term
		err := builtin(c, args, func(t *ast.Term) error { result = t; return nil })
		if err != nil || result == nil {
			return nil, err
		}
		if n, ok := result.Value.(ast.Number); ok && !source.IsModest(string(n)) {
			return nil, errImmodest
		}
		return result, nil
	}
}

var errImmodest = fmt.Errorf("expected numbers of at most %d digits and an exponent of at most %d", source.MaxDigits, source.MaxExponent)

// burden is what a builtin is given, and how much that may be.
type burden struct{ values, octets, mostValues, mostOctets int }

// weigh refuses arguments that are too large. It looks no further than it must.
func weigh(args []*ast.Term) error {
	l := burden{mostValues: maxValues, mostOctets: maxTexts}
	for _, arg := range args {
		l.add(arg)
	}
	if l.tooMuch() {
		return fmt.Errorf("expected at most %d values, and %d octets of text", maxValues, maxTexts)
	}
	return nil
}

func (l *burden) tooMuch() bool { return l.values > l.mostValues || l.octets > l.mostOctets }

// add weighs a value; it returns true if that was too much.
func (l *burden) add(t *ast.Term) bool {
	if l.values++; l.tooMuch() {
		return true
	}
	switch v := t.Value.(type) {
	case ast.String:
		l.octets += len(v)
	case *ast.Array:
		return v.Until(l.add)
	case ast.Set:
		return v.Until(l.add)
	case ast.Object:
		return v.Until(func(k, v *ast.Term) bool { return l.add(k) || l.add(v) })
	}
	return l.tooMuch()
}

func loadOf(t *ast.Term) burden {
	l := burden{mostValues: maxValues, mostOctets: maxTexts}
	l.add(t)
	return l
}

// length is that of a text; another type is refused by the builtin itself.
func length(t *ast.Term) int { return len(textOf(t)) }

func textOf(t *ast.Term) string {
	s, _ := t.Value.(ast.String)
	return string(s)
}

// fits refuses a result that would be too large.
func fits(octets int) error {
	if octets > maxResult {
		return fmt.Errorf("expected a result of at most %d octets", maxResult)
	}
	return nil
}

func concatBound(args []*ast.Term) error {
	parts := loadOf(args[1])
	return fits(parts.octets + parts.values*length(args[0]))
}

func replaceBound(args []*ast.Term) error {
	text, old, replacement := textOf(args[0]), textOf(args[1]), length(args[2])
	return fits(len(text) + strings.Count(text, old)*replacement)
}

// replaceManyBound takes it that each letter might be replaced by the longest.
func replaceManyBound(args []*ast.Term) error {
	patterns, ok := args[0].Value.(ast.Object)
	if !ok {
		return nil
	}
	longest := 0
	patterns.Foreach(func(_, v *ast.Term) { longest = max(longest, length(v)) })
	return fits(length(args[1]) * (1 + longest))
}

// sprintfBound takes it that each verb shows all there is.
func sprintfBound(args []*ast.Term) error {
	format := textOf(args[0])
	digits := 0
	for _, c := range format {
		if c < '0' || c > '9' {
			digits = 0
		} else if digits++; digits > maxWidth {
			return fmt.Errorf("expected numbers of at most %d digits in the format", maxWidth)
		}
		if c == '*' {
			return fmt.Errorf("expected a format without *")
		}
	}
	shown := loadOf(args[1])
	return fits(len(format) + strings.Count(format, "%")*(1_000+shown.octets+source.MaxDigits*shown.values))
}

func pairsBound(args []*ast.Term) error {
	return pairs(length(args[0]), length(args[1]))
}

func subsetBound(args []*ast.Term) error {
	return pairs(loadOf(args[0]).values, loadOf(args[1]).values)
}

func pairs(a, b int) error {
	if a*b > maxPairs {
		return fmt.Errorf("expected less to compare: %d with %d", a, b)
	}
	return nil
}

func globBound(args []*ast.Term) error {
	if length(args[0]) > maxGlob || length(args[2]) > maxGlobbed {
		return fmt.Errorf("expected a pattern of at most %d octets, and a text of at most %d", maxGlob, maxGlobbed)
	}
	return nil
}

// regexBound bounds what an expression and a text have to do with each other:
// matching takes steps as the one's length times the other's.
func regexBound(pattern, text *ast.Term) error {
	parsed, err := syntax.Parse(textOf(pattern), syntax.Perl)
	if err != nil {
		return nil // the builtin says so
	}
	size := program(parsed)
	if size > maxProgram {
		return fmt.Errorf("expected a simpler regular expression")
	}
	if text != nil && size*length(text) > maxSteps {
		return fmt.Errorf("expected a simpler regular expression, or a shorter text")
	}
	return nil
}

// program returns about how many instructions an expression is compiled to.
func program(re *syntax.Regexp) int {
	size := 1
	for _, sub := range re.Sub {
		size = min(size+program(sub), maxProgram+1)
	}
	switch re.Op {
	case syntax.OpLiteral:
		size += len(re.Rune)
	case syntax.OpCharClass:
		size += len(re.Rune) / 8
	case syntax.OpRepeat:
		size *= max(re.Min, re.Max, 1)
	}
	return min(size, maxProgram+1)
}

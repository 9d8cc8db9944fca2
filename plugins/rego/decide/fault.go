package decide

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// fault is what went wrong while a rule was evaluated, in an operator's words.
type fault struct {
	place   string // file:line, empty if it is in no file
	name    string // of the rule that had two values, empty for all else
	problem string
	err     error // as OPA says it
}

func (f *fault) Error() string {
	said := f.problem
	if f.name != "" {
		said = f.name + ": " + said
	}
	if f.place != "" {
		said = f.place + ": " + said
	}
	return said
}

func (f *fault) Unwrap() error { return f.err }

// Fault says in words what went wrong in an evaluation. That it was given up is
// left as it is.
func Fault(err error) error {
	inner, ok := innermost(err)
	if !ok || topdown.IsCancel(err) {
		return err
	}
	f := &fault{problem: withoutBound(inner.Message), err: err}
	if inner.Location != nil && inner.Location.File != "" {
		f.place = Position(inner.Location)
	}
	if inner.Code == topdown.ConflictErr {
		f.conflict(inner.Message)
	}
	return f
}

// innermost returns the error that others were made of: OPA puts the same place
// before each.
func innermost(err error) (found *topdown.Error, ok bool) {
	for {
		inner, isOne := errors.AsType[*topdown.Error](err)
		if !isOne {
			return found, found != nil
		}
		if found == nil || inner.Location != nil {
			found = inner
		}
		err = inner.Unwrap()
	}
}

// withoutBound leaves out how we call builtins that have bounds.
func withoutBound(message string) string { return strings.ReplaceAll(message, boundedPrefix, "") }

// conflict takes apart "rule data.a.b produced conflicting values:", which lines
// such as `"x" at a.rego:5` follow.
func (f *fault) conflict(message string) {
	head, values, _ := strings.Cut(message, "\n")
	rule, _, found := strings.Cut(head, " produced conflicting values")
	if !found {
		return
	}
	rule = strings.TrimPrefix(strings.TrimPrefix(rule, "rule "), "function ")
	f.name = localName(strings.TrimPrefix(rule, ast.DefaultRootDocument.String()+"."))
	f.problem = "two rules say different things"
	var said []string
	for value := range strings.Lines(values) {
		said = append(said, strings.TrimSpace(value))
	}
	if len(said) > 0 {
		f.problem += ": " + strings.Join(said, ", ")
	}
}

// localName leaves out the package of a service: imgate.services.NAME.
func localName(rule string) string {
	rest, ours := strings.CutPrefix(rule, "imgate.services.")
	if _, name, found := strings.Cut(rest, "."); ours && found {
		return name
	}
	return rule
}

// placed puts before an error where it is, and then what named adds. Where a
// fault happened is known better than by the rule that led there.
func placed(at *ast.Location, err error, named func(error) error) error {
	if f, ok := errors.AsType[*fault](err); ok && f.place != "" {
		return fmt.Errorf("%s: %w", f.place, named(errors.New(f.problem)))
	}
	return fmt.Errorf("%s: %w", Position(at), named(err))
}

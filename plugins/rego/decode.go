package rego

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Limits of every document that a policy produces.
const (
	maxEntries = 64  // of a list or a table of a plan
	maxName    = 64  // octets of a key, a transport
	maxText    = 256 // octets of any other text
)

// attributeError says which attribute of a document is wrong, and how.
type attributeError struct {
	path    string // "charging.mode"
	problem string
}

func (e *attributeError) Error() string { return e.path + ": " + e.problem }

// at puts the name of an attribute before what is wrong with its value.
func at(name string, err error) error {
	if inner, ok := err.(*attributeError); ok {
		return &attributeError{path: name + "." + inner.path, problem: inner.problem}
	}
	return &attributeError{path: name, problem: err.Error()}
}

// attributes are those that a document may have: how each is stored in a T.
type attributes[T any] map[string]func(*T, ast.Value) error

// decode stores an object in target. It returns the first error, which names
// the attribute.
func (as attributes[T]) decode(v ast.Value, target *T) error {
	return eachEntry(v, func(name string, value ast.Value) error {
		set, known := as[name]
		if !known {
			return as.unknown()
		}
		return set(target, value)
	})
}

func (as attributes[T]) unknown() error {
	return fmt.Errorf("no such attribute, expected one of %s", as)
}

// String lists the names.
func (as attributes[T]) String() string {
	return strings.Join(slices.Sorted(maps.Keys(as)), ", ")
}

func eachEntry(v ast.Value, entry func(name string, v ast.Value) error) error {
	object, ok := v.(ast.Object)
	if !ok {
		return unexpected("an object", v)
	}
	return object.Iter(func(key, value *ast.Term) error {
		name, ok := key.Value.(ast.String)
		if !ok {
			return unexpected("text as the name of an attribute", key.Value)
		}
		if err := entry(string(name), value.Value); err != nil {
			return at(string(name), err)
		}
		return nil
	})
}

// unexpected says what was expected and, in short, what came instead.
func unexpected(expected string, got ast.Value) error {
	switch got.(type) {
	case ast.String, ast.Number, ast.Boolean, ast.Null:
		text := got.String()
		if len(text) > maxName {
			text = strings.ToValidUTF8(text[:maxName], "") + "…"
		}
		return fmt.Errorf("expected %s, got %s", expected, text)
	}
	return fmt.Errorf("expected %s, got a value of type %s", expected, ast.ValueName(got))
}

// text reads a string of at most limit octets that no header or record could
// be broken with.
func text(v ast.Value, limit int) (string, error) {
	s, ok := v.(ast.String)
	if !ok || len(s) > limit || hasControl(string(s)) {
		return "", unexpected(fmt.Sprintf("text of at most %d octets without control characters", limit), v)
	}
	return string(s), nil
}

func hasControl(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0
}

// shortText reads a name: it isn't empty.
func shortText(v ast.Value) (string, error) {
	s, err := text(v, maxName)
	if err == nil && s == "" {
		err = unexpected("a name", v)
	}
	return s, err
}

// longText reads any other text.
func longText(v ast.Value) (string, error) { return text(v, maxText) }

// oneOf reads one of the texts in choices.
func oneOf[S ~string](v ast.Value, choices []S) (S, error) {
	if s, ok := v.(ast.String); ok && slices.Contains(choices, S(s)) {
		return S(s), nil
	}
	return "", unexpected(fmt.Sprintf("one of %q", choices), v)
}

// integer reads a whole number within its limits.
func integer(v ast.Value, low, high int) (int, error) {
	if n, ok := v.(ast.Number); ok {
		if i, whole := n.Int(); whole && low <= i && i <= high {
			return i, nil
		}
	}
	return 0, unexpected(fmt.Sprintf("a whole number from %d to %d", low, high), v)
}

// duration reads a text such as "1h30m" within its limits.
func duration(v ast.Value, low, high time.Duration) (time.Duration, error) {
	if s, ok := v.(ast.String); ok {
		if d, err := time.ParseDuration(string(s)); err == nil && low <= d && d <= high {
			return d, nil
		}
	}
	return 0, unexpected(fmt.Sprintf("a duration from %s to %s with its unit, such as \"90s\" or \"1h30m\"", low, high), v)
}

// list reads an array of at most limit elements.
func list[E any](v ast.Value, limit int, element func(ast.Value) (E, error)) ([]E, error) {
	array, ok := v.(*ast.Array)
	if !ok || array.Len() > limit {
		return nil, unexpected(fmt.Sprintf("a list of at most %d", limit), v)
	}
	read := make([]E, array.Len())
	for i := range read {
		var err error
		if read[i], err = element(array.Elem(i).Value); err != nil {
			return nil, at(fmt.Sprintf("%d", i), err)
		}
	}
	return read, nil
}

// table reads an object of at most maxEntries entries with names of the
// policy's choice.
func table[E any](v ast.Value, element func(ast.Value) (E, error)) (map[string]E, error) {
	object, ok := v.(ast.Object)
	if !ok || object.Len() > maxEntries {
		return nil, unexpected(fmt.Sprintf("an object of at most %d entries", maxEntries), v)
	}
	read := make(map[string]E, object.Len())
	err := eachEntry(object, func(key string, value ast.Value) (err error) {
		if _, err := shortText(ast.String(key)); err != nil {
			return err
		}
		read[key], err = element(value)
		return err
	})
	return read, err
}

package decide

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/match"
)

// Limits of every document that a policy produces.
const (
	maxEntries  = 64  // of a list or a table of a plan
	maxName     = 64  // octets of a key, a transport
	maxLongText = 256 // octets of any other text
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

// attribute is one that a document may have.
type attribute[T any] struct {
	// set stores the attribute's value in a T.
	set func(*T, ast.Value) error
	// check wants a path below the attribute to be one that there can be. The
	// path may have variables.
	check func(path ast.Ref) error
	// parts are the names of its attributes, if it has any.
	parts []string
	// setPart stores a part of the attribute's value in a T, if it has parts.
	setPart func(t *T, name string, v ast.Value) error
}

// valueOf is an attribute without parts.
func valueOf[T, V any](field func(*T) *V, read func(ast.Value) (V, error)) attribute[T] {
	return attribute[T]{set: setter(field, read), check: noDeeperThan(0)}
}

// tableOf is an attribute whose entries have names of the policy's choice.
func tableOf[T, V any](field func(*T) *map[string]V, read func(ast.Value) (V, error)) attribute[T] {
	entries := func(v ast.Value) (map[string]V, error) { return table(v, read) }
	return attribute[T]{
		set:   setter(field, entries),
		check: checkEntry,
		setPart: func(t *T, name string, v ast.Value) error {
			entry, err := read(v)
			if err == nil {
				*field(t), err = withEntry(*field(t), name, entry)
			}
			return err
		},
	}
}

// documentOf is an attribute that has attributes.
func documentOf[T, P any](field func(*T) *P, parts attributes[P]) attribute[T] {
	return attribute[T]{
		set:   func(t *T, v ast.Value) error { return parts.decode(v, field(t)) },
		check: parts.check,
		parts: slices.Sorted(maps.Keys(parts)),
		setPart: func(t *T, name string, v ast.Value) error {
			return parts[name].set(field(t), v)
		},
	}
}

func setter[T, V any](field func(*T) *V, read func(ast.Value) (V, error)) func(*T, ast.Value) error {
	return func(t *T, v ast.Value) (err error) {
		*field(t), err = read(v)
		return err
	}
}

func noDeeperThan(levels int) func(ast.Ref) error {
	return func(path ast.Ref) error {
		if len(path) > levels {
			return fmt.Errorf("expected a value, which has no part %v", path[levels])
		}
		return nil
	}
}

// checkEntry wants a path to lead to an entry of a table, or to all of them.
func checkEntry(path ast.Ref) error {
	if len(path) > 0 {
		if name, ok := path[0].Value.(ast.String); ok {
			if _, err := shortText(name); err != nil {
				return err
			}
		}
	}
	return noDeeperThan(1)(path)
}

// attributes are those that a document may have, by name.
type attributes[T any] map[string]attribute[T]

// decode stores an object in target. It returns the first error, which names
// the attribute.
func (as attributes[T]) decode(v ast.Value, target *T) error {
	return eachEntry(v, func(name string, value ast.Value) error {
		a, known := as[name]
		if !known {
			return as.unknown()
		}
		return a.set(target, value)
	})
}

// check wants a path to lead to an attribute, or into one that has parts.
func (as attributes[T]) check(path ast.Ref) error {
	if len(path) == 0 {
		return nil
	}
	name, ok := path[0].Value.(ast.String)
	if !ok {
		return fmt.Errorf("expected the name of an attribute, one of %s", as)
	}
	a, known := as[string(name)]
	if !known {
		return at(string(name), as.unknown())
	}
	if err := a.check(path[1:]); err != nil {
		return at(string(name), err)
	}
	return nil
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
func longText(v ast.Value) (string, error) { return text(v, maxLongText) }

// boolean reads true or false.
func boolean(v ast.Value) (bool, error) {
	b, ok := v.(ast.Boolean)
	if !ok {
		return false, unexpected("true or false", v)
	}
	return bool(b), nil
}

// oneOf reads one of the texts in choices.
func oneOf[S ~string](choices []S) func(ast.Value) (S, error) {
	return func(v ast.Value) (S, error) {
		if s, ok := v.(ast.String); ok && slices.Contains(choices, S(s)) {
			return S(s), nil
		}
		return "", unexpected("one of "+words(choices), v)
	}
}

// words lists texts for people: accepted, delivered.
func words[S ~string](of []S) string {
	list := make([]string, len(of))
	for i, w := range of {
		list[i] = string(w)
	}
	return strings.Join(list, ", ")
}

// integer reads a whole number within its limits.
func integer(low, high int) func(ast.Value) (int, error) {
	return func(v ast.Value) (int, error) {
		if n, ok := v.(ast.Number); ok {
			if i, whole := n.Int(); whole && low <= i && i <= high {
				return i, nil
			}
		}
		return 0, unexpected(fmt.Sprintf("a whole number from %d to %d", low, high), v)
	}
}

// duration reads a text such as "1h30m" within its limits.
func duration(low, high time.Duration) func(ast.Value) (time.Duration, error) {
	return func(v ast.Value) (time.Duration, error) {
		if s, ok := v.(ast.String); ok {
			if d, err := time.ParseDuration(string(s)); err == nil && low <= d && d <= high {
				return d, nil
			}
		}
		return 0, unexpected(fmt.Sprintf("a duration from %s to %s with its unit, such as \"90s\" or \"1h30m\"",
			plugin.DurationText(low), plugin.DurationText(high)), v)
	}
}

// list reads an array of at most limit elements, such as the example.
func list[E any](limit int, example string, element func(ast.Value) (E, error)) func(ast.Value) ([]E, error) {
	return func(v ast.Value) ([]E, error) {
		array, ok := v.(*ast.Array)
		if !ok {
			return nil, unexpected("a list such as "+example, v)
		}
		if array.Len() > limit {
			return nil, fmt.Errorf("expected a list of at most %d, got %d", limit, array.Len())
		}
		read := make([]E, array.Len())
		for i := range read {
			var err error
			if read[i], err = element(array.Elem(i).Value); err != nil {
				return nil, at(strconv.Itoa(i), err)
			}
		}
		return read, nil
	}
}

// address reads who somebody is: user@domain, a number, or a name alone. Empty
// text is no address.
func address(v ast.Value) (message.Address, error) {
	s, ok := v.(ast.String)
	if !ok {
		return message.Address{}, unexpectedAddress(v)
	}
	var a message.Address
	err := a.UnmarshalText([]byte(s))
	hasScheme := strings.HasPrefix(a.User, "sip:") || strings.HasPrefix(a.User, "sips:") || strings.HasPrefix(a.User, "tel:")
	if err != nil || hasScheme || strings.Contains(string(s), "@") && !match.IsDomain(a.Host) {
		return message.Address{}, unexpectedAddress(v)
	}
	return a, nil
}

func unexpectedAddress(v ast.Value) error {
	return unexpected(`an address, such as "100@sip.example.com", or a number`, v)
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

// withEntry returns a copy of a table with one entry more: plans share tables.
func withEntry[E any](shared map[string]E, name string, entry E) (map[string]E, error) {
	if _, err := shortText(ast.String(name)); err != nil {
		return nil, err
	}
	if len(shared) >= maxEntries {
		return nil, fmt.Errorf("expected at most %d entries", maxEntries)
	}
	own := make(map[string]E, len(shared)+1)
	maps.Copy(own, shared)
	own[name] = entry
	return own, nil
}

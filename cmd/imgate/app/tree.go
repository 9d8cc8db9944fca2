package app

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// tree checks what the file says against the structs that it will fill, and
// notes everything that is wrong, with its line. What it returns holds the
// text of each value as it is written: who reads 0.10 as a number first, has
// no exact money any more.
type tree struct{ *problems }

// entry is a key of a mapping with its value.
type entry struct {
	key   string
	line  int
	value *yaml.Node
}

// entries returns the keys of a mapping; an empty section has none.
func (t tree) entries(path string, n *yaml.Node) []entry {
	if n == nil || isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		t.note(n.Line, path, "expected a section, that is keys with values; found %s", found(n))
		return nil
	}
	var all []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := join(path, key.Value)
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" || !isPrintable(key.Value) {
			t.note(key.Line, path, "expected plain words as keys; found %s", found(key))
			continue
		}
		if i := slices.IndexFunc(all, func(e entry) bool { return e.key == key.Value }); i >= 0 {
			t.note(key.Line, at, "given twice; the first is in line %d", all[i].line)
			continue
		}
		all = append(all, entry{key.Value, key.Line, n.Content[i+1]})
	}
	return all
}

func isPrintable(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isLower notes names that the reading of the configuration would change.
func (t tree) isLower(path string, e entry) bool {
	if lower := strings.ToLower(e.key); lower != e.key {
		t.note(e.line, join(path, e.key), "expected a name in lower case: %s", lower)
		return false
	}
	return true
}

// fields returns the keys of a struct, in its order.
func fields(t reflect.Type) (keys []string, types map[string]reflect.Type) {
	types = map[string]reflect.Type{}
	for i := range t.NumField() {
		field := t.Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if field.IsExported() && key != "" && key != "-" {
			keys = append(keys, key)
			types[key] = field.Type
		}
	}
	return keys, types
}

// structure checks entries against a struct type. more are keys that are right
// too, and read elsewhere.
func (t tree) structure(path string, list []entry, to reflect.Type, more ...string) map[string]any {
	keys, types := fields(to)
	values := map[string]any{}
	for _, e := range list {
		if slices.Contains(more, e.key) {
			continue
		}
		at := join(path, e.key)
		field, ok := types[e.key]
		if !ok {
			t.note(e.line, at, "unknown key; %s", expectedOneOf(e.key, slices.Concat(keys, more)))
			continue
		}
		if value, ok := t.value(at, e.value, field); ok {
			values[e.key] = value
		}
	}
	return values
}

// value checks one value. If it is not ok, that was noted.
func (t tree) value(path string, n *yaml.Node, to reflect.Type) (value any, ok bool) {
	if to.Kind() == reflect.Pointer {
		return t.value(path, n, to.Elem())
	}
	if isScalar(to) {
		return t.scalar(path, n, to)
	}
	switch to.Kind() {
	case reflect.Struct:
		return t.structure(path, t.entries(path, n), to), true
	case reflect.Map:
		return t.table(path, n, to)
	case reflect.Slice:
		return t.list(path, n, to)
	}
	t.note(n.Line, path, "can't be configured: it is a %s in the plugin", to)
	return nil, false
}

// table checks a mapping whose keys are the operator's own words.
func (t tree) table(path string, n *yaml.Node, to reflect.Type) (any, bool) {
	if isEmpty(n) {
		t.note(n.Line, path, "expected at least one entry; leave the key out to keep what is built in")
		return nil, false
	}
	values := map[string]any{}
	for _, e := range t.entries(path, n) {
		at := join(path, e.key)
		if !t.isLower(path, e) {
			continue
		}
		if isEmpty(e.value) {
			t.note(e.line, at, "expected a value; found nothing")
			continue
		}
		if value, ok := t.value(at, e.value, to.Elem()); ok {
			values[e.key] = value
		}
	}
	return values, len(values) > 0
}

func (t tree) list(path string, n *yaml.Node, to reflect.Type) (any, bool) {
	if n.Kind != yaml.SequenceNode {
		t.note(n.Line, path, "expected a list, such as [a, b]; found %s", found(n))
		return nil, false
	}
	values, all := make([]any, len(n.Content)), true
	for i, item := range n.Content {
		value, ok := t.value(path+"["+strconv.Itoa(i)+"]", item, to.Elem())
		values[i], all = value, all && ok
	}
	return values, all
}

// scalar returns the text of a single value.
func (t tree) scalar(path string, n *yaml.Node, to reflect.Type) (text string, ok bool) {
	if n.Kind == yaml.AliasNode {
		t.note(n.Line, path, "expected the value itself; references with * aren't followed")
		return "", false
	}
	if isElsewhere(n) {
		return t.elsewhere(path, n, to)
	}
	if n.Kind != yaml.ScalarNode || isNull(n) || !suits(n.ShortTag(), to) {
		t.note(n.Line, path, "%s; found %s", expected(to), found(n))
		return "", false
	}
	if _, err := parseScalar(n.Value, to); err != nil {
		t.note(n.Line, path, "%v", err)
		return "", false
	}
	return n.Value, true
}

// suits tells whether YAML's idea of a value is ours: "true" in quotes is a
// text and no bool, 1001 without quotes is a number and no text.
func suits(tag string, to reflect.Type) bool {
	switch {
	case to == durationType || readsText(to):
		return tag == "!!str" || tag == "!!int" || tag == "!!float" || tag == "!!timestamp"
	case to.Kind() == reflect.String:
		return tag == "!!str" || tag == "!!timestamp"
	case to.Kind() == reflect.Bool:
		return tag == "!!bool"
	case isWhole(to):
		return tag == "!!int"
	}
	return tag == "!!int" || tag == "!!float"
}

func expected(to reflect.Type) string {
	switch {
	case to == durationType:
		return errNoDuration.Error()
	case readsText(to):
		return "expected a single value"
	case to.Kind() == reflect.String:
		return "expected a text, in quotes if it looks like something else"
	case to.Kind() == reflect.Bool:
		return "expected true or false"
	case isWhole(to):
		return "expected a whole number"
	}
	return "expected a number"
}

// found names a node without its value, which may be a secret.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "a reference with *"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!str", "!!timestamp":
		return "a text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	}
	return "a value of type " + n.ShortTag()
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func isEmpty(n *yaml.Node) bool {
	return isNull(n) || n.Kind == yaml.MappingNode && len(n.Content) == 0
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

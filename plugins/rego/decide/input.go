package decide

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/match"
)

// matter is what a plan is made of: a question, and the claim that brought it
// to the service.
type matter struct {
	*plugin.Question
	claim *match.Claim
}

// field is a part of the document input: a value, or an object of fields. Its
// name is a term once and for all: building one for each message is what costs.
type field struct {
	name   string
	key    *ast.Term
	value  func(*matter) *ast.Term // nil: it isn't there
	fields []field
}

func leaf(name string, value func(*matter) *ast.Term) field {
	return field{name: name, key: ast.StringTerm(name), value: value}
}

// textLeaf is for text that differs from message to message; wordLeaf for what
// is one of few words, most of which OPA holds as terms.
func textLeaf(name string, text func(*matter) string) field {
	return leaf(name, func(m *matter) *ast.Term { return ast.StringTerm(text(m)) })
}

func wordLeaf(name string, word func(*matter) string) field {
	return leaf(name, func(m *matter) *ast.Term { return ast.InternedTerm(word(m)) })
}

func intLeaf(name string, number func(*matter) int) field {
	return leaf(name, func(m *matter) *ast.Term { return ast.InternedTerm(number(m)) })
}

func boolLeaf(name string, is func(*matter) bool) field {
	return leaf(name, func(m *matter) *ast.Term { return ast.InternedTerm(is(m)) })
}

func tableLeaf(name string, table func(*matter) map[string]string) field {
	return leaf(name, func(m *matter) *ast.Term { return attributesTerm(table(m)) })
}

func group(name string, fields ...field) field {
	return field{name: name, key: ast.StringTerm(name), fields: fields}
}

// wholeInput is the document input: the question under the names of its JSON, and
// the row that matched.
var wholeInput = group("input",
	group("message",
		textLeaf("id", func(m *matter) string { return m.Message.ID }),
		wordLeaf("type", func(m *matter) string { return m.Message.Type }),
		wordLeaf("class", func(m *matter) string { return m.Message.Class }),
		wordLeaf("inner", func(m *matter) string { return m.Message.Inner }),
		intLeaf("size", func(m *matter) int { return m.Message.Size }),
		intLeaf("segments", func(m *matter) int { return m.Message.Segments }),
		leaf("expires", func(m *matter) *ast.Term {
			if m.Message.Expires == nil {
				return nil
			}
			return ast.InternedTerm(*m.Message.Expires)
		}),
		intLeaf("missing", func(m *matter) int { return m.Message.Missing }),
		leaf("text", func(m *matter) *ast.Term {
			if m.Message.Text == nil {
				return nil
			}
			return ast.StringTerm(*m.Message.Text)
		}),
	),
	group("sender",
		textLeaf("account", func(m *matter) string { return m.Sender.Account }),
		textLeaf("address", func(m *matter) string { return m.Sender.Address }),
		textLeaf("user", func(m *matter) string { return m.Sender.User }),
		textLeaf("domain", func(m *matter) string { return m.Sender.Domain }),
		textLeaf("number", func(m *matter) string { return m.Sender.Number }),
		boolLeaf("local", func(m *matter) bool { return m.Sender.Local }),
		tableLeaf("attributes", func(m *matter) map[string]string { return m.Sender.Attributes }),
	),
	group("recipient",
		textLeaf("address", func(m *matter) string { return m.Recipient.Address }),
		textLeaf("user", func(m *matter) string { return m.Recipient.User }),
		textLeaf("domain", func(m *matter) string { return m.Recipient.Domain }),
		boolLeaf("local", func(m *matter) bool { return m.Recipient.Local }),
		textLeaf("account", func(m *matter) string { return m.Recipient.Account }),
		tableLeaf("attributes", func(m *matter) map[string]string { return m.Recipient.Attributes }),
		boolLeaf("registered", func(m *matter) bool { return m.Recipient.Registered }),
		intLeaf("devices", func(m *matter) int { return m.Recipient.Devices }),
	),
	wordLeaf("transport", func(m *matter) string { return m.Transport }),
	wordLeaf("protocol", func(m *matter) string { return m.Protocol }),
	textLeaf("peer", func(m *matter) string { return m.Peer }),
	textLeaf("time", func(m *matter) string { return m.Time.UTC().Format(time.RFC3339Nano) }),
	group("clock",
		wordLeaf("zone", func(m *matter) string { return m.Clock.Zone }),
		textLeaf("date", func(m *matter) string { return m.Clock.Date }),
		textLeaf("time", func(m *matter) string { return m.Clock.Time }),
		wordLeaf("weekday", func(m *matter) string { return m.Clock.Weekday }),
		intLeaf("hour", func(m *matter) int { return m.Clock.Hour }),
		intLeaf("minute", func(m *matter) int { return m.Clock.Minute }),
	),
	leaf("counters", func(m *matter) *ast.Term { return countersTerm(m.Counters) }),
	group("match",
		textLeaf("domain", func(m *matter) string { return m.claim.Domain.Text }),
		textLeaf("prefix", func(m *matter) string { return m.claim.Prefix }),
		intLeaf("priority", func(m *matter) int { return m.claim.Priority }),
		leaf("attributes", func(m *matter) *ast.Term { return m.claim.Attributes }),
	),
)

// input returns the document with these fields, at a fifth of the price of its
// JSON.
func (f field) input(m *matter) ast.Value {
	object := ast.NewObjectWithCapacity(len(f.fields))
	for _, part := range f.fields {
		if part.value == nil {
			object.Insert(part.key, ast.NewTerm(part.input(m)))
			continue
		}
		if term := part.value(m); term != nil {
			object.Insert(part.key, term)
		}
	}
	return object
}

// read returns what is read of a document by those who read these paths: what a
// policy never looks at needn't be built.
func (f field) read(paths map[string]bool) field {
	return f.below("", slices.Collect(maps.Keys(paths)))
}

func (f field) below(path string, paths []string) field {
	kept := f
	kept.fields = nil
	for _, part := range f.fields {
		name := joinPath(path, part.name)
		if !slices.ContainsFunc(paths, func(p string) bool { return within(p, name) || within(name, p) }) {
			continue
		}
		if part.fields != nil {
			part = part.below(name, paths)
		}
		kept.fields = append(kept.fields, part)
	}
	return kept
}

func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// within tells whether a path is another one or leads into it. The empty path
// is all there is.
func within(path, other string) bool {
	rest, ok := strings.CutPrefix(path, other)
	return other == "" || ok && (rest == "" || rest[0] == '.')
}

func attributesTerm(attributes map[string]string) *ast.Term {
	object := ast.NewObjectWithCapacity(len(attributes))
	for name, value := range attributes {
		object.Insert(ast.StringTerm(name), ast.StringTerm(value))
	}
	return ast.NewTerm(object)
}

func countersTerm(counters map[string]int) *ast.Term {
	object := ast.NewObjectWithCapacity(len(counters))
	for name, count := range counters {
		object.Insert(ast.StringTerm(name), ast.InternedTerm(count))
	}
	return ast.NewTerm(object)
}

// inputPath returns a reference below input as a path, "message.class". What
// isn't fixed when the policies are loaded is cut off, so input.message[x] is
// the path "message".
func inputPath(ref ast.Ref) string {
	var names []string
	for _, term := range ref[1:] {
		name, ok := term.Value.(ast.String)
		if !ok {
			break
		}
		names = append(names, string(name))
	}
	return strings.Join(names, ".")
}

package match

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"gopkg.in/yaml.v3"
)

// maxRowAttributes is the most that the attributes of a row may take, in
// octets of JSON.
const maxRowAttributes = 16 << 10

// maxRowErrors is how many mistakes of one file are shown at once.
const maxRowErrors = 100

const MaxPriority = 1_000_000

// ServiceName is what a service may be called; reports and metrics show it.
var ServiceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)

// Row says that a service decides about the messages to a domain. It comes from
// the table "domains" of a data file, or from the match of a package.
type Row struct {
	Service    string
	Domain     DomainPattern
	Prefixes   []string // without "+"; at least one, which may be "": any number, or none
	Priority   int
	Attributes *ast.Term // an object, never changed; rows with equal ones may share it
	Place      string    // file:line
}

// NoAttributes are those of a match in a package.
var NoAttributes = ast.NewTerm(ast.NewObject())

// rowReader reads a table of rows.
type rowReader struct {
	path   string
	rows   []Row
	errs   []error
	shared map[string]*ast.Term // attributes by their JSON
}

// ReadRows reads the table "domains" of a data file: a mapping from a domain
// pattern to a row, or to a list of rows.
func ReadRows(path string, node *yaml.Node) ([]Row, []error) {
	r := rowReader{path: path, shared: map[string]*ast.Term{"{}": NoAttributes}}
	table := followed(node)
	if table.Kind != yaml.MappingNode {
		r.fail(node, "domains", `expected a mapping from domains to rows: {"sms.example.com": {"service": "sms"}}`)
		return nil, r.errs
	}
	for i := 0; i+1 < len(table.Content) && !r.full(node); i += 2 {
		r.domain(table.Content[i], table.Content[i+1])
	}
	return r.rows, r.errs
}

// full tells whether there is no sense in going on.
func (r *rowReader) full(node *yaml.Node) bool {
	if len(r.rows) > MaxRows {
		r.fail(node, "domains", "expected at most %d rows", MaxRows)
		return true
	}
	return len(r.errs) >= maxRowErrors
}

// domain reads the row or the rows of a domain pattern.
func (r *rowReader) domain(key, value *yaml.Node) {
	pattern, err := ParseDomain(key.Value)
	if key.Kind != yaml.ScalarNode || key.Tag == "!!null" || err != nil {
		r.fail(key, cmp.Or(key.Value, "domains"), "expected a domain: %s", expectedDomain)
		return
	}
	value = followed(value)
	if value.Kind != yaml.SequenceNode {
		r.row(key, pattern, value)
		return
	}
	for _, element := range value.Content {
		r.row(element, pattern, followed(element))
	}
}

// row reads one row; place is the node that messages point to.
func (r *rowReader) row(place *yaml.Node, pattern DomainPattern, value *yaml.Node) {
	fields := map[string]yaml.Node{}
	if value.Kind != yaml.MappingNode || value.Decode(&fields) != nil {
		r.fail(place, pattern.String(), `expected a row such as {"service": "sms", "priority": 0}, each name once`)
		return
	}
	read := Row{Domain: pattern, Attributes: NoAttributes, Place: fmt.Sprintf("%s:%d", r.path, place.Line)}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := fields[name]
		if err := r.field(&read, name, followed(&field)); err != nil {
			r.fail(place, pattern.String(), "%s: %w", name, err)
			return
		}
	}
	if read.Service == "" {
		r.fail(place, pattern.String(), "service: expected the name of a service")
		return
	}
	if len(read.Prefixes) == 0 {
		read.Prefixes = AnyNumber
	}
	r.rows = append(r.rows, read)
}

// rowFields are what a row may have.
const rowFields = "attributes, prefixes, priority, service"

func (r *rowReader) field(to *Row, name string, value *yaml.Node) (err error) {
	switch name {
	case "service":
		to.Service, err = readServiceName(value)
	case "prefixes":
		to.Prefixes, err = readPrefixes(value)
	case "priority":
		to.Priority, err = readPriority(value)
	case "attributes":
		to.Attributes, err = r.attributes(value)
	default:
		err = fmt.Errorf("no such attribute, expected one of %s", rowFields)
	}
	return err
}

func readServiceName(value *yaml.Node) (string, error) {
	if value.Kind != yaml.ScalarNode || !ServiceName.MatchString(value.Value) {
		return "", fmt.Errorf("expected the name of a service, got %s", shown(value))
	}
	return value.Value, nil
}

func readPrefixes(value *yaml.Node) ([]string, error) {
	if value.Kind != yaml.SequenceNode || len(value.Content) > MaxRows {
		return nil, fmt.Errorf(`expected a list such as ["4420"], got %s`, shown(value))
	}
	prefixes := make([]string, len(value.Content))
	for i, element := range value.Content {
		var err error
		if prefixes[i], err = ParsePrefix(followed(element).Value); err != nil {
			return nil, fmt.Errorf("%d: %w", i, err)
		}
	}
	return prefixes, nil
}

func readPriority(value *yaml.Node) (int, error) {
	priority, err := strconv.Atoi(value.Value)
	if err != nil || value.Kind != yaml.ScalarNode || priority < -MaxPriority || priority > MaxPriority {
		return 0, fmt.Errorf("expected a whole number from %d to %d, got %s", -MaxPriority, MaxPriority, shown(value))
	}
	return priority, nil
}

// attributes reads what the operator says of a domain, which is theirs.
func (r *rowReader) attributes(value *yaml.Node) (*ast.Term, error) {
	document := map[string]any{}
	if value.Kind != yaml.MappingNode || value.Decode(&document) != nil {
		return nil, fmt.Errorf("expected a mapping whose names are words, each once, got %s", shown(value))
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("expected what JSON can hold: %w", err)
	}
	if len(text) > maxRowAttributes {
		return nil, fmt.Errorf("expected at most %d octets of JSON, got %d", maxRowAttributes, len(text))
	}
	if term, ok := r.shared[string(text)]; ok {
		return term, nil
	}
	object, err := ast.ValueFromReader(strings.NewReader(string(text)))
	if err != nil {
		return nil, err
	}
	term := ast.NewTerm(object)
	r.shared[string(text)] = term
	return term, nil
}

func (r *rowReader) fail(place *yaml.Node, pattern, format string, args ...any) {
	problem := fmt.Errorf(format, args...)
	r.errs = append(r.errs, fmt.Errorf("%s:%d: %s: %w", r.path, place.Line, short(pattern), problem))
}

// followed returns what an alias stands for.
func followed(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// shown is a value, in short, for a message.
func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.ShortTag() != "!!str" {
		return short(n.Value) // a number is none in quotes
	}
	return strconv.Quote(short(n.Value))
}

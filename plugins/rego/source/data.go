package source

import (
	"gopkg.in/yaml.v3"

	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/imgate/imgate/plugins/rego/match"
)

// Limits of a data file. What a policy reads is bounded, so that what a builtin
// does with it is.
const (
	maxNodes    = 2_000_000 // values in a file, aliases counted as often as they are used
	maxNesting  = 64        // of lists and mappings
	MaxText     = 64 << 10  // octets of a text
	MaxDigits   = 64        // of a number, its exponent included
	MaxExponent = 400       // more than a float64 has
)

// readDocument reads a data file. Its rows are apart: they are no data.
func readDocument(f File, below []string) (document, []error) {
	d := document{path: f.Path, below: below}
	root, err := parseNode(f)
	if err != nil {
		return d, []error{err}
	}
	var errs []error
	if rows := take(root, DomainsName); rows != nil {
		d.rows, errs = match.ReadRows(f.Path, rows)
	}
	value, err := nodeValue(root)
	if err != nil {
		return d, append(errs, fmt.Errorf("%s:%w", f.Path, err))
	}
	d.value = value.(map[string]any)
	return d, errs
}

// take removes an entry of a mapping and returns its value, nil if there is none.
func take(mapping *yaml.Node, name string) *yaml.Node {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			value := mapping.Content[i+1]
			mapping.Content = append(mapping.Content[:i], mapping.Content[i+2:]...)
			return value
		}
	}
	return nil
}

// parseNode returns the mapping that a data file is, without aliases and merges.
func parseNode(f File) (*yaml.Node, error) {
	if path.Ext(f.Path) == ".json" {
		return parseJSON(f)
	}
	return parseYAML(f)
}

func parseYAML(f File) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(f.Text))
	var file, rest yaml.Node
	switch err := decoder.Decode(&file); {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}, nil
	case err != nil:
		return nil, yamlError(f, err)
	}
	if err := decoder.Decode(&rest); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: expected one document in YAML, found something behind it", f.Path)
	}
	root := file.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" { // nothing but comments
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: expected an object in YAML", f.Path, root.Line)
	}
	if err := resolveAliases(root); err != nil {
		return nil, fmt.Errorf("%s:%w", f.Path, err)
	}
	return root, nil
}

// yamlLine begins the errors of the parser.
var yamlLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

// yamlError says where and what, and knows tabs: they are the usual reason, and
// the parser's words for them are of no help.
func yamlError(f File, err error) error {
	problem := err.Error()
	begin := yamlLine.FindStringSubmatch(problem)
	if begin == nil {
		return fmt.Errorf("%s: expected an object in YAML: %w", f.Path, err)
	}
	isTab := strings.Contains(problem, "tab character") || strings.Contains(problem, "cannot start any token")
	if line := tabbedLine(f.Text); isTab && line > 0 {
		return fmt.Errorf("%s:%d: expected an object in YAML, found a tab: indent with spaces", f.Path, line)
	}
	place := f.Path
	if begin[1] != "" {
		place += ":" + begin[1]
	}
	return fmt.Errorf("%s: expected an object in YAML: %s", place, problem[len(begin[0]):])
}

// tabbedLine returns the first line with a tab in its indentation, 0 if there is
// none.
func tabbedLine(text []byte) int {
	line := 0
	for l := range bytes.Lines(text) {
		line++
		indentation := l[:len(l)-len(bytes.TrimLeft(l, " \t"))]
		if bytes.ContainsRune(indentation, '\t') {
			return line
		}
	}
	return 0
}

// parseJSON makes the nodes that YAML would: with lines, and with numbers as
// they were written. YAML's own parser doesn't know all of JSON.
func parseJSON(f File) (*yaml.Node, error) {
	p := &jsonParser{text: f.Text, line: 1, decoder: json.NewDecoder(bytes.NewReader(f.Text))}
	p.decoder.UseNumber()
	var whole json.RawMessage
	if err := json.Unmarshal(f.Text, &whole); err != nil {
		return nil, fmt.Errorf("%s:%d: expected an object in JSON: %w", f.Path, p.at(jsonOffset(err, f.Text)), err)
	}
	root, err := p.value(0)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s:%d: expected an object in JSON: %w", f.Path, p.at(p.decoder.InputOffset()), err)
	case root.Kind != yaml.MappingNode:
		return nil, fmt.Errorf("%s:%d: expected an object in JSON", f.Path, root.Line)
	}
	return root, nil
}

// jsonOffset returns where the error is.
func jsonOffset(err error, text []byte) int64 {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return max(syntax.Offset-1, 0)
	}
	return int64(len(text))
}

type jsonParser struct {
	text    []byte
	decoder *json.Decoder
	line    int   // of counted
	counted int64 // how far lines have been counted
}

// at returns the line of an offset. Offsets only grow.
func (p *jsonParser) at(offset int64) int {
	offset = min(offset, int64(len(p.text)))
	if offset > p.counted {
		p.line += bytes.Count(p.text[p.counted:offset], []byte("\n"))
		p.counted = offset
	}
	return p.line
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	if depth > maxNesting {
		return nil, errTooDeep
	}
	token, err := p.decoder.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.at(p.decoder.InputOffset())}
	switch t := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if t == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		return n, p.content(n, depth)
	case string:
		n.Tag, n.Value, n.Style = "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = numberTag(t.String()), t.String()
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

func numberTag(text string) string {
	if strings.ContainsAny(text, ".eE") {
		return "!!float"
	}
	return "!!int"
}

func (p *jsonParser) content(n *yaml.Node, depth int) error {
	for p.decoder.More() {
		child, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, child)
	}
	_, err := p.decoder.Token() // the closing bracket
	return err
}

var (
	errTooDeep = fmt.Errorf("expected at most %d lists and mappings within each other", maxNesting)
	errTooMany = fmt.Errorf("expected at most %d values in a file", maxNodes)
)

// extent is how large a node is when its aliases are followed.
type extent struct{ nodes, depth int }

// aliases replaces aliases by what they stand for. Nodes are shared then, and
// may be walked many times; extents bound it.
type aliases struct {
	known map[*yaml.Node]extent // zero: its content is being looked at
}

func resolveAliases(root *yaml.Node) error {
	a := &aliases{known: map[*yaml.Node]extent{}}
	_, err := a.resolve(root)
	return err
}

func (a *aliases) resolve(n *yaml.Node) (extent, error) {
	if n.Anchor != "" {
		a.known[n] = extent{}
	}
	size := extent{nodes: 1}
	if n.Kind == yaml.MappingNode {
		if err := a.mergeKeys(n); err != nil {
			return size, err
		}
	}
	for i, child := range n.Content {
		part, err := a.child(n, i, child)
		if err != nil {
			return size, err
		}
		size.nodes, size.depth = size.nodes+part.nodes, max(size.depth, part.depth+1)
		switch {
		case size.nodes > maxNodes:
			return size, fmt.Errorf("%d: %w", n.Line, errTooMany)
		case size.depth > maxNesting:
			return size, fmt.Errorf("%d: %w", n.Line, errTooDeep)
		}
	}
	if n.Anchor != "" {
		a.known[n] = size
	}
	return size, nil
}

func (a *aliases) child(n *yaml.Node, i int, child *yaml.Node) (extent, error) {
	if child.Kind != yaml.AliasNode {
		if size, done := a.known[child]; done && size.nodes > 0 {
			return size, nil // it came in by a merge
		}
		return a.resolve(child)
	}
	size := a.known[child.Alias]
	if size.nodes == 0 {
		return size, fmt.Errorf("%d: the alias %q stands for something that it is in", child.Line, child.Value)
	}
	n.Content[i] = child.Alias
	return size, nil
}

// mergeKeys puts the entries that "<<" stands for in its place, but for those
// that the mapping has itself.
func (a *aliases) mergeKeys(n *yaml.Node) error {
	own := map[string]bool{}
	merged := false
	for i := 0; i < len(n.Content); i += 2 {
		own[n.Content[i].Value] = true
		merged = merged || isMerge(n.Content[i])
	}
	if !merged {
		return nil
	}
	var content []*yaml.Node
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isMerge(key) {
			content = append(content, key, value)
			continue
		}
		more, err := a.merged(value, own)
		if err != nil {
			return err
		}
		content = append(content, more...)
	}
	n.Content = content
	return nil
}

func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && (key.Tag == "" || key.ShortTag() == "!!merge")
}

func (a *aliases) merged(value *yaml.Node, own map[string]bool) ([]*yaml.Node, error) {
	if value.Kind == yaml.AliasNode {
		if a.known[value.Alias].nodes == 0 {
			return nil, fmt.Errorf("%d: the alias %q stands for something that it is in", value.Line, value.Value)
		}
		value = value.Alias
	}
	if value.Kind == yaml.SequenceNode {
		var content []*yaml.Node
		for _, one := range value.Content {
			if one.Kind == yaml.SequenceNode {
				return nil, fmt.Errorf("%d: <<: expected mappings", one.Line)
			}
			more, err := a.merged(one, own)
			if err != nil {
				return nil, err
			}
			content = append(content, more...)
		}
		return content, nil
	}
	if value.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%d: <<: expected a mapping", value.Line)
	}
	var content []*yaml.Node
	for i := 0; i < len(value.Content); i += 2 {
		if key := value.Content[i]; !own[key.Value] {
			own[key.Value] = true
			content = append(content, key, value.Content[i+1])
		}
	}
	return content, nil
}

// jsonNumber is how Rego writes numbers.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// nodeValue returns what a node without aliases stands for, as JSON knows it:
// keys are text (44: is "44"), dates are text, numbers stay as they are written.
// Its errors begin with the line.
func nodeValue(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		return mappingValue(n)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, child := range n.Content {
			var err error
			if list[i], err = nodeValue(child); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.ScalarNode:
		return scalarValue(n)
	}
	return nil, fmt.Errorf("%d: expected a value", n.Line)
}

func mappingValue(n *yaml.Node) (map[string]any, error) {
	object := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("%d: expected a plain word as a key, found a list or a mapping", key.Line)
		}
		if _, taken := object[key.Value]; taken {
			return nil, fmt.Errorf("%d: %q is there already: expected it once", key.Line, key.Value)
		}
		if len(key.Value) > MaxText {
			return nil, fmt.Errorf("%d: expected a key of at most %d octets", key.Line, MaxText)
		}
		value, err := nodeValue(n.Content[i+1])
		if err != nil {
			return nil, err
		}
		object[key.Value] = value
	}
	return object, nil
}

func scalarValue(n *yaml.Node) (any, error) {
	switch tag := n.ShortTag(); tag {
	case "!!str", "!!timestamp", "!!merge":
		if len(n.Value) > MaxText {
			return nil, fmt.Errorf("%d: expected a text of at most %d octets", n.Line, MaxText)
		}
		return n.Value, nil
	case "!!null":
		return nil, nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int", "!!float":
		if !jsonNumber.MatchString(n.Value) {
			return nil, fmt.Errorf("%d: %s is read as a number by some and as text by others: expected a number such as 1 or 0.5, or text in quotes", n.Line, Clip(n.Value))
		}
		if !IsModest(n.Value) {
			return nil, fmt.Errorf("%d: expected a number of at most %d digits and an exponent of at most %d", n.Line, MaxDigits, MaxExponent)
		}
		return json.Number(n.Value), nil
	default:
		return nil, fmt.Errorf("%d: expected a value without the tag %s", n.Line, Clip(tag))
	}
}

// IsModest tells whether a number can be reckoned with at once: 1e999999999
// can't.
func IsModest(number string) bool {
	if len(number) > MaxDigits {
		return false
	}
	i := strings.IndexAny(number, "eE")
	if i < 0 {
		return true
	}
	exponent, err := strconv.Atoi(number[i+1:])
	return err == nil && -MaxExponent <= exponent && exponent <= MaxExponent
}

// Clip shortens what an error shows.
func Clip(text string) string {
	const most = 40
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

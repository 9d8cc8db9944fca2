package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// draft is the newest that OPA's type checker reads.
const draft = "http://json-schema.org/draft-07/schema#"

// durationPattern is the syntax of time.ParseDuration without a sign.
const durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`

// node is the part of JSON Schema that Go structs need.
type node struct {
	Schema      string           `json:"$schema,omitempty"`
	Title       string           `json:"title,omitempty"`
	Description string           `json:"description,omitempty"`
	Type        string           `json:"type,omitempty"` // empty: any
	Format      string           `json:"format,omitempty"`
	Pattern     string           `json:"pattern,omitempty"`
	Enum        []string         `json:"enum,omitempty"`
	Default     json.RawMessage  `json:"default,omitempty"`
	Examples    json.RawMessage  `json:"examples,omitempty"`
	Items       *node            `json:"items,omitempty"`
	Properties  map[string]*node `json:"properties,omitempty"`
	Required    []string         `json:"required,omitempty"`
	Additional  any              `json:"additionalProperties,omitempty"` // false, or a *node
}

// match is what a policy sees besides the question: the row that brought the
// message to its service.
type match struct {
	Domain     string         `json:"domain" doc:"the domain pattern, as it is written there"`
	Prefix     string         `json:"prefix" doc:"the number prefix; empty: any number, or none"`
	Priority   int            `json:"priority" doc:"the priority of the row"`
	Attributes map[string]any `json:"attributes" doc:"what the row of the data file says of the domain; empty for a match in the package"`
}

// question returns the schema of the document input.
func question() ([]byte, error) {
	n, err := describe(reflect.TypeFor[plugin.Question](), true)
	if err != nil {
		return nil, err
	}
	row, err := describe(reflect.TypeFor[match](), true)
	if err != nil {
		return nil, err
	}
	row.Description = "the row that matched: of a data file, or of the service's package"
	n.Properties["match"] = row
	n.Required = append(n.Required, "match")
	n.Title = "What a policy may know of a message: the document input"
	return render(n)
}

// plan returns the schema of the document plan. Nothing in it is required.
func plan() ([]byte, error) {
	n, err := describe(reflect.TypeFor[plugin.Plan](), false)
	if err != nil {
		return nil, err
	}
	n.Title = "What a policy decides: the document plan of a service"
	return render(n)
}

func render(n *node) ([]byte, error) {
	n.Schema = draft
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// describe returns the schema of a type. complete says whether the fields of a
// struct are required unless they are tagged omitempty.
func describe(t reflect.Type, complete bool) (*node, error) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &node{Type: "string", Pattern: durationPattern}, nil
	case reflect.TypeFor[time.Time]():
		return &node{Type: "string", Format: "date-time"}, nil
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return &node{Type: "string"}, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem(), complete)
	case reflect.String:
		return &node{Type: "string"}, nil
	case reflect.Bool:
		return &node{Type: "boolean"}, nil
	case reflect.Int:
		return &node{Type: "integer"}, nil
	case reflect.Slice:
		items, err := describe(t.Elem(), complete)
		return &node{Type: "array", Items: items}, err
	case reflect.Map:
		values, err := describe(t.Elem(), complete)
		return &node{Type: "object", Additional: values}, err
	case reflect.Interface:
		return &node{}, nil
	case reflect.Struct:
		return describeStruct(t, complete)
	}
	return nil, fmt.Errorf("%s: a schema for this type is not known", t)
}

func describeStruct(t reflect.Type, complete bool) (*node, error) {
	n := &node{Type: "object", Properties: map[string]*node{}, Additional: false}
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		property, err := describe(field.Type, complete)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, field.Name, err)
		}
		property.Description = field.Tag.Get("doc")
		if name == "" || property.Description == "" {
			return nil, fmt.Errorf("%s.%s: needs the tags json and doc", t, field.Name)
		}
		if err := property.annotate(field.Tag); err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, field.Name, err)
		}
		if complete && options != "omitempty" {
			n.Required = append(n.Required, name)
		}
		n.Properties[name] = property
	}
	return n, nil
}

// annotate adds what the tags say of the values. An example that isn't JSON is
// an expression of Rego, for people alone.
func (n *node) annotate(tag reflect.StructTag) error {
	if words := tag.Get("enum"); words != "" {
		of := n
		if n.Items != nil {
			of = n.Items
		}
		of.Enum = strings.Split(words, ",")
	}
	if value := tag.Get("default"); value != "" {
		if !json.Valid([]byte(value)) {
			return fmt.Errorf("the tag default: expected JSON, got %s", value)
		}
		n.Default = json.RawMessage(value)
	}
	if value := tag.Get("example"); json.Valid([]byte(value)) {
		n.Examples = json.RawMessage("[" + value + "]")
	}
	return nil
}

package match

import (
	"gopkg.in/yaml.v3"

	"errors"
	"fmt"
	"strings"
	"testing"
)

// rowsOf reads the table in a text.
func rowsOf(t testing.TB, text string) ([]Row, error) {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	rows, errs := ReadRows("d.yaml", node.Content[0])
	return rows, errors.Join(errs...)
}

func TestReadRows(t *testing.T) {
	rows, err := rowsOf(t, `
sip.Example.com: {service: onnet}
"*.sms.example.com":
  service: sms
  prefixes: [44, "+4320"]
  priority: -10
  attributes: &gold {tariff: gold, list: [1, 2.5, null, true], deep: {a: b}}
"/x[0-9]+/": {"service": "sms", "priority": 5, "attributes": *gold}
"*":
  - {service: onnet}
  - service: sms
    prefixes: ["1"]
"": {service: sms, prefixes: ["44"]}
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprintf("%s %s %s %q %d %s", r.Place, r.Domain.Text, r.Service, r.Prefixes, r.Priority, r.Attributes))
	}
	want := []string{
		`d.yaml:2 sip.example.com onnet [""] 0 {}`,
		`d.yaml:3 *.sms.example.com sms ["44" "4320"] -10 {"deep": {"a": "b"}, "list": [1, 2.5, null, true], "tariff": "gold"}`,
		`d.yaml:8 /x[0-9]+/ sms [""] 5 {"deep": {"a": "b"}, "list": [1, 2.5, null, true], "tariff": "gold"}`,
		`d.yaml:10 * onnet [""] 0 {}`,
		`d.yaml:11 * sms ["1"] 0 {}`,
		`d.yaml:13  sms ["44"] 0 {}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if rows[1].Attributes != rows[2].Attributes {
		t.Error("equal attributes aren't shared")
	}
}

func TestReadRowsRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"[]":                                          "d.yaml:1: domains: expected a mapping from domains to rows",
		"a b: {service: x}":                           `d.yaml:1: a b: expected a domain: "sip.example.com"`,
		`"": {}`:                                      `d.yaml:1: "": service: expected the name of a service`,
		"~: {service: x}":                             `d.yaml:1: ~: expected a domain: "sip.example.com"`,
		"?\n: {service: x}":                           `d.yaml:1: domains: expected a domain: "sip.example.com"`,
		"a.b: x":                                      `d.yaml:1: a.b: expected a row such as {"service": "sms", "priority": 0}`,
		"a.b: {}":                                     "d.yaml:1: a.b: service: expected the name of a service",
		"a.b: {service: 1}":                           `d.yaml:1: a.b: service: expected the name of a service, got 1`,
		"a.b: {service: [x]}":                         "d.yaml:1: a.b: service: expected the name of a service, got a list",
		"\n\na.b: {servise: x}":                       "d.yaml:3: a.b: servise: no such attribute, expected one of attributes, prefixes, priority, service",
		"a.b: {service: x, priority: high}":           `a.b: priority: expected a whole number from -1000000 to 1000000, got "high"`,
		"a.b: {service: x, priority: 1000001}":        "a.b: priority: expected a whole number",
		"a.b: {service: x, prefixes: 44}":             `a.b: prefixes: expected a list such as ["4420"], got 44`,
		"a.b: {service: x, prefixes: [44, 4x]}":       `a.b: prefixes: 1: expected 1 to 20 digits such as "4420", got "4x"`,
		"a.b: {service: x, attributes: [a]}":          "a.b: attributes: expected a mapping whose names are words, each once, got a list",
		"a.b: {service: x, attributes: {a: .nan}}":    "a.b: attributes: expected what JSON can hold",
		"a.b: {service: x, service: y}":               "a.b: expected a row such as",
		"a.b: {service: x, attributes: {a: 1, a: 2}}": "a.b: attributes: expected a mapping whose names are words, each once",
		"a.b:\n- {service: x}\n- y":                   "d.yaml:3: a.b: expected a row such as",
		"a.b: {service: x, attributes: {a: " + strings.Repeat("x", maxRowAttributes) + "}}": "a.b: attributes: expected at most 16384 octets of JSON",
	} {
		_, err := rowsOf(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s\ngot  %v\nwant %s", text, err, want)
		}
	}
	_, err := rowsOf(t, "a.b: x\nc.d: y\n")
	if strings.Count(err.Error(), "expected a row") != 2 {
		t.Errorf("got %v, want both mistakes", err)
	}
}

func FuzzReadRows(f *testing.F) {
	f.Add("a.b: {service: x, prefixes: [44], priority: 1, attributes: {a: [1]}}")
	f.Add("'*': [{service: x}, {service: y, prefixes: ['1']}]")
	f.Add("a: &x {service: y}\nb: *x\nc: {<<: *x, priority: 2}\n")
	f.Fuzz(func(t *testing.T, text string) {
		var node yaml.Node
		if yaml.Unmarshal([]byte(text), &node) != nil || len(node.Content) == 0 {
			return
		}
		rows, errs := ReadRows("d.yaml", node.Content[0])
		if len(errs) > 0 {
			return
		}
		for _, r := range rows {
			if r.Service == "" || r.Attributes == nil || len(r.Prefixes) == 0 || !strings.HasPrefix(r.Place, "d.yaml:") {
				t.Errorf("half a row: %+v", r)
			}
		}
	})
}

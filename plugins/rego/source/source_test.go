package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/plugins/rego/regotest"
)

// readData lays the given data files over each other.
func readData(texts map[string]string) (Source, error) {
	files := []File{{Path: "a.rego", Text: []byte(regotest.AnyService)}}
	for name, text := range texts {
		files = append(files, File{Path: name, Text: []byte(text)})
	}
	sortFiles(files)
	s, errs := New("dir", files)
	return s, errors.Join(errs...)
}

func TestSource(t *testing.T) {
	s, err := readData(map[string]string{
		"top.json":         `{"a": {"x": 1}, "b": "\ud83d\ude00\/"}`,
		"top.yaml":         "a: {y: 2}\nc: [1.10, 12345678901234567890, -0.5e3, null, true, 2026-01-02, yes]\n44: {~: 1}\n",
		"sub/deep/d.yml":   "z: 1\n",
		"sub/e.json":       `{"deep": {"w": 2}}`,
		"sub/rows.yaml":    "domains: {sms.example.com: {service: a}}\n",
		"rows.json":        "{\n\n\"domains\": {\"b.example.com\": {\"service\": \"a\"}}, \"d\": 1}",
		"empty.yaml":       "# nothing\n",
		"sub/a_test.rego":  "anything",
		"sub/library.rego": "package lib",
		"merge.yaml":       "base: &b {p: 1, q: 1}\nmore: {<<: *b, q: 2}\nlist: {<<: [*b, {r: 3}]}\nsame: *b\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s.Data)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"44":{"~":1},"a":{"x":1,"y":2},"b":"😀/","base":{"p":1,"q":1},"c":[1.10,12345678901234567890,-0.5e3,null,true,"2026-01-02","yes"],"d":1,` +
		`"list":{"p":1,"q":1,"r":3},"more":{"p":1,"q":2},"same":{"p":1,"q":1},"sub":{"deep":{"w":2,"z":1}}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(s.Policies) != 2 || len(s.Tests) != 1 || s.Tests[0].Path != "dir/sub/a_test.rego" {
		t.Errorf("policies %d, tests %d", len(s.Policies), len(s.Tests))
	}
	var places []string
	for _, r := range s.Rows {
		places = append(places, r.Place)
	}
	if fmt.Sprint(places) != "[dir/rows.json:3 dir/sub/rows.yaml:1]" {
		t.Errorf("rows at %s", places)
	}
}

func TestSourceRefuses(t *testing.T) {
	bomb := "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
	for i := range 9 {
		name := string(rune('a' + i))
		bomb += fmt.Sprintf("%c: &%c [%s]\n", 'b'+i, 'b'+i, strings.TrimSuffix(strings.Repeat("*"+name+", ", 10), ", "))
	}
	for name, c := range map[string]struct {
		texts map[string]string
		want  []string
	}{
		"a list":                 {map[string]string{"d.json": "[]", "e.yaml": "- 1\n"}, []string{"dir/d.json:1: expected an object in JSON", "dir/e.yaml:1: expected an object in YAML"}},
		"two documents":          {map[string]string{"d.yaml": "a: 1\n---\nb: 1\n", "e.json": "{}\n\n{}"}, []string{"dir/d.yaml: expected one document", "dir/e.json:3: expected an object in JSON: invalid character '{' after top-level value"}},
		"broken":                 {map[string]string{"d.yaml": "a: [\n", "e.json": "{\n\"a\": 1,\n}", "f.json": "{\"a\": "}, []string{"dir/d.yaml:1: expected an object in YAML", "dir/e.json:3: ", "dir/f.json:1: "}},
		"tabs":                   {map[string]string{"d.yaml": "a:\n\tb: 1\n", "e.yaml": "a:\n  b: 1\n\tc: 2\n"}, []string{"dir/d.yaml:2: expected an object in YAML, found a tab: indent with spaces", "dir/e.yaml:3: expected an object in YAML, found a tab"}},
		"a key twice":            {map[string]string{"d.yaml": "a: 1\na: 2\n", "e.json": "{\"b\": {\n\"c\": 1,\n\"c\": 2}}"}, []string{`dir/d.yaml:2: "a" is there already`, `dir/e.json:3: "c" is there already`}},
		"a value twice":          {map[string]string{"d.yaml": "a: {b: 1}\n", "e/a.yaml": "b: 1\n", "a/f.yaml": "b: 2\n"}, []string{"dir/d.yaml: dir/a/f.yaml holds data.a.b too"}},
		"ours":                   {map[string]string{"d.yaml": "imgate: 1\n", "imgate/e.yaml": "a: 1\n", "domains/f.yaml": "a: 1\n"}, []string{`dir/d.yaml: the name "imgate" is kept`, `dir/imgate/e.yaml: the name`, `dir/domains/f.yaml: the name "domains" is kept`}},
		"a number that is none":  {map[string]string{"d.yaml": "n: 0447700\n"}, []string{"dir/d.yaml:1: 0447700 is read as a number by some and as text by others"}},
		"a number with a plus":   {map[string]string{"d.yaml": "n: +447700\n"}, []string{"dir/d.yaml:1: +447700"}},
		"no number":              {map[string]string{"d.yaml": "n: .inf\n"}, []string{"dir/d.yaml:1: .inf"}},
		"a huge number":          {map[string]string{"d.json": `{"n": 1e999999999}`, "e.yaml": "m: " + strings.Repeat("1", 65) + "\n"}, []string{"dir/d.json:1: expected a number of at most", "dir/e.yaml:1: expected a number of at most"}},
		"a long text":            {map[string]string{"d.yaml": "n: " + strings.Repeat("a", MaxText+1)}, []string{"dir/d.yaml:1: expected a text of at most 65536 octets"}},
		"a tag":                  {map[string]string{"d.yaml": "n: !!binary aaaa\n", "e.yaml": "m: !env HOME\n"}, []string{"dir/d.yaml:1: expected a value without the tag", "dir/e.yaml:1: "}},
		"a key that is a list":   {map[string]string{"d.yaml": "<<: {}\n? {a: b}\n: c\n"}, []string{"dir/d.yaml:2: expected a plain word as a key"}},
		"a merge of nothing":     {map[string]string{"d.yaml": "<<: 1\n"}, []string{"dir/d.yaml:1: <<: expected a mapping"}},
		"an alias within itself": {map[string]string{"d.yaml": "a: &a [*a]\n", "e.yaml": "b: &b {<<: *b}\n"}, []string{"dir/d.yaml:1: the alias", "dir/e.yaml:1: the alias"}},
		"a bomb of aliases":      {map[string]string{"d.yaml": bomb}, []string{"expected at most 2000000 values"}},
		"depth":                  {map[string]string{"d.yaml": "a: " + strings.Repeat("[", 70) + strings.Repeat("]", 70), "e.json": strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)}, []string{"dir/d.yaml:1: expected at most 64 lists", "dir/e.json:1: expected an object in JSON: expected at most 64 lists"}},
		"no UTF-8":               {map[string]string{"d.yaml": "a: \xff\n", "e.rego": "package \xff"}, []string{"dir/d.yaml: expected text in UTF-8", "dir/e.rego: expected text in UTF-8"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readData(c.texts)
			regotest.Wants(t, err, c.want...)
		})
	}
	_, errs := New("dir", []File{{Path: "a.json", Text: []byte("{}")}})
	regotest.Wants(t, errors.Join(errs...), "dir: expected policies in files *.rego, found none")
}

func TestRevisionFollowsAllFiles(t *testing.T) {
	files := []File{{Path: "a.rego", Text: []byte("ab")}, {Path: "b.rego", Text: []byte("c")}}
	known := map[string]bool{revision(files): true}
	for _, other := range [][]File{
		{{Path: "a.rego", Text: []byte("a")}, {Path: "b.rego", Text: []byte("bc")}},
		{{Path: "a.rego", Text: []byte("ab")}, {Path: "b_test.rego", Text: []byte("c")}},
		{{Path: "a.rego", Text: []byte("ab")}, {Path: "sub/b.rego", Text: []byte("c")}},
		files[:1],
	} {
		if r := revision(other); known[r] || len(r) != 12 {
			t.Errorf("%v: revision %q", other, r)
		} else {
			known[r] = true
		}
	}
}

// FuzzDocument reads anything as data. What it takes, Rego can hold, and YAML
// and JSON agree on it.
func FuzzDocument(f *testing.F) {
	f.Add("d.json", "{\"a\": [1, 2.5, null]}")
	f.Add("d.yaml", "a: &x {b: 1}\nc: *x\n<<: *x\n")
	f.Add("d.yaml", "<<: {}\n? {a: b}\n: c\n")
	f.Add("d.yaml", "a: &a [*a]\n")
	f.Add("d.yaml", "domains: {sms.example.com: [{service: a, prefixes: [\"44\"], attributes: {x: [1]}}]}\n")
	f.Add("d.json", "{\"domains\": {\"/a+/\": {\"service\": \"b\", \"priority\": -1}}}")
	f.Fuzz(func(t *testing.T, name, text string) {
		if !isData(name) {
			return
		}
		d, errs := readDocument(File{Path: name, Text: []byte(text)}, nil)
		if len(errs) > 0 {
			return
		}
		if _, err := ast.InterfaceToValue(d.value); err != nil {
			t.Fatalf("data that Rego can't hold: %v", err)
		}
		again, err := json.Marshal(d.value)
		if err != nil {
			t.Fatal(err)
		}
		same, errs := readDocument(File{Path: "d.json", Text: again}, nil)
		if len(errs) > 0 || !reflect.DeepEqual(same.value, d.value) {
			t.Errorf("%s\nis read again as %v, %v", again, same.value, errs)
		}
	})
}

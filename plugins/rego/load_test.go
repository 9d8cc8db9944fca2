package rego

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
)

// header begins a service that takes everything.
const header = `package imgate.services.a

match := {"domains": ["*"]}

`

// loaded loads policies of the given texts; a name without extension is a policy.
func loaded(t testing.TB, limit time.Duration, texts map[string]string) (*policy, error) {
	t.Helper()
	files := fstest.MapFS{}
	for name, text := range texts {
		if filepath.Ext(name) == "" {
			name += ".rego"
		}
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	p, errs := load(t.Context(), files, "dir", limit)
	return p, errors.Join(errs...)
}

func one(t testing.TB, rules string) (*policy, error) {
	t.Helper()
	return loaded(t, time.Second, map[string]string{"a": header + rules})
}

func mustLoad(t testing.TB, texts map[string]string) *policy {
	t.Helper()
	p, err := loaded(t, time.Second, texts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		texts map[string]string
		want  []string // in the error
	}{
		"no policy": {
			map[string]string{"a.json": `{}`},
			[]string{"dir: expected policies in files *.rego"},
		},
		"no service": {
			map[string]string{"a": "package lib\n\nx := 1\n"},
			[]string{"no service: expected a package imgate.services.NAME"},
		},
		"an empty file": {
			map[string]string{"a": ""},
			[]string{"dir/a.rego"},
		},
		"broken syntax in two files": {
			map[string]string{"a": header + "plan.store := := \"1h\"\n", "b": "package imgate.services.b\n\nmatch = }\n"},
			[]string{"dir/a.rego:5: ", "dir/b.rego:3: "},
		},
		"rego of version 0": {
			map[string]string{"a": header + "plan.store = \"1h\" { true }\n"},
			[]string{"dir/a.rego:5: "},
		},
		"an unsafe variable": {
			map[string]string{"a": header + "plan.store := x\n"},
			[]string{"dir/a.rego:5: "},
		},
		"an unused variable": {
			map[string]string{"a": header + "plan.store := \"1h\" if x := 1\n"},
			[]string{"dir/a.rego:5: "},
		},
		"a misspelt name of the question": {
			map[string]string{"a": header + "plan.store := \"1h\" if input.mesage.type == \"text/plain\"\n"},
			[]string{"dir/a.rego:5: input.mesage.type: there is no \"mesage\", expected one of message, peer, protocol, recipient, sender, time, transport"},
		},
		"a misspelt name deeper down": {
			map[string]string{"a": header + "plan.store := \"1h\" if input.message.typ == \"text/plain\"\n"},
			[]string{"dir/a.rego:5: ", "there is no \"typ\", expected one of class, expires, id, size, type"},
		},
		"a question of another type": {
			map[string]string{"a": header + "plan.store := \"1h\" if input.message.size == \"big\"\n"},
			[]string{"dir/a.rego:5: "},
		},
		"a misspelt attribute": {
			map[string]string{"a": header + "plan.procesing := \"deliver\"\n"},
			[]string{"dir/a.rego:5: plan.procesing: no such attribute, expected one of answer, answer_within, charging, labels, mime, processing, reason, retry, store, transports"},
		},
		"a misspelt attribute whose value isn't constant": {
			map[string]string{"a": header + "plan.procesing := x if x := input.peer\n"},
			[]string{"dir/a.rego:5: plan.procesing: no such attribute"},
		},
		"a misspelt part of charging": {
			map[string]string{"a": header + "plan.charging.acount := input.sender.account\n"},
			[]string{"dir/a.rego:5: plan.charging.\"acount\": no such attribute, expected one of account, destination, mode, unit_size"},
		},
		"a misspelt attribute in one document": {
			map[string]string{"a": header + "plan := {\"procesing\": \"deliver\"}\n"},
			[]string{"dir/a.rego:5: plan.procesing: no such attribute"},
		},
		"a constant outside its words": {
			map[string]string{"a": header + "plan.processing := \"delivr\"\n"},
			[]string{`dir/a.rego:5: plan.processing: expected one of ["deliver" "reject" "discard"], got "delivr"`},
		},
		"a constant behind else": {
			map[string]string{"a": header + "plan.answer := \"accepted\" if {\n\tinput.protocol == \"smpp\"\n} else := \"late\"\n"},
			[]string{"dir/a.rego:7: plan.answer: expected one of"},
		},
		"a default outside its words": {
			map[string]string{"a": header + "default plan.store := 3600\n\nplan.store := \"2h\" if input.recipient.local\n"},
			[]string{"dir/a.rego:5: plan.store: expected a duration from 1s to 720h0m0s with its unit"},
		},
		"a constant that only evaluation finds": {
			map[string]string{"a": header + "plan.answer := \"accepted\"\n\nplan.store := sprintf(\"%dh\", [1000])\n"},
			[]string{"dir/a.rego:7: plan.store: expected a duration from 1s to 720h0m0s"},
		},
		"constants that contradict each other": {
			map[string]string{"a": header + "plan.store := \"1h\"\n\nplan.store := \"2h\"\n"},
			[]string{"plan.store: dir/a.rego:", "eval_conflict_error"},
		},
		"a set for a list": {
			map[string]string{"a": header + "plan.transports contains \"sip\"\n"},
			[]string{"dir/a.rego:5: plan.transports: expected a value, not a set", `write plan.transports := ["…"]`},
		},
		"a function for an attribute": {
			map[string]string{"a": header + "plan.store(x) := x\n"},
			[]string{"dir/a.rego:5: plan: expected attributes, not a function"},
		},
		"an attribute with a computed name": {
			map[string]string{"a": header + "plan[name] := \"1h\" if some name in [\"store\"]\n"},
			[]string{"dir/a.rego:5: plan: expected the name of an attribute"},
		},
		"no plan, no match": {
			map[string]string{"a": "package imgate.services.a\n\nx := 1\n"},
			[]string{`service "a" has no plan`, `service "a" has no match`},
		},
		"two matches": {
			map[string]string{"a": header + "plan.store := \"1h\"\n", "b": header},
			[]string{`dir/b.rego:3: service "a" has a match already, at dir/a.rego:3`},
		},
		"a match in parts": {
			map[string]string{"a": "package imgate.services.a\n\nmatch.domains := [\"*\"]\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:3: expected one document, match := "},
		},
		"a match that depends on the message": {
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": [x]} if x := helper\n\nhelper := input.recipient.domain\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:3: match: expected a document that is the same for each message, dir/a.rego:5 reads the input"},
		},
		"an undefined match": {
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": data.domains}\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:3: match: expected a document, it is undefined"},
		},
		"a match with an unknown attribute": {
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domain\": \"*\"}\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:3: match.domain: no such attribute, expected one of domains, prefixes, priority"},
		},
		"a match of nothing": {
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"priority\": 1}\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:3: match: expected domains, prefixes or both"},
		},
		"a domain that is none": {
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": [\"sip.example.com\", \"a b\"]}\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:3: match.domains.1: expected \"sip.example.com\", \"*.example.com\", ", `got "a b"`},
		},
		"a package of ours that is no service": {
			map[string]string{"a": "package imgate.service.a\n\nx := 1\n", "b": "package imgate.services.a.b\n\nx := 1\n"},
			[]string{"dir/a.rego:1: expected package imgate.services.NAME", "dir/b.rego:1: expected package"},
		},
		"data that isn't an object": {
			map[string]string{"a": header + "plan.store := \"1h\"\n", "d.json": "[]", "e.yaml": "- 1\n"},
			[]string{"dir/d.json:1: expected an object in JSON", "dir/e.yaml: expected an object in YAML"},
		},
		"broken data": {
			map[string]string{"a": header + "plan.store := \"1h\"\n", "d.json": "{\n\"a\": 1,\n}", "e.yaml": "a: 1\na: 2\n", "f.json": "{}\n\n{}"},
			[]string{"dir/d.json:3: ", "dir/e.yaml: ", "line 2", "dir/f.json:3: expected one object"},
		},
		"data under a name that is taken": {
			map[string]string{"a": header + "plan.store := \"1h\"\n", "d.json": `{"x": 1}`, "e.yaml": "x: 1\n", "f.json": `{"imgate": {}}`},
			[]string{`dir/e.yaml: another data file has the name "x" too`, `dir/f.json: the name "imgate" is kept for policies`},
		},
		"a key in YAML that is no word": {
			map[string]string{"a": header + "plan.store := \"1h\"\n", "e.yaml": "<<: {}\n? {a: b}\n: c\n"},
			[]string{"dir/e.yaml:2: expected a plain word as a key"},
		},
		"data where a rule is": {
			map[string]string{"a": header + "plan.store := \"1h\"\n", "b": "package lib\n\nx := 1\n", "d.json": `{"lib": {"x": 1}}`},
			[]string{"dir/b.rego"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loaded(t, time.Second, c.texts)
			if err == nil {
				t.Fatal("it was loaded")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got\n%v\nwant in it\n%s", err, want)
				}
			}
		})
	}
}

func TestLoadReportsAllAtOnce(t *testing.T) {
	_, err := one(t, "plan.procesing := \"deliver\"\n\nplan.store := opa.runtime()\n\nplan.answer := http.send({})\n\nplan.retry := 5\n")
	if err == nil || strings.Count(err.Error(), "dir/a.rego:") != 4 {
		t.Errorf("got %v, want four errors", err)
	}
}

func TestBuiltinsOutsideTheListAreRefused(t *testing.T) {
	allowed, err := allowed()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, b := range allowed.Builtins {
		listed[b.Name] = true
	}
	for _, dangerous := range []string{
		"http.send", "opa.runtime", "net.lookup_ip_addr", "rand.intn", "time.now_ns", "uuid.rfc4122",
		"numbers.range", "bits.lsh", "net.cidr_expand", "io.jwt.decode", "crypto.x509.parse_certificates",
		"graph.reachable", "rego.parse_module", "trace",
	} {
		if listed[dangerous] {
			t.Errorf("%s is on the list", dangerous)
		}
	}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		if listed[b.Name] {
			if b.IsNondeterministic() {
				t.Errorf("%s is on the list and isn't pure", b.Name)
			}
			continue
		}
		args := strings.Repeat("null, ", len(b.Decl.FuncArgs().Args))
		_, err := one(t, fmt.Sprintf("plan.store := \"1h\" if %s(%s)\n", b.Name, strings.TrimSuffix(args, ", ")))
		if err == nil || !strings.Contains(err.Error(), "dir/a.rego:5: "+b.Name+" is not available to policies") {
			t.Errorf("%s: got %v", b.Name, err)
		}
	}
}

func TestNewFromDirectory(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openDir := func() (plugin.Policy, error) {
		return New(t.Context(), plugin.Env{Log: slog.New(slog.DiscardHandler)}, Config{Dir: dir, Deadline: time.Second})
	}
	write("a.rego", header+"plan.labels.tariff := data.tariff\n")
	write("tariff.yaml", "tariff: gold\n")
	write("a_test.rego", "this is no Rego")
	write(".hidden.rego", "nor is this")
	write("notes.txt", "nor this")
	if err := os.Mkdir(filepath.Join(dir, "old.rego"), 0o700); err != nil {
		t.Fatal(err)
	}
	first := decide(t, must(t, openDir))
	if first.Service != "a" || first.Labels["tariff"] != "gold" {
		t.Errorf("got %+v", first)
	}
	write("a_test.rego", "another test")
	if again := decide(t, must(t, openDir)); again.Revision != first.Revision {
		t.Errorf("a test changed the revision from %s to %s", first.Revision, again.Revision)
	}
	write("tariff.yaml", "tariff: silver\n")
	if again := decide(t, must(t, openDir)); again.Revision == first.Revision || again.Labels["tariff"] != "silver" {
		t.Errorf("changed data: got revision %s, %v", again.Revision, again.Labels)
	}
}

func must(t *testing.T, open func() (plugin.Policy, error)) plugin.Policy {
	t.Helper()
	p, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decide(t *testing.T, p plugin.Policy) plugin.Plan {
	t.Helper()
	plan, err := p.Decide(t.Context(), typical())
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestNewFromMissingDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	_, err := New(t.Context(), plugin.Env{}, Config{Dir: dir, Deadline: time.Second})
	if err == nil || !strings.Contains(err.Error(), dir+": no such file or directory") {
		t.Errorf("got %v", err)
	}
}

func TestConfig(t *testing.T) {
	if err := Plugin.NewConfig().Validate(); err != nil {
		t.Errorf("the defaults are invalid: %v", err)
	}
	for _, d := range []time.Duration{0, time.Microsecond, 2 * time.Second, -1} {
		err := Config{Deadline: d}.Validate()
		if key, ok := errors.AsType[*plugin.InvalidKey](err); !ok || key.Key != "deadline" {
			t.Errorf("deadline %s: got %v", d, err)
		}
	}
}

func TestData(t *testing.T) {
	p := mustLoad(t, map[string]string{
		"a":      header + "plan.labels[name] := sprintf(\"%v\", [value]) if some name, value in data.table\n",
		"d.yaml": "table: {number: 7, 44: uk, day: 2026-01-02, \"yes\": yes, size: 1.5}\n",
	})
	got := decide(t, p).Labels
	want := map[string]string{"number": "7", "44": "uk", "day": "2026-01-02", "yes": "yes", "size": "1.5"}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: got %q, want %q", name, got[name], value)
		}
	}
}

func FuzzParseData(f *testing.F) {
	f.Add("d.json", "{\"a\": [1, 2.5, null]}")
	f.Add("d.yaml", "a: &x {b: 1}\nc: *x\n<<: *x\n")
	f.Add("d.yaml", "<<: {}\n? {a: b}\n: c\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		document, err := parseData(file{path: name, text: []byte(text)})
		if err != nil {
			return
		}
		if _, err := ast.InterfaceToValue(document); err != nil {
			t.Errorf("data that Rego can't hold: %v", err)
		}
	})
}

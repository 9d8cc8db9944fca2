package decide

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/plugins/rego/source"
)

// loaded loads policies of the given texts; a name without extension is a policy.
func loaded(t testing.TB, limit time.Duration, texts map[string]string) (*Policy, error) {
	t.Helper()
	return loadedWith(t, limit, Environment{}, texts)
}

func loadedWith(t testing.TB, limit time.Duration, env Environment, texts map[string]string) (*Policy, error) {
	t.Helper()
	var files []source.File
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		path := name
		if filepath.Ext(name) == "" {
			path += ".rego"
		}
		files = append(files, source.File{Path: path, Text: []byte(texts[name])})
	}
	s, errs := source.New("dir", files)
	if len(s.Policies) == 0 {
		return nil, errors.Join(errs...)
	}
	p, loadErrs := Load(t.Context(), s, limit, env)
	return p, errors.Join(append(errs, loadErrs...)...)
}

func one(t testing.TB, rules string) (*Policy, error) {
	t.Helper()
	return loaded(t, time.Second, map[string]string{"a": regotest.Header + rules})
}

func mustLoad(t testing.TB, texts map[string]string) *Policy {
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
		"no service, but what looks like one": {
			map[string]string{"a": "package foo\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:1: package foo has a plan and is no service: expected package imgate.services.NAME"},
		},
		"an empty file": {
			map[string]string{"a": ""},
			[]string{"dir/a.rego: expected package imgate.services.NAME first, the file is empty"},
		},
		"broken syntax in two files": {
			map[string]string{"a": regotest.Header + "plan.store := := \"1h\"\n", "b": "package imgate.services.b\n\nmatch = }\n"},
			[]string{"dir/a.rego:5: ", "dir/b.rego:3: "},
		},
		"rego of version 0": {
			map[string]string{"a": regotest.Header + "plan.store = \"1h\" { true }\n"},
			[]string{"dir/a.rego:5: "},
		},
		"an unsafe variable": {
			map[string]string{"a": regotest.Header + "plan.store := x\n"},
			[]string{"dir/a.rego:5: "},
		},
		"an unused variable": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if x := 1\n"},
			[]string{"dir/a.rego:5: "},
		},
		"a misspelt name of the question": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if input.mesage.type == \"text/plain\"\n"},
			[]string{"dir/a.rego:5: input.mesage.type: there is no \"mesage\", expected one of clock, counters, match, message, peer, protocol, recipient, sender, time, transport"},
		},
		"a misspelt name deeper down": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if input.message.typ == \"text/plain\"\n"},
			[]string{"dir/a.rego:5: ", "there is no \"typ\", expected one of class, expires, id, inner, missing, segments, size, text, type"},
		},
		"a misspelt part of the row": {
			map[string]string{"a": regotest.Header + "plan.labels.x := input.match.atributes.x\n"},
			[]string{"dir/a.rego:5: ", "there is no \"atributes\", expected one of attributes, domain, prefix, priority"},
		},
		"a misspelt part of the clock": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if input.clock.hours > 21\n"},
			[]string{"dir/a.rego:5: ", "there is no \"hours\", expected one of date, hour, minute, time, weekday, zone"},
		},
		"a question of another type": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if input.message.size == \"big\"\n"},
			[]string{"dir/a.rego:5: "},
		},
		"a misspelt attribute": {
			map[string]string{"a": regotest.Header + "plan.procesing := \"deliver\"\n"},
			[]string{"dir/a.rego:5: plan.procesing: no such attribute, expected one of answer, answer_within, charging, devices, external_routing, fallback, forking, labels, mime, processing, reason, retry, rewrite, store, text, transports"},
		},
		"a misspelt attribute whose value isn't constant": {
			map[string]string{"a": regotest.Header + "plan.procesing := x if x := input.peer\n"},
			[]string{"dir/a.rego:5: plan.procesing: no such attribute"},
		},
		"a misspelt part of charging": {
			map[string]string{"a": regotest.Header + "plan.charging.acount := input.sender.account\n"},
			[]string{"dir/a.rego:5: plan.charging.acount: no such attribute, expected one of account, destination, mode, unit_size, units, when"},
		},
		"a misspelt attribute in one document": {
			map[string]string{"a": regotest.Header + "plan := {\"procesing\": \"deliver\"}\n"},
			[]string{"dir/a.rego:5: plan.procesing: no such attribute"},
		},
		"a constant outside its words": {
			map[string]string{"a": regotest.Header + "plan.processing := \"delivr\"\n"},
			[]string{`dir/a.rego:5: plan.processing: expected one of deliver, reject, discard, got "delivr"`},
		},
		"a constant behind else": {
			map[string]string{"a": regotest.Header + "plan.answer := \"accepted\" if {\n\tinput.protocol == \"smpp\"\n} else := \"late\"\n"},
			[]string{"dir/a.rego:7: plan.answer: expected one of"},
		},
		"a default outside its words": {
			map[string]string{"a": regotest.Header + "default plan.store := 3600\n\nplan.store := \"2h\" if input.recipient.local\n"},
			[]string{"dir/a.rego:5: plan.store: expected a duration from 0s to 720h with its unit"},
		},
		"a constant that only evaluation finds": {
			map[string]string{"a": regotest.Header + "plan.answer := \"accepted\"\n\nplan.store := sprintf(\"%dh\", [1000])\n"},
			[]string{"dir/a.rego:7: plan.store: expected a duration from 0s to 720h"},
		},
		"constants that contradict each other": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\"\n\nplan.store := \"2h\"\n"},
			[]string{`dir/a.rego:7: plan.store: two rules say different things: "1h" at dir/a.rego:5, "2h" at dir/a.rego:7`},
		},
		"a builtin that fails": {
			map[string]string{"a": regotest.Header + "plan.store := sprintf(\"%dh\", [1 / 0])\n"},
			[]string{"dir/a.rego:5: plan.store: div: divide by zero"},
		},
		"a text without quotes": {
			map[string]string{"a": regotest.Header + "plan.answer := accepted\n"},
			[]string{`dir/a.rego:5: var accepted is unsafe (a text needs quotes: "accepted")`},
		},
		"no package": {
			map[string]string{"a": "plan.store := \"1h\"\n"},
			[]string{"dir/a.rego:1: expected package imgate.services.NAME first"},
		},
		"no list of domains": {
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": \"a.example.com\"}\n\nplan.store := \"1h\"\n"},
			[]string{`dir/a.rego:3: match.domains: expected a list such as ["sip.example.com"], got "a.example.com"`},
		},
		"a domain with an empty part": {
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": [\"a_b..com\"]}\n\nplan.store := \"1h\"\n"},
			[]string{`dir/a.rego:3: match.domains.0: expected "sip.example.com"`, `got "a_b..com"`},
		},
		"a set for a list": {
			map[string]string{"a": regotest.Header + "plan.transports contains \"sip\"\n"},
			[]string{"dir/a.rego:5: plan.transports: expected a value, not a set", `write plan.transports := ["…"]`},
		},
		"a function for an attribute": {
			map[string]string{"a": regotest.Header + "plan.store(x) := x\n"},
			[]string{"dir/a.rego:5: plan: expected attributes, not a function"},
		},
		"an attribute with a computed name": {
			map[string]string{"a": regotest.Header + "plan[name] := \"1h\" if some name in [\"store\"]\n"},
			[]string{"dir/a.rego:5: plan: expected the name of an attribute"},
		},
		"no plan, no match": {
			map[string]string{"a": "package imgate.services.a\n\nx := 1\n"},
			[]string{`dir/a.rego:1: service "a" has no plan`},
		},
		"two matches": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\"\n", "b": regotest.Header},
			[]string{`dir/b.rego:3: service "a" has match already, at dir/a.rego:3`},
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
			map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": data.elsewhere}\n\nplan.store := \"1h\"\n"},
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
		"no match and no row": {
			map[string]string{"a": "package imgate.services.a\n\nplan.store := \"1h\"\n"},
			[]string{`dir/a.rego:1: service "a" has no match, and no row of a data file names it: expected match := {"domains"`},
		},
		"rows looked for in data": {
			map[string]string{"a": regotest.Header + "import data.domains\n\nplan.store := \"1h\"\n", "b": "package lib\n\nx := data.domains[\"a\"]\n"},
			[]string{"dir/a.rego:5: data.domains is not there", "dir/b.rego:3: data.domains is not there for policies: the row that matched is input.match"},
		},
		"a row for nobody": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\"\n", "d.yaml": "x: 1\ndomains:\n  x.example.com: {service: b}\n"},
			[]string{`dir/d.yaml:3: x.example.com: there is no service "b", expected one of a`},
		},
		"a misspelt part of retry": {
			map[string]string{"a": regotest.Header + "plan.retry.backof := [input.peer]\n"},
			[]string{"dir/a.rego:5: plan.retry.backof: no such attribute, expected one of attempts, backoff, reasons, unknown"},
		},
		"a part of what has none": {
			map[string]string{"a": regotest.Header + "plan.store.long := input.peer\n", "b": "package lib\n\nx := 1\n"},
			[]string{`dir/a.rego:5: plan.store: expected a value, which has no part "long"`},
		},
		"a part of a part of a table": {
			map[string]string{"a": regotest.Header + "plan.labels.a.b := input.peer\n"},
			[]string{`dir/a.rego:5: plan.labels: expected a value, which has no part "b"`},
		},
		"a label with no name": {
			map[string]string{"a": regotest.Header + "plan.labels[\"\"] := input.peer\n"},
			[]string{"dir/a.rego:5: plan.labels: expected a name, got \"\""},
		},
		"external routing that nobody pays for": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\"\n\nplan.external_routing := true\n"},
			[]string{"dir/a.rego:7: plan.external_routing: the authorisation says where it goes, hence it needs a charging.mode other than none"},
		},
		"no way to deliver": {
			map[string]string{"a": regotest.Header + "plan.transports := []\n"},
			[]string{"dir/a.rego:5: plan.transports: expected at least one, or external_routing"},
		},
		"asking for what there isn't": {
			map[string]string{"a": regotest.Header + "asks := [\"body\"]\n\nplan.store := \"1h\"\n"},
			[]string{`dir/a.rego:5: asks.0: expected one of text, got "body"`},
		},
		"the text without asking": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if {\n\tinput.recipient.local\n\tinput.message.text == \"STOP\"\n}\n"},
			[]string{`dir/a.rego:7: input.message.text: service "a" doesn't ask for the text: write asks := ["text"]`},
		},
		"the text without asking, in a library": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if data.lib.stops\n", "l": "package lib\n\nstops if input.message.text == \"STOP\"\n"},
			[]string{`dir/l.rego:3: input.message.text: service "a" doesn't ask for the text`},
		},
		"a counter without limits": {
			map[string]string{"a": regotest.Header + "plan.store := \"1h\" if input.counters.x > 1\n"},
			[]string{`dir/a.rego:5: input.counters.x: service "a" declares no limits: write limits := `},
		},
		"a counter of no limit": {
			map[string]string{"a": regotest.Header + "limits := {\"y\": {\"per\": \"1m\"}, \"z\": {\"per\": \"1m\"}}\n\nplan.store := \"1h\" if input.counters.x > 1\n"},
			[]string{`dir/a.rego:7: input.counters.x: service "a" has no such limit, expected one of y, z`},
		},
		"two pieces of limits": {
			map[string]string{"a": regotest.Header + "limits.x := {\"per\": \"1m\"}\n\nplan.store := \"1h\"\n"},
			[]string{"dir/a.rego:5: expected one document, limits := "},
		},
		"a package of ours that is no service": {
			map[string]string{"a": "package imgate.service.a\n\nx := 1\n", "b": "package imgate.services.a.b\n\nx := 1\n"},
			[]string{"dir/a.rego:1: expected package imgate.services.NAME", "dir/b.rego:1: expected package"},
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

// TestLoadReportsOnce: one mistake is one error.
func TestLoadReportsOnce(t *testing.T) {
	for name, texts := range map[string]map[string]string{
		"a syntax error": {"a": regotest.Header + "plan.store := := 3\n"},
		"a row for nobody, and so a service without one": {
			"a": "package imgate.services.sms\n\nplan.store := \"1h\"\n", "d.yaml": "domains: {a.example.com: {service: smss}}\n",
		},
	} {
		_, err := loaded(t, time.Second, texts)
		if err == nil || strings.Count(err.Error(), "dir/") != 1 {
			t.Errorf("%s: got %v, want one error", name, err)
		}
	}
}

// TestLoadIsGivenUp: the reason is ours, and not what OPA calls it.
func TestLoadIsGivenUp(t *testing.T) {
	rules := "package imgate.services.a\n\nmatch := {\"domains\": [\"*\"], \"priority\": count([1 | some a in data.big; some b in data.big; a + b == 0])}\n\nplan.store := \"1h\"\n"
	big := `{"big": [` + strings.Repeat("1,", 9_999) + "1]}"
	s, errs := source.New("dir", []source.File{{Path: "a.rego", Text: []byte(rules)}, {Path: "d.json", Text: []byte(big)}})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stopped"))
	_, loadErrs := Load(ctx, s, time.Second, Environment{})
	regotest.Wants(t, errors.Join(append(errs, loadErrs...)...), "dir/a.rego:3: match: stopped")
}

func TestLoadReportsAllAtOnce(t *testing.T) {
	_, err := one(t, "plan.procesing := \"deliver\"\n\nplan.store := opa.runtime()\n\nplan.answer := http.send({})\n\nplan.labels := 5\n")
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

func decide(t *testing.T, p plugin.Policy) plugin.Plan {
	t.Helper()
	plan, err := p.Decide(t.Context(), regotest.Typical(), plugin.Given{})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

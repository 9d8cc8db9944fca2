package decide

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/match"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/policies"
)

// full is a question with everything in it.
func full() plugin.Question {
	q := regotest.Typical()
	expires, text := 3600, "hello \u00e4\n"
	q.Message.Expires, q.Message.Text, q.Message.Segments, q.Message.Missing = &expires, &text, 2, 1
	q.Sender.Number, q.Sender.Local = "+447700900001", true
	q.Sender.Attributes = map[string]string{"b": "2", "a": "\u00e4\n", "": "empty"}
	q.Recipient.Account, q.Recipient.Attributes = "1002", map[string]string{"language": "de"}
	q.Clock = plugin.ClockAt(q.Time, time.FixedZone("Somewhere/Else", 3600))
	q.Counters = map[string]int{"per_sender": 7, "per_peer": 0}
	return q
}

// taken is a claim as a data file would make it.
func taken(t testing.TB) *match.Claim {
	t.Helper()
	d, err := match.ParseDomain("*.Example.com")
	if err != nil {
		t.Fatal(err)
	}
	return &match.Claim{Prefix: "44", Row: &match.Row{Domain: d, Priority: 3, Attributes: ast.NewTerm(regotest.Value(t, `{"tariff": "gold", "list": [1, {"a": null}]}`))}}
}

// asJSON is the document input as JSON would make it.
func asJSON(t testing.TB, m *matter) ast.Value {
	t.Helper()
	text, err := json.Marshal(m.Question)
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	row, err := ast.JSON(m.claim.Attributes.Value)
	if err != nil {
		t.Fatal(err)
	}
	document["match"] = map[string]any{
		"domain": m.claim.Domain.Text, "prefix": m.claim.Prefix, "priority": m.claim.Priority, "attributes": row,
	}
	if text, err = json.Marshal(document); err != nil {
		t.Fatal(err)
	}
	return regotest.Value(t, string(text))
}

func TestInputIsTheQuestionsJSON(t *testing.T) {
	empty := plugin.Question{
		Sender:    plugin.QuestionSender{Attributes: map[string]string{}},
		Recipient: plugin.QuestionRecipient{Attributes: map[string]string{}},
		Counters:  map[string]int{},
	}
	for _, q := range []plugin.Question{empty, full()} {
		m := matter{Question: &q, claim: taken(t)}
		if got, want := wholeInput.input(&m), asJSON(t, &m); got.Compare(want) != 0 {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
	if got := attributesTerm(nil); got.Value.Compare(ast.NewObject()) != 0 {
		t.Errorf("no attributes: got %v, want an empty object", got)
	}
}

// TestInputIsTheSchemas wants the fields to be those that the type checker knows.
func TestInputIsTheSchemas(t *testing.T) {
	text, err := policies.Files.ReadFile(policies.QuestionSchema)
	if err != nil {
		t.Fatal(err)
	}
	var schema property
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	sameFields(t, wholeInput, schema)
}

func sameFields(t *testing.T, f field, schema property) {
	t.Helper()
	have := map[string]field{}
	for _, part := range f.fields {
		have[part.name] = part
	}
	if got, want := words(slices.Sorted(maps.Keys(have))), words(slices.Sorted(maps.Keys(schema.Properties))); got != want {
		t.Errorf("%s: the input has %s, the schema %s", f.name, got, want)
	}
	for name, part := range have {
		sameFields(t, part, schema.Properties[name])
	}
}

// TestOnlyWhatIsReadIsBuilt compares what a policy reads of the whole input and
// of the one that is built for it.
func TestOnlyWhatIsReadIsBuilt(t *testing.T) {
	q := full()
	m := matter{Question: &q, claim: taken(t)}
	whole := wholeInput.input(&m)
	for _, c := range []struct {
		paths []string
		want  string // nil: all
	}{
		{[]string{"message.class"}, `{"message": {"class": "text"}}`},
		{[]string{"message.class", "transport"}, `{"message": {"class": "text"}, "transport": "sip"}`},
		{[]string{"sender.attributes.b"}, `{"sender": {"attributes": {"b": "2", "a": "\u00e4\n", "": "empty"}}}`},
		{[]string{"match.attributes.tariff", "match.prefix"}, `{"match": {"prefix": "44", "attributes": {"tariff": "gold", "list": [1, {"a": null}]}}}`},
		{[]string{"counters"}, `{"counters": {"per_sender": 7, "per_peer": 0}}`},
		{[]string{"clock"}, `{"clock": {"zone": "Somewhere/Else", "date": "2026-01-02", "time": "04:04:05", "weekday": "friday", "hour": 4, "minute": 4}}`},
		{[]string{"messages"}, `{}`},
		{nil, `{}`},
		{[]string{"", "peer"}, ""},
	} {
		paths := map[string]bool{}
		for _, p := range c.paths {
			paths[p] = true
		}
		want := whole
		if c.want != "" {
			want = regotest.Value(t, c.want)
		}
		if got := wholeInput.read(paths).input(&m); got.Compare(want) != 0 {
			t.Errorf("%v: got %v\nwant %v", c.paths, got, want)
		}
	}
}

// TestPoliciesReadWhatTheyNeed looks at the paths that rules are found to read.
func TestPoliciesReadWhatTheyNeed(t *testing.T) {
	for rules, want := range map[string]string{
		"plan.store := \"2h\" if input.message.class == \"text\"\n":                            "message.class",
		"plan.labels.x := sprintf(\"%v\", [input])\n":                                          "",
		"plan.labels.x := sprintf(\"%v\", [x]) if x := input\n":                                "",
		"plan.labels.x := \"y\" if { some k; input[k] == \"sip\" }\n":                          "",
		"plan.labels.x := f(input.sender)\n\nf(s) := s.user\n":                                 "sender",
		"plan.labels.x := data.imgate.services.a.help\n\nhelp := input.peer\n":                 "peer",
		"plan.labels.x := data.lib[y] if y := input.sender.user\n":                             "message.id, sender.user",
		"plan.labels.x := input.match.attributes.tariff\n":                                     "match.attributes.tariff",
		"plan.store := \"2h\" if { \"a\" in [x | some x in input.sender.attributes] }\n":       "sender.attributes",
		"plan.store := \"2h\" if { every x in input.sender.attributes { x == input.peer } }\n": "peer, sender.attributes",
		"plan.labels.x := $\"{input.peer}\"\n":                                                 "peer",
		"plan.labels.x := \"y\" if object.get(input, [\"recipient\", \"local\"], false)\n":     "",
	} {
		p := mustLoad(t, map[string]string{"a": regotest.Header + rules, "lib": "package lib\n\nx := input.message.id\n"})
		if got := words(slices.Sorted(maps.Keys(p.services[0].paths))); got != want {
			t.Errorf("%sreads %q, want %q", rules, got, want)
		}
	}
}

func TestInputPath(t *testing.T) {
	for text, want := range map[string]string{
		"input": "", "input.message.class": "message.class", "input.message[x]": "message", `input["message"].class`: "message.class",
	} {
		if got := inputPath(ast.MustParseRef(text)); got != want {
			t.Errorf("inputPath(%s) = %q, want %q", text, got, want)
		}
	}
}

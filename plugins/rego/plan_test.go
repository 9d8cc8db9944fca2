package rego

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/policies"
)

func value(t testing.TB, text string) ast.Value {
	t.Helper()
	v, err := ast.ValueFromReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDecodePlan(t *testing.T) {
	got, err := decodePlan(value(t, `{
		"processing": "reject", "reason": "blocked", "transports": ["sip", "smpp-vendor"],
		"mime": {"sip": ["text/plain", "Text/HTML"], "smpp": []},
		"charging": {"mode": "event", "account": "1001", "destination": "on-net", "unit_size": 160},
		"store": "720h", "answer": "accepted", "answer_within": "1.5s",
		"retry": ["1s", "1m30s"], "labels": {"team": "größe", "empty": ""}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := plugin.Plan{
		Processing: plugin.Reject, Reason: message.Blocked, Transports: []string{"sip", "smpp-vendor"},
		MIME:     map[string][]string{"sip": {"text/plain", "text/html"}, "smpp": {}},
		Charging: plugin.PlanCharging{Mode: plugin.ChargeEvent, Account: "1001", Destination: "on-net", UnitSize: 160},
		Store:    plugin.MaxStore, Answer: plugin.AnswerAccepted, Within: 1500 * time.Millisecond,
		Retry: []time.Duration{time.Second, 90 * time.Second}, Labels: map[string]string{"team": "größe", "empty": ""},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodePlanRefuses(t *testing.T) {
	many := func(n int, format string) string {
		entries := make([]string, n)
		for i := range entries {
			entries[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(entries, ",")
	}
	for document, want := range map[string]string{
		`[]`:                         "plan: expected an object, got a value of type array",
		`"deliver"`:                  `plan: expected an object, got "deliver"`,
		`{"procesing": "deliver"}`:   "plan.procesing: no such attribute, expected one of answer,",
		`{"processing": 1}`:          "plan.processing: expected one of",
		`{"processing": null}`:       "got null",
		`{"reason": "internal"}`:     "plan.reason: expected one of",
		`{"transports": "sip"}`:      `plan.transports: expected a list of at most 64, got "sip"`,
		`{"transports": [""]}`:       `plan.transports.0: expected a name, got ""`,
		`{"transports": ["a", 1]}`:   "plan.transports.1: expected text of at most 64 octets",
		`{"transports": ["a\r\nb"]}`: "plan.transports.0: expected text",
		`{"mime": ["text/plain"]}`:   "plan.mime: expected an object of at most 64 entries",
		`{"mime": {"": []}}`:         "expected a name",
		`{"mime": {"sip": ["text"]}}`: `plan.mime.sip.0: expected a MIME type without parameters, ` +
			`such as "text/plain", got "text"`,
		`{"mime": {"sip": ["text/*"]}}`:                         "plan.mime.sip.0",
		`{"mime": {"sip": ["text/plain;charset=utf-8"]}}`:       "plan.mime.sip.0",
		`{"mime": {"sip": ["/plain"]}}`:                         "plan.mime.sip.0",
		`{"mime": {"sip": ["a/b/c"]}}`:                          "plan.mime.sip.0",
		`{"charging": "event"}`:                                 "plan.charging: expected an object",
		`{"charging": {"mode": "monthly"}}`:                     `plan.charging.mode: expected one of ["none" "event"]`,
		`{"charging": {"unit_size": -1}}`:                       "plan.charging.unit_size: expected a whole number from 0 to 1048576, got -1",
		`{"charging": {"unit_size": 1.5}}`:                      "plan.charging.unit_size: expected a whole number",
		`{"charging": {"unit_size": 1e999}}`:                    "plan.charging.unit_size: expected a whole number",
		`{"charging": {"price": 1}}`:                            "plan.charging.price: no such attribute",
		`{"charging": {"account": true}}`:                       "plan.charging.account: expected text",
		`{"store": 3600}`:                                       "plan.store: expected a duration from 1s to 720h0m0s with its unit",
		`{"store": "3600"}`:                                     "plan.store: expected a duration",
		`{"store": "721h"}`:                                     "plan.store: expected a duration",
		`{"store": "0s"}`:                                       "plan.store: expected a duration",
		`{"store": "-1h"}`:                                      "plan.store: expected a duration",
		`{"answer": "later"}`:                                   "plan.answer: expected one of",
		`{"answer_within": "16s"}`:                              "plan.answer_within: expected a duration from 1ms to 15s",
		`{"retry": "5s"}`:                                       "plan.retry: expected a list of at most 32",
		`{"retry": ["100ms"]}`:                                  "plan.retry.0: expected a duration from 1s",
		`{"retry": [` + many(33, `"%ds"`) + `]}`:                "plan.retry: expected a list of at most 32",
		`{"transports": [` + many(65, `"%d"`) + `]}`:            "plan.transports: expected a list",
		`{"labels": {` + many(65, `"%d": ""`) + `}}`:            "plan.labels: expected an object of at most 64",
		`{"labels": {"a": "` + strings.Repeat("x", 257) + `"}}`: "plan.labels.a: expected text of at most 256 octets",
		`{"labels": {"a": {}}}`:                                 "plan.labels.a: expected text of at most 256 octets without control characters, got a value of type object",
	} {
		_, err := decodePlan(value(t, document))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s\ngot  %v\nwant %s", document, err, want)
		}
	}
}

func TestPlanAttributesAreThoseOfTheSchema(t *testing.T) {
	text, err := policies.Files.ReadFile(policies.PlanSchema)
	if err != nil {
		t.Fatal(err)
	}
	type property struct {
		Enum       []string
		Properties map[string]property
	}
	var schema property
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	same := func(what string, got, want []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: the decoder knows %q, the schema %q", what, got, want)
		}
	}
	charging := schema.Properties["charging"].Properties
	same("plan", slices.Sorted(maps.Keys(planAttributes)), slices.Sorted(maps.Keys(schema.Properties)))
	same("charging", slices.Sorted(maps.Keys(chargingAttributes)), slices.Sorted(maps.Keys(charging)))
	same("processing", words(processings), schema.Properties["processing"].Enum)
	same("reason", words(reasons), schema.Properties["reason"].Enum)
	same("answer", words(answers), schema.Properties["answer"].Enum)
	same("mode", words(chargingModes), charging["mode"].Enum)
}

func words[S ~string](of []S) []string {
	var all []string
	for _, w := range of {
		all = append(all, string(w))
	}
	return all
}

func FuzzDecodePlan(f *testing.F) {
	f.Add(`{"processing": "deliver", "mime": {"sip": ["a/b"]}, "retry": ["1s"], "charging": {"unit_size": 1}}`)
	f.Add(`{"store": "1h", "answer_within": "1s", "labels": {"a": "b"}, "transports": ["sip"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ast.ValueFromReader(strings.NewReader(text))
		if err != nil {
			return
		}
		p, err := decodePlan(v)
		if err != nil {
			return
		}
		p = p.WithDefaults()
		if p.Store > plugin.MaxStore || p.Within > plugin.MaxWithin || len(p.Retry) > plugin.MaxRetries ||
			slices.Min(p.Retry) < plugin.MinRetry || !slices.Contains(processings, p.Processing) {
			t.Errorf("a plan outside its limits: %+v", p)
		}
	})
}

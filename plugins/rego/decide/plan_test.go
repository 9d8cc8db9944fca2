package decide

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
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/policies"
)

func TestDecodePlan(t *testing.T) {
	got, err := decodePlan(regotest.Value(t, `{
		"processing": "reject", "reason": "blocked", "transports": ["sip", "smpp-vendor"],
		"mime": {"sip": ["text/plain", "Text/HTML"], "smpp": []},
		"charging": {"mode": "event", "when": "delivery", "account": "1001", "destination": "on-net", "unit_size": 160, "units": 3},
		"external_routing": true,
		"store": "0s", "forking": "sequential", "devices": "all", "answer": "accepted", "answer_within": "1.5s",
		"retry": {"attempts": 5, "backoff": ["1s", "1m30s"], "reasons": ["busy", "no-answer"], "unknown": "fallback"},
		"fallback": {"transports": ["backup"], "reasons": ["undelivered"], "sender": "100@SMS.example.com"},
		"rewrite": {"sender": "+447700900000", "recipient": ""},
		"text": {"alphabets": ["gsm7", "gsm7-national", "latin1", "ucs2"], "transliterate": "always"},
		"labels": {"team": "größe", "empty": ""}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := plugin.Plan{
		Processing: plugin.Reject, Reason: message.Blocked, Transports: []string{"sip", "smpp-vendor"},
		MIME: map[string][]string{"sip": {"text/plain", "text/html"}, "smpp": {}},
		Charging: plugin.PlanCharging{
			Mode: plugin.ChargeEvent, When: plugin.OnDelivery, Account: "1001", Destination: "on-net", UnitSize: 160, Units: 3,
		},
		ExternalRouting: true,
		Forking:         plugin.ForkSequential, Devices: plugin.AllDevices,
		Answer: plugin.AnswerAccepted, Within: 1500 * time.Millisecond,
		Retry: plugin.PlanRetry{
			Attempts: 5, Backoff: []time.Duration{time.Second, 90 * time.Second},
			Reasons: []message.Reason{message.Busy, message.NoAnswer}, Unknown: plugin.UnknownFallback,
		},
		Fallback: plugin.PlanFallback{
			Transports: []string{"backup"}, Reasons: []message.Reason{message.Undelivered},
			Sender: message.Address{User: "100", Host: "sms.example.com"},
		},
		Rewrite: plugin.PlanRewrite{Sender: message.Address{User: "+447700900000"}},
		Text: plugin.PlanText{
			Alphabets: []plugin.Alphabet{plugin.GSM7, plugin.GSM7National, plugin.Latin1, plugin.UCS2}, Transliterate: plugin.TransliterateAlways,
		},
		Labels: map[string]string{"team": "größe", "empty": ""},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodePlanFillsIn(t *testing.T) {
	for document, change := range map[string]func(*plugin.Plan){
		`{}`:                                   func(*plugin.Plan) {},
		`{"charging": {"mode": "event"}}`:      func(p *plugin.Plan) { p.Charging.Mode = plugin.ChargeEvent },
		`{"retry": {"attempts": 1}}`:           func(p *plugin.Plan) { p.Retry.Attempts = 1 },
		`{"retry": {}, "fallback": {}}`:        func(*plugin.Plan) {},
		`{"text": {"alphabets": []}}`:          func(p *plugin.Plan) { p.Text.Alphabets = []plugin.Alphabet{} },
		`{"text": {"transliterate": "never"}}`: func(p *plugin.Plan) { p.Text.Transliterate = plugin.TransliterateNever },
		`{"reason": "incomplete"}`:             func(p *plugin.Plan) { p.Reason = message.Incomplete },
		`{"forking": "sequential"}`:            func(p *plugin.Plan) { p.Forking = plugin.ForkSequential },
		`{"devices": "all"}`:                   func(p *plugin.Plan) { p.Devices = plugin.AllDevices },
		`{"store": "720h"}`:                    func(p *plugin.Plan) { p.Store = plugin.MaxStore },
		`{"retry": {"reasons": []}}`:           func(p *plugin.Plan) { p.Retry.Reasons = []message.Reason{} },
		`{"rewrite": {"sender": "1@a.b"}}`:     func(p *plugin.Plan) { p.Rewrite.Sender = message.Address{User: "1", Host: "a.b"} },
		`{"processing": "discard", "transports": []}`: func(p *plugin.Plan) {
			p.Processing, p.Transports = plugin.Discard, []string{}
		},
	} {
		want := plugin.DefaultPlan()
		change(&want)
		if got, err := decodePlan(regotest.Value(t, document)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", document, err, got, want)
		}
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
		`{"transports": "sip"}`:      `plan.transports: expected a list such as ["sip"], got "sip"`,
		`{"transports": [""]}`:       `plan.transports.0: expected a name, got ""`,
		`{"transports": ["a", 1]}`:   "plan.transports.1: expected text of at most 64 octets",
		`{"transports": ["a\r\nb"]}`: "plan.transports.0: expected text",
		`{"mime": ["text/plain"]}`:   "plan.mime: expected an object of at most 64 entries",
		`{"mime": {"": []}}`:         "expected a name",
		`{"mime": {"sip": ["text"]}}`: `plan.mime.sip.0: expected a MIME type without parameters, ` +
			`such as "text/plain", got "text"`,
		`{"mime": {"sip": ["text/*"]}}`:                                     "plan.mime.sip.0",
		`{"mime": {"sip": ["text/plain;charset=utf-8"]}}`:                   "plan.mime.sip.0",
		`{"mime": {"sip": ["/plain"]}}`:                                     "plan.mime.sip.0",
		`{"mime": {"sip": ["a/b/c"]}}`:                                      "plan.mime.sip.0",
		`{"charging": "event"}`:                                             "plan.charging: expected an object",
		`{"charging": {"mode": "monthly"}}`:                                 `plan.charging.mode: expected one of none, event`,
		`{"charging": {"unit_size": -1}}`:                                   "plan.charging.unit_size: expected a whole number from 0 to 1048576, got -1",
		`{"charging": {"unit_size": 1.5}}`:                                  "plan.charging.unit_size: expected a whole number",
		`{"charging": {"unit_size": 1e999}}`:                                "plan.charging.unit_size: expected a whole number",
		`{"charging": {"price": 1}}`:                                        "plan.charging.price: no such attribute",
		`{"charging": {"account": true}}`:                                   "plan.charging.account: expected text",
		`{"store": 3600}`:                                                   "plan.store: expected a duration from 0s to 720h with its unit",
		`{"store": "3600"}`:                                                 "plan.store: expected a duration",
		`{"store": "721h"}`:                                                 "plan.store: expected a duration",
		`{"store": "-1h"}`:                                                  "plan.store: expected a duration",
		`{"forking": "all"}`:                                                `plan.forking: expected one of parallel, sequential, got "all"`,
		`{"forking": ["parallel"]}`:                                         "plan.forking: expected one of parallel, sequential",
		`{"devices": "some"}`:                                               `plan.devices: expected one of any, all, got "some"`,
		`{"devices": 2}`:                                                    "plan.devices: expected one of any, all",
		`{"answer": "later"}`:                                               "plan.answer: expected one of",
		`{"answer_within": "16s"}`:                                          "plan.answer_within: expected a duration from 1ms to 15s",
		`{"retry": ["5s"]}`:                                                 "plan.retry: expected an object",
		`{"retry": {"backoff": "5s"}}`:                                      `plan.retry.backoff: expected a list such as ["30s", "5m"], got "5s"`,
		`{"retry": {"backoff": ["100ms"]}}`:                                 "plan.retry.backoff.0: expected a duration from 1s",
		`{"retry": {"backoff": [` + many(33, `"%ds"`) + `]}}`:               "plan.retry.backoff: expected a list of at most 32",
		`{"retry": {"backoff": []}}`:                                        "plan.retry.backoff: expected at least one pause",
		`{"retry": {"attempts": 1001}}`:                                     "plan.retry.attempts: expected a whole number from 0 to 1000, got 1001",
		`{"retry": {"reasons": ["blocked"]}}`:                               "plan.retry.reasons.0: expected one of unavailable, no-answer,",
		`{"retry": {"unknown": "maybe"}}`:                                   `plan.retry.unknown: expected one of retry, fallback, fail, got "maybe"`,
		`{"retry": {"pauses": []}}`:                                         "plan.retry.pauses: no such attribute, expected one of attempts, backoff, reasons, unknown",
		`{"fallback": {"transport": "x"}}`:                                  "plan.fallback.transport: no such attribute, expected one of reasons, sender, transports",
		`{"fallback": {"sender": "@x"}}`:                                    `plan.fallback.sender: expected an address, such as "100@sip.example.com", or a number, got "@x"`,
		`{"rewrite": {"sender": "a@b@c"}}`:                                  "plan.rewrite.sender: expected an address",
		`{"rewrite": {"sender": "sip:1@b.c"}}`:                              "plan.rewrite.sender: expected an address",
		`{"rewrite": {"sender": "a@"}}`:                                     "plan.rewrite.sender: expected an address",
		`{"rewrite": {"sender": "a@b c"}}`:                                  "plan.rewrite.sender: expected an address",
		`{"rewrite": {"sender": "a\r\n"}}`:                                  "plan.rewrite.sender: expected an address",
		`{"rewrite": {"sender": 44}}`:                                       "plan.rewrite.sender: expected an address",
		`{"rewrite": {"to": "1"}}`:                                          "plan.rewrite.to: no such attribute, expected one of recipient, sender",
		`{"text": {"alphabets": "gsm7"}}`:                                   `plan.text.alphabets: expected a list such as ["gsm7", "ucs2"], got "gsm7"`,
		`{"text": {"alphabets": ["ucs-2"]}}`:                                `plan.text.alphabets.0: expected one of gsm7, gsm7-national, latin1, ucs2, got "ucs-2"`,
		`{"text": {"alphabets": ["ucs2", "ucs2", "ucs2", "ucs2", "ucs2"]}}`: "plan.text.alphabets: expected a list of at most 4",
		`{"text": {"transliterate": true}}`:                                 "plan.text.transliterate: expected one of configured, never, always, got true",
		`{"text": {"alphabet": "gsm7"}}`:                                    "plan.text.alphabet: no such attribute, expected one of alphabets, transliterate",
		`{"charging": {"when": "never"}}`:                                   "plan.charging.when: expected one of acceptance, handover, delivery",
		`{"charging": {"units": 1001}}`:                                     "plan.charging.units: expected a whole number from 0 to 1000",
		`{"external_routing": "yes"}`:                                       "plan.external_routing: expected true or false",
		`{"external_routing": true}`:                                        "plan.external_routing: the authorisation says where it goes",
		`{"transports": []}`:                                                "plan.transports: expected at least one",
		`{"transports": [` + many(65, `"%d"`) + `]}`:                        "plan.transports: expected a list",
		`{"labels": {` + many(65, `"%d": ""`) + `}}`:                        "plan.labels: expected an object of at most 64",
		`{"labels": {"a": "` + strings.Repeat("x", 257) + `"}}`:             "plan.labels.a: expected text of at most 256 octets",
		`{"labels": {"a": {}}}`:                                             "plan.labels.a: expected text of at most 256 octets without control characters, got a value of type object",
	} {
		_, err := decodePlan(regotest.Value(t, document))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s\ngot  %v\nwant %s", document, err, want)
		}
	}
}

type property struct {
	Enum       []string
	Items      *property
	Properties map[string]property
}

func TestPlanAttributesAreThoseOfTheSchema(t *testing.T) {
	text, err := policies.Files.ReadFile(policies.PlanSchema)
	if err != nil {
		t.Fatal(err)
	}
	var schema property
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	same := func(what, got string, want []string) {
		t.Helper()
		if got != words(want) {
			t.Errorf("%s: the decoder knows %s, the schema %s", what, got, words(want))
		}
	}
	sub := func(name string) map[string]property { return schema.Properties[name].Properties }
	same("plan", planAttributes.String(), slices.Sorted(maps.Keys(schema.Properties)))
	same("charging", chargingAttributes.String(), slices.Sorted(maps.Keys(sub("charging"))))
	same("retry", retryAttributes.String(), slices.Sorted(maps.Keys(sub("retry"))))
	same("fallback", fallbackAttributes.String(), slices.Sorted(maps.Keys(sub("fallback"))))
	same("rewrite", rewriteAttributes.String(), slices.Sorted(maps.Keys(sub("rewrite"))))
	same("processing", words(processings), schema.Properties["processing"].Enum)
	same("reason", words(refusals), schema.Properties["reason"].Enum)
	same("answer", words(answers), schema.Properties["answer"].Enum)
	same("mode", words(chargingModes), sub("charging")["mode"].Enum)
	same("when", words(chargingMoments), sub("charging")["when"].Enum)
	same("unknown", words(unknownOutcomes), sub("retry")["unknown"].Enum)
	same("retry.reasons", words(failures), sub("retry")["reasons"].Items.Enum)
	same("text", textAttributes.String(), slices.Sorted(maps.Keys(sub("text"))))
	same("text.alphabets", words(alphabets), sub("text")["alphabets"].Items.Enum)
	same("text.transliterate", words(transliterating), sub("text")["transliterate"].Enum)
	same("fallback.reasons", words(failures), sub("fallback")["reasons"].Items.Enum)
}

func TestPlanJSON(t *testing.T) {
	p := plugin.DefaultPlan()
	p.Service, p.Rewrite.Sender = "a", message.Address{User: "1", Host: "b.c"}
	p.Limits = []plugin.Limit{{Name: "l", Key: "a/l/1", Count: 2, Per: time.Minute}}
	text, err := json.Marshal(PlanJSON(p))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"store":"1h"`, `"answer_within":"3s"`, `"backoff":["5s","15s","1m","5m","15m"]`, `"service":"a"`,
		`"sender":"1@b.c"`, `"recipient":""`, `"limits":{"l":{"count":2,"key":"a/l/1","per":"1m"}}`, `"mime":{}`, `"reasons":[]`,
		`"text":{"alphabets":[],"transliterate":"configured"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s\nwant in it %s", text, want)
		}
	}
}

func FuzzDecodePlan(f *testing.F) {
	f.Add(`{"processing": "deliver", "mime": {"sip": ["a/b"]}, "retry": {"backoff": ["1s"], "unknown": "fail"}, "charging": {"unit_size": 1}}`)
	f.Add(`{"rewrite": {"sender": "1@a.b"}, "fallback": {"reasons": ["gone"], "sender": "+44"}, "external_routing": true}`)
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
		if p.Store > plugin.MaxStore || p.Within > plugin.MaxWithin || len(p.Retry.Backoff) > plugin.MaxPauses ||
			slices.ContainsFunc(p.Retry.Backoff, func(d time.Duration) bool { return d < plugin.MinPause }) ||
			!slices.Contains(processings, p.Processing) || !slices.Contains(unknownOutcomes, p.Retry.Unknown) {
			t.Errorf("a plan outside its limits: %+v", p)
		}
		for _, a := range []message.Address{p.Fallback.Sender, p.Rewrite.Sender, p.Rewrite.Recipient} {
			if err := a.Validate(); err != nil && !a.IsZero() {
				t.Errorf("%q: %v", a, err)
			}
		}
	})
}

package decide

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

// memoOf loads one service with these rules.
func memoOf(t testing.TB, rules string) (*Policy, *memo) {
	t.Helper()
	p, err := loaded(t, time.Second, map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": [\"*\"]}\n\n" + rules})
	if err != nil {
		t.Fatal(err)
	}
	return p, p.services[0].memo
}

func TestOnlyFactsAreRemembered(t *testing.T) {
	for rules, want := range map[string]bool{
		"plan.charging.mode := \"event\" if input.message.class != \"composing\"\n":                                                   true,
		"plan.store := \"2h\" if helper\n\nhelper if input.recipient.registered\n":                                                    true,
		"plan.store := \"2h\" if f(input.transport)\n\nf(x) if x == \"sip\"\n":                                                        true,
		"plan.store := \"2h\" if input.sender.user == \"1001\"\n":                                                                     false,
		"plan.store := \"2h\" if input.clock.hour == 3\n":                                                                             false,
		"limits := {\"x\": {\"per\": \"1m\"}}\n\nplan.store := \"2h\" if input.counters.x == 3\n":                                     false,
		"asks := [\"text\"]\n\nplan.store := \"2h\" if input.message.text == \"\"\n":                                                  false,
		"plan.store := \"2h\" if input.match.attributes.gold\n":                                                                       true,
		"plan.store := \"2h\" if input.match.prefix == \"44\"\n":                                                                      true,
		"plan.store := \"2h\" if input.message.segments > 1\n":                                                                        true,
		"plan.store := \"2h\" if helper\n\nhelper if input.sender.user == \"1001\"\n":                                                 false,
		"plan.store := \"2h\" if f(input.message)\n\nf(m) if m.size > 5\n":                                                            false,
		"plan.store := \"2h\" if input.message[_] == \"x\"\n":                                                                         false,
		"plan.store := \"2h\" if { some k, v in input.sender; k == v }\n":                                                             false,
		"plan.store := \"2h\" if { m := input.message; m.size > 5 }\n":                                                                false,
		"plan.store := \"2h\" if startswith(input.time, \"2026\")\n":                                                                  false,
		"plan := {\"store\": \"2h\"} if input.message.class == \"text\"\n":                                                            true,
		"plan.store := \"2h\" if { input.message.type; input.message.class; input.transport; input.protocol; input.sender.domain }\n": false,
	} {
		if _, memo := memoOf(t, rules); (memo != nil) != want {
			t.Errorf("remembered %t, want %t:\n%s", memo != nil, want, rules)
		}
	}
}

// TestRememberedPlansAreThoseThatAreMade asks each question twice, and a policy
// that remembers nothing beside.
func TestRememberedPlansAreThoseThatAreMade(t *testing.T) {
	rules := `plan.store := "2h" if input.message.class == "composing"

plan.transports := ["smpp"] if not input.recipient.registered

plan.charging := {"mode": "event", "unit_size": input.recipient.devices} if input.message.type == "text/plain"
`
	remembering, memo := memoOf(t, rules)
	fresh, _ := memoOf(t, rules)
	fresh.services[0].memo = nil
	if memo == nil {
		t.Fatal("nothing is remembered")
	}
	for range 2 {
		for _, class := range []string{"text", "composing"} {
			for _, mediaType := range []string{"text/plain", "text/html"} {
				for devices := range 3 {
					q := regotest.Typical()
					q.Message.Class, q.Message.Type = class, mediaType
					q.Recipient.Devices, q.Recipient.Registered = devices, devices > 0
					got, err := remembering.Decide(t.Context(), q, plugin.Given{})
					want, err2 := fresh.Decide(t.Context(), q, plugin.Given{})
					if err != nil || err2 != nil || !reflect.DeepEqual(withoutRevision(got), withoutRevision(want)) {
						t.Errorf("%s %s %d: %+v, %v\nwant %+v, %v", class, mediaType, devices, got, err, want, err2)
					}
				}
			}
		}
	}
	if n := len(memo.plans); n != 12 {
		t.Errorf("%d plans are remembered, want 12", n)
	}
}

// TestRowsAreRemembered wants plans that depend on the row to be remembered for
// each row, or for each set of attributes if nothing else of it is read.
func TestRowsAreRemembered(t *testing.T) {
	const data = "domains:\n  a.example.com: {service: a, attributes: {tariff: gold}}\n  b.example.com: {service: a, attributes: {tariff: gold}}\n" +
		"  c.example.com: {service: a, attributes: {tariff: silver}}\n  d.example.com: {service: a}\n"
	const attributes = "plan.labels.tariff := input.match.attributes.tariff\n"
	const row = attributes + "\nplan.labels.row := input.match.domain\n"
	for rules, want := range map[string]int{attributes: 3, row: 4} {
		p := mustLoad(t, map[string]string{"a": "package imgate.services.a\n\n" + rules, "d.yaml": data})
		for range 2 {
			for domain, tariff := range map[string]string{"a": "gold", "b": "gold", "c": "silver", "d": ""} {
				q := regotest.Typical()
				q.Recipient.Domain = domain + ".example.com"
				plan, err := p.Decide(t.Context(), q, plugin.Given{})
				if err != nil || plan.Labels["tariff"] != tariff || rules == row && plan.Labels["row"] != q.Recipient.Domain {
					t.Errorf("%s: got %v, %v", domain, plan.Labels, err)
				}
			}
		}
		if got := len(p.services[0].memo.plans); got != want {
			t.Errorf("%s%d plans are remembered, want %d", rules, got, want)
		}
	}
}

func withoutRevision(p plugin.Plan) plugin.Plan {
	p.Revision = ""
	return p
}

func TestMemoIsBounded(t *testing.T) {
	p, memo := memoOf(t, "plan.store := \"2h\" if input.message.type == \"text/plain\"\n")
	for i := range maxMemory + 10 {
		q := regotest.Typical()
		q.Message.Type = fmt.Sprint("x/", i)
		if _, err := p.Decide(t.Context(), q, plugin.Given{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(memo.plans); n > maxMemory {
		t.Errorf("%d plans are remembered", n)
	}
}

// BenchmarkEvaluate is a decision that isn't remembered.
func BenchmarkEvaluate(b *testing.B) {
	p, memo := memoOf(b, "plan.charging.mode := \"event\" if input.sender.user != \"1\"\n")
	if memo != nil {
		b.Fatal("it is remembered")
	}
	ctx := context.WithoutCancel(b.Context())
	q := regotest.Typical()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decide(ctx, q, plugin.Given{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestShippedServicesAreRemembered: those that see thousands of messages a second
// read nothing that differs from one to the next.
func TestShippedServicesAreRemembered(t *testing.T) {
	found := 0
	for _, s := range open(t).services {
		if s.name != "onnet" && s.name != "sms" {
			continue
		}
		if found++; s.memo == nil {
			t.Errorf("%s reads %v", s.name, slices.Sorted(maps.Keys(s.paths)))
		}
	}
	if found != 2 {
		t.Errorf("%d services were found", found)
	}
}

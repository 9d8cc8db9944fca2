package rego

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
)

// memoOf loads one service with these rules.
func memoOf(t testing.TB, rules string) (*policy, *memo) {
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
					q := typical()
					q.Message.Class, q.Message.Type = class, mediaType
					q.Recipient.Devices, q.Recipient.Registered = devices, devices > 0
					got, err := remembering.Decide(t.Context(), q)
					want, err2 := fresh.Decide(t.Context(), q)
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

func withoutRevision(p plugin.Plan) plugin.Plan {
	p.Revision = ""
	return p
}

func TestMemoIsBounded(t *testing.T) {
	p, memo := memoOf(t, "plan.store := \"2h\" if input.message.type == \"text/plain\"\n")
	for i := range maxMemory + 10 {
		q := typical()
		q.Message.Type = fmt.Sprint("x/", i)
		if _, err := p.Decide(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(memo.plans); n > maxMemory {
		t.Errorf("%d plans are remembered", n)
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

// BenchmarkEvaluate is a decision that isn't remembered.
func BenchmarkEvaluate(b *testing.B) {
	p, memo := memoOf(b, "plan.charging.mode := \"event\" if input.sender.user != \"1\"\n")
	if memo != nil {
		b.Fatal("it is remembered")
	}
	ctx := context.WithoutCancel(b.Context())
	q := typical()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decide(ctx, q); err != nil {
			b.Fatal(err)
		}
	}
}

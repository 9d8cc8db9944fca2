package decide

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

func TestContract(t *testing.T) {
	plugintest.Policy(t, func(plugintest.T) plugintest.PolicyHarness {
		return plugintest.PolicyHarness{
			Open: func(ct plugintest.T) plugin.Policy {
				p, err := loaded(t, time.Second, map[string]string{
					"a": "package imgate.services.a\n\nmatch := {\"domains\": [\"sip.example.com\"]}\n\n" +
						"plan.labels[name] := value if some name, value in input.sender.attributes\n\nplan.store := \"2h\"\n",
				})
				if err != nil {
					ct.Fatalf("%v", err)
				}
				return p
			},
			Good: regotest.Typical,
			Bad: func() plugin.Question {
				q := regotest.Typical()
				q.Recipient.Domain = "elsewhere.example.net"
				return q
			},
		}
	})
}

// failure returns what Decide fails with, and wants it to be a temporary
// policy-failed with a cause.
func failure(t *testing.T, p plugin.Policy, q plugin.Question) string {
	t.Helper()
	_, err := p.Decide(t.Context(), q, plugin.Given{})
	f, ok := errors.AsType[*message.Failure](err)
	if !ok || f.Reason != message.PolicyFailed || !f.Temporary || f.Err == nil {
		t.Fatalf("got %v, want a temporary %s with its cause", err, message.PolicyFailed)
	}
	return f.Err.Error()
}

func TestNoVerdict(t *testing.T) {
	for name, c := range map[string]struct{ rules, want string }{
		"undefined plan": {
			"plan := {\"store\": \"1h\"} if input.peer == \"nobody\"\n",
			`service "a": plan is undefined`,
		},
		"rules that contradict each other": {
			"plan.store := \"1h\" if input.protocol == \"sip\"\n\nplan.store := \"2h\" if input.message.size > 1\n",
			`service "a": dir/a.rego:7: plan.store: two rules say different things: "1h" at dir/a.rego:5, "2h" at dir/a.rego:7`,
		},
		"a builtin that fails": {
			"plan.charging.unit_size := to_number(input.peer)\n",
			"to_number",
		},
		"a builtin that fails where a default exists": {
			"default plan.processing := \"deliver\"\n\nplan.processing := \"reject\" if to_number(input.peer) > 3\n",
			"to_number",
		},
		"a plan outside the schema": {
			"plan.store := input.peer\n",
			`service "a": plan.store: expected a duration`,
		},
		"one document with an unknown attribute": {
			"plan := {input.protocol: \"1h\"}\n",
			`service "a": plan.sip: no such attribute`,
		},
		"text that breaks headers": {
			"plan.charging.destination := concat(\"\\r\\n\", [input.protocol, input.peer])\n",
			`plan.charging.destination: expected text`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := one(t, c.rules)
			if err != nil {
				t.Fatal(err)
			}
			if got := failure(t, p, regotest.Typical()); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q in it", got, c.want)
			}
		})
	}
}

func TestNoServiceMatches(t *testing.T) {
	p := mustLoad(t, map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": [\"x.example.com\"]}\n\nplan.store := \"1h\"\n"})
	q := regotest.Typical()
	q.Recipient.Local = true
	if got := failure(t, p, q); got != `no service matches domain "sip.example.com"` {
		t.Errorf("got %q", got)
	}
	q.Recipient.Local = false
	_, err := p.Decide(t.Context(), q, plugin.Given{})
	if f, ok := errors.AsType[*message.Failure](err); !ok || f.Reason != message.UnknownRecipient || f.Temporary {
		t.Errorf("somebody who isn't ours: %v, want a final %s", err, message.UnknownRecipient)
	}
}

// TestSharedTablesStayAsTheyAre wants what a plan shares with others to be left
// alone by those that add to it.
func TestSharedTablesStayAsTheyAre(t *testing.T) {
	p := mustLoad(t, map[string]string{"a": regotest.Header + "plan.labels.constant := \"c\"\n\nplan.labels[\"peer\"] := input.peer if input.peer != \"none\"\n"})
	for peer, want := range map[string]int{"x": 2, "none": 1, "y": 2} {
		q := regotest.Typical()
		q.Peer = peer
		plan, err := p.Decide(t.Context(), q, plugin.Given{})
		if err != nil || len(plan.Labels) != want || plan.Labels["peer"] != "none" && want == 2 && plan.Labels["peer"] != peer {
			t.Errorf("%s: got %v, %v", peer, plan.Labels, err)
		}
	}
	if got := p.services[0].constant.Labels; len(got) != 1 {
		t.Errorf("the constant part has become %v", got)
	}
}

// TestRowsAreSharedConcurrently reads one row's attributes from many goroutines.
func TestRowsAreSharedConcurrently(t *testing.T) {
	p := mustLoad(t, map[string]string{
		"a":      "package imgate.services.a\n\nplan.labels[k] := sprintf(\"%v %s\", [v, input.peer]) if some k, v in input.match.attributes\n",
		"d.yaml": "domains: {sip.example.com: {service: a, attributes: {c: 1, b: {y: [1], x: 2}, a: z}}}",
	})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				plan, err := p.Decide(t.Context(), regotest.Typical(), plugin.Given{})
				if err != nil || plan.Labels["b"] != `{"x": 2, "y": [1]} 192.0.2.1:5060` {
					t.Errorf("got %v, %v", plan.Labels, err)
				}
			}
		})
	}
	group.Wait()
}

// endless would try 100 to the fourth power combinations: that takes minutes.
const endless = `
digits := ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

numbers := [n | some a in digits; some b in digits; n := concat("", [a, b])]

plan.labels.found := "yes" if {
	input.peer != ""
	some a in numbers
	some b in numbers
	some c in numbers
	some d in numbers
	concat("", [a, b, c, d]) == "none"
}
`

func TestDeadline(t *testing.T) {
	p, err := loaded(t, 20*time.Millisecond, map[string]string{"a": regotest.Header + endless})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		start := time.Now()
		if got := failure(t, p, regotest.Typical()); !strings.HasPrefix(got, `service "a": no plan within `) {
			t.Errorf("got %q", got)
		}
		if took := time.Since(start); took > 5*100*time.Millisecond { // the promise is 100 ms
			t.Errorf("it was stopped after %s", took)
		}
	}
}

func TestEndOfContext(t *testing.T) {
	p := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Decide(ctx, regotest.Typical(), plugin.Given{})
	if f := message.AsFailure(err); f.Reason != message.PolicyFailed || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDeadlinesAreUsedAgain(t *testing.T) {
	d := &deadline{}
	ctx, cancel := context.WithCancel(t.Context())
	d.start(ctx, time.Hour)
	if d.Cancelled() {
		t.Error("a new deadline has passed")
	}
	cancel()
	if !d.Cancelled() {
		t.Error("the end of the context doesn't count")
	}
	for range 100 {
		if !d.stop() {
			t.Fatal("a deadline that hasn't passed can't be used again")
		}
		d.start(t.Context(), time.Hour)
		if d.Cancelled() {
			t.Fatal("a deadline remembers its last use")
		}
	}
	d.Cancel()
	if !d.Cancelled() {
		t.Error("a deadline that was cancelled hasn't passed")
	}
}

func TestPanicCostsOneMessage(t *testing.T) {
	p := mustLoad(t, map[string]string{"a": regotest.Header + "plan.store := \"1h\"\n"})
	boom, err := opa.New(opa.Query("boom(input)"), opa.Function1(
		&opa.Function{Name: "boom", Decl: ast.BuiltinMap["upper"].Decl},
		func(opa.BuiltinContext, *ast.Term) (*ast.Term, error) { panic("a fault") },
	)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.services[0].query = &boom
	p.options = nil
	if got := failure(t, p, regotest.Typical()); !strings.Contains(got, "a fault") {
		t.Errorf("got %q", got)
	}
}

// TestConstantsAreFoldedRightly compares plans with those of a single query
// for the whole plan.
func TestConstantsAreFoldedRightly(t *testing.T) {
	const helpers = "home := {\"sip.example.com\"}\n\nlocal if input.recipient.local\n\nat_home if input.recipient.domain in home\n\n"
	for _, rules := range []string{
		"plan.store := \"2h\"\n",
		"plan.store := \"2h\" if local\n",
		"plan.store := \"2h\" if at_home\n",
		"plan.store := \"2h\" if not local\n",
		"plan.mime.sip := [\"text/plain\"]\n\nplan.mime.smpp := [input.message.type]\n",
		"plan.labels[k] := v if some k, v in input.sender.attributes\n",
		"plan.labels[k] := v if some k, v in {\"a\": \"b\"}\n",
		"plan.labels.a := \"b\"\n\nplan.labels[k] := v if some k, v in input.sender.attributes\n",
		"default plan.answer := \"accepted\"\n\nplan.answer := \"delivered\" if local\n",
		"default plan.answer := \"accepted\"\n",
		"plan.charging := {\"mode\": \"event\", \"account\": input.sender.account}\n\nplan.retry.backoff := [\"1s\"]\n",
		"plan.charging.mode := \"event\"\n\nplan.charging.account := \"x\" if false\n",
		"plan.charging.mode := \"event\"\n\nplan.charging.account := input.sender.account\n\nplan.charging.units := 2 if not local\n",
		"plan.retry.backoff := [\"1s\"]\n\nplan.retry.attempts := input.recipient.devices\n\ndefault plan.retry.unknown := \"fail\"\n\nplan.retry.unknown := \"fallback\" if not local\n",
		"plan.labels.a := input.peer\n\nplan.labels.b := \"c\"\n\nplan.labels.d := \"e\" if not local\n",
		"plan.labels := {\"a\": input.peer}\n",
		"plan.rewrite.sender := sprintf(\"%s@x.example.com\", [input.sender.user])\n\nplan.fallback.transports := [\"b\"]\n",
		"plan.answer := \"accepted\" if {\n\tnot local\n} else := \"delivered\" if {\n\tat_home\n}\n",
		"plan.labels.out := \"x\" if data.imgate.services.a.local\n",
		"plan.store := \"2h\" if object.get(input, [\"recipient\", \"local\"], false)\n",
		"plan.store := \"3h\" if count(home) == 1 with input as {}\n",
	} {
		p, err := one(t, helpers+rules)
		if err != nil {
			t.Errorf("%s%v", rules, err)
			continue
		}
		want := whole(t, helpers+rules)
		want.Service, want.Revision = "a", p.Revision
		if got := decide(t, p); !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v\nwant %+v", rules, got, want)
		}
	}
}

// whole evaluates a policy's plan at once, with OPA's defaults.
func whole(t *testing.T, rules string) plugin.Plan {
	t.Helper()
	text, err := json.Marshal(regotest.Typical())
	if err != nil {
		t.Fatal(err)
	}
	results, err := opa.New(opa.Module("a.rego", regotest.Header+rules), opa.Query("data.imgate.services.a.plan"),
		opa.ParsedInput(regotest.Value(t, string(text)))).Eval(t.Context())
	if err != nil || len(results) != 1 {
		t.Fatal(err, results)
	}
	v, err := ast.InterfaceToValue(results[0].Expressions[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := decodePlan(v)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestDecideConcurrently(t *testing.T) {
	p := mustLoad(t, map[string]string{"a": regotest.Header + "plan.labels.peer := input.peer\n\nplan.labels.match := \"x\" if regex.match(input.sender.user, input.peer)\n"})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			q := regotest.Typical()
			q.Peer = fmt.Sprint("peer", i)
			for range 50 {
				plan, err := p.Decide(t.Context(), q, plugin.Given{})
				if err != nil || plan.Labels["peer"] != q.Peer {
					t.Errorf("got %v, %v, want %s", plan.Labels, err, q.Peer)
				}
			}
		})
	}
	group.Wait()
}

// TestRowsDecide reads rows from two files, and a match of a package.
func TestRowsDecide(t *testing.T) {
	p := mustLoad(t, map[string]string{
		"sms":    "package imgate.services.sms\n\nplan.labels.tariff := input.match.attributes.tariff\n\nplan.labels.row := sprintf(\"%s %s %d\", [input.match.domain, input.match.prefix, input.match.priority])\n",
		"onnet":  "package imgate.services.onnet\n\nmatch := {\"domains\": [\"*\"]}\n\nplan.labels.row := sprintf(\"%s %s %d %v\", [input.match.domain, input.match.prefix, input.match.priority, input.match.attributes])\n",
		"a.yaml": "domains:\n  sms.example.com: {service: sms, attributes: {tariff: gold}}\n  '*.sms.example.com': {service: sms, prefixes: [44], priority: 3}\n",
		"b.json": `{"domains": {"/.*\\.sms/": {"service": "sms", "attributes": {"tariff": "silver"}}}}`,
	})
	for address, want := range map[string]string{
		"1@sms.example.com":    "sms gold sms.example.com  0",
		"44@a.sms.example.com": "sms  *.sms.example.com 44 3",
		"45@a.sms.example.com": "onnet  *  0 {}",
		"45@a.sms":             "sms silver /.*\\.sms/  0",
	} {
		q := regotest.Typical()
		q.Recipient = regotest.Recipient(address)
		plan, err := p.Decide(t.Context(), q, plugin.Given{})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if got := fmt.Sprintf("%s %s %s", plan.Service, plan.Labels["tariff"], plan.Labels["row"]); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
}

func TestData(t *testing.T) {
	p := mustLoad(t, map[string]string{
		"a":      regotest.Header + "plan.labels[name] := sprintf(\"%v\", [value]) if some name, value in data.table\n",
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

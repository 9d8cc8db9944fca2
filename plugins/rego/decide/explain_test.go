package decide

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

var explained = map[string]string{
	"a": `package imgate.services.a

match := {"domains": ["*.example.com"], "priority": 1}

limits := {"per_sender": {"key": "sender.account", "per": "1m"}}

plan.transports := ["smpp"]

# METADATA
# title: Big messages are not for us
plan.processing := "reject" if big

plan.reason := "blocked" if {
	big
	not data.lib.friend(input.sender.user)
}

plan.labels[name] := value if some name, value in input.sender.attributes

plan.charging.mode := "event" if {
	input.message.class == "composing"
} else := "none" if {
	input.counters.per_sender > 2
}

big if input.message.size > 40

unused if input.peer == "nobody"
`,
	"lib": `package lib

friend(user) if user == "1001"
`,
	"z": `package imgate.services.z

match := {"domains": ["*"]}

plan.store := "1h"
`,
}

func TestExplain(t *testing.T) {
	p := mustLoad(t, explained)
	e, err := p.Explain(t.Context(), regotest.Typical(), plugin.Given{Counters: map[string]int{"per_sender": 3}})
	if err != nil {
		t.Fatal(err)
	}
	if e.Service != "a" || e.Plan.Processing != plugin.Reject || e.Plan.Reason != message.Rejected {
		t.Errorf("got %+v", e.Plan)
	}
	want := []Spoken{
		{"dir/a.rego:7", "plan.transports", "", `["smpp"]`},
		{"dir/a.rego:11", "plan.processing", "Big messages are not for us", `"reject"`},
		{"dir/a.rego:18", `plan.labels.tariff`, "", `"default"`},
		{"dir/a.rego:22", "plan.charging.mode", "", `"none"`},
		{"dir/a.rego:26", "big", "", "true"},
		{"dir/lib.rego:3", "data.lib.friend", "", "true"},
	}
	if !reflect.DeepEqual(e.Spoke, want) {
		t.Errorf("got  %q\nwant %q", e.Spoke, want)
	}
	if got := strings.Join(e.Default, " "); !strings.HasPrefix(got, "answer answer_within charging.account charging.destination charging.unit_size charging.units charging.when devices external_routing fallback forking mime reason retry") {
		t.Errorf("defaults: %s", got)
	}
	if len(e.Candidates) != 2 || !e.Candidates[0].Wins {
		t.Errorf("got %+v", e.Candidates)
	}
}

func TestExplainWithoutPlan(t *testing.T) {
	p := mustLoad(t, map[string]string{"a": "package imgate.services.a\n\nmatch := {\"domains\": [\"sip.example.com\"]}\n\n" +
		"plan.labels.x := \"y\"\n\nplan.store := input.peer\n"})
	e, err := p.Explain(t.Context(), regotest.Typical(), plugin.Given{})
	if err == nil || !strings.Contains(err.Error(), "plan.store: expected a duration") || len(e.Spoke) != 2 {
		t.Errorf("got %+v, %v", e, err)
	}
	q := regotest.Typical()
	q.Recipient.Domain = "elsewhere.example.net"
	e, err = p.Explain(t.Context(), q, plugin.Given{})
	if err == nil || e.Service != "" || len(e.Candidates) != 1 || e.Candidates[0].Wins {
		t.Errorf("got %+v, %v", e, err)
	}
}

// TestExplainIsBounded stops at the end of the context.
func TestExplainIsBounded(t *testing.T) {
	p, err := loaded(t, 20*time.Millisecond, map[string]string{"a": regotest.Header + endless})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if e, err := p.Explain(ctx, regotest.Typical(), plugin.Given{}); err == nil || len(e.Spoke) > maxSpoken {
		t.Errorf("got %d rules, %v", len(e.Spoke), err)
	}
}

func TestCandidates(t *testing.T) {
	const plan = "\n\nplan.store := \"1h\"\n"
	service := func(name, match string) string {
		return "package imgate.services." + name + "\n\nmatch := " + match + plan
	}
	p := mustLoad(t, map[string]string{
		"any":    service("any", `{"domains": ["*"]}`),
		"exact":  service("exact", `{"domains": ["sip.example.com"]}`),
		"suffix": service("suffix", `{"domains": ["*.example.com", "*.a.example.com"]}`),
		"uk":     service("uk", `{"domains": ["sip.example.com"], "prefixes": ["44"]}`),
		"urgent": service("urgent", `{"domains": ["/urgent.*/"], "priority": 9}`),
		"rows":   "package imgate.services.rows" + plan,
		"d.yaml": "domains:\n  x.example.com: {service: rows}\n  '*.com': {service: rows}\n",
	})
	for address, want := range map[string]string{
		"1@sip.example.com": `exact sip.example.com dir/exact.rego:3 true: it goes before suffix: an exact domain goes before a suffix
suffix *.example.com dir/suffix.rego:3 false: beaten by exact: an exact domain goes before a suffix
rows *.com dir/d.yaml:3 false: beaten by exact: an exact domain goes before a suffix
any * dir/any.rego:3 false: beaten by exact: an exact domain goes before any domain
uk sip.example.com dir/uk.rego:3 false: its domains match, and 1 has none of its prefixes
urgent /urgent.*/ dir/urgent.rego:3 false: its domains don't match sip.example.com`,
		"alice@urgent.com": `urgent /urgent.*/ dir/urgent.rego:3 true: it goes before rows: a higher priority, 9 and not 0
rows *.com dir/d.yaml:3 false: beaten by urgent: a higher priority, 9 and not 0
any * dir/any.rego:3 false: beaten by urgent: a higher priority, 9 and not 0
exact sip.example.com dir/exact.rego:3 false: its domains don't match urgent.com
suffix *.example.com dir/suffix.rego:3 false: its domains don't match urgent.com
uk sip.example.com dir/uk.rego:3 false: its domains don't match urgent.com`,
		"44@sip.example.com": `uk sip.example.com dir/uk.rego:3 true: it goes before exact: a longer prefix, 44 and not any
exact sip.example.com dir/exact.rego:3 false: beaten by uk: a longer prefix, 44 and not any`,
		"1@b.a.example.com": `suffix *.a.example.com dir/suffix.rego:3 true: it goes before rows: a longer suffix, *.a.example.com and not *.com
rows *.com dir/d.yaml:3 false: beaten by suffix: a longer suffix, *.a.example.com and not *.com`,
		"44": `any * dir/any.rego:3 true: nobody else matches
exact sip.example.com dir/exact.rego:3 false: the recipient has no domain`,
	} {
		var got []string
		for _, c := range p.Candidates(regotest.Recipient(address)) {
			got = append(got, fmt.Sprintf("%s %s %s %t: %s", c.Service, c.Domain, c.Place, c.Wins, c.Why))
		}
		if text := strings.Join(got, "\n"); len(got) != 6 || !strings.HasPrefix(text, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", address, text, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	texts := map[string]string{"a": regotest.Header + "plan.transports := [\"sip\", \"smp\", \"satellite\"] if input.recipient.local\n\n" +
		"plan.fallback := {\"transports\": [\"backup\"]}\n\nplan.store := \"2h\"\n"}
	p, err := loadedWith(t, time.Second, Environment{Transports: []string{"sip", "smpp"}}, texts) // and what isn't here, and looks like nothing that is, is another node's
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`dir/a.rego:5: there is no transport "smp" here, there are sip, smpp`,
		`dir/a.rego:7: there is no transport "backup" here, there are sip, smpp`,
	}
	if got := p.Warnings(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if p := mustLoad(t, texts); len(p.Warnings()) > 0 {
		t.Errorf("nobody knows the transports: got %q", p.Warnings())
	}
}

package decide

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

// counting is a Supply that says what it was asked for.
type counting struct {
	asked []string
	count int
}

func (c *counting) Text() string {
	c.asked = append(c.asked, "text")
	return "STOP"
}

func (c *counting) Count(l plugin.Limit) int {
	c.asked = append(c.asked, l.Key)
	return c.count
}

func TestDecodeLimitsRefuses(t *testing.T) {
	many := make([]string, plugin.MaxLimits+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"l%d": {"per": "1m"}`, i)
	}
	for document, want := range map[string]string{
		`[]`:                                                "expected an object of at most 8 limits",
		`{` + strings.Join(many, ",") + `}`:                 "expected an object of at most 8 limits",
		`{"per-sender": {"per": "1m"}}`:                     "per-sender: expected a word as the name of a limit",
		`{"": {"per": "1m"}}`:                               "expected a word as the name of a limit",
		`{"a": {"key": "sender.account"}}`:                  `a.per: expected how long a window is, such as "1m"`,
		`{"a": {"per": "100ms"}}`:                           "a.per: expected a duration from 1s to 744h",
		`{"a": {"per": "745h"}}`:                            "a.per: expected a duration from 1s to 744h",
		`{"a": {"per": "1m", "count": -1}}`:                 "a.count: expected a whole number from 0",
		`{"a": {"per": "1m", "limit": 1}}`:                  "a.limit: no such attribute, expected one of count, key, per",
		`{"a": {"per": "1m", "key": "sender"}}`:             "a.key: expected a path of the input, one of match.attributes.NAME, match.domain, match.prefix, message.class,",
		`{"a": {"per": "1m", "key": ["x"]}}`:                "a.key.0: expected a path of the input, one of",
		`{"a": {"per": "1m", "key": [1]}}`:                  "a.key.0: expected a path of the input, one of",
		`{"a": {"per": "1m", "key": "sender.attributes."}}`: "a.key: expected a path of the input, one of",
		`{"a": {"per": "1m", "key": ["peer","peer","peer","peer","peer","peer","peer","peer","peer"]}}`: "a.key: expected a list of at most 8",
	} {
		if _, err := decodeLimits("s", regotest.Value(t, document)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s\ngot  %v\nwant %s", document, err, want)
		}
	}
}

func TestLimitKeys(t *testing.T) {
	q := full()
	q.Sender.User, q.Sender.Attributes["customer"] = "a/b%", "größe"
	m := matter{Question: &q, claim: taken(t)}
	for key, want := range map[string]string{
		`"sender.account"`:                        "s/l/1001",
		`["sender.account"]`:                      "s/l/1001",
		`[]`:                                      "s/l",
		`["sender.user", "peer"]`:                 "s/l/a%2Fb%25/192.0.2.1:5060",
		`["sender.address"]`:                      "s/l/1001@sip.example.com",
		`"sender.attributes.customer"`:            "s/l/gr%C3%B6%C3%9Fe",
		`["sender.attributes.none", "transport"]`: "s/l//sip",
		`"match.attributes.tariff"`:               "s/l/gold",
		`"match.attributes.list"`:                 "s/l/%5B1%2C%20%7B%22a%22:%20null%7D%5D",
		`"match.attributes.none"`:                 "s/l/",
		`["match.domain", "match.prefix"]`:        "s/l/%2A.example.com/44",
	} {
		limits, err := decodeLimits("s", regotest.Value(t, `{"l": {"per": "1m", "count": 3, "key": `+key+`}}`))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if got := limits[0].of(&m); got.Key != want || got.Name != "l" || got.Count != 3 || got.Per != time.Minute {
			t.Errorf("%s: got %+v, want the key %s", key, got, want)
		}
	}
}

// TestLimitKeysAreBounded wants long keys to be short, and different.
func TestLimitKeysAreBounded(t *testing.T) {
	seen := map[string]bool{}
	for i := range 100 {
		key := boundedKey("service/limit", "/"+strings.Repeat("x", maxLimitKey)+fmt.Sprint(i))
		if len(key) > maxLimitKey || seen[key] {
			t.Fatalf("key %q of %d octets", key, len(key))
		}
		seen[key] = true
	}
}

// TestLimitsOfAPlan declares two, one of which is read.
func TestLimitsOfAPlan(t *testing.T) {
	p, err := one(t, `limits := {"per_sender": {"key": ["sender.account"], "count": 10, "per": "1m"}, "all": {"per": "24h"}}

plan.processing := "reject" if input.counters.per_sender > 5
`)
	if err != nil {
		t.Fatal(err)
	}
	more := &counting{count: 5}
	plan, err := p.Decide(t.Context(), regotest.Typical(), more)
	want := []plugin.Limit{
		{Name: "all", Key: "a/all", Per: 24 * time.Hour},
		{Name: "per_sender", Key: "a/per_sender/1001", Count: 10, Per: time.Minute},
	}
	if err != nil || plan.Processing != plugin.Deliver || !reflect.DeepEqual(plan.Limits, want) {
		t.Errorf("got %+v, %v\nwant the limits %+v", plan, err, want)
	}
	if !reflect.DeepEqual(more.asked, []string{"a/per_sender/1001"}) {
		t.Errorf("asked for %q", more.asked)
	}
	more.count = 6
	if plan, err = p.Decide(t.Context(), regotest.Typical(), more); err != nil || plan.Processing != plugin.Reject {
		t.Errorf("got %+v, %v, want it rejected", plan, err)
	}
}

// TestLimitsOfARememberedPlan wants the plan remembered, and the limits not.
func TestLimitsOfARememberedPlan(t *testing.T) {
	p, memo := memoOf(t, "limits := {\"per_sender\": {\"key\": \"sender.account\", \"count\": 10, \"per\": \"1m\"}}\n\n"+
		"plan.store := \"2h\" if input.message.class == \"text\"\n")
	for _, account := range []string{"1", "2", "1"} {
		q := regotest.Typical()
		q.Sender.Account = account
		more := &counting{}
		plan, err := p.Decide(t.Context(), q, more)
		if err != nil || len(plan.Limits) != 1 || plan.Limits[0].Key != "a/per_sender/"+account || plan.Store != 2*time.Hour {
			t.Errorf("%s: got %+v, %v", account, plan, err)
		}
		if len(more.asked) > 0 {
			t.Errorf("asked for %q, which the service doesn't read", more.asked)
		}
	}
	if memo == nil || len(memo.plans) != 1 {
		t.Errorf("got %+v, want one plan remembered", memo)
	}
}

func TestTextOnlyForThoseWhoAsk(t *testing.T) {
	for rules, want := range map[string][]string{
		"asks := [\"text\"]\n\nplan.processing := \"discard\" if input.message.text == \"STOP\"\n": {"text"},
		"asks := [\"text\"]\n\nplan.labels.m := sprintf(\"%v\", [x]) if x := input.message\n":      {"text"},
		"asks := [\"text\"]\n\nplan.store := \"2h\" if input.message.class == \"text\"\n":          nil,
		"plan.labels.m := \"secret\" if object.get(input.message, \"text\", \"\") != \"\"\n":       nil,
		"asks := []\n\nplan.store := \"2h\"\n":                                                     nil,
	} {
		p, err := one(t, rules)
		if err != nil {
			t.Errorf("%s%v", rules, err)
			continue
		}
		q, more := regotest.Typical(), &counting{}
		leaked := "STOP"
		q.Message.Text = &leaked // whoever asks the question may know it
		for range 2 {
			plan, err := p.Decide(t.Context(), q, more)
			if err != nil || plan.Labels["m"] == "secret" {
				t.Errorf("%sgot %+v, %v", rules, plan, err)
			}
			if !reflect.DeepEqual(more.asked, want) {
				t.Errorf("%sasked for %q, want %q", rules, more.asked, want)
			}
			more.asked = nil
		}
	}
}

func FuzzDecodeLimits(f *testing.F) {
	f.Add(`{"per_sender": {"key": ["sender.account", "match.attributes.x"], "count": 10, "per": "1m"}}`)
	f.Add(`{"a": {"key": "peer", "per": "744h"}, "b": {"per": "1s"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ast.ValueFromReader(strings.NewReader(text))
		if err != nil {
			return
		}
		limits, err := decodeLimits("s", v)
		if err != nil {
			return
		}
		q := full()
		m := matter{Question: &q, claim: taken(t)}
		for i := range limits {
			l := limits[i].of(&m)
			if l.Name == "" || len(l.Key) > maxLimitKey || l.Count < 0 || l.Per < plugin.MinWindow || l.Per > plugin.MaxWindow {
				t.Errorf("a limit outside its limits: %+v", l)
			}
		}
	})
}

package decide

import (
	"strings"
	"testing"

	"github.com/imgate/imgate/plugins/rego/regotest"
)

func TestNearlyDocuments(t *testing.T) {
	const limits = `limits := {"per_sender": {"key": "sender.account", "count": 10, "per": "1m"}}`
	for name, c := range map[string]struct{ rules, want string }{
		"limit":            {"limit := {\"a\": 1}\n", "dir/a.rego:5: nothing uses limit, was " + limits + " meant?"},
		"ask":              {"ask := [\"text\"]\n", `was asks := ["text"] meant?`},
		"matches":          {"matches := 1\n", `was match := {"domains": ["*"], "prefixes": [], "priority": 0} meant?`},
		"plans":            {"plans.store := \"1h\"\n", "nothing uses plans, was plan meant?"},
		"domain":           {"domain := \"x\"\n", "was match := "},
		"domains":          {"domains := [\"x\"]\n", "was match := "},
		"letters swapped":  {"limtis := 1\n", "was limits := "},
		"a condition":      {"plna.store := \"1h\" if input.peer == \"x\"\n", "was plan meant?"},
		"a set":            {"limist contains 1\n", "was limits := "},
		"used":             {"limit := 3\n\nplan.labels.x := \"y\" if limit == 3\n", ""},
		"used as function": {"ask(x) := x\n\nplan.labels.x := ask(\"y\")\n", ""},
		"something else":   {"office_hours := [8, 17]\n", ""},
		"ours":             {limits + "\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := one(t, c.rules+"\nplan.answer := \"accepted\"\n")
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(p.Warnings(), "\n")
			if got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestStrayPlans: a package that looks like a service, and isn't one, is worth a
// warning unless a service uses it.
func TestStrayPlans(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a package":        {"package foo\n\nplan.store := \"2h\"\n", "dir/b.rego:1: package foo has a plan and is no service: expected package imgate.services.NAME"},
		"a whole plan":     {"package a.b\n\nplan := {\"store\": \"2h\"}\n", "dir/b.rego:1: package a.b has a plan"},
		"used":             {"package lib\n\nplan.store := \"2h\"\n", ""},
		"of another kind":  {"package foo\n\nplan.b := 1\n", ""},
		"without any plan": {"package foo\n\nx := 1\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustLoad(t, map[string]string{"a": regotest.Header + "plan.store := data.lib.plan.store\n", "b": c.text})
			got := strings.Join(p.Warnings(), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

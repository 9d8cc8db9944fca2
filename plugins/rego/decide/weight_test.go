package decide

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/plugins/rego/source"
)

// nested is n rules, each of which is made of the one before, which is @.
func nested(n int, first, format string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "x0 := %s\n\n", first)
	for i := range n {
		fmt.Fprintf(&b, "x%d := %s\n\n", i+1, strings.ReplaceAll(format, "@", fmt.Sprint("x", i)))
	}
	return b.String() + fmt.Sprintf("plan.labels.x := \"y\" if count(x%d) > 0\n", n)
}

// TestRulesThatMakeTooMuch has policies that OPA's compiler wouldn't come to an
// end with.
func TestRulesThatMakeTooMuch(t *testing.T) {
	for name, rules := range map[string]string{
		"lists":              nested(40, "[1]", "[@, @]"),
		"lists by reference": nested(40, "[1]", "[data.imgate.services.a.@, data.imgate.services.a.@]"),
		"objects":            nested(40, "{\"v\": 1}", "{\"v\": @, \"w\": @}"),
		"keys":               nested(40, "[1]", "{@: 1, [@]: 1}"),
		"sets":               nested(40, "{1}", "{@, [@]}"),
		"with a condition":   nested(40, "[1]", "[@, @] if input.peer"),
		"else":               nested(40, "[1]", "[@, @] if {\n\tinput.peer\n} else := [@, 1, @]"),
		"a part":             nested(40, "{\"v\": [1]}", "{\"v\": [@.v, @[\"v\"]]}"),
		"any part":           nested(40, "[1]", "[y, [y, y]] if some y in [@]"),
		"either part":        nested(60, "[1]", "[y] if some y in [[@], [@, 1]]"),
		"comprehensions":     nested(40, "[1]", "[[@, @, z] | some z in @]"),
		"set comprehensions": nested(40, "[1]", "{[@, @, z] | some z in @}"),
		"functions": "f0(x) := [x, 1]\n\n" + strings.ReplaceAll(nested(40, "f0(1)", "[f@(1), f@(2)]"), "fx", "f") +
			functionsOf(40, "[f@(x), f@(x)]") + "\n",
		"in one rule":  "plan.labels.x := \"y\" if {\n\tx0 := [input.peer]\n" + inOneRule(40) + "\tcount(x40) > 0\n}\n",
		"part by part": partial(40),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := one(t, rules)
			if err == nil || !strings.Contains(err.Error(), "a.rego:") || !strings.Contains(err.Error(), "expected at most 200000 values in what a rule makes") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("refused after %s", took)
			}
		})
	}
}

func inOneRule(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\tx%d := [x%d, x%d]\n", i+1, i, i)
	}
	return b.String()
}

func functionsOf(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "f%d(x) := %s\n\n", i+1, strings.ReplaceAll(format, "@", fmt.Sprint(i)))
	}
	return b.String()
}

func partial(n int) string {
	var b strings.Builder
	b.WriteString("x0.v := 1\n\n")
	for i := range n {
		fmt.Fprintf(&b, "x%d.v := x%d\n\nx%d[k] := x%d if some k in [\"w\"]\n\n", i+1, i, i+1, i)
	}
	return b.String() + fmt.Sprintf("plan.labels.x := \"y\" if count(x%d) > 0\n", n)
}

// TestRulesThatMakeMuch has what a policy may well hold.
func TestRulesThatMakeMuch(t *testing.T) {
	var table, list strings.Builder
	for i := range 3_000 {
		fmt.Fprintf(&table, "\t\"%d\": {\"tariff\": \"t%d\", \"limits\": [%d, 2]},\n", i, i, i)
		fmt.Fprintf(&list, "\t\"%d\",\n", i)
	}
	rows := strings.Builder{}
	for i := range 200 {
		fmt.Fprintf(&rows, "\t\"%d\": table[sprintf(\"%%d\", [%d])],\n", i, i)
	}
	for name, rules := range map[string]string{
		"a table":             "table := {\n" + table.String() + "}\n\nplan.labels.t := table[input.peer].tariff\n",
		"many uses of a row":  "table := {\n" + table.String() + "}\n\nrows := {\n" + rows.String() + "}\n\nplan.labels.t := rows[input.peer].tariff\n",
		"a list":              "list := {\n" + list.String() + "}\n\nplan.labels.t := \"x\" if input.peer in list\n",
		"rules of much depth": nested(15, "[1]", "[@, @]"),
		"a chain":             nested(200, "[1]", "[@]"),
		"any data":            "plan.labels.t := \"x\" if {\n\tsome name\n\tinput.peer == data[name].x\n}\n",
		"parts of parts":      nested(100, "{\"v\": [1, 2]}", "{\"v\": [@.v[0], @.v[1], @.v[_]]} if input.peer"),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			if _, err := one(t, rules); err != nil {
				t.Error(source.Clip(err.Error()))
			}
			t.Log(time.Since(began))
		})
	}
}

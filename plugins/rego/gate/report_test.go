package gate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/plugins/rego/source"
)

// bigData has large and small tables.
func bigData(t testing.TB) string {
	t.Helper()
	var list []string
	object := map[string]any{}
	for i := range manyEntries + 1 {
		list = append(list, fmt.Sprint("n", i))
		object[fmt.Sprint("n", i)] = map[string]any{"x": i}
	}
	text, err := json.Marshal(map[string]any{"list": list, "object": object, "small": list[:10]})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReport(t *testing.T) {
	rules := func(condition string) string {
		var b strings.Builder
		for i := range manyAlternatives {
			fmt.Fprintf(&b, "plan.labels.x := \"v%d\" if "+condition+"\n\n", i, i)
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		rules string
		want  []string // nil: no warning
	}{
		"plain":                       {`plan.reason := "blocked" if input.message.size > 5`, nil},
		"alternatives with a value":   {rules(`input.recipient.user == "%d"`), nil},
		"alternatives with a prefix":  {rules(`startswith(input.recipient.user, "%d")`), nil},
		"alternatives that differ":    {rules(`input.message.size > %d`), []string{"/a.rego:7: all 4 rules of plan.labels.x are tried for each message"}},
		"a lookup":                    {`plan.reason := "blocked" if data.object[input.recipient.user].x > 3`, nil},
		"a lookup by a variable":      {"plan.reason := \"blocked\" if {\n\tuser := lower(input.recipient.user)\n\tdata.object[user].x > 3\n}", nil},
		"a lookup in a function":      {"plan.reason := \"blocked\" if f(input.recipient.user)\n\nf(user) if data.object[user].x > 3", nil},
		"a search":                    {"plan.reason := \"blocked\" if {\n\tsome row in data.object\n\trow.x == input.message.size\n}", []string{"/a.rego:8: each message goes through the 1001 entries of data.object"}},
		"a search in a small one":     {"plan.reason := \"blocked\" if {\n\tsome row in data.small\n\trow == input.recipient.user\n}", nil},
		"a search without a variable": {`plan.reason := "blocked" if data.object[_].x == input.message.size`, []string{"/a.rego:7: each message goes through the 1001 entries of data.object"}},
		"a search in a comprehension": {`plan.reason := "blocked" if count([1 | some row in data.object; row.x == input.message.size]) > 0`, []string{"/a.rego:7: "}},
		"a search in every":           {"plan.reason := \"blocked\" if every row in data.object { row.x != input.message.size }", []string{"/a.rego:7: "}},
		"a list":                      {`plan.reason := "blocked" if input.recipient.user in data.list`, []string{"/a.rego:7: each message goes through the 1001 entries of data.list"}},
		"a search in a library":       {"plan.reason := \"blocked\" if data.lib.known", []string{"/lib.rego:3: each message goes through"}},
		"a search once":               {`plan.labels.n := sprintf("%d", [count([1 | some row in data.object; row.x > 5])])`, nil},
		"a search for a constant":     {"plan.reason := \"blocked\" if input.recipient.user in large\n\nlarge contains name if some name, row in data.object", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := sourceOf(t, map[string]string{
				"a.rego": regotest.AnyService + "\n" + c.rules + "\n", "d.json": bigData(t), "a_test.rego": regotest.TestsOfA,
				"lib.rego": "package lib\n\nknown if input.recipient.user in data.list\n",
			})
			if err != nil {
				t.Fatal(err)
			}
			v, err := Compile(t.Context(), s, source.Config{Deadline: time.Second}, decide.Environment{})
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(v.Report.Warnings, "\n")
			if len(v.Report.Warnings) != len(c.want) {
				t.Errorf("got\n%s\nwant %d warnings", all, len(c.want))
			}
			for _, want := range c.want {
				if !strings.Contains(all, want) {
					t.Errorf("got\n%s\nwant in it\n%s", all, want)
				}
			}
		})
	}
}

func TestReportOfTestsAndData(t *testing.T) {
	large := `{"big": ["` + strings.Repeat(strings.Repeat("x", 1000)+`", "`, 1100) + `"]}`
	s, err := sourceOf(t, map[string]string{"a.rego": regotest.AnyService, "sub/d.json": large})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Compile(t.Context(), s, source.Config{Deadline: time.Second}, decide.Environment{})
	all := strings.Join(v.Report.Warnings, "\n")
	if err != nil || len(v.Report.Warnings) != 2 || !strings.Contains(all, "there are no tests") || !strings.Contains(all, "/sub/d.json: data.sub has 1.1 MiB") {
		t.Errorf("%v\n%s", err, all)
	}
	s, err = sourceOf(t, map[string]string{"a.rego": regotest.AnyService + "\nplan.reason := \"blocked\" if input.message.size > 5\n", "a_test.rego": regotest.TestsOfA + "\ntodo_test_later if false\n"})
	if err != nil {
		t.Fatal(err)
	}
	v, err = Compile(t.Context(), s, source.Config{Deadline: time.Second, Coverage: 50}, decide.Environment{})
	all = strings.Join(v.Report.Warnings, "\n")
	if err != nil || len(v.Report.Warnings) != 2 || !strings.Contains(all, "/a.rego:7: no test reaches it") || !strings.Contains(all, "/a_test.rego:11: the test is skipped") {
		t.Errorf("%v\n%s", err, all)
	}
}

package gate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/plugins/rego/source"
)

// Every policy that we ship passes the gate, with full coverage and without a warning.
func TestShippedPoliciesPassTheGate(t *testing.T) {
	config := source.Config{Dir: "../../../policies", Deadline: time.Second, Coverage: 100}
	s, err := source.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Compile(t.Context(), s, config, decide.Environment{})
	if err != nil || len(v.Report.Warnings) > 0 {
		t.Errorf("%v\n%s", err, strings.Join(v.Report.Warnings, "\n"))
	}
}

func TestGate(t *testing.T) {
	long := regotest.AnyService + "\nplan.reason := \"blocked\" if {\n\tinput.message.size > 5\n\tinput.message.class == \"text\"\n}\n"
	for name, c := range map[string]struct {
		texts map[string]string
		floor float64
		want  []string // in the error; nil: it passes
	}{
		"no tests":           {map[string]string{"a.rego": regotest.AnyService}, 0, nil},
		"no tests, a floor":  {map[string]string{"a.rego": regotest.AnyService}, 1, []string{"the tests reach 0.0 % of the policies: expected at least 1 %"}},
		"tests that pass":    {map[string]string{"a.rego": regotest.AnyService, "a_test.rego": regotest.TestsOfA}, 100, nil},
		"what isn't reached": {map[string]string{"a.rego": long, "a_test.rego": regotest.TestsOfA}, 90, []string{"expected at least 90 %", "/a.rego:7-9: no test reaches it"}},
		"the same, no floor": {map[string]string{"a.rego": long, "a_test.rego": regotest.TestsOfA}, 0, nil},
		"a test that fails": {map[string]string{"a.rego": regotest.AnyService, "sub/a_test.rego": regotest.TestsOfA + `
test_wrong if {
	print("store is", data.imgate.services.a.plan.store)
	data.imgate.services.a.plan.store == "2h"
}
`}, 0, []string{"/sub/a_test.rego:11: the test imgate.services.a_test.test_wrong failed: not true", "\tit printed: store is 1h"}},
		"a case that fails": {map[string]string{"a.rego": regotest.AnyService, "a_test.rego": regotest.TestsOfA + `
test_cases[name] if {
	some name, want in {"one": "1h", "two": "2h"}
	data.imgate.services.a.plan.store == want
}
`}, 0, []string{"a_test.rego:11: the test imgate.services.a_test.test_cases failed: not true for two"}},
		"an error in a builtin": {map[string]string{"a.rego": regotest.AnyService, "a_test.rego": regotest.TestsOfA + `
test_wrong if to_number(input.x) == 1 with input as {"x": "y"}
`}, 0, []string{"/a_test.rego:11: the test imgate.services.a_test.test_wrong failed: to_number: "}},
		"rules that contradict each other": {map[string]string{"a.rego": regotest.AnyService + "\nplan.answer := input.peer\n\nplan.answer := input.protocol\n", "a_test.rego": regotest.TestsOfA + `
test_wrong if data.imgate.services.a.plan.answer == "x" with input as {"peer": "x", "protocol": "y"}
`}, 0, []string{"/a.rego:9: plan.answer: two rules say different things: "}},
		"broken syntax":   {map[string]string{"a.rego": regotest.AnyService, "a_test.rego": "package a\n\ntest_a if if\n"}, 0, []string{"/a_test.rego:3: "}},
		"a wrong type":    {map[string]string{"a.rego": regotest.AnyService, "a_test.rego": regotest.TestsOfA + "\ntest_b if input.mesage.size == 1\n"}, 0, []string{"/a_test.rego:11: ", "mesage"}},
		"the network":     {map[string]string{"a.rego": regotest.AnyService, "a_test.rego": regotest.TestsOfA + "\ntest_b if http.send({})\n"}, 0, []string{"http.send is not available to policies"}},
		"a missing rule":  {map[string]string{"a.rego": regotest.AnyService, "a_test.rego": regotest.TestsOfA + "\ntest_b if data.imgate.services.a.nothing\n"}, 0, []string{"test_b"}},
		"a broken policy": {map[string]string{"a.rego": regotest.AnyService + "plan.stor := 1\n", "a_test.rego": regotest.TestsOfA}, 0, []string{"/a.rego:6: plan.stor"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := sourceOf(t, c.texts)
			if err != nil {
				t.Fatal(err)
			}
			v, err := Compile(t.Context(), s, source.Config{Deadline: time.Second, Coverage: c.floor}, decide.Environment{})
			if c.want != nil {
				regotest.Wants(t, err, c.want...)
				return
			}
			if err != nil || v.Policy == nil {
				t.Errorf("%v, %+v", err, v.Report)
			}
		})
	}
}

func TestFailuresAreBounded(t *testing.T) {
	tests := regotest.TestsOfA
	for i := range 50 {
		tests += fmt.Sprintf("\ntest_%d if false\n", i)
	}
	s, err := sourceOf(t, map[string]string{"a.rego": regotest.AnyService, "a_test.rego": tests})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Compile(t.Context(), s, source.Config{Deadline: time.Second}, decide.Environment{})
	regotest.Wants(t, err, "and 30 more failed tests")
	if v.Report.Tests != 2 {
		t.Errorf("%d passed, want 2", v.Report.Tests)
	}
}

func TestRunTests(t *testing.T) {
	tests := regotest.TestsOfA + "\ntodo_test_later if false\n\ntest_loud if print(concat(\"\", [x | some _ in numbers; x := \"0123456789\"]))\n\nnumbers := split(replace(\"0123456789012345678901234567890123456789\", \"\", \"0123456789\"), \"\")\n"
	s, err := sourceOf(t, map[string]string{"a.rego": regotest.AnyService, "a_test.rego": tests})
	if err != nil {
		t.Fatal(err)
	}
	report, err := RunTests(t.Context(), s, "")
	if err != nil || len(report.Results) != 3 || len(report.Skipped) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	first := report.Results[0]
	if first.Package != "imgate.services.a_test" || first.Name != "test_match" || !strings.HasSuffix(first.Place, "a_test.rego:5") || !first.Passed || first.Took <= 0 {
		t.Errorf("got %+v", first)
	}
	if out := report.Results[2].Output; len(out) > maxOutput+8 || !strings.HasSuffix(out, "…\n") {
		t.Errorf("%d octets of output: %s", len(out), out)
	}
	if report, err = RunTests(t.Context(), s, "test_match$"); err != nil || len(report.Results) != 1 {
		t.Errorf("one of them: %+v, %v", report, err)
	}
}

// A test that never ends is ended.
func TestEndlessTest(t *testing.T) {
	endless := "package lib_test\n\ntest_endless if {\n\tn := split(replace(\"0123456789012345678901234567890123456789\", \"\", \"0123456789\"), \"\")\n\tcount([1 | some a in n; some b in n; some c in n; some d in n; a == b; c == d]) == 1\n}\n"
	s, err := sourceOf(t, map[string]string{"a.rego": regotest.AnyService, "lib_test.rego": endless})
	if err != nil {
		t.Fatal(err)
	}
	tried, err := try(t.Context(), s, "", patience{each: 50 * time.Millisecond, all: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	regotest.Wants(t, errors.Join(tried.failures()...), "lib_test.rego:3: the test lib_test.test_endless failed: not done within 50ms")
	_, err = try(t.Context(), s, "", patience{each: time.Minute, all: 50 * time.Millisecond})
	regotest.Wants(t, err, "the tests: not done within 50ms")
}

// TestNearlyDocumentsInTheReport wants the warning where operators look.
func TestNearlyDocumentsInTheReport(t *testing.T) {
	s, err := sourceOf(t, map[string]string{"a.rego": regotest.AnyService + "\nlimit := 3\n"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Compile(t.Context(), s, source.Config{}, decide.Environment{})
	if err != nil || !slices.ContainsFunc(v.Report.Warnings, func(w string) bool { return strings.Contains(w, "nothing uses limit, was limits") }) {
		t.Errorf("got %q, %v", v.Report.Warnings, err)
	}
}

// sourceOf is a source of the given files.
func sourceOf(t testing.TB, texts map[string]string) (source.Source, error) {
	t.Helper()
	return source.Open(t.Context(), source.Config{Dir: regotest.RoomOf(t, texts)})
}

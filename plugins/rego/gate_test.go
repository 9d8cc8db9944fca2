package rego

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestBuiltInPoliciesPassTheGate(t *testing.T) {
	s := opened(t, Config{Coverage: 100})
	b, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, report, err := s.Compile(t.Context(), b)
	if err != nil || p == nil {
		t.Fatal(err)
	}
	if strings.Join(report.Services, " ") != "onnet" || report.Tests < 5 || report.Coverage != 100 || len(report.Warnings) > 0 {
		t.Errorf("got %+v", report)
	}
}

// Every policy that we ship passes the gate, with full coverage and without a warning.
func TestShippedPoliciesPassTheGate(t *testing.T) {
	config := Config{Dir: "../../policies", Deadline: time.Second, Coverage: 100}
	s, err := openSource(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	_, report, err := compileSource(t.Context(), s, config, environment{})
	if err != nil || len(report.Warnings) > 0 {
		t.Errorf("%v\n%s", err, strings.Join(report.Warnings, "\n"))
	}
}

const testsOfA = `package imgate.services.a_test

import data.imgate.services.a

test_match if a.match == {"domains": ["*"]}

test_store if {
	a.plan.store == "1h" with input as {"message": {"size": 5}}
}
`

func TestGate(t *testing.T) {
	long := anyService + "\nplan.reason := \"blocked\" if {\n\tinput.message.size > 5\n\tinput.message.class == \"text\"\n}\n"
	for name, c := range map[string]struct {
		texts map[string]string
		floor float64
		want  []string // in the error; nil: it passes
	}{
		"no tests":           {map[string]string{"a.rego": anyService}, 0, nil},
		"no tests, a floor":  {map[string]string{"a.rego": anyService}, 1, []string{"the tests reach 0.0 % of the policies: expected at least 1 %"}},
		"tests that pass":    {map[string]string{"a.rego": anyService, "a_test.rego": testsOfA}, 100, nil},
		"what isn't reached": {map[string]string{"a.rego": long, "a_test.rego": testsOfA}, 90, []string{"expected at least 90 %", "/a.rego:7-9: no test reaches it"}},
		"the same, no floor": {map[string]string{"a.rego": long, "a_test.rego": testsOfA}, 0, nil},
		"a test that fails": {map[string]string{"a.rego": anyService, "sub/a_test.rego": testsOfA + `
test_wrong if {
	print("store is", data.imgate.services.a.plan.store)
	data.imgate.services.a.plan.store == "2h"
}
`}, 0, []string{"/sub/a_test.rego:11: the test imgate.services.a_test.test_wrong failed: not true", "\tit printed: store is 1h"}},
		"a case that fails": {map[string]string{"a.rego": anyService, "a_test.rego": testsOfA + `
test_cases[name] if {
	some name, want in {"one": "1h", "two": "2h"}
	data.imgate.services.a.plan.store == want
}
`}, 0, []string{"a_test.rego:11: the test imgate.services.a_test.test_cases failed: not true for two"}},
		"an error in a builtin": {map[string]string{"a.rego": anyService, "a_test.rego": testsOfA + `
test_wrong if to_number(input.x) == 1 with input as {"x": "y"}
`}, 0, []string{"test_wrong failed: ", "to_number"}},
		"broken syntax":   {map[string]string{"a.rego": anyService, "a_test.rego": "package a\n\ntest_a if if\n"}, 0, []string{"/a_test.rego:3: "}},
		"a wrong type":    {map[string]string{"a.rego": anyService, "a_test.rego": testsOfA + "\ntest_b if input.mesage.size == 1\n"}, 0, []string{"/a_test.rego:11: ", "mesage"}},
		"the network":     {map[string]string{"a.rego": anyService, "a_test.rego": testsOfA + "\ntest_b if http.send({})\n"}, 0, []string{"http.send is not available to policies"}},
		"a missing rule":  {map[string]string{"a.rego": anyService, "a_test.rego": testsOfA + "\ntest_b if data.imgate.services.a.nothing\n"}, 0, []string{"test_b"}},
		"a broken policy": {map[string]string{"a.rego": anyService + "plan.stor := 1\n", "a_test.rego": testsOfA}, 0, []string{"/a.rego:6: plan.stor"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := sourceOf(t, c.texts)
			if err != nil {
				t.Fatal(err)
			}
			p, report, err := compileSource(t.Context(), s, Config{Deadline: time.Second, Coverage: c.floor}, environment{})
			if c.want != nil {
				wants(t, err, c.want...)
				return
			}
			if err != nil || p == nil {
				t.Errorf("%v, %+v", err, report)
			}
		})
	}
}

func TestFailuresAreBounded(t *testing.T) {
	tests := testsOfA
	for i := range 50 {
		tests += fmt.Sprintf("\ntest_%d if false\n", i)
	}
	s, err := sourceOf(t, map[string]string{"a.rego": anyService, "a_test.rego": tests})
	if err != nil {
		t.Fatal(err)
	}
	_, report, err := compileSource(t.Context(), s, Config{Deadline: time.Second}, environment{})
	wants(t, err, "and 30 more failed tests")
	if report.Tests != 2 {
		t.Errorf("%d passed, want 2", report.Tests)
	}
}

func TestRunTests(t *testing.T) {
	tests := testsOfA + "\ntodo_test_later if false\n\ntest_loud if print(concat(\"\", [x | some _ in numbers; x := \"0123456789\"]))\n\nnumbers := split(replace(\"0123456789012345678901234567890123456789\", \"\", \"0123456789\"), \"\")\n"
	s, err := sourceOf(t, map[string]string{"a.rego": anyService, "a_test.rego": tests})
	if err != nil {
		t.Fatal(err)
	}
	report, err := runTests(t.Context(), s, "")
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
	if report, err = runTests(t.Context(), s, "test_match$"); err != nil || len(report.Results) != 1 {
		t.Errorf("one of them: %+v, %v", report, err)
	}
}

// A test that never ends is ended.
func TestEndlessTest(t *testing.T) {
	endless := "package lib_test\n\ntest_endless if {\n\tn := split(replace(\"0123456789012345678901234567890123456789\", \"\", \"0123456789\"), \"\")\n\tcount([1 | some a in n; some b in n; some c in n; some d in n; a == b; c == d]) == 1\n}\n"
	s, err := sourceOf(t, map[string]string{"a.rego": anyService, "lib_test.rego": endless})
	if err != nil {
		t.Fatal(err)
	}
	tried, err := try(t.Context(), s, "", patience{each: 50 * time.Millisecond, all: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, errors.Join(tried.failures()...), "lib_test.rego:3: the test lib_test.test_endless failed: not done within 50ms")
	_, err = try(t.Context(), s, "", patience{each: time.Minute, all: 50 * time.Millisecond})
	wants(t, err, "the tests: not done within 50ms")
}

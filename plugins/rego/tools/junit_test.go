package tools

import (
	"bytes"
	"encoding/xml"
	"testing"
	"time"

	"github.com/imgate/imgate/plugins/rego/gate"
)

// TestJUnitIsXML: whatever a test prints.
func TestJUnitIsXML(t *testing.T) {
	run := testRun{Floor: 90, Tested: gate.Tested{Coverage: 89.96, Results: []gate.TestResult{
		{Package: "a_test", Name: "test_<one>", Place: "C:/a & b.rego:3", Took: time.Millisecond, Reason: "]]> \x00 \xff", Output: "\x1b[31m\n"},
		{Package: "b_test", Name: "test_two", Place: "b.rego:4", Passed: true},
		{Package: "a_test", Name: "test_three", Place: "b.rego:9", Passed: true},
	}}}
	var out bytes.Buffer
	if err := writeJUnit(&out, run); err != nil {
		t.Fatal(err)
	}
	var read junitSuites
	if err := xml.Unmarshal(out.Bytes(), &read); err != nil {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	if read.Tests != 4 || read.Failures != 2 || len(read.Suites) != 3 || len(read.Suites[0].Cases) != 2 {
		t.Errorf("%s", out.String())
	}
	first := read.Suites[0].Cases[0]
	if first.Failure == nil || first.File != "C:/a & b.rego" || first.Line != "3" || first.Time != "0.001000" {
		t.Errorf("%+v", first)
	}
	if coverage := read.Suites[2].Cases[0]; coverage.Failure == nil || coverage.Failure.Message != "tests reach 89.9 % of the rules, expected 90 %" {
		t.Errorf("%+v", coverage)
	}
}

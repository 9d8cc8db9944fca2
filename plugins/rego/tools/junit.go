package tools

import (
	"encoding/xml"
	"fmt"
	"io"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/gate"
)

// These are the parts of JUnit's XML that CI systems read. There is no standard:
// testsuites, testsuite, testcase, failure and system-out are what all know.
type junitSuites struct {
	XMLName xml.Name `xml:"testsuites"`
	junitCounts
	Suites []junitSuite `xml:"testsuite"`
}

type junitCounts struct {
	Name     string `xml:"name,attr"`
	Tests    int    `xml:"tests,attr"`
	Failures int    `xml:"failures,attr"`
	Errors   int    `xml:"errors,attr"`
	Time     string `xml:"time,attr"` // seconds
}

type junitSuite struct {
	junitCounts
	Cases []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	File    string        `xml:"file,attr,omitempty"`
	Line    string        `xml:"line,attr,omitempty"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
	Error   *junitFailure `xml:"error"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// writeJUnit writes a suite for each package, and one for the coverage if there
// is a floor: CI shows tests and nothing else.
func writeJUnit(out io.Writer, t testRun) error {
	all := junitSuites{junitCounts: junitCounts{Name: "imgate policy test"}}
	var took time.Duration
	for _, results := range byPackage(t.Results) {
		suite, lasted := junitPackage(results)
		all.Suites = append(all.Suites, suite)
		took += lasted
	}
	if t.Floor > 0 {
		all.Suites = append(all.Suites, junitCoverage(t))
	}
	for _, suite := range all.Suites {
		all.Tests += suite.Tests
		all.Failures += suite.Failures
	}
	all.Time = seconds(took)
	return all.write(out)
}

// writeJUnitError writes that there are no tests to run, since policies or tests
// have mistakes: CI shows nothing else of it.
func writeJUnitError(out io.Writer, failure error) error {
	c := junitCase{
		Class: "load", Name: "load", Time: seconds(0),
		Error: &junitFailure{Message: count(len(plugin.Mistakes(failure)), "mistake"), Text: failure.Error()},
	}
	counts := junitCounts{Name: "imgate policy test", Tests: 1, Errors: 1, Time: c.Time}
	suite := junitSuite{junitCounts: counts, Cases: []junitCase{c}}
	suite.Name = c.Class
	return junitSuites{junitCounts: counts, Suites: []junitSuite{suite}}.write(out)
}

func (all junitSuites) write(out io.Writer) error {
	text, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s%s\n", xml.Header, text)
	return err
}

func junitPackage(results []gate.TestResult) (junitSuite, time.Duration) {
	suite := junitSuite{junitCounts: junitCounts{Name: results[0].Package, Tests: len(results)}}
	var took time.Duration
	for _, r := range results {
		took += r.Took
		file, line, _ := gate.CutLast(r.Place, ":")
		c := junitCase{Class: r.Package, Name: r.Name, File: file, Line: line, Time: seconds(r.Took), Output: r.Output}
		if !r.Passed {
			suite.Failures++
			c.Failure = &junitFailure{Message: r.Place + ": " + r.Name + " failed", Text: r.Reason}
		}
		suite.Cases = append(suite.Cases, c)
	}
	suite.Time = seconds(took)
	return suite, took
}

func junitCoverage(t testRun) junitSuite {
	c := junitCase{Class: "coverage", Name: "coverage", Time: seconds(0)}
	suite := junitSuite{junitCounts: junitCounts{Name: c.Class, Tests: 1, Time: c.Time}}
	if t.Coverage < t.Floor {
		suite.Failures = 1
		c.Failure = &junitFailure{Message: t.shortfall().Error()}
	}
	suite.Cases = []junitCase{c}
	return suite
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }

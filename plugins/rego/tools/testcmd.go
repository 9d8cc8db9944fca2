package tools

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/gate"
	"github.com/imgate/imgate/plugins/rego/source"
)

// testFlags are the flags of policy test.
type testFlags struct {
	place
	output  *plugin.Choice
	run     *string
	verbose *bool
	floor   floorFlag
}

func setupTest(flags *flag.FlagSet) plugin.Run {
	f := testFlags{
		place:   newPlace(flags),
		output:  newOutput(flags, humanOutput, jsonOutput, junitOutput),
		run:     flags.String("run", "", "run only tests whose names match this `REGEX`, as in package.test_name"),
		verbose: flags.Bool("verbose", false, "show tests that pass too"),
	}
	flags.Var(&f.floor, "coverage", "the `PERCENT` of rules that tests must reach; default: as configured, and nothing with --run")
	return f.test
}

// floorFlag is the flag --coverage.
type floorFlag struct {
	percent float64
	given   bool
}

// String is flag.Value.
func (f *floorFlag) String() string {
	if !f.given {
		return ""
	}
	return percentage(f.percent)
}

// Set is flag.Value.
func (f *floorFlag) Set(s string) error {
	percent, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(percent >= 0 && percent <= 100) {
		return errors.New("expected a number from 0 to 100")
	}
	f.percent, f.given = percent, true
	return nil
}

func (f *testFlags) test(ctx context.Context, in plugin.Invocation) error {
	config, err := f.config(in, in.Args)
	if err != nil {
		return err
	}
	if _, err := regexp.Compile(*f.run); err != nil {
		return plugin.Usage("--run: expected a regular expression: %w", err)
	}
	report, err := f.tested(ctx, config)
	if err != nil {
		return errors.Join(f.showMistakes(in.Out, err), refused(in, config, err))
	}
	tried := testRun{Tested: report, Floor: f.floorOf(config), whole: *f.run == ""}
	if err := tried.print(in.Out, f.output.Value, *f.verbose); err != nil {
		return err
	}
	return tried.verdict()
}

// showMistakes says in the format of a machine that no test was run.
func (f *testFlags) showMistakes(out io.Writer, failure error) error {
	switch f.output.Value {
	case jsonOutput:
		d := testRun{}.document()
		d.Passed = false
		for _, mistake := range plugin.Mistakes(failure) {
			d.Mistakes = append(d.Mistakes, mistake.Error())
		}
		return printJSON(out, d)
	case junitOutput:
		return writeJUnitError(out, failure)
	}
	return nil
}

// tested reads the policies and runs their tests.
func (f *testFlags) tested(ctx context.Context, config source.Config) (gate.Tested, error) {
	s, err := source.Open(ctx, config)
	if err != nil {
		return gate.Tested{}, err
	}
	return gate.Beside(ctx, func(ctx context.Context) (gate.Tested, error) { return gate.RunTests(ctx, s, *f.run) })
}

// floorOf is the coverage that is asked for. What a few tests reach says nothing
// about all of them.
func (f *testFlags) floorOf(config source.Config) float64 {
	switch {
	case f.floor.given:
		return f.floor.percent
	case *f.run != "":
		return 0
	}
	return config.Coverage
}

// testRun is what tests came to, and what they should have.
type testRun struct {
	gate.Tested
	Floor float64
	whole bool // all tests were run
}

func (t testRun) failed() (n int) {
	for _, r := range t.Results {
		if !r.Passed {
			n++
		}
	}
	return n
}

// verdict is nil if all is well.
func (t testRun) verdict() error {
	switch failed := t.failed(); {
	case failed > 0:
		return fmt.Errorf("%d of %s failed", failed, count(len(t.Results), "test"))
	case len(t.Results) == 0 && !t.whole:
		return errors.New("no test has such a name")
	case t.Coverage < t.Floor:
		return t.shortfall()
	}
	return nil
}

func (t testRun) shortfall() error {
	return fmt.Errorf("tests reach %s of the rules, expected %s", percentage(t.Coverage), percentage(t.Floor))
}

func (t testRun) print(out io.Writer, format string, verbose bool) error {
	switch format {
	case jsonOutput:
		return printJSON(out, t.document())
	case junitOutput:
		return writeJUnit(out, t)
	}
	return t.write(out, verbose)
}

// write prints tests by package: those that failed, and all if verbose; then
// what they reach.
func (t testRun) write(out io.Writer, verbose bool) error {
	for _, results := range byPackage(t.Results) {
		writePackage(out, results, verbose)
	}
	if len(t.Results) == 0 {
		fmt.Fprintln(out, "no tests")
	}
	for _, place := range t.Skipped {
		fmt.Fprintf(out, "todo %s: not run\n", place)
	}
	fmt.Fprintln(out)
	coverage := sheet{{"FILE", "COVERED", "NOT COVERED"}}
	for _, f := range t.Files {
		coverage.row(f.Path, percentage(f.Coverage), strings.Join(f.Uncovered, ", "))
	}
	coverage.row("all", percentage(t.Coverage))
	return coverage.write(out)
}

func writePackage(out io.Writer, results []gate.TestResult, verbose bool) {
	failed := 0
	var took time.Duration
	for _, r := range results {
		took += r.Took
		if !r.Passed {
			failed++
		}
	}
	summary := "ok, " + count(len(results), "test")
	if failed > 0 {
		summary = fmt.Sprintf("FAILED, %d of %s", failed, count(len(results), "test"))
	}
	fmt.Fprintf(out, "%s: %s, %s\n", results[0].Package, summary, took.Round(10*time.Microsecond))
	for _, r := range results {
		writeResult(out, r, verbose)
	}
}

// writeResult prints a test that failed with all that is known about it.
func writeResult(out io.Writer, r gate.TestResult, verbose bool) {
	switch {
	case !r.Passed:
		fmt.Fprintf(out, "  FAIL %s: %s\n", r.Place, r.Name)
		if r.Reason != "" {
			fmt.Fprintln(out, indented(r.Reason, "    "))
		}
	case verbose:
		fmt.Fprintf(out, "  ok   %s: %s, %s\n", r.Place, r.Name, r.Took.Round(10*time.Microsecond))
	default:
		return
	}
	if r.Output != "" {
		fmt.Fprintln(out, indented(r.Output, "    | "))
	}
}

// byPackage divides results, in the order in which packages appear.
func byPackage(results []gate.TestResult) (packages [][]gate.TestResult) {
	at := map[string]int{}
	for _, r := range results {
		i, known := at[r.Package]
		if !known {
			i, at[r.Package] = len(packages), len(packages)
			packages = append(packages, nil)
		}
		packages[i] = append(packages[i], r)
	}
	return packages
}

// percentage rounds down, so that 99.99 isn't 100.
func percentage(p float64) string {
	return strconv.FormatFloat(float64(int(p*10))/10, 'f', -1, 64) + " %"
}

// testDocument is what policy test prints as JSON.
type testDocument struct {
	Passed   bool             `json:"passed"`
	Mistakes []string         `json:"mistakes,omitempty"` // why no test was run
	Coverage float64          `json:"coverage"`           // percent
	Floor    float64          `json:"floor"`              // percent
	Tests    []testView       `json:"tests"`
	Skipped  []string         `json:"skipped"` // places
	Files    []fileCoverageOf `json:"files"`
}

type testView struct {
	Package string  `json:"package"`
	Name    string  `json:"name"`
	Place   string  `json:"place"`
	Passed  bool    `json:"passed"`
	Reason  string  `json:"reason,omitempty"`
	Output  string  `json:"output,omitempty"`
	Seconds float64 `json:"seconds"`
}

type fileCoverageOf struct {
	Path      string   `json:"path"`
	Coverage  float64  `json:"coverage"`
	Uncovered []string `json:"uncovered"`
}

func (t testRun) document() testDocument {
	d := testDocument{
		Passed: t.verdict() == nil, Coverage: t.Coverage, Floor: t.Floor,
		Tests: []testView{}, Skipped: append([]string{}, t.Skipped...), Files: []fileCoverageOf{},
	}
	for _, r := range t.Results {
		d.Tests = append(d.Tests, testView{r.Package, r.Name, r.Place, r.Passed, r.Reason, r.Output, r.Took.Seconds()})
	}
	for _, f := range t.Files {
		d.Files = append(d.Files, fileCoverageOf{f.Path, f.Coverage, append([]string{}, f.Uncovered...)})
	}
	return d
}

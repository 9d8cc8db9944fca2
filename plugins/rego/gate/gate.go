// Package gate is what policies pass before they decide: their own tests, the
// coverage that is asked for, and a report of what will work but slowly. It must
// not know where policies come from, nor what is done with its verdict.
package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/source"
)

const (
	maxOutput   = 4 << 10 // octets shown of what a test prints
	maxShown    = 20      // failed tests, and places that aren't covered, in an error
	testsAtOnce = 1       // they run beside the traffic, which needs the other processors
)

// patience is how long tests may take.
type patience struct{ each, all time.Duration }

var testPatience = patience{each: 5 * time.Second, all: time.Minute}

// Tested is what the tests of a source came to.
type Tested struct {
	Results  []TestResult   // in the order of their places
	Coverage float64        // of the lines of all policies, 0 to 100
	Files    []FileCoverage // of the policies, in the order of their names
	Skipped  []string       // the places of those called todo_test_…
}

// TestResult is what a test came to.
type TestResult struct {
	Package, Name string
	Place         string // file:line
	Passed        bool
	Reason        string // why not
	Output        string // what it printed
	Took          time.Duration
}

// FileCoverage is what the tests reach of a file.
type FileCoverage struct {
	Path      string
	Coverage  float64  // of its lines, 0 to 100
	Uncovered []string // lines: "7", "9-12"
}

// Verdict is what the gate says of a source: the policy if it passes, and the
// report as far as things went.
type Verdict struct {
	Policy *decide.Policy
	Report plugin.PolicyReport
}

// Compile makes a policy of what a source holds, if it passes the gate:
// its tests, and the coverage that is asked for.
func Compile(ctx context.Context, s source.Source, config source.Config, env decide.Environment) (v Verdict, err error) {
	p, errs := decide.Load(ctx, s, config.Deadline, env)
	if len(errs) > 0 {
		return v, errors.Join(errs...)
	}
	v.Report.Services = p.ServiceNames()
	t, err := try(ctx, s, "", testPatience)
	if err != nil {
		return v, err
	}
	v.Report.Tests, v.Report.Coverage = t.passed(), t.Coverage
	v.Report.Warnings = slices.Concat(p.Warnings(), t.warnings(s, config.Coverage), inspect(t.compiler, s))
	if errs := slices.Concat(t.failures(), t.uncovered(config.Coverage)); len(errs) > 0 {
		return v, errors.Join(errs...)
	}
	v.Policy = p
	return v, nil
}

// RunTests runs the tests whose full name matches run, an expression; "": all.
func RunTests(ctx context.Context, s source.Source, run string) (Tested, error) {
	t, err := try(ctx, s, run, testPatience)
	return t.Tested, err
}

// rehearsal is a source that was tried.
type rehearsal struct {
	Tested
	compiler *ast.Compiler // of policies and tests
}

// try compiles policies and tests with the same capabilities, schemas and
// strictness that messages are decided with, and runs the tests.
func try(ctx context.Context, s source.Source, run string, p patience) (rehearsal, error) {
	language, err := decide.NewLanguage()
	if err != nil {
		return rehearsal{}, err
	}
	modules, errs := language.Parse(slices.Concat(s.Policies, s.Tests))
	if len(errs) > 0 {
		return rehearsal{}, errors.Join(errs...)
	}
	store := decide.NewStore(s.Data)
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return rehearsal{}, err
	}
	defer store.Abort(ctx, txn)
	t := rehearsal{compiler: language.Compiler().WithEnablePrintStatements(true)}
	ctx, cancel := context.WithTimeoutCause(ctx, p.all, fmt.Errorf("the tests: not done within %s", p.all))
	defer cancel()
	coverage := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(t.compiler).
		SetStore(store).
		SetModules(modules).
		AddCustomBuiltins(language.BoundedBuiltins()).
		CapturePrintOutput(true).
		RaiseBuiltinErrors(true).
		SetTimeout(p.each).
		SetParallel(testsAtOnce).
		SetCoverageQueryTracer(coverage).
		SetCoverageRuns(nil).
		Filter(run).
		RunTests(ctx, txn)
	if err != nil {
		return t, errors.Join(decide.InWords(err)...)
	}
	for r := range results {
		t.add(r, p.each)
	}
	if ctx.Err() != nil {
		return t, context.Cause(ctx)
	}
	slices.SortFunc(t.Results, func(a, b TestResult) int {
		return cmp.Or(comparePlaces(a.Place, b.Place), strings.Compare(a.Name, b.Name))
	})
	slices.SortFunc(t.Skipped, comparePlaces)
	t.measure(coverage, modules, s.Policies)
	return t, nil
}

// comparePlaces orders by file, then by line.
func comparePlaces(a, b string) int {
	fileA, lineA, _ := CutLast(a, ":")
	fileB, lineB, _ := CutLast(b, ":")
	return cmp.Or(strings.Compare(fileA, fileB), cmp.Compare(len(lineA), len(lineB)), strings.Compare(lineA, lineB))
}

// CutLast cuts a text at the last separator: a place into file and line.
func CutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}

func (t *rehearsal) add(r *tester.Result, within time.Duration) {
	place := decide.Position(r.Location)
	if r.Skip {
		t.Skipped = append(t.Skipped, place)
		return
	}
	t.Results = append(t.Results, TestResult{
		Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name, Place: place,
		Passed: r.Pass(), Reason: reason(r, within), Output: output(r.Output), Took: r.Duration,
	})
}

// reason says why a test failed.
func reason(r *tester.Result, within time.Duration) string {
	switch {
	case r.Pass():
		return ""
	case topdown.IsCancel(r.Error):
		return fmt.Sprintf("not done within %s", within)
	case r.Error != nil:
		return strings.TrimPrefix(decide.Fault(r.Error).Error(), decide.Position(r.Location)+": ")
	}
	var cases []string
	for names, part := range r.SubResults.Iter {
		if part.Fail && len(part.SubResults) == 0 {
			cases = append(cases, strings.Join(names, "/"))
		}
	}
	if len(cases) > 0 {
		return "not true for " + strings.Join(cases, ", ")
	}
	return "not true"
}

func output(printed []byte) string {
	if len(printed) > maxOutput {
		return strings.ToValidUTF8(string(printed[:maxOutput]), "") + "…\n"
	}
	return string(printed)
}

// measure finds out what the tests reached of the policies.
func (t *rehearsal) measure(coverage *cover.Cover, modules map[string]*ast.Module, policies []source.File) {
	ours := map[string]*ast.Module{}
	for _, f := range policies {
		ours[f.Path] = modules[f.Path]
	}
	report := coverage.Report(ours)
	covered, all := 0, 0
	for _, path := range slices.Sorted(maps.Keys(ours)) {
		found := report.Files[path]
		if found.CoveredLines+found.NotCoveredLines == 0 {
			continue // there is nothing to reach
		}
		covered, all = covered+found.CoveredLines, all+found.CoveredLines+found.NotCoveredLines
		t.Files = append(t.Files, FileCoverage{Path: path, Coverage: found.Coverage, Uncovered: lines(found.NotCovered)})
	}
	if all > 0 {
		t.Coverage = 100 * float64(covered) / float64(all)
	}
}

// lines returns the lines of ranges, those that follow each other as one.
func lines(ranges []cover.Range) []string {
	var texts []string
	first, last := 0, -1
	flush := func() {
		switch {
		case last < first:
		case last == first:
			texts = append(texts, fmt.Sprint(first))
		default:
			texts = append(texts, fmt.Sprintf("%d-%d", first, last))
		}
	}
	for _, r := range ranges { // they are in order
		if r.Start.Row > last+1 {
			flush()
			first, last = r.Start.Row, r.End.Row
		}
		last = max(last, r.End.Row)
	}
	flush()
	return texts
}

func (t *rehearsal) passed() (n int) {
	for _, r := range t.Results {
		if r.Passed {
			n++
		}
	}
	return n
}

// failures is an error for each test that failed, and what it printed.
func (t *rehearsal) failures() []error {
	var errs []error
	for _, r := range t.Results {
		if r.Passed {
			continue
		}
		err := fmt.Errorf("%s: the test %s.%s failed: %s", r.Place, r.Package, r.Name, r.Reason)
		if printed := strings.TrimSpace(r.Output); printed != "" {
			err = fmt.Errorf("%w\n\tit printed: %s", err, strings.ReplaceAll(printed, "\n", "\n\t"))
		}
		errs = append(errs, err)
	}
	return most(errs, "failed tests")
}

// uncovered is an error if the tests reach less than they must, and one for
// each place that they don't reach.
func (t *rehearsal) uncovered(floor float64) []error {
	if t.Coverage >= floor {
		return nil
	}
	var places []error
	for _, f := range t.Files {
		for _, line := range f.Uncovered {
			places = append(places, fmt.Errorf("%s:%s: no test reaches it", f.Path, line))
		}
	}
	err := fmt.Errorf("the tests reach %.1f %% of the policies: expected at least %g %%", t.Coverage, floor)
	return append([]error{err}, most(places, "places that no test reaches")...)
}

// most cuts a long list off and says so.
func most(errs []error, what string) []error {
	if len(errs) <= maxShown {
		return errs
	}
	return append(errs[:maxShown:maxShown], fmt.Errorf("and %d more %s", len(errs)-maxShown, what))
}

// warnings is what the tests leave open.
func (t *rehearsal) warnings(s source.Source, floor float64) []string {
	var found []string
	if len(s.Tests) == 0 {
		found = append(found, "there are no tests: write some in files *_test.rego, so that a mistake is noticed before it decides")
	}
	for _, place := range t.Skipped {
		found = append(found, place+": the test is skipped because of its name: call it test_…")
	}
	if floor == 0 {
		return found // nobody asked for coverage
	}
	for _, f := range t.Files {
		if len(f.Uncovered) > 0 {
			found = append(found, fmt.Sprintf("%s:%s: no test reaches it", f.Path, strings.Join(f.Uncovered, ", ")))
		}
	}
	return found
}

package rego

import (
	"context"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/policies"
)

// TestShippedPolicies runs the tests in package policies with the builtins and
// the strictness that production has, and wants every rule tried.
func TestShippedPolicies(t *testing.T) {
	language, err := newLanguage()
	if err != nil {
		t.Fatal(err)
	}
	modules, errs := language.parse(regoFiles(t, policies.Files))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	coverage := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(language.compiler().WithEnablePrintStatements(true)).
		SetModules(modules).
		CapturePrintOutput(true).
		RaiseBuiltinErrors(true).
		SetTimeout(10*time.Second).
		SetCoverageQueryTracer(coverage).
		RunTests(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for r := range results {
		ran++
		if !r.Pass() {
			t.Errorf("%s: %s failed: %v\n%s", r.Location, r.Name, r.Error, r.Output)
		}
	}
	if ran == 0 {
		t.Error("there are no tests")
	}
	for path, report := range coverage.Report(production(modules)).Files {
		if report.Coverage < 100 {
			t.Errorf("%s: the tests cover %.1f %%, want 100; not covered: %+v", path, report.Coverage, report.NotCovered)
		}
	}
}

func regoFiles(t *testing.T, fsys fs.FS) []file {
	t.Helper()
	names, err := fs.Glob(fsys, "*.rego")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	var files []file
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{path: name, text: text})
	}
	return files
}

func production(modules map[string]*ast.Module) map[string]*ast.Module {
	rest := map[string]*ast.Module{}
	for path, module := range modules {
		if !strings.HasSuffix(path, "_test.rego") {
			rest[path] = module
		}
	}
	return rest
}

func TestShippedPlan(t *testing.T) {
	p := open(t)
	plan, err := p.Decide(context.WithoutCancel(t.Context()), typical())
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Revision) != 12 {
		t.Errorf("revision %q, want 12 hexadecimal digits", plan.Revision)
	}
	want := plugin.Plan{
		Service: "onnet", Revision: plan.Revision,
		Processing: plugin.Deliver, Transports: []string{"sip"},
		MIME: map[string][]string{
			"sip": {
				"text/plain", "message/cpim", "text/html",
				"application/im-iscomposing+xml", "application/x-acro-filetransfer+json",
			},
			"smpp": {"text/plain", "message/cpim"},
		},
		Charging: plugin.PlanCharging{Mode: plugin.ChargeEvent},
		Store:    time.Hour, Answer: plugin.AnswerDelivered,
	}.WithDefaults()
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("got  %+v\nwant %+v", plan, want)
	}
	q := typical()
	q.Message.Class = "composing"
	if plan, err := p.Decide(t.Context(), q); err != nil || plan.Charging.Mode != plugin.ChargeNone {
		t.Errorf("composing: got %+v, %v, want it free", plan.Charging, err)
	}
}

// TestReadme loads the service that the operator's page shows.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../policies/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```rego\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("there is no example")
	}
	p := mustLoad(t, map[string]string{"wholesale": example, "wholesale.yaml": "{wholesale: {store: 4h}}"})
	q := typical()
	q.Recipient = plugin.QuestionRecipient{User: "+447700900000", Domain: "a.wholesale.example.com"}
	plan, err := p.Decide(t.Context(), q)
	if err != nil || plan.Processing != plugin.Reject || plan.Store != 4*time.Hour || plan.Charging.UnitSize != 140 {
		t.Errorf("got %+v, %v", plan, err)
	}
}

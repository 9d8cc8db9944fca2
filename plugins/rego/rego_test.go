package rego

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/plugins/rego/source"
)

// compiledFrom opens a source, and compiles what it holds.
func compiledFrom(t testing.TB, config source.Config) (plugin.Policy, error) {
	t.Helper()
	opened, err := New(t.Context(), plugin.Env{Log: slog.New(slog.DiscardHandler)}, config)
	if err != nil {
		return nil, err
	}
	b, err := opened.Read(t.Context())
	if err != nil {
		return nil, err
	}
	p, _, err := opened.Compile(t.Context(), b)
	return p, err
}

func TestNewFromDirectory(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openDir := func() (plugin.Policy, error) {
		return compiledFrom(t, source.Config{Dir: dir, Deadline: time.Second})
	}
	write("a.rego", regotest.Header+"plan.labels.tariff := data.tariff\n")
	write("tariff.yaml", "tariff: gold\n")
	write("a_test.rego", "package imgate.services.a_test\n\ntest_one if true\n")
	write(".hidden.rego", "nor is this")
	write("notes.txt", "nor this")
	if err := os.Mkdir(filepath.Join(dir, "old.rego"), 0o700); err != nil {
		t.Fatal(err)
	}
	first := decided(t, must(t, openDir))
	if first.Service != "a" || first.Labels["tariff"] != "gold" {
		t.Errorf("got %+v", first)
	}
	if again := decided(t, must(t, openDir)); again.Revision != first.Revision {
		t.Errorf("nothing changed the revision from %s to %s", first.Revision, again.Revision)
	}
	write("tariff.yaml", "tariff: silver\n")
	if again := decided(t, must(t, openDir)); again.Revision == first.Revision || again.Labels["tariff"] != "silver" {
		t.Errorf("changed data: got revision %s, %v", again.Revision, again.Labels)
	}
}

func must(t *testing.T, open func() (plugin.Policy, error)) plugin.Policy {
	t.Helper()
	p, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNewFromMissingDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	_, err := compiledFrom(t, source.Config{Dir: dir, Deadline: time.Second})
	if err == nil || !strings.Contains(err.Error(), dir+": no such file or directory") {
		t.Errorf("got %v", err)
	}
}

// TestOneCompilationThatDoesNotEnd wants the next to be refused until it does.
func TestOneCompilationThatDoesNotEnd(t *testing.T) {
	s := opened(t, source.Config{Dir: regotest.RoomOf(t, map[string]string{"a.rego": regotest.AnyService})}).(*policySource)
	b, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.compiling.Begin("4711"); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Compile(t.Context(), b)
	regotest.Wants(t, err, "the compilation of revision 4711, begun at ", "doesn't end")
	s.compiling.End()
	for range 2 {
		if _, _, err := s.Compile(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
}

func TestBuiltInPoliciesPassTheGate(t *testing.T) {
	s := opened(t, source.Config{Coverage: 100})
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

// decided asks about a message to somebody.
func decided(t *testing.T, p plugin.Policy) plugin.Plan {
	t.Helper()
	plan, err := p.Decide(t.Context(), regotest.Typical(), plugin.Given{})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestSignedBundlePassesTheGate wants the tests in a bundle to be run.
func TestSignedBundlePassesTheGate(t *testing.T) {
	const secret = "a secret that is long enough for it"
	for tests, want := range map[string]string{
		regotest.TestsOfA: "",
		strings.ReplaceAll(regotest.TestsOfA, "1h", "2h"): "failed",
	} {
		files := map[string]string{"a.rego": regotest.AnyService, "a_test.rego": tests, "data.json": "{}"}
		signed := regotest.SignedBundle(t, files, bundle.NewSigningConfig(secret, "HS256", ""), "")
		name := filepath.Join(t.TempDir(), "policies.tar.gz")
		if err := os.WriteFile(name, signed, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := compiledFrom(t, source.Config{Deadline: time.Second, Bundle: source.BundleConfig{File: name, Key: secret, Algorithm: "HS256"}})
		if want != "" {
			regotest.Wants(t, err, want)
		} else if err != nil || decided(t, p).Service != "a" {
			t.Error(err)
		}
	}
}

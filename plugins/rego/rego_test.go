package rego

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// compiledFrom opens a source, and compiles what it holds.
func compiledFrom(t testing.TB, config Config) (plugin.Policy, error) {
	t.Helper()
	source, err := New(t.Context(), plugin.Env{Log: slog.New(slog.DiscardHandler)}, config)
	if err != nil {
		return nil, err
	}
	bundle, err := source.Read(t.Context())
	if err != nil {
		return nil, err
	}
	p, _, err := source.Compile(t.Context(), bundle)
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
		return compiledFrom(t, Config{Dir: dir, Deadline: time.Second})
	}
	write("a.rego", header+"plan.labels.tariff := data.tariff\n")
	write("tariff.yaml", "tariff: gold\n")
	write("a_test.rego", "package imgate.services.a_test\n\ntest_one if true\n")
	write(".hidden.rego", "nor is this")
	write("notes.txt", "nor this")
	if err := os.Mkdir(filepath.Join(dir, "old.rego"), 0o700); err != nil {
		t.Fatal(err)
	}
	first := decide(t, must(t, openDir))
	if first.Service != "a" || first.Labels["tariff"] != "gold" {
		t.Errorf("got %+v", first)
	}
	if again := decide(t, must(t, openDir)); again.Revision != first.Revision {
		t.Errorf("nothing changed the revision from %s to %s", first.Revision, again.Revision)
	}
	write("tariff.yaml", "tariff: silver\n")
	if again := decide(t, must(t, openDir)); again.Revision == first.Revision || again.Labels["tariff"] != "silver" {
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
	_, err := compiledFrom(t, Config{Dir: dir, Deadline: time.Second})
	if err == nil || !strings.Contains(err.Error(), dir+": no such file or directory") {
		t.Errorf("got %v", err)
	}
}

func TestData(t *testing.T) {
	p := mustLoad(t, map[string]string{
		"a":      header + "plan.labels[name] := sprintf(\"%v\", [value]) if some name, value in data.table\n",
		"d.yaml": "table: {number: 7, 44: uk, day: 2026-01-02, \"yes\": yes, size: 1.5}\n",
	})
	got := decide(t, p).Labels
	want := map[string]string{"number": "7", "44": "uk", "day": "2026-01-02", "yes": "yes", "size": "1.5"}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: got %q, want %q", name, got[name], value)
		}
	}
}

package policies_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"

	"github.com/imgate/imgate/policies"
)

// TestFormatted: what we ship, and what examples have, is what `imgate policy
// fmt` would write.
func TestFormatted(t *testing.T) {
	var names []string
	for _, pattern := range []string{"*.rego", "../examples/*/policies/*.rego"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, found, err)
		}
		names = append(names, found...)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		formatted, err := format.SourceWithOpts(name, text, format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(formatted, text) {
			t.Errorf("%s isn't formatted: expected\n%s", name, formatted)
		}
	}
}

// TestDataNamesItsService: who copies a service finds its data by their first
// line.
func TestDataNamesItsService(t *testing.T) {
	names, err := fs.Glob(policies.Files, "*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(policies.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		rest, found := strings.CutPrefix(string(text), "# For ")
		service, _, _ := strings.Cut(rest, ".rego")
		if _, err := fs.Stat(policies.Files, service+".rego"); !found || err != nil {
			t.Errorf("%s: expected a first line \"# For SERVICE.rego\": %v", name, err)
		}
	}
}

// TestDefault: what decides where nothing is configured is there.
func TestDefault(t *testing.T) {
	for _, name := range policies.Default {
		if _, err := fs.Stat(policies.Files, name); err != nil {
			t.Error(err)
		}
	}
}

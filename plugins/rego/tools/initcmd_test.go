package tools

import (
	"gopkg.in/yaml.v3"

	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgate/imgate/policies"
)

// TestInit: what it writes passes all there is, as a whole and service by service.
func TestInit(t *testing.T) {
	t.Chdir(t.TempDir())
	all := shippedServices()
	if len(all) != 6 {
		t.Errorf("%q", all)
	}
	for _, name := range append([]string{strings.Join(all, ",")}, all...) {
		if got := imgate(t, "policy init", "", "--service", name, name); got.failure != nil {
			t.Fatalf("%s: %+v", name, got)
		}
		if got := imgate(t, "policy test", "", name, "--coverage", "90"); got.failure != nil {
			t.Errorf("%s: %+v", name, got)
		}
		if got := imgate(t, "policy check", "", name); got.failure != nil || !strings.Contains(strings.ReplaceAll(got.out, ", ", ","), "services  "+name+"\n") {
			t.Errorf("%s: %+v", name, got)
		}
		if got := imgate(t, "policy fmt", "", "--check", name); got.failure != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestInitWritesWhatItSays: and all that belongs to the services, with what
// editors need.
func TestInitWritesWhatItSays(t *testing.T) {
	t.Chdir(t.TempDir())
	got := imgate(t, "policy init", "", "new/dir", "--service", "onnet")
	if got.failure != nil {
		t.Fatalf("%+v", got)
	}
	var found []string
	err := filepath.WalkDir("new/dir", func(name string, entry fs.DirEntry, err error) error {
		if !entry.IsDir() {
			found = append(found, name)
		}
		return err
	})
	said := strings.Fields(got.out)
	slices.Sort(said)
	slices.Sort(found)
	want := []string{
		".regal/config.yaml", ".schema/plan.schema.json", ".schema/question.schema.json", ".vscode/settings.json",
		"README.md", "builtins.txt", "onnet.rego", "onnet_test.rego",
	}
	for i := range want {
		want[i] = filepath.Join("new/dir", want[i])
	}
	if err != nil || !slices.Equal(found, want) || !slices.Equal(said, want) {
		t.Errorf("%v: %q, said %q", err, found, said)
	}
	var settings map[string]any
	if err := json.Unmarshal([]byte(read(t, "new/dir/.vscode/settings.json")), &settings); err != nil {
		t.Error(err)
	}
	if readme := read(t, "new/dir/README.md"); !strings.Contains(readme, "\n- `onnet.rego`\n") || strings.Contains(readme, "{{") {
		t.Errorf("%s", readme)
	}
}

// TestInitOverwritesNothing: neither a file nor a part of a directory.
func TestInitOverwritesNothing(t *testing.T) {
	for _, name := range []string{"README.md", "onnet.rego", ".regal/config.yaml"} {
		dir := wrote(t, map[string]string{name: "mine"})
		got := imgate(t, "policy init", "", dir)
		if got.failure == nil || !strings.Contains(got.failure.Error(), filepath.Join(dir, name)+" is there already") || isUsage(got.failure) {
			t.Errorf("%s: %+v", name, got)
		}
		if text := read(t, filepath.Join(dir, name)); text != "mine" {
			t.Errorf("%s: %q", name, text)
		}
		if _, err := os.Stat(filepath.Join(dir, "sms.rego")); err == nil {
			t.Errorf("%s: others were written", name)
		}
	}
	if got := imgate(t, "policy init", "", filepath.Join(wrote(t, map[string]string{"file": ""}), "file")); got.failure == nil || !strings.Contains(got.failure.Error(), "file is a file: expected a directory") {
		t.Errorf("%+v", got)
	}
}

// TestDataSaysWhoseItIs: each data file that ships begins with the service that it
// is for, so that init knows.
func TestDataSaysWhoseItIs(t *testing.T) {
	files, err := fs.Glob(policies.Files, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := fs.ReadFile(policies.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		if service := serviceOf(name, text); !slices.Contains(shippedServices(), service) {
			t.Errorf(`%s: expected a first line such as "# For sms.rego.", found %q`, name, service)
		}
	}
}

// TestRegalIsConfiguredAlike: the repository's policies are held to what a new
// directory is.
func TestRegalIsConfiguredAlike(t *testing.T) {
	theirs, err := fs.ReadFile(start, "start/regal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if ours := read(t, "../../../.regal/config.yaml"); ours != string(theirs) {
		t.Error("plugins/rego/tools/start/regal.yaml and .regal/config.yaml differ")
	}
	var settings struct{ Rules map[string]any }
	if err := yaml.Unmarshal(theirs, &settings); err != nil || len(slices.Collect(maps.Keys(settings.Rules))) == 0 {
		t.Error(err, settings)
	}
}

// TestEditorPageShowsTheSettings: those that init writes.
func TestEditorPageShowsTheSettings(t *testing.T) {
	settings, err := fs.ReadFile(start, "start/settings.json")
	if err != nil {
		t.Fatal(err)
	}
	if page := read(t, "../../../docs/editor.md"); !strings.Contains(page, "```json\n"+string(settings)+"```\n") {
		t.Error("docs/editor.md shows other settings than plugins/rego/tools/start/settings.json")
	}
}

//go:build process

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestIntegrating makes a module of the files in docs/integrating.md, tests it,
// and asks the program what it has.
func TestIntegrating(t *testing.T) {
	dir := t.TempDir()
	writeModule(t, dir)
	page := read(t, "../../docs/integrating.md")
	files := regexp.MustCompile("(?s)```go\n// (\\S+)\n\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(files) != 7 {
		t.Fatalf("%d files were found", len(files))
	}
	for _, file := range files {
		writeFile(t, filepath.Join(dir, file[1]), file[2])
	}
	inModule(t, dir, "go", "vet", "./...")
	inModule(t, dir, "go", "test", "-race", "./...")
	if out := inModule(t, dir, "gofmt", "-l", "."); out != "" {
		t.Errorf("gofmt would change %s", out)
	}
	if out := inModule(t, dir, "go", "run", ".", "plugins"); !strings.Contains(strings.Join(strings.Fields(out), " "), "observer recent remembers the last steps") {
		t.Errorf("the plugin isn't there:\n%s", out)
	}
	_, configuration, _ := strings.Cut(page, "```yaml\n")
	configuration, _, _ = strings.Cut(configuration, "```")
	writeFile(t, filepath.Join(dir, "imgate.yaml"), "transports: {sip: {}}\n"+configuration)
	writeFile(t, filepath.Join(dir, "hours.txt"), "sip.example.com 24h\n")
	inModule(t, dir, "go", "run", ".", "check", "--config", "imgate.yaml")
	if out := inModule(t, dir, "go", "run", ".", "recent", "--help"); !strings.Contains(out, "print the last steps of messages") {
		t.Errorf("the command isn't there:\n%s", out)
	}
}

// writeModule writes a go.mod that has this repository in it, with what it
// needs, so that nothing is fetched.
func writeModule(t *testing.T, dir string) {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	module := strings.Replace(read(t, "../../go.mod"), "module github.com/imgate/imgate", "module example.com/gateway", 1)
	module += "\nrequire github.com/imgate/imgate v0.0.0\n\nreplace github.com/imgate/imgate => " + repository + "\n"
	writeFile(t, filepath.Join(dir, "go.mod"), module)
	writeFile(t, filepath.Join(dir, "go.sum"), read(t, "../../go.sum"))
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func inModule(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

package tools

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/source"
	"github.com/imgate/imgate/policies"
)

// start holds what a new directory has beside policies: README.md, a template,
// and the settings of editors.
//
//go:embed start/README.md start/regal.yaml start/settings.json
var start embed.FS

// serviceFlag is the flag --service, which may be there many times.
type serviceFlag []string

// String is flag.Value.
func (s *serviceFlag) String() string { return strings.Join(*s, ",") }

// Set is flag.Value.
func (s *serviceFlag) Set(names string) error {
	known := shippedServices()
	for name := range strings.SplitSeq(names, ",") {
		if !slices.Contains(known, name) {
			return fmt.Errorf("expected one of %s", strings.Join(known, ", "))
		}
		*s = append(*s, name)
	}
	return nil
}

func setupInit(flags *flag.FlagSet) plugin.Run {
	var chosen serviceFlag
	flags.Var(&chosen, "service", "only this service, as `"+strings.Join(shippedServices(), "|")+"`; may be repeated")
	return func(_ context.Context, in plugin.Invocation) error {
		if len(in.Args) != 1 || in.Args[0] == "" {
			return plugin.Usage("expected a directory, for example: policy init ./policies")
		}
		if len(chosen) == 0 {
			chosen = shippedServices()
		}
		files, err := startFiles(chosen)
		if err != nil {
			return err
		}
		if err := writeNew(in.Args[0], files); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Fprintln(in.Out, filepath.Join(in.Args[0], name))
		}
		return nil
	}
}

// shippedServices returns the names of the services that are built in.
func shippedServices() (names []string) {
	files, _ := fs.Glob(policies.Files, "*.rego") // the pattern is right
	for _, file := range files {
		if name := strings.TrimSuffix(file, ".rego"); !strings.HasSuffix(name, "_test") {
			names = append(names, name)
		}
	}
	return names
}

// startFiles returns what a new directory holds: the services with their tests
// and data, the schemas, and what editors need.
func startFiles(chosen []string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, pattern := range []string{"*.rego", "*.yaml", "schema/*.json", policies.Builtins} {
		names, err := fs.Glob(policies.Files, pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := fs.ReadFile(policies.Files, name)
			if err != nil {
				return nil, err
			}
			if service := serviceOf(name, text); service == "" || slices.Contains(chosen, service) {
				files[placeOf(name)] = text
			}
		}
	}
	return files, addSettings(files, chosen)
}

// placeOf is where a file goes: what isn't data must not be read as such, and what
// is hidden isn't.
func placeOf(name string) string {
	if path.Dir(name) == "." {
		return name
	}
	return "." + name
}

// serviceOf tells which service a file belongs to, "" if to all. A data file says
// so in its first line: "# For sms.rego."
func serviceOf(name string, text []byte) string {
	if source.IsPolicy(name) {
		return strings.TrimSuffix(strings.TrimSuffix(name, ".rego"), "_test")
	}
	first, _, _ := strings.Cut(string(text), "\n")
	rest, found := strings.CutPrefix(first, "# For ")
	service, _, policy := strings.Cut(rest, ".rego")
	if !found || !policy {
		return ""
	}
	return service
}

// addSettings adds what isn't a policy.
func addSettings(files map[string][]byte, chosen []string) error {
	readme, err := template.ParseFS(start, "start/README.md")
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := readme.Execute(&text, slices.Compact(slices.Sorted(slices.Values(chosen)))); err != nil {
		return err
	}
	files["README.md"] = text.Bytes()
	for name, from := range map[string]string{
		".regal/config.yaml": "start/regal.yaml", ".vscode/settings.json": "start/settings.json",
	} {
		if files[name], err = fs.ReadFile(start, from); err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes files into a directory, unless one of them is there already:
// then it writes none.
func writeNew(dir string, files map[string][]byte) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is a file: expected a directory, which init makes if there is none", dir)
	}
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s is there already: nothing was written", filepath.Join(dir, name)), err)
		}
	}
	for _, name := range names {
		if err := writeOne(filepath.Join(dir, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

func writeOne(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

package tools

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/source"
)

var update = flag.Bool("update", false, "write the golden files anew")

// ran is what a command did.
type ran struct {
	out, err string
	failure  error
}

// imgate runs a command: "policy test", then arguments and flags as they are
// typed.
func imgate(t *testing.T, path, in string, args ...string) ran {
	t.Helper()
	settings := source.Defaults()
	for _, c := range Commands() {
		if c.Path != path {
			continue
		}
		flags := flag.NewFlagSet(path, flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		run := c.Setup(flags)
		var out, errs bytes.Buffer
		named, err := parseMixed(flags, args)
		if err == nil {
			err = run(context.WithoutCancel(t.Context()), plugin.Invocation{
				Args: named, In: strings.NewReader(in), Out: &out, Err: &errs, Settings: &settings,
				Protocols: map[string]string{"sip": "sip", "smpp": "smpp", "smpp-server": "smpp", "vendor": "smpp"},
			})
		}
		return ran{out.String(), errs.String(), err}
	}
	t.Fatalf("no command %q", path)
	return ran{}
}

// parseMixed takes flags behind arguments, as the program does.
func parseMixed(flags *flag.FlagSet, args []string) (named []string, err error) {
	for len(args) > 0 && err == nil {
		if err = flags.Parse(args); flags.NArg() > 0 {
			named = append(named, flags.Arg(0))
			args = flags.Args()[1:]
			continue
		}
		args = nil
	}
	return named, err
}

// golden holds a text against a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != got {
		t.Errorf("%s: %v\n%s\nwant\n%s", file, err, got, want)
	}
}

func isUsage(err error) bool {
	_, ok := errors.AsType[plugin.ErrUsage](err)
	return ok
}

// wrote makes a directory of files.
func wrote(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

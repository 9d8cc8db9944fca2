// Package tools is the commands for writing policies where no server runs: test,
// check, fmt, eval, domains and init. It must not know servers.
package tools

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/source"
)

// Commands are those that try policies where no server runs.
func Commands() []plugin.Command {
	return []plugin.Command{
		{Path: "policy test", Args: "[DIR]", Short: "run the tests of policies", Setup: setupTest,
			Long: "Runs the tests of the policies in a directory, *_test.rego, and measures which of their rules the tests\n" +
				"reach. The exit status is 1 if a test fails or the coverage is too low." + whichDir},
		{Path: "policy check", Args: "[DIR]", Short: "check policies as the server does before it takes them", Setup: setupCheck,
			Long: "Does all that the server does before it puts policies in force: parses them, checks types, matches and\n" +
				"rows, runs the tests, and says which rules will be slow. The exit status is 1 if the server wouldn't take\n" +
				"them." + whichDir},
		{Path: "policy fmt", Args: "[FILE|DIR...]", Short: "write policies in the usual format", Setup: setupFormat,
			Long: "Writes files of policies, and *.rego in directories, in the format that OPA's own tools use. A file that\n" +
				"can't be parsed is left alone. Without arguments it is the directory of the configuration."},
		{Path: "policy eval", Args: "[DIR]", Short: "show what policies decide about a message", Setup: setupEval,
			Long: evalLong},
		{Path: "policy domains", Args: "ADDRESS [DIR]", Short: "show which service takes a recipient, and why", Setup: setupDomains,
			Long: "Shows which service takes messages to an address, user@domain or a number, by which row or match, and why\n" +
				"not the others. The exit status is 1 if none does." + whichDir},
		{Path: "policy init", Args: "DIR", Short: "write a directory of policies to start from", Setup: setupInit,
			Long: "Writes the services that ship with imgate, with their tests and data, and what editors need, into a\n" +
				"directory, which it makes. It overwrites nothing. policy test passes in the directory. The service onnet is\n" +
				"what decides where the configuration names no policies."},
	}
}

const noteBuiltIn = "note: these are the policies built in: neither the command nor the configuration names a directory"

const whichDir = "\n\nWithout a directory it is that of the configuration, or the policies built in."

// place is where a command takes the policies from.
type place struct{ dir *string }

func newPlace(flags *flag.FlagSet) place {
	return place{flags.String("dir", "", "the `DIR` of the policies, as the argument")}
}

// config returns the settings for the directory that was named, those of the
// configuration if none was. args are what stands where the directory may.
func (p place) config(in plugin.Invocation, args []string) (source.Config, error) {
	config := *in.Settings.(*source.Config)
	named := slices.Clone(args)
	if *p.dir != "" {
		named = append(named, *p.dir)
	}
	if len(named) > 1 {
		return config, plugin.Usage("expected one directory, found %s", strings.Join(named, " and "))
	}
	if len(named) == 1 {
		if named[0] == "" {
			return config, plugin.Usage("expected the name of a directory, which is not empty")
		}
		config.Dir, config.Bundle = named[0], source.BundleConfig{}
	}
	if config.IsBuiltIn() {
		fmt.Fprintln(in.Err, noteBuiltIn)
	}
	return config, config.Validate()
}

// newOutput declares the flag --output: how a command prints. The first format is
// the default.
func newOutput(flags *flag.FlagSet, formats ...string) *plugin.Choice {
	return plugin.NewChoice(flags, "output", "print as", formats...)
}

// The formats.
const (
	humanOutput = "human"
	jsonOutput  = "json"
	junitOutput = "junit"
)

func printJSON(out io.Writer, document any) error {
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	return err
}

// refused prints what is wrong with policies, a mistake a line, as editors read
// it, and returns how much it was.
func refused(in plugin.Invocation, config source.Config, err error) error {
	for _, e := range plugin.Mistakes(err) {
		fmt.Fprintln(in.Err, printable(e.Error()))
	}
	if _, missing := os.Stat(config.Dir); config.Dir != "" && errors.Is(missing, fs.ErrNotExist) {
		fmt.Fprintf(in.Err, "imgate policy init %s writes policies to start from\n", printable(config.Dir))
	}
	return mistakes(err, config)
}

// mistakes says how many there are and where.
func mistakes(err error, config source.Config) error {
	return fmt.Errorf("%s in %s", count(len(plugin.Mistakes(err)), "mistake"), config.Named())
}

// count writes 1 test, 2 tests.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// printable replaces what a terminal would act upon.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return '\uFFFD'
	}, text)
}

// sheet is what is printed in columns.
type sheet [][]string

func (t *sheet) row(cells ...string) { *t = append(*t, cells) }

// write aligns the columns. What came from a message can't move the cursor or
// break the table.
func (t sheet) write(out io.Writer) error {
	var aligned strings.Builder
	columns := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, cells := range t {
		for _, cell := range cells {
			fmt.Fprint(columns, strings.NewReplacer("\n", " ", "\t", " ").Replace(printable(cell)), "\t")
		}
		fmt.Fprintln(columns)
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(aligned.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// indented puts lines below something.
func indented(text, by string) string {
	lines := strings.Split(strings.TrimRight(printable(text), "\n"), "\n")
	return by + strings.Join(lines, "\n"+by)
}

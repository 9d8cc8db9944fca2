package app

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgate/imgate/engine/plugin"
)

// This file makes pages of the manual out of the tree of commands;
// reference.go makes one out of the plugins' configurations, sheets.go one out of
// what they show, and policypage.go one out of the contract of policies. roff.go
// and markdown.go write them down.

// page is a page of the manual.
type page struct {
	name    string // imgate-account-add
	section int    // 1: commands, 5: files, 7: what else there is to know
	short   string // one line
	blocks  []block
}

// block is a piece of a page: one of the fields is set.
type block struct {
	heading string
	text    string   // a paragraph; words in backquotes are to be typed
	literal []string // lines that stay as they are
	terms   []term
	keys    []configKey
	columns []plugin.Column
	fields  []policyField
}

// term is something to type, with what it does.
type term struct{ name, text string }

func heading(text string) block { return block{heading: text} }

// manualCommand writes the manual of this build, with the plugins that are in
// it. Packagers call it, and whoever makes a build of their own.
func manualCommand(plugins []plugin.Definition) *cobra.Command {
	format, date := "man", ""
	command := &cobra.Command{
		Use:    "manual DIR",
		Short:  "write the manual of this build into a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: work(func(cmd *cobra.Command, args []string) error {
			files, err := manual(cmd.Root(), plugins, format, date)
			if err != nil {
				return err
			}
			return writeFiles(args[0], files)
		}),
	}
	command.Flags().StringVar(&format, "format", format, "`man|markdown`: pages for man(1), or for a web site")
	command.Flags().StringVar(&date, "date", date, "the `day` that pages for man bear, such as 2026-01-31")
	return command
}

// manual returns the files of the manual by name.
func manual(root *cobra.Command, plugins []plugin.Definition, format, date string) (map[string]string, error) {
	commands, configuration, sql, policies := commandPages(root), configurationPage(plugins), sqlPage(plugins), policiesPage()
	files := map[string]string{}
	switch format {
	case "man":
		for _, p := range append(commands, configuration, sql, policies) {
			files[fmt.Sprintf("%s.%d", p.name, p.section)] = roff(p, date)
		}
	case "markdown":
		files["commands.md"] = markdown("The commands", commands...)
		files["configuration.md"] = markdown("The configuration file", configuration)
		files["sql.md"] = markdown("What SQL can ask for", sql)
		files["policies.md"] = markdown("What policies say and read", policies)
	default:
		return nil, plugin.Usage("--format %s: expected man or markdown", format)
	}
	return files, nil
}

func writeFiles(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("manual: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("manual: %w", err)
		}
	}
	return nil
}

// commandPages returns a page for a command and each one below it.
func commandPages(command *cobra.Command) []page {
	pages := []page{commandPage(command)}
	for _, child := range shown(command) {
		pages = append(pages, commandPages(child)...)
	}
	return pages
}

// shown returns the commands below one, but for those that help hides.
func shown(command *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	for _, child := range command.Commands() {
		if child.IsAvailableCommand() && child.Name() != "help" {
			list = append(list, child)
		}
	}
	return list
}

func commandPage(command *cobra.Command) page {
	p := page{name: pageName(command), section: 1, short: command.Short}
	p.blocks = append(p.blocks, heading("Synopsis"), block{text: "`" + synopsis(command) + "`"})
	if command.Long != "" {
		p.blocks = append(append(p.blocks, heading("Description")), paragraphs(command.Long)...)
	}
	var below []term
	for _, child := range shown(command) {
		below = append(below, term{child.CommandPath(), child.Short})
	}
	p.blocks = appendTerms(p.blocks, "Commands", below)
	p.blocks = appendTerms(p.blocks, "Options", options(command.LocalFlags()))
	if !command.HasParent() {
		p.blocks = append(p.blocks, programBlocks...)
	}
	return p
}

func pageName(command *cobra.Command) string {
	return strings.ReplaceAll(command.CommandPath(), " ", "-")
}

func synopsis(command *cobra.Command) string {
	if len(shown(command)) == 0 {
		return command.UseLine()
	}
	return command.CommandPath() + " COMMAND [flags]"
}

func appendTerms(blocks []block, title string, terms []term) []block {
	if len(terms) == 0 {
		return blocks
	}
	return append(blocks, heading(title), block{terms: terms})
}

func options(flags *pflag.FlagSet) []term {
	var list []term
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		placeholder, usage := pflag.UnquoteUsage(f)
		name := strings.TrimSpace("--" + f.Name + " " + placeholder)
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		list = append(list, term{name, usage + defaultOf(f)})
	})
	return list
}

// defaultOf says what a flag is if it isn't given, unless that is nothing.
func defaultOf(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "0", "0s", "false", "[]", "<nil>":
		return ""
	}
	return fmt.Sprintf(" (default `%s`)", f.DefValue)
}

var blankLine = regexp.MustCompile(`\n[ \t]*\n`)

// paragraphs takes a text apart that is set for a terminal: lines that begin
// with two spaces stay as they are, others flow.
func paragraphs(text string) []block {
	var blocks []block
	for _, part := range blankLine.Split(strings.Trim(text, "\n"), -1) {
		if strings.HasPrefix(part, "  ") {
			blocks = append(blocks, block{literal: strings.Split(strings.ReplaceAll(part[2:], "\n  ", "\n"), "\n")})
			continue
		}
		blocks = append(blocks, block{text: strings.Join(strings.Fields(part), " ")})
	}
	return blocks
}

// programBlocks are what the page of imgate itself says besides its commands.
var programBlocks = []block{
	heading("Exit status"),
	{terms: []term{
		{"0", "It is done."},
		{"1", "It couldn't be done; standard error says why."},
		{"2", "The command was called wrongly."},
	}},
	heading("Environment"),
	{text: "Each key of the configuration file has a variable that goes before it: `IMGATE_` and the key's path in capitals, " +
		"with `_` for all that is no letter and no digit. `IMGATE_ADMIN_LISTEN` is `admin.listen`. The items of a list have commas between them."},
	{text: "`" + configVariable + "` names the configuration file where --config doesn't. " +
		"`IMGATE_PASSWORD` is the password that `imgate account add`, `imgate send` and `imgate listen` take if they are given none otherwise."},
	heading("Signals"),
	{terms: []term{
		{"SIGTERM, SIGINT", "`imgate serve` takes nothing new, finishes what is under way, and ends with 0. The second one ends it at once."},
		{"SIGHUP", "`imgate serve` reads its configuration again, and takes it whole or not at all."},
	}},
	heading("Files"),
	{terms: []term{
		{"/etc/imgate/imgate.yaml", "The configuration of the packaged service; see imgate.yaml(5)."},
		{"/etc/imgate/policies/", "Its policies."},
		{"/var/lib/imgate/", "Its data: messages, bindings, accounts, and in `admin.token` the token of the admin API."},
	}},
}

package app

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

// source is where commands get the configuration from: flags are known only
// when a command runs.
type source struct {
	path    *string
	plugins []plugin.Definition
}

// configVariable is the environment variable that names the configuration file
// where --config doesn't.
const configVariable = "IMGATE_CONFIG"

// file is the name of the configuration file; "": what is built in.
func (s *source) file() string {
	if *s.path != "" {
		return *s.path
	}
	return os.Getenv(configVariable)
}

func (s *source) load() (engine.Config, error) { return loadConfig(s.file(), s.plugins) }

// name is what the configuration is called in messages.
func (s *source) name() string {
	if file := s.file(); file != "" {
		return file
	}
	return builtInName
}

func pluginsCommand(plugins []plugin.Definition) *cobra.Command {
	return &cobra.Command{
		Use:   "plugins",
		Short: "list what can be written after \"plugin:\" in the configuration",
		Args:  cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			return printPlugins(cmd.OutOrStdout(), plugins)
		}),
	}
}

// kinds is the order in which plugins are listed.
var kinds = [...]plugin.Kind{
	plugin.KindTransport, plugin.KindStorage, plugin.KindAccounts, plugin.KindCharging, plugin.KindPolicy,
	plugin.KindPush, plugin.KindObserver,
}

func printPlugins(out io.Writer, plugins []plugin.Definition) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tNAME\tDESCRIPTION")
	for _, kind := range kinds {
		for _, d := range ofKind(plugins, kind) {
			fmt.Fprintf(table, "%s\t%s\t%s\n", d.Kind, d.Name, d.Doc)
		}
	}
	return table.Flush()
}

// ofKind returns the plugins of a kind, in the order of their names.
func ofKind(plugins []plugin.Definition, kind plugin.Kind) []plugin.Definition {
	var some []plugin.Definition
	for _, d := range plugins {
		if d.Kind == kind {
			some = append(some, d)
		}
	}
	slices.SortFunc(some, func(a, b plugin.Definition) int { return strings.Compare(a.Name, b.Name) })
	return some
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "say which version this is",
		Args:  cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			info, _ := debug.ReadBuildInfo()
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionLine(info))
			return err
		}),
	}
}

// versionLine tells the module's version, the commit it was built from, the
// version of Go, and the platform. info may be nil.
func versionLine(info *debug.BuildInfo) string {
	built := readBuild(info)
	commit := ""
	if built.revision != "" {
		commit = " commit " + built.revision
	}
	if built.modified {
		commit += " (modified)"
	}
	return fmt.Sprintf("imgate %s%s %s %s/%s", built.version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// addPluginCommands adds what the plugins bring. The words of a path become
// commands within commands.
func addPluginCommands(root *cobra.Command, load *source, t terminal) error {
	for _, d := range load.plugins {
		for _, c := range d.Commands {
			if err := addPluginCommand(root, load, t, d, c); err != nil {
				return fmt.Errorf("command %q of the %s plugin %q: %w", c.Path, d.Kind, d.Name, err)
			}
		}
	}
	return nil
}

func addPluginCommand(root *cobra.Command, load *source, t terminal, d plugin.Definition, c plugin.Command) error {
	words := strings.Fields(c.Path)
	if len(words) == 0 {
		return fmt.Errorf("it has no words")
	}
	last := words[len(words)-1]
	parent, err := group(root, words[:len(words)-1])
	if err != nil {
		return err
	}
	if child(parent, last) != nil {
		return fmt.Errorf("there is such a command already")
	}
	flags := flag.NewFlagSet(c.Path, flag.ContinueOnError)
	run := c.Setup(flags)
	if flags.Lookup("config") != nil || flags.Lookup("help") != nil {
		return fmt.Errorf("the flags --config and --help are taken")
	}
	command := &cobra.Command{
		Use:   strings.TrimSpace(last + " " + c.Args),
		Short: c.Short,
		Long:  c.Long,
		Args:  cobra.ArbitraryArgs, // the plugin says what is wrong with them
		// Another plugin may put commands below this one.
		Annotations: map[string]string{groupMark: "yes"},
		RunE: work(func(cmd *cobra.Command, args []string) error {
			return invoke(cmd.Context(), load, t, d, run, args)
		}),
	}
	command.Flags().AddGoFlagSet(flags)
	parent.AddCommand(command)
	describeGroup(parent)
	return nil
}

// invoke runs a plugin's command.
func invoke(ctx context.Context, load *source, t terminal, d plugin.Definition, run plugin.Run, args []string) error {
	config, err := load.load()
	if err != nil {
		return err
	}
	admin := newClient(config)
	defer admin.close()
	return run(ctx, plugin.Invocation{
		Args: args, In: t.in, Out: t.out, Err: t.err,
		Admin:    admin,
		Settings: settingsOf(config, d), Protocols: protocolsOf(config, load.plugins),
	})
}

// protocolsOf returns the protocols of the program's transports, by the names of
// the plugins and of the configured instances.
func protocolsOf(config engine.Config, plugins []plugin.Definition) map[string]string {
	spoken := map[string]string{}
	for _, d := range plugins {
		if d.Kind == plugin.KindTransport {
			spoken[d.Name] = d.Protocol
		}
	}
	for _, instance := range config.Transports {
		spoken[instance.Name] = instance.Plugin.Protocol
	}
	return spoken
}

// settingsOf returns the settings of the first instance of a plugin, or its
// defaults.
func settingsOf(config engine.Config, d plugin.Definition) plugin.Config {
	single := []engine.Instance{config.Storage, config.Policy, config.Accounts, config.Charging, config.Push}
	for _, instance := range slices.Concat(single, config.Observers, config.Transports) {
		if instance.Plugin.Kind == d.Kind && instance.Plugin.Name == d.Name {
			return instance.Settings
		}
	}
	return d.NewConfig()
}

// group finds or makes the commands that hold others.
func group(parent *cobra.Command, words []string) (*cobra.Command, error) {
	for _, word := range words {
		next := child(parent, word)
		if next == nil {
			next = newGroup(word)
			parent.AddCommand(next)
		}
		if next.Annotations[groupMark] == "" {
			return nil, fmt.Errorf("%q is a command of its own", next.CommandPath())
		}
		parent = next
	}
	return parent, nil
}

// groupMark tells commands that may hold others from those of our own that do
// something.
const groupMark = "group"

func newGroup(word string) *cobra.Command {
	return &cobra.Command{
		Use:         word,
		Annotations: map[string]string{groupMark: "yes"},
		Args:        noSuchCommand,
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// noSuchCommand checks what stands where the name of a command should.
func noSuchCommand(parent *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unknown command %q; %s", args[0], expectedOneOf(args[0], names(parent)))
}

// names returns what the commands below one are called, but for hidden ones.
func names(parent *cobra.Command) (list []string) {
	for _, c := range shown(parent) {
		list = append(list, c.Name())
	}
	return list
}

// describeGroup gives a command that plugins have put others under one line of
// help, unless it has one of its own.
func describeGroup(group *cobra.Command) {
	const listed = "commands: "
	if group.HasParent() && (group.Short == "" || strings.HasPrefix(group.Short, listed)) {
		group.Short = listed + strings.Join(names(group), ", ")
	}
}

func child(parent *cobra.Command, name string) *cobra.Command {
	for _, c := range parent.Commands() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}

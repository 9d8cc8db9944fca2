// Package app is the imgate command line: the server, the checks around it,
// and the commands that plugins bring. It knows the engine, the configuration
// and the terminal; it must not know any plugin by more than its definition.
//
// To make a build of your own, copy cmd/imgate/main.go and change the list of
// plugins.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1 // what was asked for could not be done
	exitUsage = 2 // it is not clear what was asked for
)

// Main runs the command line of this process with the given plugins and
// returns its exit status: 0, 1 for an error, 2 for wrong usage. The first
// SIGINT or SIGTERM ends the command in order, the second one at once.
func Main(plugins ...plugin.Definition) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	endings := make(chan os.Signal, 1)
	signal.Notify(endings, os.Interrupt, syscall.SIGTERM)
	go endOnce(endings, cancel)
	return run(ctx, os.Args[1:], terminal{os.Stdin, os.Stdout, os.Stderr}, plugins)
}

// endOnce ends the command with the first signal. The next one finds nobody who
// holds it back: signals are let go before anybody can see that the command
// ends (signal.NotifyContext has it the other way round, and swallows a second
// signal that comes between the two).
func endOnce(endings chan os.Signal, cancel context.CancelFunc) {
	<-endings
	signal.Stop(endings)
	cancel()
}

// terminal is where a command reads and writes.
type terminal struct {
	in       io.Reader
	out, err io.Writer
}

func run(ctx context.Context, args []string, t terminal, plugins []plugin.Definition) int {
	root, err := newRoot(t, plugins)
	if err != nil {
		fmt.Fprintln(t.err, "imgate:", err)
		return exitError
	}
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	return report(ctx, t.err, command, err)
}

// failure is an error of a command's work. Everything else that cobra returns
// is about how the command was called.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// work makes errors of a command's work known as such.
func work(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := do(cmd, args); err != nil {
			return failure{err}
		}
		return nil
	}
}

// report prints an error, once, and returns the exit status.
func report(ctx context.Context, w io.Writer, command *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	failed, ok := errors.AsType[failure](err)
	if _, wrong := errors.AsType[plugin.ErrUsage](err); wrong || !ok {
		fmt.Fprintf(w, "imgate: %v\nsee %s --help\n", err, command.CommandPath())
		return exitUsage
	}
	if config, ok := errors.AsType[*configError](failed); ok {
		fmt.Fprintln(w, config)
		return exitError
	}
	if key, ok := errors.AsType[*engine.KeyError](failed); ok && key.Place != "" {
		fmt.Fprintln(w, failed)
		return exitError
	}
	if ctx.Err() != nil && errors.Is(failed, context.Canceled) {
		fmt.Fprintln(w, "imgate: interrupted")
		return exitError
	}
	fmt.Fprintln(w, "imgate:", failed)
	return exitError
}

// newRoot builds the tree of commands.
func newRoot(t terminal, plugins []plugin.Definition) (*cobra.Command, error) {
	if err := checkDefinitions(plugins); err != nil {
		return nil, err
	}
	root := &cobra.Command{
		Use:               "imgate",
		Short:             "a messaging gateway for telecom operators",
		Args:              noSuchCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	config := root.PersistentFlags().String("config", "",
		"configuration `file`; paths in it are relative to the working directory (default: "+configVariable+" of the environment, else what is built in)")
	root.SetFlagErrorFunc(explainFlag)
	root.PersistentPreRunE = refuseEmptyFlags
	load := &source{path: config, plugins: plugins}
	root.AddCommand(
		serveCommand(load), checkCommand(load), pluginsCommand(plugins), versionCommand(),
		statusCommand(load), clusterCommand(load), policyCommand(load), reloadCommand(load), messageCommand(load), topCommand(load),
		healthCommand(load), completionCommand(), manualCommand(plugins),
	)
	return root, errors.Join(addPluginCommands(root, load, t), completeValues(root))
}

var digits = regexp.MustCompile(`^[0-9.]+$`)

// explainFlag says what to do about a number below zero, which is taken for a
// flag.
func explainFlag(_ *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || !digits.MatchString(unknown.GetSpecifiedShortnames()) {
		return err
	}
	return fmt.Errorf("%w; write -- before a number below zero", err)
}

// refuseEmptyFlags: a flag that was given without a value is most often a
// shell's variable that isn't set, and not meant as "none".
func refuseEmptyFlags(cmd *cobra.Command, _ []string) error {
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.String() == "" && f.Value.Type() == "string" {
			err = fmt.Errorf("--%s: expected a value, which is not empty", f.Name)
		}
	})
	return err
}

// checkDefinitions finds mistakes of whoever put the list of plugins together.
func checkDefinitions(plugins []plugin.Definition) error {
	type key struct {
		kind plugin.Kind
		name string
	}
	known := map[key]bool{}
	for _, d := range plugins {
		if known[key{d.Kind, d.Name}] {
			return fmt.Errorf("two %s plugins are named %q", d.Kind, d.Name)
		}
		known[key{d.Kind, d.Name}] = true
	}
	return nil
}

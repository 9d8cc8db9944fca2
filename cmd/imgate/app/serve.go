package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine"
)

func serveCommand(load *source) *cobra.Command {
	var level slog.Level
	command := &cobra.Command{
		Use:   "serve",
		Short: "run the gateway",
		Long: "Runs the gateway until SIGINT or SIGTERM. Without --config it runs with what is built in,\n" +
			"keeps its data in ./imgate-data and, the first time, creates accounts to try it with.",
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return serve(cmd.Context(), load, log, cmd.OutOrStdout())
		}),
	}
	command.Flags().TextVar(&level, "log-level", slog.LevelInfo, "what to log: DEBUG, INFO, WARN or ERROR")
	return command
}

// serve runs the gateway until ctx ends.
func serve(ctx context.Context, load *source, log *slog.Logger, out io.Writer) error {
	config, err := load.load()
	if err != nil {
		return err
	}
	var samples *samples
	if *load.path == "" {
		if samples, err = openSamples(config.DataDir); err != nil {
			return err
		}
	}

	started := make(chan string, 1)
	running, stop := context.WithCancel(ctx)
	var greeting sync.WaitGroup
	if os.Getenv("GOGC") == "" {
		greeting.Go(func() { tuneCollector(running) })
	}
	greeting.Go(func() {
		select {
		case address := <-started:
			config.AdminListen = address // the port may have been ours to choose
			greet(running, config, load.name(), samples, log, out)
		case <-running.Done():
		}
	})
	err = engine.Run(ctx, config, log, func(adminAddress string) { started <- adminAddress })
	stop()
	greeting.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // it ended because it was told to
	}
	return err
}

// greet tells the person at the terminal what runs, and what to try.
func greet(ctx context.Context, config engine.Config, source string, samples *samples, log *slog.Logger, out io.Writer) {
	var text strings.Builder
	writeBanner(&text, config, source)
	if samples != nil {
		if err := samples.create(ctx, config); err != nil {
			log.Warn("the accounts to try it with could not be created", "error", err)
		} else {
			samples.writeLines(&text, program(os.Executable))
		}
	}
	fmt.Fprint(out, text.String())
}

func writeBanner(out io.Writer, config engine.Config, source string) {
	fmt.Fprintf(out, "IMGate runs as node %s (%s)\n\n", config.Node, source)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, instance := range config.Transports {
		fmt.Fprintf(table, "  %s\t%s\n", instance.Name, listens(instance))
	}
	fmt.Fprintf(table, "  admin\thttp://%s\n", config.AdminListen)
	fmt.Fprintf(table, "  data\t%s\n", config.DataDir)
	table.Flush()
}

// listens returns what an instance has under the key "listen", which those
// that listen have, or else the name of its plugin.
func listens(instance engine.Instance) string {
	settings := reflect.ValueOf(instance.Settings).Elem()
	for i := range settings.NumField() {
		if settings.Type().Field(i).Tag.Get("yaml") != "listen" {
			continue
		}
		switch addresses := settings.Field(i).Interface().(type) {
		case []string:
			return strings.Join(addresses, "  ")
		case string:
			return addresses
		}
	}
	return "(" + instance.Plugin.Name + ")"
}

// cachedBuild is the directory of Go's build cache in which `go run` keeps
// what it built before.
var cachedBuild = regexp.MustCompile(`^[0-9a-f]{64}-d$`)

// program returns what to type to start this program again.
func program(executable func() (string, error)) string {
	path, err := executable()
	if err != nil {
		return os.Args[0]
	}
	directory := filepath.Dir(path)
	if cachedBuild.MatchString(filepath.Base(directory)) || strings.Contains(directory, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/imgate"
	}
	return os.Args[0]
}

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

func serveCommand(load *source) *cobra.Command {
	var level slog.Level
	command := &cobra.Command{
		Use:   "serve",
		Short: "run the gateway",
		Long: "Runs the gateway until SIGINT or SIGTERM. Without a configuration file it runs with what is\n" +
			"built in, keeps its data in ./imgate-data and, the first time, creates accounts to try it with.",
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return serve(cmd.Context(), load, log, cmd.OutOrStdout())
		}),
	}
	command.Flags().TextVar(&level, "log-level", slog.LevelInfo, "what to log: `DEBUG|INFO|WARN|ERROR`")
	return command
}

// serve runs the gateway until ctx ends.
func serve(ctx context.Context, load *source, log *slog.Logger, out io.Writer) error {
	configured, err := load.read()
	if err != nil {
		return err
	}
	for _, warning := range configured.warnings {
		log.Warn(warning)
	}
	config := configured.Config
	var samples *samples
	if load.file() == "" {
		if samples, err = openSamples(config.DataDir); err != nil {
			return err
		}
	}

	manager := newNotifier(log)
	node := newNode(config, load, manager, log)
	started := make(chan string, 1)
	running, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	if os.Getenv("GOGC") == "" {
		beside.Go(func() { tuneCollector(running) })
	}
	beside.Go(func() {
		select {
		case address := <-started:
			config.AdminListen = address // the port may have been ours to choose
			greet(running, config, load.name(), samples, log, out)
		case <-node.stands:
			writeBanner(out, config, load.name()+", a standby")
		case <-running.Done():
		}
	})
	beside.Go(func() { node.reloadOnHangup(running) })
	beside.Go(func() { node.watch(running) })
	err = node.Run(ctx, func(adminAddress string) { started <- adminAddress })
	stop()
	beside.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // it ended because it was told to
	}
	return err
}

// node is an engine with what surrounds it in this process: its metrics, its
// description, and the service manager.
type node struct {
	*engine.Engine
	load    *source
	manager *notifier
	log     *slog.Logger
	played  chan struct{} // told each time when the node has taken up a role
	stands  chan struct{} // and when that is to stand by
}

func newNode(config engine.Config, load *source, manager *notifier, log *slog.Logger) *node {
	n := &node{load: load, manager: manager, log: log, played: make(chan struct{}, 1), stands: make(chan struct{}, 1)}
	metrics := plugin.NewMetrics()
	info, _ := debug.ReadBuildInfo()
	options := engine.Options{Metrics: metrics, Version: readBuild(info).version, Role: n.plays}
	if load.file() != "" {
		options.Load = load.load
	}
	n.Engine = engine.New(config, log, options)
	n.HandleOpen(metricsPath, metricsHandler(metrics, log).ServeHTTP)
	n.Handle("GET /openapi.yaml", serveDescription)
	return n
}

// plays tells the service manager that the node does its part.
func (n *node) plays(active bool) {
	part := "stands by"
	if active {
		part = "takes traffic"
	}
	n.manager.ready(part)
	signalTo(n.played)
	if !active {
		signalTo(n.stands)
	}
}

// signalTo leaves a signal to whoever looks for one.
func signalTo(signals chan<- struct{}) {
	select {
	case signals <- struct{}{}:
	default:
	}
}

// watch gives the service manager signs of life as soon as the node does its
// part, and tells when it comes to its end.
func (n *node) watch(ctx context.Context) {
	select {
	case <-n.played:
		n.manager.watch(ctx, n.Alive)
	case <-ctx.Done():
	}
	<-ctx.Done()
	n.manager.stopping()
}

// reloadOnHangup reads the configuration anew at each SIGHUP, until ctx ends.
func (n *node) reloadOnHangup(ctx context.Context) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-hangups:
			n.reload(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// reload leaves the telling to the engine, which logs what came of it.
func (n *node) reload(ctx context.Context) {
	if n.load.file() == "" {
		n.log.Info("nothing to reload: the server runs without a configuration file")
		return
	}
	_ = n.manager.reload(func() error {
		_, err := n.Refresh(ctx)
		return err
	})
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

// listens returns where an instance listens, or else the name of its plugin.
func listens(instance engine.Instance) string {
	if addresses := listenAddresses(instance.Settings); len(addresses) > 0 {
		return strings.Join(addresses, "  ")
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

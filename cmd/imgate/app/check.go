package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

// checkTimeout bounds the compilation and the tests of policies.
const checkTimeout = 90 * time.Second

func checkCommand(load *source) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "check the configuration and the policies, and touch nothing else",
		Args:  cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			config, err := load.read()
			if err != nil {
				return err
			}
			for _, warning := range config.warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			if err := checkPolicy(cmd.Context(), config.Config, cmd.ErrOrStderr()); err != nil {
				return &engine.KeyError{Key: config.Policy.Key(), Place: config.Place(config.Policy.Key()), Err: err}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", load.name())
			return err
		}),
	}
}

// checkPolicy opens the policies, which need neither data nor ports.
func checkPolicy(ctx context.Context, config engine.Config, warnings io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	env := plugin.Env{
		Instance: string(plugin.KindPolicy),
		Node:     config.Node,
		DataDir:  config.DataDir,

		Transports: config.TransportNames(),
		Log:        slog.New(slog.NewTextHandler(warnings, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	source, err := plugin.Open[plugin.PolicySource](ctx, config.Policy.Plugin, env, config.Policy.Settings)
	if err != nil {
		return err
	}
	var report plugin.PolicyReport
	bundle, err := source.Read(ctx)
	if err == nil {
		_, report, err = source.Compile(ctx, bundle)
	}
	for _, warning := range report.Warnings {
		fmt.Fprintln(warnings, "warning:", warning)
	}
	return errors.Join(err, source.Close())
}

package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// probeWait is how long a node may take to answer a probe.
const probeWait = 3 * time.Second

func healthCommand(load *source) *cobra.Command {
	var live bool
	command := &cobra.Command{
		Use:   "health",
		Short: "ask the server whether it takes traffic",
		Long: "Asks the server that runs with the same configuration whether it takes traffic, and if not, why. The exit\n" +
			"status is 0 if it does and 1 if it doesn't or can't be asked. A standby node takes none: what restarts nodes\n" +
			"that are broken must ask with --live. What is wrong and keeps it from nothing, such as policies that can't be taken,\n" +
			"is a remark on standard error.",
		Args: cobra.NoArgs,
		RunE: withAdmin(load, func(cmd *cobra.Command, admin *client, _ []string) error {
			path := "/readyz"
			if live {
				path = "/healthz"
			}
			answer, remarks, err := health(cmd.Context(), admin, path)
			for _, remark := range remarks {
				fmt.Fprintln(cmd.ErrOrStderr(), "remark:", printable(inOneLine(remark)))
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
			return err
		}),
	}
	command.Flags().BoolVar(&live, "live", false, "ask only whether it is alive, which a standby node is too")
	return command
}

// health asks a probe, which needs no token. An error is a no, in words; what is
// remarked besides comes with either.
func health(ctx context.Context, admin *client, path string) (answer string, remarks []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	status, content, err := admin.page(ctx, path)
	if err != nil {
		return "", nil, err
	}
	var told struct {
		Status, Error    string
		Reasons, Remarks []string
	}
	if err := json.Unmarshal(content, &told); err != nil {
		return "", nil, fmt.Errorf("the server at %s answered %d to %s, and nothing that can be read", admin.address, status, path)
	}
	if status == http.StatusOK {
		return told.Status, told.Remarks, nil
	}
	if active := lookElsewhere(ctx, admin, told.Reasons); active != nil {
		return "", told.Remarks, fmt.Errorf("the server at %s is not ready: standby: %s", admin.address, active.elsewhere())
	}
	return "", told.Remarks, fmt.Errorf("the server at %s is %s", admin.address, inOneLine(told.Error))
}

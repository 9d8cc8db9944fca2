package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	handoverWithin = 10 * time.Second // for the other node to become active
	handoverLook   = 100 * time.Millisecond
	completeWithin = time.Second // for an answer that a shell waits for
)

func clusterHandoverCommand(load *source) *cobra.Command {
	command := &cobra.Command{
		Use:   "handover",
		Short: "make another node the active one",
		Long: "Makes another node the active one, before an upgrade or to try it. The active node must be asked: it\n" +
			"finishes what is under way, gives its lease to a node that is ready, and becomes a standby. For senders\n" +
			"there is a gap of less than a second, in which they are told to try again.\n\n" +
			"The exit status is 0 once the other node takes traffic.",
		Args: cobra.NoArgs,
	}
	to := command.Flags().String("to", "", "the `NODE` to hand over to; default: the one that has been ready for longest")
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, _ []string) error {
		return handOver(cmd.Context(), admin, *to, cmd.OutOrStdout())
	})
	_ = command.RegisterFlagCompletionFunc("to", completeNodes(load)) // the flag exists
	return command
}

// handOver asks for the hand-over and waits until it has come about.
func handOver(ctx context.Context, admin plugin.AdminClient, to string, out io.Writer) error {
	var request any
	if to != "" {
		request = map[string]string{"to": to}
	}
	var given struct {
		To string `json:"to"`
	}
	began := time.Now()
	if err := admin.Call(ctx, http.MethodPost, clusterPath+"/handover", request, &given); err != nil {
		return err
	}
	since, err := awaitActive(ctx, admin, given.To)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s is active since %s; the gap was about %s\n",
		printable(given.To), shownTime(since), shownAgo(gap(began, since, time.Now())))
	return err
}

// gap is how long no node took traffic. The node's own word is more exact than
// what we saw, unless its clock isn't ours.
func gap(began, since, saw time.Time) time.Duration {
	if since.Before(began) || since.After(saw) {
		since = saw
	}
	return since.Sub(began)
}

// awaitActive waits until a node takes traffic and returns since when.
func awaitActive(ctx context.Context, admin plugin.AdminClient, name string) (since time.Time, err error) {
	waiting, cancel := context.WithTimeout(ctx, handoverWithin)
	defer cancel()
	for last := fmt.Errorf("nothing was heard of it"); ; {
		c, err := readCluster(waiting, admin)
		n := c.find(name)
		switch {
		case waiting.Err() != nil:
		case err != nil:
			last = err
		case n != nil && n.takesTraffic() && c.Active == name:
			return n.Since, nil
		case c.Active != "" && c.Active != name: // it was reserved for the other one
			return since, fmt.Errorf("%s hasn't come for the lease, and %s has it; see imgate cluster status", printable(name), printable(c.Active))
		default:
			last = fmt.Errorf("the lease is %s", c.lease())
		}
		select {
		case <-time.After(handoverLook):
		case <-waiting.Done():
			if ctx.Err() != nil {
				return since, ctx.Err()
			}
			return since, fmt.Errorf("the lease was handed over to %s, which doesn't take traffic after %s: %w; see imgate cluster status",
				printable(name), handoverWithin, last)
		}
	}
}

// completeNodes offers the nodes that could take over.
func completeNodes(load *source) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		config, err := load.load()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		admin := newClient(config)
		defer admin.close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		c, _ := readCluster(ctx, admin) // without an answer there is nothing to offer
		var names []cobra.Completion
		for _, n := range c.Nodes {
			if n.Role != roleActive && n.Ready && !n.gone() {
				names = append(names, n.Node)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

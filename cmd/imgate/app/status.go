package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// nodeStatus is what `imgate status` prints.
type nodeStatus struct {
	Node           string           `json:"node"`
	Version        string           `json:"version"`
	Ready          bool             `json:"ready"`
	Reasons        []string         `json:"reasons,omitempty"`
	Remarks        []string         `json:"remarks,omitempty"` // what is wrong and keeps it from nothing
	Active         string           `json:"active,omitempty"`  // which node is, if that is known
	UptimeSeconds  int64            `json:"uptime_seconds"`
	Spool          spoolStatus      `json:"spool"`
	Lanes          int64            `json:"lanes"`
	LanesAsleep    int64            `json:"lanes_asleep"`
	Bindings       int64            `json:"bindings"`
	BindingsAsleep int64            `json:"bindings_asleep"` // besides
	Received       int64            `json:"received"`
	Accepted       int64            `json:"accepted"`
	Refused        map[string]int64 `json:"refused"` // by reason
	Ended          map[string]int64 `json:"ended"`   // by outcome
}

type spoolStatus struct {
	Messages         int64 `json:"messages"`
	OldestAgeSeconds int64 `json:"oldest_age_seconds"`
	Quarantined      int64 `json:"quarantined"`
}

func statusCommand(load *source) *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "say how the running server is",
		Long: "Says how the running server is. Counts begin when it was started, and are of what it did as the active\n" +
			"node. It works on a standby node too, and says which one is active. `imgate cluster status` says how all\n" +
			"nodes are.",
		Args: cobra.NoArgs,
	}
	output := addOutput(command)
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
		defer cancel()
		seen, err := lookAt(ctx, admin)
		if err != nil {
			return err
		}
		if output.value == asJSON {
			return printJSON(cmd.OutOrStdout(), statusOf(seen))
		}
		return printStatus(cmd.OutOrStdout(), seen)
	})
	return command
}

func statusOf(s *sight) nodeStatus {
	return nodeStatus{
		Node: s.node, Version: s.version(), Ready: len(s.reasons) == 0, Reasons: s.reasons, Remarks: s.remarks, Active: s.active(),
		UptimeSeconds: int64(s.uptime().Seconds()),
		Spool: spoolStatus{
			Messages: s.total("spool_messages"), OldestAgeSeconds: int64(s.oldest().Seconds()), Quarantined: s.total("spool_quarantined"),
		},
		Lanes: s.total("lanes"), LanesAsleep: s.total("lanes_asleep"), Bindings: s.total("bindings"), BindingsAsleep: s.total("bindings_asleep"),
		Received: s.total("messages_received_total"), Accepted: s.total("messages_accepted_total"),
		Refused: s.totals("messages_refused_total", "reason"), Ended: s.totals("messages_ended_total", "outcome"),
	}
}

func printStatus(out io.Writer, seen *sight) error {
	s := statusOf(seen)
	fields := [][2]string{
		{"node", s.Node}, {"version", s.Version}, {"state", seen.readiness()}, {"up", seen.uptime().String()},
	}
	for _, remark := range s.Remarks {
		fields = append(fields, [2]string{"remark", inOneLine(remark)})
	}
	if seen.counts() {
		fields = append(fields, countFields(s, seen)...)
	}
	table := newTable(out)
	for _, field := range fields {
		row(table, field[0], field[1])
	}
	return table.Flush()
}

func countFields(s nodeStatus, seen *sight) [][2]string {
	bindings := grouped(s.Bindings)
	if s.BindingsAsleep > 0 {
		bindings += fmt.Sprintf(", and %s asleep", grouped(s.BindingsAsleep))
	}
	return [][2]string{
		{"spooled messages", grouped(s.Spool.Messages)}, {"oldest has waited", seen.oldest().String()},
		{"in quarantine", grouped(s.Spool.Quarantined)},
		{"lanes", fmt.Sprintf("%s, %s of them asleep", grouped(s.Lanes), grouped(s.LanesAsleep))},
		{"bindings", bindings},
		{"received", grouped(s.Received)}, {"accepted", grouped(s.Accepted)},
		{"refused", listed(s.Refused)}, {"ended", listed(s.Ended)},
	}
}

// listed writes counts in words, the greatest first.
func listed(counts map[string]int64) string {
	if len(counts) == 0 {
		return "none"
	}
	var parts []string
	for _, name := range byCount(counts) {
		parts = append(parts, grouped(counts[name])+" "+name)
	}
	return strings.Join(parts, ", ")
}

func reloadCommand(load *source) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "make the running server read its configuration again",
		Long: "Makes the running server read its configuration file again: all of it or, if anything is wrong\n" +
			"with it, nothing. Instances that changed are closed and opened, the others stay up. It works on a\n" +
			"standby node too, and each node has to be told.",
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			config, err := load.load()
			if err != nil {
				return notTaken(cmd, err)
			}
			admin := newClient(config)
			defer admin.close()
			var answer struct {
				Changed []string `json:"changed"`
			}
			err = admin.Call(cmd.Context(), http.MethodPost, "/v1/reload", nil, &answer)
			if refused, ok := errors.AsType[*apiError](err); ok && refused.status == http.StatusUnprocessableEntity {
				return notTaken(cmd, err)
			}
			if err != nil {
				return err
			}
			remarkPolicy(cmd, admin)
			return printChanged(cmd.OutOrStdout(), answer.Changed)
		}),
	}
}

// remarkPolicy says that the policies that were read aren't in force, which is so
// on a standby whose own differ, and while the storage fails.
func remarkPolicy(cmd *cobra.Command, admin *client) {
	var s policyStatus
	err := admin.Call(cmd.Context(), http.MethodGet, policyPath, nil, &s)
	if err == nil && !s.Current && s.Trouble != "" { // the reload has succeeded, whatever can't be asked now
		fmt.Fprintln(cmd.ErrOrStderr(), "remark: policy:", printable(inOneLine(s.Trouble)))
	}
}

// notTaken prints what is wrong with a configuration and returns what that
// means for a server that runs with the one before.
func notTaken(cmd *cobra.Command, err error) error {
	fmt.Fprintln(cmd.ErrOrStderr(), strings.TrimSpace(err.Error()))
	return errors.New("the new configuration was not taken; a server that runs goes on with the one that it has")
}

func printChanged(out io.Writer, changed []string) error {
	if len(changed) == 0 {
		_, err := fmt.Fprintln(out, "the policies were read again; nothing else has changed")
		return err
	}
	_, err := fmt.Fprintf(out, "changed: %s\n", printable(strings.Join(changed, ", ")))
	return err
}

package app

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const policyPath = "/v1/policy"

// shownRevisions is how many a person is shown.
const shownRevisions = 10

// policyStatus is what a node says of its policies (GET /v1/policy).
type policyStatus struct {
	Revision     string     `json:"revision"` // in force; empty: none
	Services     []string   `json:"services"`
	Since        time.Time  `json:"since,omitzero"`
	Node         string     `json:"node"`                  // which put it in force
	Source       string     `json:"source"`                // in words
	Held         string     `json:"held"`                  // the newest good revision of the source
	Trying       time.Time  `json:"trying_since,omitzero"` // a change of the source is tried
	Current      bool       `json:"current"`               // what the source holds is in force
	Trouble      string     `json:"trouble"`
	TroubleSince time.Time  `json:"trouble_since,omitzero"`
	StandingIn   bool       `json:"standing_in"`
	Expires      time.Time  `json:"expires,omitzero"`
	Tests        int        `json:"tests"`
	Coverage     float64    `json:"coverage"`
	Warnings     []string   `json:"warnings"`
	Revisions    []revision `json:"revisions"`
}

// revision is one that is in force, or was.
type revision struct {
	Revision string    `json:"revision"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"`
	Node     string    `json:"node"`
}

func policyCommand(load *source) *cobra.Command {
	group := newGroup("policy")
	group.Short = "look at the policies"
	group.AddCommand(policyStatusCommand(load))
	return group
}

func policyStatusCommand(load *source) *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "say which policies are in force on the running server",
		Long: "Says which revision of the policies is in force, since when and by which node, and whether it is what the\n" +
			"source of the node holds that is asked; if not, why: every mistake. A standby can be asked too.\n\n" +
			"The exit status is 0 if what the source holds is in force, and 1 if not, which standard error says too.",
		Args: cobra.NoArgs,
	}
	output := addOutput(command)
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, _ []string) error {
		var s policyStatus
		err := admin.Call(cmd.Context(), http.MethodGet, policyPath, nil, &s)
		if err != nil {
			return err
		}
		if output.value == asJSON {
			err = printJSON(cmd.OutOrStdout(), s)
		} else {
			err = printPolicy(cmd.OutOrStdout(), s)
		}
		if err == nil && !s.Current {
			return errors.New("what the source of the policies holds is not in force")
		}
		return err
	})
	return command
}

func printPolicy(out io.Writer, s policyStatus) error {
	table := newTable(out)
	row(table, "in force", s.inForce())
	row(table, "services", strings.Join(s.Services, ", "))
	row(table, "tests", fmt.Sprintf("%d passed, coverage %.1f %%", s.Tests, s.Coverage))
	row(table, "source", s.Source)
	row(table, "state", s.state(time.Now()))
	if !s.Trying.IsZero() {
		row(table, "change", "is tried, since "+shownTime(s.Trying))
	}
	for _, warning := range s.Warnings {
		row(table, "warning", inOneLine(warning))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := printTrouble(out, s); err != nil || len(s.Revisions) == 0 {
		return err
	}
	fmt.Fprintln(out)
	table = newTable(out)
	row(table, "REVISION", "SINCE", "UNTIL", "NODE")
	for _, r := range s.Revisions[:min(len(s.Revisions), shownRevisions)] {
		row(table, shortRevision(r.Revision), shownTime(r.Since), shownTime(r.Until), r.Node)
	}
	return table.Flush()
}

// printTrouble prints each mistake on a line.
func printTrouble(out io.Writer, s policyStatus) error {
	if s.Trouble == "" {
		return nil
	}
	fmt.Fprintln(out)
	for line := range strings.Lines(s.Trouble) {
		if _, err := fmt.Fprintln(out, printable(strings.TrimRight(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func (s policyStatus) inForce() string {
	if s.Revision == "" {
		return "none yet"
	}
	return fmt.Sprintf("%s, since %s, by node %s", shortRevision(s.Revision), shownTime(s.Since), s.Node)
}

// state says in words whether what the source holds is in force.
func (s policyStatus) state(now time.Time) string {
	switch {
	case s.Current && s.Trouble == "":
		return "what the source holds is in force"
	case s.Current:
		return "what the source held is in force, with trouble since " + shownTime(s.TroubleSince)
	}
	text := "what the source holds is not in force, since " + shownTime(s.TroubleSince)
	if s.StandingIn {
		text += "; a stored revision stands in"
	}
	switch {
	case s.Expires.IsZero():
		return text
	case s.Expires.Before(now):
		return text + "; by max_age no start has succeeded since " + shownTime(s.Expires)
	}
	return text + "; by max_age a start succeeds until " + shownTime(s.Expires)
}

// shortRevision is what people tell revisions apart by.
func shortRevision(r string) string { return r[:min(len(r), 12)] }

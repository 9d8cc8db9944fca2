package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine/plugin"
)

const clusterPath = "/v1/cluster"

// goneAfter is how long a node may say nothing. It says something about once a
// second.
const goneAfter = 5 * time.Second

// cluster is what a node knows of all nodes on its storage (GET /v1/cluster).
type cluster struct {
	Node        string            `json:"node"`   // that was asked
	Active      string            `json:"active"` // who holds the lease; empty: nobody
	Fence       uint64            `json:"fence"`
	State       plugin.LeaseState `json:"state"`
	LeftSeconds float64           `json:"left_seconds"` // negative: for how long it has been free
	ReservedFor string            `json:"reserved_for"`
	Policy      string            `json:"policy"` // the revision in force
	Nodes       []clusterNode     `json:"nodes"`
}

type clusterNode struct {
	Node    string   `json:"node"`
	Role    string   `json:"role"`
	Ready   bool     `json:"ready"`   // active: it takes traffic; standby: it could take over
	Reasons []string `json:"reasons"` // why it isn't ready
	Version string   `json:"version"`
	Policy  string   `json:"policy"` // the revision that its source holds
	// PolicyBroken: what its source holds now can't be used.
	PolicyBroken bool      `json:"policy_broken"`
	Admin        string    `json:"admin"`
	Started      time.Time `json:"started"`
	Since        time.Time `json:"since"` // when it took up its role
	SeenSeconds  float64   `json:"seen_seconds"`
	Self         bool      `json:"self"`
}

const roleActive = "active"

// readCluster asks a node what it knows of all of them.
func readCluster(ctx context.Context, admin plugin.AdminClient) (c cluster, err error) {
	return c, admin.Call(ctx, http.MethodGet, clusterPath, nil, &c)
}

// find returns what is known of a node; nil for nothing.
func (c cluster) find(name string) *clusterNode {
	if i := slices.IndexFunc(c.Nodes, func(n clusterNode) bool { return n.Node == name }); i >= 0 {
		return &c.Nodes[i]
	}
	return nil
}

func (n clusterNode) seen() time.Duration { return inSeconds(n.SeenSeconds) }
func (n clusterNode) gone() bool          { return n.seen() > goneAfter }

// takesTraffic tells whether it is an active node that is there and at work.
func (n clusterNode) takesTraffic() bool { return n.Role == roleActive && n.Ready && !n.gone() }

// state says in words how a node is.
func (n clusterNode) state() string {
	switch {
	case n.gone():
		return "gone: not seen for " + shownAgo(n.seen())
	case !n.Ready:
		return "not ready: " + strings.Join(n.Reasons, ", ")
	case n.Role == roleActive:
		return "takes traffic"
	}
	return "ready to take over"
}

// problems is all that is wrong; nothing if one node takes traffic and the
// others could, and there are at least so many of them.
func (c cluster) problems(nodes int) []string {
	var wrong []string
	if n := len(c.Nodes); n < nodes {
		wrong = append(wrong, fmt.Sprintf("there should be %d nodes, and not %d", nodes, n))
	}
	switch holder := c.find(c.Active); {
	case c.Active == "":
		wrong = append(wrong, "no node is active: the lease is "+c.lease())
	case holder == nil:
		wrong = append(wrong, c.Active+" holds the lease and says nothing of itself")
	case !holder.gone() && holder.Role != roleActive:
		wrong = append(wrong, c.Active+" holds the lease and doesn't take traffic yet")
	}
	for _, n := range c.Nodes {
		switch {
		case n.gone() || !n.Ready:
			wrong = append(wrong, n.Node+" is "+n.state())
		case n.Role == roleActive && n.Node != c.Active:
			wrong = append(wrong, fmt.Sprintf("%s said %s ago that it is active, and doesn't hold the lease", n.Node, shownAgo(n.seen())))
		}
	}
	return wrong
}

// lease says in words how the lease stands.
func (c cluster) lease() string {
	left := inSeconds(c.LeftSeconds)
	switch c.State {
	case plugin.LeaseHeld:
		return fmt.Sprintf("held by %s, and ends in %s unless it is renewed", c.Active, shownAgo(left))
	case plugin.LeaseReserved:
		return fmt.Sprintf("reserved for %s for %s", c.ReservedFor, shownAgo(left))
	case plugin.LeaseReleased:
		return fmt.Sprintf("free for %s: it was released", shownAgo(-left))
	case plugin.LeaseExpired:
		return fmt.Sprintf("free for %s: it ran out", shownAgo(-left))
	case plugin.LeaseFree:
		return "free, and was never taken"
	}
	return string(c.State)
}

// shownAgo is a time that passes, as a person wants it.
func shownAgo(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", max(d, 0).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

func clusterCommand(load *source) *cobra.Command {
	group := newGroup("cluster")
	group.Short = "look at the nodes that share a storage, and hand over from one to another"
	group.AddCommand(clusterStatusCommand(load), clusterHandoverCommand(load))
	return group
}

func clusterStatusCommand(load *source) *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "say which node is active and how all of them are",
		Long: "Says which node is active, and how all nodes are that share its storage. Any of them can be asked. A\n" +
			"node that has said nothing for 5 seconds is gone; after an hour it is forgotten. One that was stopped\n" +
			"in order is not listed. POLICY is the revision that a node's own policies have; one that differs from that in\n" +
			"force is marked, and so are policies that are broken: see `imgate policy status` on that node.\n\n" +
			"The exit status is 0 if exactly one node is active and takes traffic and all others are there and ready,\n" +
			"and 1 if anything is wrong, which standard error says.",
		Args: cobra.NoArgs,
	}
	output := addOutput(command)
	nodes := command.Flags().Int("nodes", 1, "how many nodes there should be, at least `N`: fewer are wrong, too")
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, _ []string) error {
		c, err := readCluster(cmd.Context(), admin)
		if err != nil {
			return err
		}
		wrong := c.problems(*nodes)
		if output.value == asJSON {
			err = printJSON(cmd.OutOrStdout(), struct {
				cluster
				Problems []string `json:"problems"`
			}{c, append([]string{}, wrong...)})
		} else {
			err = printCluster(cmd.OutOrStdout(), c, time.Now())
		}
		if err == nil && len(wrong) > 0 {
			return fmt.Errorf("%s", printable(strings.Join(wrong, "; ")))
		}
		return err
	})
	return command
}

func printCluster(out io.Writer, c cluster, now time.Time) error {
	table := newTable(out)
	row(table, "active", c.who(now))
	row(table, "lease", fmt.Sprintf("fence %d, %s", c.Fence, c.lease()))
	row(table, "policy", shortRevision(c.Policy))
	fmt.Fprintln(table)
	row(table, "NODE", "ROLE", "STATE", "SINCE", "SEEN", "ADMIN", "VERSION", "POLICY")
	for _, n := range c.Nodes {
		role := n.Role
		if n.gone() {
			role = "" // that was then
		}
		row(table, n.Node, role, n.state(), shownTime(n.Since), shownAgo(n.seen())+" ago", n.Admin, n.Version, c.policy(n))
	}
	return table.Flush()
}

// policy is the revision that a node's source holds, marked if another one is in
// force, or that it can't be used.
func (c cluster) policy(n clusterNode) string {
	switch {
	case n.PolicyBroken:
		return "broken"
	case n.Policy == "" || n.Policy == c.Policy:
		return shortRevision(n.Policy)
	}
	return shortRevision(n.Policy) + " (differs)"
}

// who says which node is active, and since when.
func (c cluster) who(now time.Time) string {
	holder := c.find(c.Active)
	switch {
	case c.Active == "":
		return "none"
	case holder == nil || holder.gone() || holder.Role != roleActive || holder.Since.IsZero():
		return c.Active
	}
	return fmt.Sprintf("%s, since %s (%s)", c.Active, shownTime(holder.Since), shownAgo(now.Sub(holder.Since)))
}

// elsewhere says where the active node is, to whoever has asked another one;
// empty: that isn't known.
func (c cluster) elsewhere() string {
	if c.Active == "" || c.Active == c.Node {
		return ""
	}
	text := "node " + c.Active + " is active"
	if holder := c.find(c.Active); holder != nil && holder.Admin != "" {
		text += "; its admin API is at " + holder.Admin
	}
	return printable(text)
}

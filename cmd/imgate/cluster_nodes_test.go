//go:build cluster

package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// settling bounds what the nodes may take to agree again, whatever happened.
const settling = time.Minute

// cluster is some nodes on one PostgreSQL.
type cluster struct {
	t        *testing.T
	database *postgrestest.Server
	trouble  string // "crashed" or "frozen", while the database is
	nodes    []*node
}

// node is one process after the other with the same name.
type node struct {
	*server
	name   string
	life   atomic.Int64 // counts processes
	frozen bool
	logged int64 // octets in the log when this process began
}

func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, database: postgrestest.Start(t)}
	binary, storage := build(t), fmt.Sprintf("{plugin: postgres, url: %q}", c.database.URL())
	for i := range n {
		name := string(rune('a' + i))
		c.nodes = append(c.nodes, &node{server: newNode(t, binary, name, "", storage), name: name})
	}
	for _, n := range c.nodes {
		c.start(n)
	}
	c.awaitActive(nil)
	return c
}

func (c *cluster) addresses() (all []netip.AddrPort) {
	for _, n := range c.nodes {
		all = append(all, netip.MustParseAddrPort(n.sip))
	}
	return all
}

func (c *cluster) name(i int) string {
	if i < 0 {
		return "nobody knows whom"
	}
	return c.nodes[i].name
}

// active returns the node that takes traffic; nil if there is none.
func (c *cluster) active() *node {
	for _, n := range c.nodes {
		if n.runs() && isReady(n.admin) {
			return n
		}
	}
	return nil
}

// awaitActive waits until another node than that one takes traffic, and all
// that run know who it is.
func (c *cluster) awaitActive(than *node) (active *node) {
	c.t.Helper()
	c.await("one node is active and the others are ready", func() bool {
		active = c.active()
		if active == nil || active == than {
			return false
		}
		for _, n := range c.nodes {
			if n != active && n.runs() && !n.isStandby() {
				return false
			}
		}
		return true
	})
	return active
}

func (c *cluster) await(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(settling); !ok(); time.Sleep(20 * time.Millisecond) { // other processes
		if time.Now().After(deadline) {
			c.t.Fatalf("in vain: %s", what)
		}
	}
}

func (n *node) runs() bool { return n.process != nil && !n.frozen }

// isStandby tells whether a node says that another one is active and that it
// could take over.
func (n *node) isStandby() bool {
	status, text := n.readiness()
	return status == 503 && strings.Contains(text, "standby")
}

func (c *cluster) start(n *node) {
	c.t.Helper()
	if info, err := os.Stat(n.log.Name()); err == nil {
		n.logged = info.Size()
	}
	n.life.Add(1)
	n.launch()
	c.await("node "+n.name+" answers", func() bool { status, _ := n.readiness(); return status != 0 })
}

// The ways in which a node ends, or doesn't.

func (c *cluster) kill(n *node) {
	n.server.kill()
	n.frozen = false
}

func (c *cluster) shut(n *node) {
	c.t.Helper()
	n.server.stop()
}

func (c *cluster) freeze(n *node) {
	c.t.Helper()
	if err := n.process.Process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	n.frozen = true
}

func (c *cluster) thaw(n *node) {
	c.t.Helper()
	if err := n.process.Process.Signal(syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
	n.frozen = false
}

func (c *cluster) crashDatabase() {
	c.t.Helper()
	c.database.Crash()
	c.trouble = "crashed"
}

func (c *cluster) freezeDatabase() {
	c.t.Helper()
	c.database.Freeze()
	c.trouble = "frozen"
}

func (c *cluster) healDatabase() {
	c.t.Helper()
	switch c.trouble {
	case "crashed":
		c.database.Resume()
	case "frozen":
		c.database.Thaw()
	}
	c.trouble = ""
}

// handOver makes a node the active one, as an operator would.
func (c *cluster) handOver(from *node, to string) {
	c.t.Helper()
	args := []string{"cluster", "handover"}
	if to != "" {
		args = append(args, "--to", to)
	}
	c.t.Logf("imgate cluster handover: %s", strings.TrimSpace(from.imgate(args...)))
}

// startAll starts what doesn't run, and thaws what stands still.
func (c *cluster) startAll() {
	c.t.Helper()
	c.healDatabase()
	for _, n := range c.nodes {
		switch {
		case n.process == nil:
			c.start(n)
		case n.frozen:
			c.thaw(n)
		}
	}
}

// checkStatus: every node that runs says the same of those that run. They
// tell each other once a second.
func (c *cluster) checkStatus() {
	c.t.Helper()
	want := c.active().name
	for _, n := range c.nodes {
		if !n.runs() {
			continue
		}
		text := ""
		c.await("node "+n.name+" knows who is active", func() bool {
			text, _, _ = n.try("cluster", "status", "--output", "json") // it fails while a node is dead
			return c.isTrue(text, want)
		})
	}
}

// isTrue tells whether a status names the node that is active, and has each
// that runs in its role.
func (c *cluster) isTrue(status, active string) bool {
	var said struct {
		Active string `json:"active"`
		Nodes  []struct {
			Node  string `json:"node"`
			Role  string `json:"role"`
			Ready bool   `json:"ready"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(status), &said); err != nil || said.Active != active {
		return false
	}
	roles := map[string]string{}
	for _, n := range said.Nodes {
		if n.Ready {
			roles[n.Node] = n.Role
		}
	}
	for _, n := range c.nodes {
		role := "standby"
		if n.name == active {
			role = "active"
		}
		if n.runs() && roles[n.name] != role {
			return false
		}
	}
	return true
}

// checkRefuses: a standby says so to whoever asks it.
func (c *cluster) checkRefuses(p *phone, n *node) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), quickly)
	defer cancel()
	at := slices.Index(c.nodes, n)
	uri := "sip:" + domain
	for what, r := range map[string]*request{
		"MESSAGE": p.message("to000", "nobody"), "OPTIONS": p.newRequest("OPTIONS", uri, uri, ""), "REGISTER": p.registration(),
	} {
		if code := p.once(ctx, r, at); code != 503 {
			c.t.Errorf("standby %s answers %s with %d, want 503", n.name, what, code)
		}
	}
}

// dismissed returns how many connections a node has closed because it isn't the
// active one.
func (n *node) dismissed() float64 {
	return sumOf(n.metrics(), "imgate_sip_connections_closed_total", `reason="dismissed"`)
}

// said returns what the process that runs has logged.
func (n *node) said() string {
	text := n.server.logged()
	return text[min(int(n.logged), len(text)):]
}

package app

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

var tookUp = time.Date(2026, 1, 31, 2, 12, 9, 0, time.UTC)

// threeNodes is a cluster as it should be, as node b sees it.
func threeNodes() cluster {
	node := func(name, role, admin string, seen float64) clusterNode {
		return clusterNode{
			Node: name, Role: role, Ready: true, Reasons: []string{}, Version: "v1.2.3", Policy: "8f14e45fceea167a", Admin: admin,
			Started: tookUp.Add(-time.Hour), Since: tookUp, SeenSeconds: seen, Self: name == "b",
		}
	}
	return cluster{
		Node: "b", Active: "a", Fence: 12, State: plugin.LeaseHeld, LeftSeconds: 2.1, Policy: "8f14e45fceea167a",
		Nodes: []clusterNode{
			node("a", "active", "127.0.0.1:8060", 0.42), node("b", "standby", "127.0.0.1:8061", 0), node("c", "standby", "127.0.0.1:8062", 0.9),
		},
	}
}

// changed returns a cluster as it should be, but for what change does.
func changed(change func(*cluster)) cluster {
	c := threeNodes()
	change(&c)
	return c
}

func TestClusterProblems(t *testing.T) {
	for _, c := range []struct {
		name string
		is   cluster
		want []string
	}{
		{"well", threeNodes(), nil},
		{"one too few", changed(func(c *cluster) { c.Nodes = c.Nodes[:2] }), []string{"there should be 3 nodes, and not 2"}},
		{"gone", changed(func(c *cluster) { c.Nodes[2].SeenSeconds = 192 }), []string{"c is gone: not seen for 3m12s"}},
		{"just not gone", changed(func(c *cluster) { c.Nodes[2].SeenSeconds = 5 }), nil},
		{"the active one is gone", changed(func(c *cluster) { c.Nodes[0].SeenSeconds = 6 }), []string{"a is gone: not seen for 6.0 s"}},
		{"not ready", changed(func(c *cluster) {
			c.Nodes[1].Ready, c.Nodes[1].Reasons = false, []string{"draining", "transports.sip isn't open"}
		}), []string{"b is not ready: draining, transports.sip isn't open"}},
		{"nobody", changed(func(c *cluster) {
			c.Active, c.State, c.LeftSeconds = "", plugin.LeaseExpired, -3.25
			c.Nodes[0].SeenSeconds = 7.5
		}), []string{"no node is active: the lease is free for 3.2 s: it ran out", "a is gone: not seen for 7.5 s"}},
		{"never anybody", cluster{State: plugin.LeaseFree}, []string{"there should be 3 nodes, and not 0", "no node is active: the lease is free, and was never taken"}},
		{"under way", changed(func(c *cluster) {
			c.Active, c.State, c.ReservedFor, c.LeftSeconds, c.Nodes[0].Role = "", plugin.LeaseReserved, "b", 4, "standby"
		}), []string{"no node is active: the lease is reserved for b for 4.0 s"}},
		{"taking over", changed(func(c *cluster) { c.Active, c.Nodes[0].Role = "b", "standby" }),
			[]string{"b holds the lease and doesn't take traffic yet"}},
		{"two", changed(func(c *cluster) { c.Nodes[2].Role = "active" }), []string{"c said 0.9 s ago that it is active, and doesn't hold the lease"}},
		{"an unknown one", changed(func(c *cluster) { c.Active, c.Nodes[0].Role = "d", "standby" }), []string{"d holds the lease and says nothing of itself"}},
	} {
		if got := c.is.problems(3); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPrintCluster(t *testing.T) {
	for name, c := range map[string]cluster{
		"well": threeNodes(),
		"ill": changed(func(c *cluster) {
			c.Active, c.State, c.LeftSeconds = "", plugin.LeaseReleased, -12.6
			c.Nodes[0].SeenSeconds = 754
			c.Nodes[0].Policy, c.Nodes[1].Policy = "", "c9f0f895fb98ab91"
			c.Nodes[1].Ready, c.Nodes[1].Reasons = false, []string{"storage-down\x1b[2J"}
		}),
	} {
		var out bytes.Buffer
		if err := printCluster(&out, c, tookUp.Add(192*time.Second)); err != nil {
			t.Error(err)
		}
		golden(t, "cluster-"+name+".txt", out.String())
	}
}

// clusterServer is a node that knows of a cluster.
func clusterServer(c cluster) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+clusterPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+testToken {
			refuseWith(w, http.StatusUnauthorized, "no token")
			return
		}
		json.NewEncoder(w).Encode(c)
	})
	return mux
}

func TestClusterStatus(t *testing.T) {
	got := against(t, clusterServer(threeNodes()), "cluster", "status")
	if got.status != exitOK || got.err != "" || !strings.Contains(got.out, "takes traffic") {
		t.Errorf("%+v", got)
	}
	gone := changed(func(c *cluster) { c.Nodes[2].SeenSeconds = 60 })
	got = against(t, clusterServer(gone), "cluster", "status")
	if got.status != exitError || got.err != "imgate: c is gone: not seen for 1m0s\n" || !strings.Contains(got.out, "c     -  ") {
		t.Errorf("%+v", got)
	}
	got = against(t, clusterServer(gone), "cluster", "status", "--output", "json")
	var answer struct {
		Active   string
		Nodes    []clusterNode
		Problems []string
	}
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil || got.status != exitError || answer.Active != "a" || len(answer.Nodes) != 3 || len(answer.Problems) != 1 {
		t.Errorf("%v, %+v", err, got)
	}
	got = against(t, clusterServer(threeNodes()), "cluster", "status", "--nodes", "4")
	if got.status != exitError || got.err != "imgate: there should be 4 nodes, and not 3\n" {
		t.Errorf("%+v", got)
	}
	got = against(t, clusterServer(threeNodes()), "cluster", "status", "--output", "json")
	if got.status != exitOK || !strings.HasSuffix(got.out, `"problems":[]}`+"\n") {
		t.Errorf("%+v", got)
	}
	got = against(t, http.NotFoundHandler(), "cluster", "status")
	if got.status != exitError || got.out != "" || !strings.Contains(got.err, "answered 404") {
		t.Errorf("%+v", got)
	}
}

// standbyServer is node b: a standby that knows who is active.
func standbyServer(c cluster) *http.ServeMux {
	mux := clusterServer(c)
	mux.Handle("/", statusServer(http.StatusServiceUnavailable, `{"status":"not ready","reasons":["standby"],"error":"not ready: standby"}`))
	return mux
}

// A standby is asked how it is, and says which node is active.
func TestStandbySaysWhoIsActive(t *testing.T) {
	const elsewhere = "standby: node a is active; its admin API is at 127.0.0.1:8060"
	got := against(t, standbyServer(threeNodes()), "status")
	if got.status != exitOK || got.err != "" {
		t.Errorf("%+v", got)
	}
	golden(t, "status-standby-active.txt", withoutUptime(got.out))
	got = against(t, standbyServer(threeNodes()), "status", "--output", "json")
	if !strings.Contains(got.out, `"ready":false,"reasons":["standby"],"active":"a"`) {
		t.Errorf("%+v", got)
	}
	got = against(t, standbyServer(threeNodes()), "top", "--once")
	if !strings.Contains(got.out, "\n"+elsewhere+"\n") {
		t.Errorf("%+v", got)
	}
	got = against(t, standbyServer(threeNodes()), "health")
	if got.status != exitError || !strings.HasSuffix(got.err, " is not ready: "+elsewhere+"\n") {
		t.Errorf("%+v", got)
	}
	nobody := changed(func(c *cluster) { c.Active = "" })
	got = against(t, standbyServer(nobody), "status")
	golden(t, "status-standby.txt", withoutUptime(got.out))
}

func TestClusterPolicy(t *testing.T) {
	c := cluster{Policy: "r1"}
	for want, n := range map[string]clusterNode{
		"r1": {Policy: "r1"}, "r2 (differs)": {Policy: "r2"}, "-": {}, "broken": {Policy: "r1", PolicyBroken: true},
	} {
		if got := c.policy(n); cmp.Or(got, "-") != want {
			t.Errorf("%+v: %q, want %q", n, got, want)
		}
	}
}

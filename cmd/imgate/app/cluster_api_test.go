package app

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

const handoverPath = clusterPath + "/handover"

// checkCluster asks a node that is alone.
func (a *api) checkCluster() {
	a.get(clusterPath, 200)
	a.get(clusterPath+"?x=1", 400)
	a.post(handoverPath, "", 409)
	a.post(handoverPath, `{"to":"nobody"}`, 409)
	a.post(handoverPath, `{"to":`, 400)
	a.post(handoverPath+"?x=1", "", 400)
}

// cluster asks a node for all of them.
func (a *api) cluster() (c cluster) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.get(clusterPath, 200)), &c); err != nil {
		a.t.Error(err)
	}
	return c
}

// await waits until a node sees what it should.
func (a *api) await(what string, is func(cluster) bool) cluster {
	a.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if c := a.cluster(); is(c) {
			return c
		}
	}
	a.t.Fatalf("%s: it isn't so: %+v", what, a.cluster())
	return cluster{}
}

// TestHandoverBetweenNodes: two nodes share a disk; what they answer is as
// described, and what the commands make of it is as it should be.
func TestHandoverBetweenNodes(t *testing.T) {
	disk := memory.NewDisk()
	a := startNode(t, "a", disk, nil)
	a.await("a is active", func(c cluster) bool { return c.Active == "a" && len(c.problems(1)) == 0 })
	b := startNode(t, "b", disk, a)
	well := func(active string) func(cluster) bool {
		return func(c cluster) bool { return c.Active == active && len(c.problems(2)) == 0 }
	}
	for _, n := range []*api{a, b} {
		n.await("both are well", well("a"))
	}

	if text := b.get("/v1/messages", 503); !strings.Contains(text, "standby: node a is active; its admin API is at "+strings.TrimPrefix(a.base, "http://")) {
		t.Error(text)
	}
	b.post(handoverPath, `{"to":"a"}`, 503)
	a.post(handoverPath, `{"to":"a"}`, 409)
	var given struct{ To string }
	if err := json.Unmarshal([]byte(a.post(handoverPath, "", 200)), &given); err != nil || given.To != "b" {
		t.Errorf("%+v, %v", given, err)
	}
	c := a.await("b is active", well("b"))
	if c.State != plugin.LeaseHeld || c.find("b").Since.IsZero() || c.find("a").Role != "standby" || !c.find("a").Self {
		t.Errorf("%+v", c)
	}
	b.await("it knows that a is ready", well("b"))
	b.post(handoverPath, `{"to":"a"}`, 200)
	b.await("a is active again", well("a"))
}

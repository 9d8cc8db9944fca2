package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// TestCrashPartlySent lets the storage die at each of its calls while messages go
// in parts. Then, on the same disk: each part of what was acknowledged is with the
// next hop, no part is sent again of which the disk knows that it was taken, and
// each message is delivered, and charged once.
func TestCrashPartlySent(t *testing.T) {
	for _, late := range []bool{false, true} {
		survived := false
		for k := 0; k < 200 && !survived && !t.Failed(); k++ {
			t.Run(fmt.Sprintf("late=%t/call=%d", late, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { survived = crashPartly(t, k, late) })
			})
		}
		if !survived {
			t.Error("the run doesn't end")
		}
	}
}

func crashPartly(t *testing.T, k int, late bool) (survived bool) {
	disk := memory.NewDisk()
	storage := newDying(memory.Open(disk), 1<<30, late)
	hop := &smsc{takes: []int{1, 2, 0, 1, -1, 1, 0}}
	before := overParts(t, storage, hop)
	storage.left.Store(int64(k))

	accepted := map[string]message.ID{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, name := range []string{"a", "b", "c"} {
		if answer, err := before.door.submit("alice", "bob", fmt.Sprint(name, " ", i)).Accepted(ctx); err == nil {
			accepted[name] = answer.ID
		}
	}
	for range 5 {
		reportAll(t, before, hop)
	}
	before.stop()
	select {
	case <-storage.dead:
	default:
		survived = true
	}
	known := knownParts(t, disk)
	sent := map[string][]int{}
	for name := range accepted {
		sent[name] = hop.heard(name)
	}

	after := overParts(t, memory.Open(disk), hop)
	for range 100 {
		reportAll(t, after, hop)
		if len(rows(t, after.storage, "messages"))+len(rows(t, after.storage, "outbox")) == 0 {
			break
		}
	}
	paid := rows(t, after.storage, "test/paid")
	for name, id := range accepted {
		got := hop.heard(name)
		for part := range allParts {
			n := count(got, part)
			if n == 0 || n > 2 || known[id].parts > part && n != count(sent[name], part) || known[id].gone && len(got) != len(sent[name]) {
				t.Errorf("the disk knew %+v of %s, of which parts %v were sent, and %v in all", known[id], name, sent[name], got)
			}
		}
		if v := after.state(t, id); v.State != spool.StateDelivered || paid[string(id[:])] != "\x01" {
			t.Errorf("paid %q: %s", paid[string(id[:])], asJSON(v))
		}
	}
	for _, table := range []string{"messages", "states", "outbox", "test/holds"} {
		if left := rows(t, after.storage, table); len(left) != 0 {
			t.Errorf("%d rows are left in %s", len(left), table)
		}
	}
	after.stop()
	return survived
}

func count(parts []int, part int) (n int) {
	for _, p := range parts {
		if p == part {
			n++
		}
	}
	return n
}

// overParts runs a pipeline whose messages go to a next hop that takes them in parts.
func overParts(t *testing.T, storage plugin.Storage, hop *smsc) *solo {
	policy := charged()
	policy.asked = func(_ plugin.Question, more plugin.Supply, p *plugin.Plan) {
		p.Transports, p.Charging.When = []string{"main"}, momentOf(more.Text())
	}
	return alone(t, storage, policy, func(p *pipeline.Parts) {
		p.Doors["main"] = pipeline.Door{Transport: &relay{answer: hop.answer}, Plugin: "trunk"}
	})
}

// reportAll reports all that the next hop has, as it would again and again.
func reportAll(t *testing.T, s *solo, hop *smsc) {
	time.Sleep(time.Second)
	synctest.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, name := range []string{"a", "b", "c"} {
		for _, part := range slices.Backward(hop.heard(name)) {
			_ = s.Report(ctx, "main", fmt.Sprint(name, "-p", part), arrivedPart)
		}
	}
	synctest.Wait()
}

// onDisk is what a disk tells of a message.
type onDisk struct {
	parts int // that were taken
	gone  bool
}

func knownParts(t *testing.T, disk *memory.Disk) map[message.ID]onDisk {
	t.Helper()
	storage := memory.Open(disk)
	states, err := spool.New(storage, nil).States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := map[message.ID]onDisk{}
	for id, state := range states {
		for _, d := range state.Deliveries {
			known[id] = onDisk{len(d.Parts), state.HandedOver}
		}
	}
	for key := range rows(t, storage, "history") {
		known[message.ID([]byte(key))] = onDisk{gone: true}
	}
	return known
}

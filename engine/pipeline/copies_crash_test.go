package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// TestCrashCopying lets the storage die at each of its calls while messages go to
// all devices, of which one comes late and another isn't there. Then, on the same
// disk: each device gets each message that was acknowledged, at least once, under
// one name, and it is charged once. Where the storage doesn't die: exactly once.
func TestCrashCopying(t *testing.T) {
	for _, late := range []bool{false, true} {
		survived := false
		for k := 0; k < 200 && !survived && !t.Failed(); k++ {
			t.Run(fmt.Sprintf("late=%t/call=%d", late, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { survived = crashCopying(t, k, late) })
			})
		}
		if !survived {
			t.Error("the run doesn't end")
		}
	}
}

func crashCopying(t *testing.T, k int, late bool) (survived bool) {
	disk := memory.NewDisk()
	storage := newDying(memory.Open(disk), 1<<30, late)
	h := newHandsets()
	before := h.run(t, storage, forAll())
	h.say(func(device, _ string) (time.Duration, error) {
		return map[string]time.Duration{"tablet": 2 * time.Second}[device], nil
	})
	devices := []string{"phone", "tablet", "desk"}
	before.comes(t, time.Minute, "desk")
	passes(2 * time.Minute)
	before.comes(t, 12*time.Hour, "phone", "tablet")
	storage.left.Store(int64(k))

	accepted := map[string]message.ID{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	submit := func(body string) {
		if answer, err := before.door.submit("alice", "bob", body).Accepted(ctx); err == nil {
			accepted[body] = answer.ID
		}
		passes(time.Second)
	}
	submit("1")
	submit("2")
	passes(time.Minute)
	_, _ = before.door.gate.Register(ctx, plugin.Registration{Account: account("bob"), AOR: address("bob"), CallID: "c", CSeq: 1, Bindings: []plugin.Binding{
		{Contact: "desk", Device: "desk", Expires: time.Now().Add(time.Hour)},
	}})
	submit("3")
	passes(time.Minute)
	before.stop()
	select {
	case <-storage.dead:
	default:
		survived = true
	}

	after := h.run(t, memory.Open(disk), forAll())
	after.comes(t, time.Hour, devices...)
	passes(10 * time.Minute)
	paid := rows(t, after.storage, "test/paid")
	for body, id := range accepted {
		for _, device := range devices {
			n := 0
			for _, got := range h.has(device) {
				if got == body {
					n++
				}
			}
			if n == 0 || survived && n > 1 || len(h.names[device+" "+body]) != 1 {
				t.Errorf("%s has %q %d times, under the names %v", device, body, n, h.names[device+" "+body])
			}
		}
		if paid[string(id[:])] != "\x01" {
			t.Errorf("%q is paid %q", body, paid[string(id[:])])
		}
	}
	if survived && (len(accepted) != 3 || len(paid) != 3 || !slices.Equal(h.has("desk"), []string{"1", "2", "3"})) {
		t.Errorf("%d were accepted, %d paid; %q", len(accepted), len(paid), h.has("desk"))
	}
	for _, table := range []string{"messages", "states", "outbox", "test/holds"} {
		if left := rows(t, after.storage, table); len(left) != 0 {
			t.Errorf("%d rows are left in %s", len(left), table)
		}
	}
	after.stop()
	return survived
}

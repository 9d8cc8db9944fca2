package pipeline_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// crashing is a storage that takes no writes once it is told to: what was sent
// by then and not noted is sent again.
type crashing struct {
	plugin.Storage
	gone atomic.Bool
}

func (c *crashing) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if c.gone.Load() {
		return errDead
	}
	return c.Storage.Apply(ctx, f, changes)
}

// TestRepeatsAreCounted: what a node had sent, and not noted, when it died is
// sent again by the next one, and counted; what it can't have sent isn't.
func TestRepeatsAreCounted(t *testing.T) {
	const sent, waiting = 5, 3
	disk := memory.NewDisk()
	storage := &crashing{Storage: memory.Open(disk)}
	before := alone(t, storage, charged(), nil)
	begun, answer := make(chan struct{}, sent), make(chan struct{})
	before.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		begun <- struct{}{}
		<-answer
		return plugin.Receipt{Final: true}, nil
	}
	if err := before.door.register(t.Context(), "online", "phone"); err != nil {
		t.Fatal(err)
	}
	accept := func(from, to string) {
		t.Helper()
		if _, err := before.door.submit(from, to, from+" to "+to).Accepted(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range waiting {
		accept(fmt.Sprint("sender", i), "offline")
	}
	for i := range sent {
		accept(fmt.Sprint("sender", i), "online")
	}
	for range sent {
		<-begun
	}
	storage.gone.Store(true)
	close(answer)
	eventually(t, "the peer has them all", func() bool { return len(before.door.bodies()) == sent })
	before.stop()

	after := alone(t, memory.Open(disk), charged(), nil)
	eventually(t, "they are delivered again", func() bool { return len(after.door.bodies()) == sent })
	if err := after.door.register(t.Context(), "offline", "phone"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what waited is delivered", func() bool { return len(after.door.bodies()) == sent+waiting })
	times := map[string]int{}
	for _, body := range append(before.door.bodies(), after.door.bodies()...) {
		times[body]++
	}
	duplicates := int64(sent + sent + waiting - len(times))
	if n := after.Snapshot()["repeated"]; duplicates != sent || n != duplicates {
		t.Errorf("%d duplicates, %d are counted, want %d", duplicates, n, sent)
	}
}

// TestRepeatIsCountedAfterTheBindingRanOut: it did so while no node was there.
func TestRepeatIsCountedAfterTheBindingRanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		storage := &crashing{Storage: memory.Open(disk)}
		before := alone(t, storage, charged(), nil)
		before.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			storage.gone.Store(true)
			return plugin.Receipt{Final: true}, nil
		}
		if err := before.door.register(t.Context(), "bob", "phone"); err != nil { // for an hour
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		wantOutcome(t, before.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
		before.stop()
		time.Sleep(10 * time.Second)

		after := alone(t, memory.Open(disk), charged(), nil)
		synctest.Wait()
		if bodies := after.door.bodies(); len(bodies) > 0 {
			t.Errorf("%q is delivered to a binding that has run out", bodies)
		}
		if err := after.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := after.Snapshot()["repeated"]; n != 1 || len(after.door.bodies()) != 1 {
			t.Errorf("%d repeats are counted of %q", n, after.door.bodies())
		}
	})
}

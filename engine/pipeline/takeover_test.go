package pipeline_test

import (
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// TestStandbyTakesOver runs two nodes on one storage: one is active, the other
// sends everybody elsewhere until the first stops.
func TestStandbyTakesOver(t *testing.T) {
	disk := memory.NewDisk()
	active := startAs(t, "first", memory.Open(disk), newDoor(), charged())
	if !active.started() {
		t.Fatal("the first node doesn't start")
	}
	active.door.register(t.Context(), "carol", "phone")
	wantOutcome(t, active.door.submit("alice", "bob", "hello"), plugin.OutcomeWaiting)

	standby := startAs(t, "second", memory.Open(disk), newDoor(), charged())
	<-standby.door.ready
	if f := standby.door.gate.Active(); f == nil || f.Reason != message.Standby {
		t.Errorf("the second node says %v", f)
	}
	wantRefusal(t, standby.door.submit("alice", "bob", "to the standby"), message.Standby, true)

	if err := active.end(); err != nil {
		t.Fatal(err)
	}
	if !standby.started() {
		t.Fatal("the second node doesn't take over")
	}
	defer standby.end()
	standby.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, standby.door.submit("alice", "carol", "the binding is known"), plugin.OutcomeDelivered)
	eventually(t, "what waited arrives", func() bool { return len(standby.door.bodies()) == 2 })
}

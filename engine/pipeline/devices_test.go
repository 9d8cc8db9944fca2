package pipeline_test

import (
	"context"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// registerFlows registers contacts as flows of one device (RFC 5626 §4.2).
func registerFlows(t *testing.T, d *testDoor, user, device string, contacts ...string) {
	t.Helper()
	r := plugin.Registration{Account: account(user), AOR: address(user), CallID: message.NewPublicID(), CSeq: 1}
	for i, contact := range contacts {
		r.Bindings = append(r.Bindings, plugin.Binding{
			Contact: contact, Device: device, RegID: string(rune('1' + i)), Expires: time.Now().Add(time.Hour),
		})
	}
	if got, err := d.gate.Register(context.Background(), r); err != nil || len(got) != len(contacts) {
		t.Fatalf("%d bindings, %v", len(got), err)
	}
}

func TestDeviceWithSeveralFlowsGetsAMessageOnce(t *testing.T) {
	k, _ := node(t, charged())
	registerFlows(t, k.door, "bob", "phone", "over-udp", "over-tcp")
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
	eventually(t, "it has ended: all ways that are tried have answered", func() bool { return len(rows(t, k.storage, "messages")) == 0 })
	if got := k.door.bodies(); len(got) != 1 {
		t.Errorf("it arrived as %q", got)
	}
}

// TestFlowThatIsGone: the other one is taken at once, and the peer hears the
// same name for the delivery on both.
func TestFlowThatIsGone(t *testing.T) {
	k, _ := node(t, charged())
	tried := make(chan plugin.Route, 10)
	k.door.take = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
		tried <- r
		if r.Binding.Contact == "over-tcp" {
			return plugin.Receipt{}, message.FailForNow(message.Unavailable, "the connection is gone")
		}
		return plugin.Receipt{Final: true}, nil
	}
	registerFlows(t, k.door, "bob", "phone", "over-udp", "over-tcp")
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
	first, second := <-tried, <-tried
	if first.Binding.Contact != "over-tcp" || second.Binding.Contact != "over-udp" || first.Reference != second.Reference {
		t.Errorf("tried %+v and then %+v", first, second)
	}
}

package pipeline_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

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
	wantOutcome(t, active.door.submit("alice", "carol", "is taken"), plugin.OutcomeDelivered)

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
	wantOutcome(t, standby.door.submit("alice", "carol", "is taken"), plugin.OutcomeDelivered)
	if bodies := standby.door.bodies(); len(bodies) != 2 {
		t.Errorf("a submission that the first node had seen is delivered again: %q", bodies)
	}
}

// freezing is a storage of a node that freezes: its calls go on when it thaws,
// and don't know that time has passed.
type freezing struct {
	plugin.Storage
	mu     sync.Mutex
	thawed chan struct{} // nil: it isn't frozen
	stuck  chan error    // what became of an Apply that came while it was
}

func (s *freezing) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.thawed = make(chan struct{})
}

func (s *freezing) thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.thawed)
}

// pass waits while it is frozen, and tells whether it was.
func (s *freezing) pass(ctx context.Context) (context.Context, bool) {
	s.mu.Lock()
	thawed := s.thawed
	s.mu.Unlock()
	if thawed == nil {
		return ctx, false
	}
	<-thawed
	return context.WithoutCancel(ctx), true
}

func (s *freezing) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	ctx, late := s.pass(ctx)
	err := s.Storage.Apply(ctx, f, changes)
	if late {
		select {
		case s.stuck <- err:
		default:
		}
	}
	return err
}

func (s *freezing) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	ctx, _ = s.pass(ctx)
	return s.Storage.Scan(ctx, table, from, to, n)
}

func (s *freezing) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	ctx, _ = s.pass(ctx)
	return s.Storage.Renew(ctx, f, ttl)
}

func (s *freezing) Lease(ctx context.Context) (plugin.Lease, error) {
	ctx, _ = s.pass(ctx)
	return s.Storage.Lease(ctx)
}

func (s *freezing) Attend(ctx context.Context, node, note string) ([]plugin.Attendant, error) {
	ctx, _ = s.pass(ctx)
	return s.Storage.Attend(ctx, node, note)
}

// TestFrozenNodeWritesNothing: a node whose storage hangs, in the middle of its
// work, until another has taken over, changes nothing of what is on disk then.
func TestFrozenNodeWritesNothing(t *testing.T) {
	for _, s := range stores() {
		if s.name == "pebble" {
			continue // it is one node's alone
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel() // it waits for the end of leases
			freezeAndThaw(t, s.prepare(t)(t))
		})
	}
}

func freezeAndThaw(t *testing.T, disk opener) {
	frozen := &freezing{Storage: disk.open(t), stuck: make(chan error, 1)}
	old := startAs(t, "old", frozen, newDoor(), charged())
	if !old.started() {
		t.Fatalf("the old node doesn't start: %v", <-old.done)
	}
	const inFlight, waiting = 3, 3
	begun, answer := make(chan struct{}, inFlight), make(chan struct{})
	old.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		begun <- struct{}{}
		<-answer
		return plugin.Receipt{Final: true}, nil
	}
	old.door.register(t.Context(), "online", "phone")
	accepted := map[string]message.ID{} // by body
	accept := func(k *kit, from, to string) plugin.Ticket {
		t.Helper()
		body := from + " to " + to
		ticket := k.door.submit(from, to, body)
		a, err := ticket.Accepted(t.Context())
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		accepted[body] = a.ID
		return ticket
	}
	for i := range waiting {
		accept(old, fmt.Sprint("sender", i), "offline")
	}
	for i := range inFlight {
		accept(old, fmt.Sprint("sender", i), "online")
	}
	for range inFlight {
		<-begun
	}
	next := startAs(t, "next", disk.open(t), newDoor(), charged())
	<-next.door.ready

	frozen.freeze()
	close(answer) // what the old node does from now on is never noted
	eventually(t, "the old node has sent what it had begun to send", func() bool { return len(old.door.bodies()) == inFlight })
	unsure := old.door.submit("alice", "online", "to a node that is frozen")
	if !next.started() {
		t.Fatalf("the other node doesn't take over: %v", <-next.done)
	}
	next.door.register(t.Context(), "offline", "phone")
	wantOutcome(t, accept(next, "late", "online"), plugin.OutcomeDelivered)
	eventually(t, "everything is delivered and settled", func() bool {
		return len(next.door.bodies()) == inFlight+waiting+1 && len(rows(t, next.storage, "messages"))+len(rows(t, next.storage, "outbox")) == 0
	})
	before := allRows(t, next.storage)

	frozen.thaw()
	if err := <-frozen.stuck; err == nil {
		t.Error("the old node has written under its old fence") // below: that nothing has changed
	}
	if _, err := unsure.Accepted(t.Context()); err == nil {
		t.Error("the old node has acknowledged a message that is lost")
	}
	eventually(t, "the old node is a standby", func() bool {
		f := old.door.gate.Active()
		return f != nil && f.Reason == message.Standby
	})
	if err := old.end(); err != nil {
		t.Errorf("the old node ends with %v", err)
	}
	for table, want := range before {
		if got := rows(t, next.storage, table); !maps.Equal(got, want) {
			t.Errorf("table %s has changed: %d rows, %d before", table, len(got), len(want))
		}
	}
	checkAllPaidOnce(t, next, accepted)
	if err := next.end(); err != nil {
		t.Errorf("the new node ends with %v", err)
	}
}

// allRows are the tables that tell of messages and of money.
func allRows(t *testing.T, s plugin.Storage) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, table := range []string{"messages", "states", "outbox", "history", "seen", "bindings", "test/paid", "test/holds"} {
		all[table] = rows(t, s, table)
	}
	return all
}

// checkAllPaidOnce: what was acknowledged arrived, and was paid for once.
func checkAllPaidOnce(t *testing.T, k *kit, accepted map[string]message.ID) {
	t.Helper()
	delivered := map[string]int{}
	for _, body := range k.door.bodies() {
		delivered[body]++
	}
	paid := rows(t, k.storage, "test/paid")
	for body, id := range accepted {
		if delivered[body] != 1 || paid[string(id[:])] != "\x01" {
			t.Errorf("%q was delivered %d times by the new node and paid for %q times", body, delivered[body], paid[string(id[:])])
		}
	}
	if holds := rows(t, k.storage, "test/holds"); len(paid) != len(accepted) || len(holds) > 0 {
		t.Errorf("%d payments and %d reservations for %d messages", len(paid), len(holds), len(accepted))
	}
}

package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// TestCrashOfReceipts lets the storage die at each of its calls in turn. Then, on
// the same disk: each message that has ended has one receipt, that says so. One
// may come twice, as anything may that was sent when the storage died.
func TestCrashOfReceipts(t *testing.T) {
	for _, late := range []bool{false, true} {
		for k := 0; ; k++ {
			survived := false
			t.Run(fmt.Sprintf("late=%t/call=%d", late, k), func(t *testing.T) { survived = crashWithReceipts(t, k, late) })
			if survived || t.Failed() {
				break
			}
		}
	}
}

// receipts are those that the door's peers have taken, with the names of their
// messages as bodies.
func (d *testDoor) receipts() (receipts []sent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sent {
		if name, ok := strings.CutPrefix(s.body, receiptOf); ok {
			s.body = name
			receipts = append(receipts, s)
		}
	}
	return receipts
}

func refusesOne(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	if string(m.Body) == "declined" {
		return plugin.Receipt{}, message.Fail(message.Declined, "no")
	}
	return promises(m, r)
}

func crashWithReceipts(t *testing.T, k int, late bool) (survived bool) {
	disk := memory.NewDisk()
	storage, before := newDying(memory.Open(disk), k, late), newDoor()
	before.take = refusesOne
	names := receiptsUntilDeath(t, storage, before)
	survived = storage.left.Load() >= 0

	after := newDoor()
	after.take = refusesOne
	next := start(t, memory.Open(disk), after, eachMoment())
	if !next.started() {
		t.Fatalf("the next node doesn't start: %v", <-next.done)
	}
	for _, user := range []string{"online", "offline", "sender"} {
		if err := after.register(t.Context(), user, user); err != nil {
			t.Fatalf("register %s: %v", user, err)
		}
	}
	eventually(t, "everything is delivered", func() bool {
		keepsPromise(t.Context(), after)
		return len(rows(t, next.storage, "messages")) == 0
	})
	ended, receipts := map[string]spool.Summary{}, 0
	for _, v := range next.messages(t, "") {
		if v.Type == message.TypeReceipt {
			receipts++
			continue
		}
		ended[v.PublicID] = v
	}
	if receipts != len(ended) {
		t.Errorf("%d receipts of %d messages", receipts, len(ended))
	}
	got := map[string]string{} // by name of the message: the reference of its receipt
	for _, s := range append(before.receipts(), after.receipts()...) {
		if other := got[s.body]; other != "" && other != s.reference {
			t.Errorf("two receipts of %q", s.body)
		}
		got[s.body] = s.reference
	}
	if len(got) != len(ended) {
		t.Errorf("receipts of %d messages arrived, and there are %d", len(got), len(ended))
	}
	for name, v := range ended {
		if got[name] == "" {
			t.Errorf("no receipt of %+v", v)
		}
	}
	for _, name := range names {
		if _, ok := ended[name]; !ok {
			t.Errorf("%q was acknowledged and is lost", name)
		}
	}
	if err := next.end(); err != nil {
		t.Errorf("the next node ends with %v", err)
	}
	return survived
}

// receiptsUntilDeath sends messages that end in several ways, and returns the names
// of those that were acknowledged.
func receiptsUntilDeath(t *testing.T, storage *dying, door *testDoor) (names []string) {
	k := start(t, storage, door, eachMoment())
	defer k.end() // it may well fail: its storage is dead
	select {
	case <-k.up:
	case <-storage.dead:
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	alive, end := storage.alive(ctx)
	defer end()
	door.register(alive, "online", "online") // whether it is kept doesn't matter
	door.register(alive, "sender", "sender")
	var last message.ID
	for _, m := range [...]struct{ to, body string }{
		{"online", "hello 0"}, {"online", "declined"}, {"online", promised}, {"online", broken}, {"offline", "offline 0"}, {"offline", "offline, cancelled"},
	} {
		ticket := door.submit("sender", m.to, m.body, wants(message.ReportEnd))
		answer, err := ticket.Accepted(alive)
		if err != nil {
			continue
		}
		names, last = append(names, answer.PublicID), answer.ID
		ticket.First(alive)
	}
	keepsPromise(alive, door)
	k.operate(storage, last, "cancel")
	return names
}

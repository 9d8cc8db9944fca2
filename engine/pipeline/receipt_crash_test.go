package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// TestCrashOfReceipts lets the storage die at each of its calls in turn. Then, on
// the same disk: each message that has ended has one receipt, or one notification,
// that says so. One may come twice, as anything may that was sent when the storage
// died.
func TestCrashOfReceipts(t *testing.T) {
	for name, ask := range map[string]func(*plugin.Arrival){"receipts": wants(message.ReportEnd), "notifications": asks(both)} {
		for _, late := range []bool{false, true} {
			for k := 0; ; k++ {
				survived := false
				t.Run(fmt.Sprintf("%s/late=%t/call=%d", name, late, k), func(t *testing.T) { survived = crashWithReceipts(t, k, late, ask) })
				if survived || t.Failed() {
					break
				}
			}
		}
	}
}

// receipts are those that the door's peers have taken, and notifications, with the
// names of their messages as bodies.
func (d *testDoor) receipts() (receipts []sent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sent {
		name, ok := strings.CutPrefix(s.body, receiptOf)
		if _, inner, isCPIM := content.Unwrap([]byte(s.body)); isCPIM {
			imdn, err := content.ParseIMDN(inner)
			ok = err == nil
			if ok {
				name = imdn.MessageID
			}
		}
		if ok {
			s.body = name
			receipts = append(receipts, s)
		}
	}
	return receipts
}

// refusesOne wants the text alone of what it gets.
func refusesOne(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	text, ok := content.Text(m.ContentType, m.Body)
	if ok && text == "declined" {
		return plugin.Receipt{}, message.Fail(message.Declined, "no")
	}
	receipt, err := promises(&message.Message{Body: []byte(text)}, r)
	receipt.Unwrapped = ok
	return receipt, err
}

// nobodyWaits lets senders be answered at once.
func nobodyWaits() *testPolicy {
	policy := eachMoment()
	policy.also(func(p *plugin.Plan) { p.Answer = plugin.AnswerAccepted })
	return policy
}

func crashWithReceipts(t *testing.T, k int, late bool, ask func(*plugin.Arrival)) (survived bool) {
	disk := memory.NewDisk()
	storage, before := newDying(memory.Open(disk), k, late), newDoor()
	before.take = refusesOne
	names := receiptsUntilDeath(t, storage, before, ask)
	survived = storage.left.Load() >= 0

	after := newDoor()
	after.take = refusesOne
	next := start(t, memory.Open(disk), after, nobodyWaits())
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
		switch {
		case v.Transport == "":
			receipts++
		case v.Type == content.TypeCPIM:
			ended["of "+v.Peer] = v
		default:
			ended[v.PublicID] = v
		}
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
func receiptsUntilDeath(t *testing.T, storage *dying, door *testDoor, ask func(*plugin.Arrival)) (names []string) {
	k := start(t, storage, door, nobodyWaits())
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
		asCPIM := false
		ticket := door.submit("sender", m.to, m.body, ask, func(a *plugin.Arrival) {
			a.Message.Peer, asCPIM = m.body, a.Message.ContentType == content.TypeCPIM
		})
		answer, err := ticket.Accepted(alive)
		if err != nil {
			continue
		}
		name := answer.PublicID
		if asCPIM {
			name = "of " + m.body
		}
		names, last = append(names, name), answer.ID
		ticket.First(alive)
	}
	keepsPromise(alive, door)
	k.operate(storage, last, "cancel")
	return names
}

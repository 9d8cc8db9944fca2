package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// TestRefusedByOthers: a message doesn't fail because the devices refuse it for good
// that it was sent to, while there is one that was left out: since it has yet to
// answer an earlier message, or to get a copy of it, or since its turn had not come.
func TestRefusedByOthers(t *testing.T) {
	busy, declined := message.FailForNow(message.Busy, "x"), message.Fail(message.Declined, "x")
	for _, c := range []struct {
		name   string
		mode   plugin.DeviceMode
		first  func() (time.Duration, error) // what the tablet says of the first message at first
		device []string                      // what it has in the end
	}{
		{"has yet to answer", plugin.AnyDevice, func() (time.Duration, error) { return 10 * time.Second, nil }, []string{"2", "1"}},
		{"has yet to answer, for its copy", plugin.AllDevices, func() (time.Duration, error) { return 10 * time.Second, nil }, []string{"1", "2"}},
		{"has yet to get its copy", plugin.AllDevices, func() (time.Duration, error) { return 0, busy }, []string{"1", "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, policy := newHandsets(), charged()
				policy.also(func(p *plugin.Plan) { p.Devices = c.mode })
				s := h.run(t, memory.Open(memory.NewDisk()), policy)
				s.comes(t, 12*time.Hour, "phone", "tablet")
				var tried atomic.Bool
				h.say(func(device, body string) (time.Duration, error) {
					switch {
					case device == "phone" && body == "2":
						return 0, declined
					case device == "tablet" && !tried.Swap(true):
						return c.first()
					}
					return 0, nil
				})
				wantOutcome(t, s.door.submit("alice", "bob", "1"), plugin.OutcomeDelivered)
				ticket := s.door.submit("alice", "bob", "2")
				if o, err := first(t, ticket); err != nil || o.State == plugin.OutcomeFailed {
					t.Errorf("%+v, %v", o, err)
				}
				passes(time.Minute)
				if got := h.has("tablet"); !slices.Equal(got, c.device) || !slices.Equal(h.has("phone"), []string{"1"}) {
					t.Errorf("the tablet has %q, the phone %q", got, h.has("phone"))
				}
				if left, paid := len(rows(t, s.storage, "messages")), len(rows(t, s.storage, "test/paid")); left != 0 || paid != 2 {
					t.Errorf("%d are left, %d were paid", left, paid)
				}
			})
		})
	}
}

// TestWokenBehindANotification: a message that came while a notification found out
// that the app sleeps wakes it, though that doesn't.
func TestWokenBehindANotification(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.enter("bob", "phone", true)
		sending, goOn := make(chan bool), make(chan bool)
		b.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			sending <- true
			<-goOn
			return plugin.Receipt{}, message.FailForNow(message.Unavailable, "its flow is gone")
		}
		notification := b.door.submit("alice", "bob", imdnOf("hello", "delivered"), enveloped("", "message/imdn+xml"))
		<-sending
		text := b.door.submit("alice", "bob", "hello")
		if _, err := text.Accepted(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.lose("phone")
		b.wantWoken()
		close(goOn)
		wantOutcome(t, notification, plugin.OutcomeWaiting)
		wantOutcome(t, text, plugin.OutcomeWaiting)
		b.wantWoken("phone")
	})
}

// TestLostWakesForCopies: a copy that waits for its next attempt wakes its app as soon
// as the flow is gone.
func TestLostWakesForCopies(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.policy.also(func(p *plugin.Plan) {
			p.Devices, p.Retry.Backoff = plugin.AllDevices, []time.Duration{time.Hour}
		})
		b.enter("bob", "phone", true)
		b.enter("bob", "pad", true)
		b.door.take = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
			if r.Binding.Device == "pad" {
				return plugin.Receipt{}, message.FailForNow(message.Busy, "x")
			}
			return plugin.Receipt{Final: true}, nil
		}
		wantOutcome(t, b.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
		b.wantWoken()
		b.lose("phone")
		b.wantWoken()
		b.lose("pad")
		b.wantWoken("pad")
	})
}

// TestCopiesAreBounded: what ends a large message for very many devices is no more
// than a storage must take at once.
func TestCopiesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandsets()
		storage := &measuring{Storage: memory.Open(memory.NewDisk())}
		s := h.run(t, storage, forAll())
		var devices []string
		for i := range 60 {
			devices = append(devices, fmt.Sprint("device ", i))
		}
		h.say(func(device, _ string) (time.Duration, error) {
			if device != devices[0] {
				return 0, message.FailForNow(message.Busy, "x")
			}
			return 0, nil
		})
		s.comes(t, 12*time.Hour, devices...)
		wantOutcome(t, s.door.submit("alice", "bob", string(make([]byte, 250_000))), plugin.OutcomeDelivered)
		passes(time.Second)
		if most := storage.most.Load(); most > plugin.MaxApply {
			t.Errorf("%d octets at once", most)
		}
		if n := len(rows(t, s.storage, "messages")); n < 16 {
			t.Errorf("%d copies", n)
		}
	})
}

// measuring is a storage that notes the greatest transaction.
type measuring struct {
	plugin.Storage
	most atomic.Int64
}

func (m *measuring) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	size := 0
	for _, c := range changes {
		size += len(c.Key) + len(c.Value)
	}
	m.most.Store(max(m.most.Load(), int64(size)))
	return m.Storage.Apply(ctx, f, changes)
}

package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// alarm is a pusher that notes whom it wakes.
type alarm struct {
	mu    sync.Mutex
	woken []plugin.Sleeper
	keep  time.Duration
}

func (a *alarm) Wake(_ context.Context, s plugin.Sleeper) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.woken = append(a.woken, s)
	return nil
}

func (a *alarm) Keep() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keep
}

func (a *alarm) Close() error { return nil }

// devices lists whom it has woken since it was asked last, sorted.
func (a *alarm) devices() (names []string) {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.woken {
		names = append(names, s.Device)
	}
	a.woken = nil
	slices.Sort(names)
	return names
}

// bedroom is a pipeline with apps that sleep, in a bubble.
type bedroom struct {
	*solo
	t      *testing.T
	alarm  *alarm
	policy *testPolicy
	cseq   uint32
}

func inBedroom(t *testing.T, f func(t *testing.T, b *bedroom)) {
	synctest.Test(t, func(t *testing.T) {
		f(t, newBedroom(t, memory.NewDisk(), &alarm{keep: 24 * time.Hour}))
	})
}

func newBedroom(t *testing.T, disk *memory.Disk, a *alarm) *bedroom {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Store = 48 * time.Hour })
	return &bedroom{t: t, alarm: a, policy: policy, solo: alone(t, memory.Open(disk), policy, func(p *pipeline.Parts) { p.Pusher = a })}
}

// enter registers a device of a user's over a flow that has its name.
func (b *bedroom) enter(user, device string, push bool) {
	b.t.Helper()
	binding := plugin.Binding{Contact: device, Device: device, Flow: device, Expires: time.Now().Add(time.Hour)}
	if push {
		binding.Push = plugin.Push{Provider: "fcm", Param: "app", ID: "prid of " + device}
	}
	b.cseq++
	r := plugin.Registration{Account: account(user), AOR: address(user), CallID: "c", CSeq: b.cseq, Bindings: []plugin.Binding{binding}}
	if _, err := b.door.gate.Register(b.t.Context(), r); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bedroom) lose(flow string) {
	b.t.Helper()
	if err := b.Lost(b.t.Context(), "door", flow); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bedroom) wantWoken(devices ...string) {
	b.t.Helper()
	if got := b.alarm.devices(); !slices.Equal(got, devices) {
		b.t.Errorf("woken %q, want %q", got, devices)
	}
}

// TestWokenOnce: a hundred messages of many senders wake an app once; when it has
// come it has them all, and when it sleeps again it is woken again.
func TestWokenOnce(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.enter("bob", "phone", true)
		b.wantWoken()
		b.lose("phone")
		b.wantWoken() // nothing waits
		for i := range 100 {
			wantOutcome(t, b.door.submit(fmt.Sprint("sender", i%7), "bob", fmt.Sprint(i)), plugin.OutcomeWaiting)
		}
		woken := plugin.Sleeper{
			Push: plugin.Push{Provider: "fcm", Param: "app", ID: "prid of phone"}, Account: "bob", AOR: address("bob"), Device: "phone",
		}
		synctest.Wait()
		if len(b.alarm.woken) != 1 || b.alarm.woken[0] != woken {
			t.Errorf("woken: %+v", b.alarm.woken)
		}
		b.wantWoken("phone")
		b.enter("bob", "phone", true)
		synctest.Wait()
		if n := len(b.door.bodies()); n != 100 {
			t.Errorf("%d arrive", n)
		}
		b.wantWoken()
		b.lose("phone")
		wantOutcome(t, b.door.submit("alice", "bob", "again"), plugin.OutcomeWaiting)
		b.wantWoken("phone")
	})
}

// TestWokenAgainLater: an app that doesn't come is called again for a message that
// comes ten minutes later, and not for those that wait.
func TestWokenAgainLater(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.enter("bob", "phone", true)
		time.Sleep(time.Hour) // it expires
		wantOutcome(t, b.door.submit("alice", "bob", "1"), plugin.OutcomeWaiting)
		b.wantWoken("phone")
		time.Sleep(9 * time.Minute)
		wantOutcome(t, b.door.submit("alice", "bob", "2"), plugin.OutcomeWaiting)
		b.wantWoken()
		time.Sleep(2 * time.Minute)
		b.wantWoken()
		wantOutcome(t, b.door.submit("alice", "bob", "3"), plugin.OutcomeWaiting)
		b.wantWoken("phone")
		time.Sleep(24 * time.Hour)
		wantOutcome(t, b.door.submit("alice", "bob", "4"), plugin.OutcomeWaiting)
		b.wantWoken() // its time is over
	})
}

// TestWokenByWhatWaits: what waits for its next attempt, as its flow is gone, wakes
// the app as soon as that is known.
func TestWokenByWhatWaits(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.enter("bob", "phone", true)
		b.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{}, &message.Failure{Reason: message.Unavailable, Temporary: true, RetryAfter: time.Hour}
		}
		wantOutcome(t, b.door.submit("alice", "bob", "hello"), plugin.OutcomeWaiting)
		b.wantWoken()
		b.lose("phone")
		b.wantWoken("phone")
	})
}

func TestWhoIsWoken(t *testing.T) {
	fails := func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		return plugin.Receipt{}, message.FailForNow(message.Busy, "busy")
	}
	forAll := func(p *plugin.Plan) { p.Devices = plugin.AllDevices }
	notification := func(a *plugin.Arrival) {
		a.Message.ContentType, a.Message.Body = content.TypeIMDN, []byte(imdnOf("hello", content.StatusDelivered))
	}
	composing := func(a *plugin.Arrival) { a.Message.ContentType = "application/im-iscomposing+xml" }
	scheduled := func(a *plugin.Arrival) { a.Message.NotBefore = time.Now().Add(time.Hour) }
	for _, c := range []struct {
		name  string
		desk  bool // is awake
		take  func(*message.Message, plugin.Route) (plugin.Receipt, error)
		what  func(*plugin.Arrival)
		plan  func(*plugin.Plan)
		later time.Duration
		woken []string
	}{
		{name: "all that sleep", woken: []string{"pad", "phone"}},
		{name: "none where one takes it", desk: true},
		{name: "all that sleep where one fails", desk: true, take: fails, woken: []string{"pad", "phone"}},
		{name: "none for a typing notice", what: composing},
		{name: "none for a notification", what: notification},
		{name: "all that sleep, where all are to have it", desk: true, plan: forAll, woken: []string{"pad", "phone"}},
		{name: "none for what goes at once or not at all", what: expires(0)},
		{name: "none before its time", what: scheduled},
		{name: "all when its time has come", what: scheduled, later: time.Hour + time.Minute, woken: []string{"pad", "phone"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBedroom(t, func(t *testing.T, b *bedroom) {
				b.enter("bob", "phone", true)
				b.enter("bob", "pad", true)
				b.enter("bob", "tv", false)
				if c.desk {
					b.enter("bob", "desk", true)
				}
				for _, flow := range []string{"phone", "pad", "tv"} {
					b.lose(flow)
				}
				if c.plan != nil {
					b.policy.also(c.plan)
				}
				if c.take != nil {
					b.door.take = c.take
				}
				var change []func(*plugin.Arrival)
				if c.what != nil {
					change = append(change, c.what)
				}
				ticket := b.door.submit("alice", "bob", "hello", change...)
				if _, err := ticket.Accepted(t.Context()); err == nil {
					ticket.First(t.Context())
				}
				synctest.Wait()
				time.Sleep(c.later)
				b.wantWoken(c.woken...)
			})
		})
	}
}

// TestScheduledBehindOthers: what comes due behind others that wait wakes an app
// that was called long ago.
func TestScheduledBehindOthers(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.enter("bob", "phone", true)
		b.lose("phone")
		wantOutcome(t, b.door.submit("alice", "bob", "now"), plugin.OutcomeWaiting)
		wantOutcome(t, b.door.submit("alice", "bob", "later", func(a *plugin.Arrival) { a.Message.NotBefore = time.Now().Add(time.Hour) }), plugin.OutcomeWaiting)
		b.wantWoken("phone")
		time.Sleep(time.Hour + time.Minute)
		b.wantWoken("phone")
	})
}

// TestCopyWakesItsDevice: a phone that has the message already isn't woken because a
// pad waits for its copy.
func TestCopyWakesItsDevice(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.policy.also(func(p *plugin.Plan) { p.Devices = plugin.AllDevices })
		b.enter("bob", "phone", true)
		b.enter("bob", "pad", true)
		b.lose("pad")
		wantOutcome(t, b.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
		b.lose("phone")
		b.wantWoken("pad")
		b.enter("bob", "pad", true)
		synctest.Wait()
		if got := b.door.bodies(); len(got) != 2 {
			t.Errorf("%q arrive", got)
		}
		b.wantWoken()
	})
}

// TestTakeOverWakes: who takes over has apps woken once for what waits.
func TestTakeOverWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, first := memory.NewDisk(), &alarm{keep: 24 * time.Hour}
		b := newBedroom(t, disk, first)
		for _, user := range []string{"bob", "carol", "dave"} {
			b.enter(user, user+"'s", true)
			b.lose(user + "'s")
		}
		for i := range 10 {
			wantOutcome(t, b.door.submit(fmt.Sprint("sender", i), "bob", "hello"), plugin.OutcomeWaiting)
			wantOutcome(t, b.door.submit(fmt.Sprint("sender", i), "carol", "hello"), plugin.OutcomeWaiting)
		}
		b.wantWoken("bob's", "carol's")
		b.stop()
		time.Sleep(2 * time.Hour) // the lease ends
		after := newBedroom(t, disk, &alarm{keep: 24 * time.Hour})
		after.wantWoken("bob's", "carol's")
		after.enter("carol", "carol's", true)
		synctest.Wait()
		if n := len(after.door.bodies()); n != 10 {
			t.Errorf("%d arrive", n)
		}
	})
}

// TestNobodyWakes: without a pusher a binding ends with its flow, and one that
// sleeps already isn't called.
func TestNobodyWakes(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		b.enter("bob", "phone", true)
		b.lose("phone")
		b.alarm.mu.Lock()
		b.alarm.keep = 0 // a reload takes it away
		b.alarm.mu.Unlock()
		b.Bound(pipeline.Limits{}, 0, 0)
		wantOutcome(t, b.door.submit("alice", "bob", "hello"), plugin.OutcomeWaiting)
		b.wantWoken()
		b.enter("carol", "other", true)
		b.lose("other")
		if n := b.Snapshot(); n["bindings"] != 0 || n["bindings_asleep"] != 1 {
			t.Errorf("%v", n)
		}
	})
}

// TestLostOnStorageFailure: a door is told that it must come again.
func TestLostOnStorageFailure(t *testing.T) {
	inBedroom(t, func(t *testing.T, b *bedroom) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b.enter("bob", "phone", true)
		b.stop() // nothing is written any more
		if err := b.Lost(ctx, "door", "phone"); err == nil || !message.AsFailure(err).Temporary {
			t.Errorf("got %v", err)
		}
	})
}

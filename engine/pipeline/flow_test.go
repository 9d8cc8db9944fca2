package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// first returns a message's first outcome, or why it wasn't accepted.
func first(t testing.TB, ticket plugin.Ticket) (plugin.Outcome, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	if _, err := ticket.Accepted(ctx); err != nil {
		return plugin.Outcome{}, err
	}
	o := ticket.First(ctx)
	if ctx.Err() != nil {
		t.Fatal("there is no first outcome")
	}
	return o, nil
}

func wantOutcome(t *testing.T, ticket plugin.Ticket, want plugin.OutcomeState) plugin.Outcome {
	t.Helper()
	o, err := first(t, ticket)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if o.State != want {
		t.Fatalf("outcome %d (%v), want %d", o.State, o.Failure, want)
	}
	return o
}

func wantRefusal(t *testing.T, ticket plugin.Ticket, want message.Reason, temporary bool) {
	t.Helper()
	_, err := first(t, ticket)
	f, ok := errors.AsType[*message.Failure](err)
	if !ok || f.Reason != want || f.Temporary != temporary {
		t.Fatalf("got %v, want %s (temporary: %t)", err, want, temporary)
	}
}

func TestDeliveredAtOnce(t *testing.T) {
	k, _ := node(t, charged())
	if err := k.door.register(t.Context(), "bob", "phone"); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
	eventually(t, "it is paid for and gone", func() bool {
		return len(rows(t, k.storage, "test/paid")) == 1 && len(rows(t, k.storage, "messages")) == 0 && len(rows(t, k.storage, "outbox")) == 0
	})
	if holds := rows(t, k.storage, "test/holds"); len(holds) > 0 {
		t.Errorf("%d reservations stand", len(holds))
	}
}

func TestWaitsForRegistrationAndKeepsOrder(t *testing.T) {
	k, _ := node(t, charged())
	const n = 100
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint("message ", i))
		ticket := k.door.submit("alice", "bob", want[i])
		if i%10 == 0 {
			wantOutcome(t, ticket, plugin.OutcomeWaiting)
		}
	}
	if got := k.door.bodies(); len(got) > 0 {
		t.Fatalf("sent to somebody who isn't there: %q", got)
	}
	if err := k.door.register(t.Context(), "bob", "phone"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have arrived", func() bool { return len(k.door.bodies()) == n })
	if got := k.door.bodies(); !slices.Equal(got, want) {
		t.Errorf("out of order: %q", got)
	}
}

func TestOneDeadContactSpoilsNothing(t *testing.T) {
	k, _ := node(t, charged())
	hang := make(chan struct{})
	defer close(hang)
	k.door.take = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
		if r.Binding.Contact == "dead" {
			<-hang
			return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silent")
		}
		return plugin.Receipt{Final: true}, nil
	}
	if err := k.door.register(t.Context(), "bob", "dead", "alive"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		wantOutcome(t, k.door.submit("alice", "bob", fmt.Sprint(i)), plugin.OutcomeDelivered)
	}
	eventually(t, "each is paid for once", func() bool { return len(rows(t, k.storage, "test/paid")) == 20 })
}

func TestEveryDeviceGetsIt(t *testing.T) {
	k, _ := node(t, charged())
	if err := k.door.register(t.Context(), "bob", "phone", "tablet", "desk"); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
	eventually(t, "three devices have it", func() bool { return len(k.door.bodies()) == 3 })
	references := map[string]bool{}
	for _, s := range k.door.sent {
		references[s.reference] = true
	}
	if len(references) != 3 {
		t.Errorf("devices share a reference: %v", references)
	}
	eventually(t, "it is paid for once", func() bool { return len(rows(t, k.storage, "test/paid")) == 1 })
}

func TestRefusedByAllDevices(t *testing.T) {
	k, _ := node(t, charged())
	k.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		return plugin.Receipt{}, message.Fail(message.Declined, "no")
	}
	k.door.register(t.Context(), "bob", "phone", "tablet")
	o := wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeFailed)
	if o.Failure.Reason != message.Declined {
		t.Errorf("reason %s, want %s", o.Failure.Reason, message.Declined)
	}
	eventually(t, "the reservation is back", func() bool {
		return len(rows(t, k.storage, "test/holds")) == 0 && len(rows(t, k.storage, "messages")) == 0
	})
	if paid := rows(t, k.storage, "test/paid"); len(paid) > 0 {
		t.Error("a refused message was paid for")
	}
}

func TestSilentRecipientIsTriedAgain(t *testing.T) {
	k, _ := node(t, charged())
	var attempts atomic.Int32
	k.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		if attempts.Add(1) < 3 {
			return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silent")
		}
		return plugin.Receipt{Final: true}, nil
	}
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "one"), plugin.OutcomeWaiting)
	wantOutcome(t, k.door.submit("alice", "bob", "two"), plugin.OutcomeWaiting)
	eventually(t, "both arrive", func() bool { return len(k.door.bodies()) == 2 })
	if got := k.door.bodies(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("out of order: %q", got)
	}
}

func TestRegistrationEndsThePause(t *testing.T) {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Retry.Backoff = []time.Duration{time.Hour} })
	k, _ := node(t, policy)
	var fixed atomic.Bool
	k.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		if !fixed.Load() {
			return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silent")
		}
		return plugin.Receipt{Final: true}, nil
	}
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeWaiting)
	fixed.Store(true)
	k.door.register(t.Context(), "bob", "phone")
	eventually(t, "it arrives", func() bool { return len(k.door.bodies()) == 1 })
}

func TestRepeatJoinsTheFirst(t *testing.T) {
	k, _ := node(t, charged())
	release := make(chan struct{})
	k.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		<-release
		return plugin.Receipt{Final: true}, nil
	}
	k.door.register(t.Context(), "bob", "phone")
	original := k.door.submit("alice", "bob", "hello")
	repeat := k.door.submit("alice", "bob", "hello")
	close(release)
	wantOutcome(t, original, plugin.OutcomeDelivered)
	wantOutcome(t, repeat, plugin.OutcomeDelivered)
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered) // when all is over
	eventually(t, "it is paid for", func() bool { return len(rows(t, k.storage, "test/paid")) > 0 })
	if n := len(k.door.bodies()); n != 1 {
		t.Errorf("delivered %d times", n)
	}
	a, _ := original.Accepted(t.Context())
	b, _ := repeat.Accepted(t.Context())
	if a.ID != b.ID {
		t.Errorf("two messages: %s and %s", a.ID, b.ID)
	}
}

func TestRefusalsAreNotRemembered(t *testing.T) {
	k, _ := node(t, charged())
	k.book.refuse.Store(true)
	wantRefusal(t, k.door.submit("alice", "bob", "hello"), message.InsufficientFunds, false)
	k.book.refuse.Store(false)
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeWaiting)
}

func TestRefusals(t *testing.T) {
	mime := charged()
	mime.also(func(p *plugin.Plan) { p.MIME = map[string][]string{"door": {"text/html"}} })
	reject := &testPolicy{change: func(p *plugin.Plan) { p.Processing, p.Reason = plugin.Reject, message.Blocked }}
	noVerdict := &testPolicy{err: message.FailForNow(message.PolicyFailed, "undefined")}
	nowhere := &testPolicy{change: func(p *plugin.Plan) { p.Transports = []string{"smoke-signals"} }}
	for name, c := range map[string]struct {
		policy    *testPolicy
		submit    func(*testDoor) plugin.Ticket
		want      message.Reason
		temporary bool
	}{
		"unknown recipient": {charged(), func(d *testDoor) plugin.Ticket { return d.submit("alice", "?", "x") }, message.UnknownRecipient, false},
		"somebody else's identity": {charged(), func(d *testDoor) plugin.Ticket {
			return d.submit("alice", "bob", "x", func(a *plugin.Arrival) { a.Message.From = address("carol") })
		}, message.Forbidden, false},
		"too large": {charged(), func(d *testDoor) plugin.Ticket { return d.submit("alice", "bob", string(make([]byte, 300<<10))) }, message.TooLarge, false},
		"type":      {mime, func(d *testDoor) plugin.Ticket { return d.submit("alice", "bob", "x") }, message.UnsupportedType, false},
		"rejected":  {reject, func(d *testDoor) plugin.Ticket { return d.submit("alice", "bob", "x") }, message.Blocked, false},
		"undefined": {noVerdict, func(d *testDoor) plugin.Ticket { return d.submit("alice", "bob", "x") }, message.PolicyFailed, true},
		"panic":     {&testPolicy{panic: true}, func(d *testDoor) plugin.Ticket { return d.submit("alice", "bob", "x") }, message.Internal, true},
		"transport": {nowhere, func(d *testDoor) plugin.Ticket { return d.submit("alice", "bob", "x") }, message.PolicyFailed, true},
		"now or never": {charged(), func(d *testDoor) plugin.Ticket {
			return d.submit("alice", "bob", "x", expires(0))
		}, message.Unavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := node(t, c.policy)
			o, err := first(t, c.submit(k.door))
			if err == nil && o.State == plugin.OutcomeFailed {
				err = o.Failure
			}
			f, ok := errors.AsType[*message.Failure](err)
			if !ok || f.Reason != c.want || f.Temporary != c.temporary {
				t.Fatalf("got %v (outcome %d), want %s, temporary %t", err, o.State, c.want, c.temporary)
			}
			eventually(t, "nothing is kept or held", func() bool {
				return len(rows(t, k.storage, "messages")) == 0 && len(rows(t, k.storage, "test/holds")) == 0
			})
		})
	}
}

func TestTypingNoticeIsNeverKept(t *testing.T) {
	k, _ := node(t, &testPolicy{})
	typing := func(a *plugin.Arrival) { a.Message.ContentType = "application/im-iscomposing+xml" }
	wantOutcome(t, k.door.submit("alice", "bob", "typing", typing), plugin.OutcomeWaiting)
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "typing again", typing), plugin.OutcomeDelivered)
	if got := k.door.bodies(); !slices.Equal(got, []string{"typing again"}) {
		t.Errorf("delivered %q", got)
	}
	if n := len(rows(t, k.storage, "messages")); n > 0 {
		t.Errorf("%d notices are on disk", n)
	}
}

func TestLifeEnds(t *testing.T) {
	k, _ := node(t, charged())
	wantOutcome(t, k.door.submit("alice", "bob", "hello", expires(50*time.Millisecond)), plugin.OutcomeWaiting)
	eventually(t, "it has expired and the money is back", func() bool {
		return len(rows(t, k.storage, "messages")) == 0 && len(rows(t, k.storage, "test/holds")) == 0
	})
	k.door.register(t.Context(), "bob", "phone")
	if got := k.door.bodies(); len(got) > 0 {
		t.Errorf("delivered after its time: %q", got)
	}
}

func TestQuarantine(t *testing.T) {
	for name, broken := range map[string]func() (plugin.Receipt, error){
		"unbuildable": func() (plugin.Receipt, error) {
			return plugin.Receipt{}, message.Fail(message.Unbuildable, "a line break in a header")
		},
		"panic": func() (plugin.Receipt, error) { panic("a transport that panics") },
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := node(t, charged())
			var sound atomic.Bool
			k.door.take = func(m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
				if string(m.Body) == "poison" && !sound.Load() {
					return broken()
				}
				return plugin.Receipt{Final: true}, nil
			}
			k.door.register(t.Context(), "bob", "phone")
			poison := k.door.submit("alice", "bob", "poison")
			wantOutcome(t, poison, plugin.OutcomeWaiting)
			wantOutcome(t, k.door.submit("alice", "bob", "behind"), plugin.OutcomeDelivered)
			again := k.door.submit("alice", "bob", "poison", func(a *plugin.Arrival) { a.Key = "another" })
			wantOutcome(t, again, plugin.OutcomeWaiting)

			list := k.messages(t, spool.StateQuarantined)
			if len(list) != 2 {
				t.Fatalf("%d messages in quarantine, want 2: %s", len(list), asJSON(list))
			}
			sound.Store(true)
			k.call(t, "POST", "/v1/messages/"+list[0].ID.String()+"/requeue", 204)
			k.call(t, "POST", "/v1/messages/"+list[1].ID.String()+"/cancel", 204)
			k.call(t, "POST", "/v1/messages/"+list[1].ID.String()+"/cancel", 409)
			eventually(t, "one arrives and the other's money is back", func() bool {
				return len(k.door.bodies()) == 2 && len(rows(t, k.storage, "messages")) == 0 && len(rows(t, k.storage, "test/holds")) == 0
			})
		})
	}
}

func TestHandedOverWaitsForItsReport(t *testing.T) {
	k, _ := node(t, charged())
	k.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		return plugin.Receipt{PeerIDs: []string{"peer-1"}}, nil
	}
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
	eventually(t, "the hand-over is paid for", func() bool { return len(rows(t, k.storage, "test/paid")) == 1 })
	if n := len(rows(t, k.storage, "messages")); n != 1 {
		t.Fatalf("%d messages wait for a report, want 1", n)
	}
	if err := k.door.gate.Report(t.Context(), "peer-1", plugin.Status{Delivered: true}); err != nil {
		t.Fatal(err)
	}
	if n := len(rows(t, k.storage, "messages")) + len(rows(t, k.storage, "states")); n != 0 {
		t.Errorf("%d rows are left after the report", n)
	}
	if err := k.door.gate.Report(t.Context(), "peer-1", plugin.Status{Delivered: true}); err != nil {
		t.Errorf("a report that is repeated: %v", err)
	}
}

func TestTrunkReachesThoseWhoAreNotOurs(t *testing.T) {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Transports = []string{"door", "trunk"} })
	k, _ := node(t, policy)
	wantOutcome(t, k.door.submit("alice", "?somebody", "far away"), plugin.OutcomeDelivered)
	if got := <-k.door.trunk.sent; got != "far away" {
		t.Errorf("the trunk got %q", got)
	}
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "near"), plugin.OutcomeDelivered)
	if got := k.door.bodies(); !slices.Equal(got, []string{"near"}) {
		t.Errorf("the preferred transport got %q", got)
	}
}

func TestRegistrations(t *testing.T) {
	k, _ := node(t, charged())
	gate := k.door.gate
	r := plugin.Registration{Account: account("bob"), AOR: address("bob"), CallID: "c", CSeq: 1, Bindings: []plugin.Binding{
		{Contact: "a", Device: "1", Expires: time.Now().Add(time.Hour)}, {Contact: "b", Expires: time.Now().Add(time.Hour)},
	}}
	if got, err := gate.Register(t.Context(), r); err != nil || len(got) != 2 {
		t.Fatalf("register: %v, %v", got, err)
	}
	if _, err := gate.Register(t.Context(), r); reason(err) != message.Malformed {
		t.Errorf("out of order: %v", err)
	}
	r.CSeq, r.Bindings = 2, []plugin.Binding{{Contact: "a2", Device: "1", Expires: time.Now().Add(time.Hour)}}
	got, err := gate.Register(t.Context(), r)
	if err != nil || len(got) != 2 || got[1].Contact != "a2" {
		t.Errorf("a device that moves: %v, %v", got, err)
	}
	r.CSeq, r.Bindings = 3, []plugin.Binding{{Contact: "b"}}
	if got, err := gate.Register(t.Context(), r); err != nil || len(got) != 1 {
		t.Errorf("unregister one: %v, %v", got, err)
	}
	r.CSeq, r.Bindings, r.All = 4, nil, true
	if got, err := gate.Register(t.Context(), r); err != nil || len(got) != 0 {
		t.Errorf("unregister all: %v, %v", got, err)
	}
	if n := len(rows(t, k.storage, "bindings")); n != 0 {
		t.Errorf("%d bindings are left on disk", n)
	}
	r.AOR = address("carol")
	if _, err := gate.Register(t.Context(), r); reason(err) != message.Forbidden {
		t.Errorf("somebody else's address: %v", err)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	k, disk := node(t, charged())
	k.door.register(t.Context(), "carol", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "one"), plugin.OutcomeWaiting)
	wantOutcome(t, k.door.submit("alice", "carol", "gone"), plugin.OutcomeDelivered)
	eventually(t, "it is paid for", func() bool { return len(rows(t, k.storage, "test/paid")) == 1 })
	if err := k.end(); err != nil {
		t.Fatal(err)
	}
	k.done <- nil

	next := start(t, reopen(disk), newDoor(), charged())
	if !next.started() {
		t.Fatal("the next node doesn't start")
	}
	defer next.end()
	wantOutcome(t, next.door.submit("alice", "bob", "one"), plugin.OutcomeWaiting)      // a repeat
	wantOutcome(t, next.door.submit("alice", "carol", "gone"), plugin.OutcomeDelivered) // a repeat
	wantOutcome(t, next.door.submit("alice", "carol", "new"), plugin.OutcomeDelivered)  // the binding survived
	next.door.register(t.Context(), "bob", "phone")
	eventually(t, "what waited arrives", func() bool { return slices.Contains(next.door.bodies(), "one") })
	if got := next.door.bodies(); len(got) != 2 {
		t.Errorf("delivered %q, want each once", got)
	}
}

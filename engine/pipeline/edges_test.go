package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// moody is a storage that a test makes slow or ill.
type moody struct {
	plugin.Storage
	ill       atomic.Bool                   // Apply fails
	slow      atomic.Pointer[chan struct{}] // Apply waits for it
	hangsScan string                        // Scan of this table waits for the end of its context
}

func (m *moody) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if wait := m.slow.Load(); wait != nil {
		<-*wait
	}
	if m.ill.Load() {
		return errors.New("disk full")
	}
	return m.Storage.Apply(ctx, f, changes)
}

func (m *moody) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if table == m.hangsScan {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.Storage.Scan(ctx, table, from, to, n)
}

// moodyNode is a node on a moody storage.
func moodyNode(t *testing.T, m *moody, policy *testPolicy) *kit {
	t.Helper()
	m.Storage = memory.Open(memory.NewDisk())
	k := start(t, m, newDoor(), policy)
	if !k.started() {
		t.Fatalf("the node doesn't start: %v", <-k.done)
	}
	t.Cleanup(func() { k.end() })
	return k
}

func taken(*message.Message, plugin.Route) (plugin.Receipt, error) {
	return plugin.Receipt{Final: true}, nil
}

// TestRefusedByEveryDeviceThatIsThere: the phone has refused for good, the
// tablet was silent and has gone. The message fails; those behind it go on.
func TestRefusedByEveryDeviceThatIsThere(t *testing.T) {
	k, _ := node(t, charged())
	k.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
		switch {
		case string(m.Body) != "unwanted":
			return taken(m, r)
		case r.Binding.Contact == "phone":
			return plugin.Receipt{}, message.Fail(message.Declined, "no")
		}
		return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silent")
	}
	k.door.register(t.Context(), "bob", "phone", "tablet")
	wantOutcome(t, k.door.submit("alice", "bob", "unwanted"), plugin.OutcomeWaiting)
	leave := plugin.Registration{Account: account("bob"), AOR: address("bob"), CallID: "x", CSeq: 1,
		Bindings: []plugin.Binding{{Contact: "tablet", Device: "tablet"}}}
	if _, err := k.door.gate.Register(t.Context(), leave); err != nil {
		t.Fatal(err)
	}
	k.door.submit("alice", "bob", "welcome")
	eventually(t, "the next one arrives and nothing is held", func() bool {
		return slices.Equal(k.door.bodies(), []string{"welcome"}) && len(rows(t, k.storage, "test/holds")) == 0
	})
}

// TestRegistrationWakesALaneThatIsBusyOtherwise: the lane's head waits for an
// hour, and its worker is about to look at a typing notice when bob registers.
func TestRegistrationWakesALaneThatIsBusyOtherwise(t *testing.T) {
	policy := &testPolicy{change: func(p *plugin.Plan) {
		p.Charging.Mode, p.Retry.Backoff = plugin.ChargeEvent, []time.Duration{time.Hour}
	}}
	k, _ := node(t, policy)
	hang := make(chan struct{})
	var well atomic.Bool
	var hung atomic.Int32
	k.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
		if strings.HasPrefix(string(m.Body), "hang") {
			hung.Add(1)
			<-hang
			return taken(m, r)
		}
		if !well.Load() {
			return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silent")
		}
		return taken(m, r)
	}
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "head"), plugin.OutcomeWaiting)
	for i := range 8 { // all places at bob are taken
		k.door.submit(fmt.Sprint("sender", i), "bob", fmt.Sprint("hang", i))
	}
	eventually(t, "all places are taken", func() bool { return hung.Load() == 8 })
	notice := k.door.submit("alice", "bob", "typing", func(a *plugin.Arrival) { a.Message.ContentType = "application/im-iscomposing+xml" })
	if _, err := notice.Accepted(t.Context()); err != nil {
		t.Fatal(err)
	}
	well.Store(true)
	k.door.register(t.Context(), "bob", "phone")
	close(hang)
	eventually(t, "the head arrives", func() bool { return slices.Contains(k.door.bodies(), "head") })
}

func TestOutboxThatCantBeReadHoldsNothingUp(t *testing.T) {
	k := moodyNode(t, &moody{hangsScan: "outbox"}, charged())
	k.door.register(t.Context(), "bob", "phone")
	for i := range 3 {
		wantOutcome(t, k.door.submit("alice", "bob", fmt.Sprint(i)), plugin.OutcomeDelivered)
	}
	if err := k.end(); err != nil {
		t.Error(err)
	}
	k.done <- nil
}

func TestNowOrNever(t *testing.T) {
	t.Run("keeps its place", func(t *testing.T) {
		m := &moody{}
		k := moodyNode(t, m, &testPolicy{})
		k.door.register(t.Context(), "bob", "phone")
		wait := make(chan struct{})
		m.slow.Store(&wait)
		first := k.door.submit("alice", "bob", "first")
		second := k.door.submit("alice", "bob", "second", expires(0))
		m.slow.Store(nil)
		close(wait)
		wantOutcome(t, first, plugin.OutcomeDelivered)
		wantOutcome(t, second, plugin.OutcomeDelivered)
		if got := k.door.bodies(); !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("delivered %q", got)
		}
	})
	t.Run("its sender is told whatever the plan says", func(t *testing.T) {
		k, _ := node(t, &testPolicy{change: func(p *plugin.Plan) { p.Answer = plugin.AnswerAccepted }})
		ticket := k.door.submit("alice", "bob", "x", expires(0))
		if answer, err := ticket.Accepted(t.Context()); err != nil || answer.Within == 0 {
			t.Errorf("told at once: %+v, %v", answer, err)
		}
		wantOutcome(t, ticket, plugin.OutcomeFailed)
	})
	t.Run("one that can't be built is set aside", func(t *testing.T) {
		k, _ := node(t, &testPolicy{})
		k.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{}, message.Fail(message.Unbuildable, "x")
		}
		k.door.register(t.Context(), "bob", "phone")
		wantOutcome(t, k.door.submit("alice", "bob", "x", expires(0)), plugin.OutcomeWaiting)
		if n := len(k.messages(t, spool.StateQuarantined)); n != 1 {
			t.Errorf("%d messages in quarantine, want 1", n)
		}
	})
}

func TestRequeueWaitsForTheDisk(t *testing.T) {
	m := &moody{}
	k := moodyNode(t, m, charged())
	var sound atomic.Bool
	k.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
		if !sound.Load() {
			return plugin.Receipt{}, message.Fail(message.Unbuildable, "x")
		}
		return taken(m, r)
	}
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "poison"), plugin.OutcomeWaiting)
	eventually(t, "its state is on disk", func() bool { return len(rows(t, k.storage, "states")) == 1 })
	path := "/v1/messages/" + k.messages(t, spool.StateQuarantined)[0].ID.String() + "/requeue"

	m.ill.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := k.ask(ctx, "POST", path); err == nil {
		t.Error("a change that isn't on disk is answered")
	}
	sound.Store(true)
	k.call(t, "POST", path, 409) // it is on its way
	if n := len(k.door.bodies()); n != 0 {
		t.Error("it is sent before that is on disk")
	}
	m.ill.Store(false)
	eventually(t, "it arrives and leaves nothing behind", func() bool {
		return len(k.door.bodies()) == 1 && len(rows(t, k.storage, "messages"))+len(rows(t, k.storage, "states")) == 0
	})
}

func TestWakesAlsoIfNobodyWaitsForTheRegistration(t *testing.T) {
	m := &moody{}
	k := moodyNode(t, m, charged())
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeWaiting)
	wait := make(chan struct{})
	m.slow.Store(&wait)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := k.door.register(ctx, "bob", "phone"); reason(err) != message.StorageDown {
		t.Errorf("a registration that isn't on disk: %v", err)
	}
	m.slow.Store(nil)
	close(wait)
	eventually(t, "it arrives once the binding is on disk", func() bool { return len(k.door.bodies()) == 1 })
}

func TestRecipientsThatAreNotOursAreBoundedToo(t *testing.T) {
	k, _ := node(t, &testPolicy{change: func(p *plugin.Plan) { p.Transports, p.Answer = []string{"trunk"}, plugin.AnswerAccepted }})
	for range cap(k.door.trunk.sent) {
		k.door.trunk.sent <- "full: the trunk hangs"
	}
	t.Cleanup(func() { // let what waits go, so that the node can stop
		go func() {
			for range k.door.trunk.sent {
			}
		}()
	})
	for i := range 20_000 {
		if _, err := k.door.submit("alice", "?far", fmt.Sprint(i)).Accepted(t.Context()); err != nil {
			if reason(err) != message.LimitReached {
				t.Errorf("refused with %v", err)
			}
			return
		}
	}
	t.Error("no limit")
}

func TestResendAfterReportIsARepeatAfterARestartToo(t *testing.T) {
	k, disk := node(t, charged())
	k.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		return plugin.Receipt{PeerIDs: []string{"p"}}, nil
	}
	k.door.register(t.Context(), "bob", "phone")
	wantOutcome(t, k.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
	eventually(t, "its report is taken", func() bool {
		return k.door.gate.Report(t.Context(), "p", plugin.Status{Delivered: true}) == nil && len(rows(t, k.storage, "messages")) == 0
	})
	if err := k.end(); err != nil {
		t.Fatal(err)
	}
	k.done <- nil
	next := start(t, reopen(disk), newDoor(), charged())
	if !next.started() {
		t.Fatal("the next node doesn't start")
	}
	defer next.end()
	wantOutcome(t, next.door.submit("alice", "bob", "hello"), plugin.OutcomeDelivered)
	if n := len(next.door.bodies()); n != 0 {
		t.Errorf("delivered again, %d times", n)
	}
}

// TestNoReportIsLost lets the peer report while its receipt is being noted.
func TestNoReportIsLost(t *testing.T) {
	k, _ := node(t, charged())
	k.door.register(t.Context(), "bob", "phone")
	reported := make(chan struct{}, 1)
	k.door.take = func(m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
		id := "peer-" + string(m.Body)
		go func() {
			for k.door.gate.Report(context.WithoutCancel(t.Context()), id, plugin.Status{Delivered: true}) != nil {
			}
			reported <- struct{}{}
		}()
		return plugin.Receipt{PeerIDs: []string{id}}, nil
	}
	for i := range 200 {
		wantOutcome(t, k.door.submit("alice", "bob", fmt.Sprint(i)), plugin.OutcomeDelivered)
		<-reported
	}
	eventually(t, "none waits for its report", func() bool {
		return len(rows(t, k.storage, "messages"))+len(rows(t, k.storage, "states")) == 0
	})
}

// TestPhoneThatComesBackElsewhere: the attempt at the old contact hangs when the
// phone registers from another port. It isn't waited for.
func TestPhoneThatComesBackElsewhere(t *testing.T) {
	for _, after := range []time.Duration{100 * time.Millisecond, 600 * time.Millisecond} { // it counts as silent after 500 ms
		inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
			s.door.taking = func(ctx context.Context, m *message.Message, r plugin.Route) (plugin.Receipt, error) {
				if r.Binding.Contact == "new" {
					return taken(m, r)
				}
				<-ctx.Done()
				return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silent: %w", ctx.Err())
			}
			s.door.register(t.Context(), "bob", "old")
			s.send(t, "alice", "bob", "one")
			s.send(t, "alice", "bob", "two")
			time.Sleep(after)
			s.door.register(t.Context(), "bob", "new")
			time.Sleep(1500 * time.Millisecond) // the old contact, which is still bound, has its grace
			if got := s.door.bodies(); !slices.Equal(got, []string{"one", "two"}) {
				t.Errorf("it comes back after %s: then come %q", after, got)
			}
		})
	}
}

// TestReportOfAStrangerIsAnsweredInTheEnd, although attempts are always under way.
func TestReportOfAStrangerIsAnsweredInTheEnd(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		s.door.taking = func(ctx context.Context, m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			<-ctx.Done()
			return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silent")
		}
		s.door.register(t.Context(), "bob", "phone")
		began := time.Now()
		for s.door.gate.Report(t.Context(), "stranger", plugin.Status{Delivered: true}) != nil || time.Since(began) == 0 {
			s.send(t, fmt.Sprint("sender", time.Since(began)), "bob", "hangs")
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < 40*time.Second || took > 50*time.Second {
			t.Errorf("after %s", took)
		}
	})
}

// TestReportIsCountedOnce although the storage is slow and the peer impatient.
func TestReportIsCountedOnce(t *testing.T) {
	m := &moody{Storage: memory.Open(memory.NewDisk())}
	metrics := plugin.NewMetrics()
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, m, charged(), func(p *pipeline.Parts) { p.Metrics = metrics })
		s.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{PeerIDs: []string{"p"}}, nil
		}
		s.door.register(t.Context(), "bob", "phone")
		id := s.send(t, "alice", "bob", "hello")
		wait := make(chan struct{})
		m.slow.Store(&wait)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := s.door.gate.Report(ctx, "p", plugin.Status{Reason: message.Declined}); !message.AsFailure(err).Temporary || err == nil {
				t.Errorf("a report that isn't on disk: %v", err)
			}
			cancel()
		}
		m.slow.Store(nil)
		close(wait)
		synctest.Wait()
		if err := s.door.gate.Report(t.Context(), "p", plugin.Status{}); err != nil {
			t.Errorf("once more: %v", err)
		}
		if v := s.state(t, id); v.State != spool.StateFailed || v.Reason != message.Declined || v.Deliveries[0].State != spool.StateFailed {
			t.Errorf("the record is %+v", v)
		}
		if n := value(metrics, "messages_ended_total"); n != 1 {
			t.Errorf("counted %v times", n)
		}
	})
}

// TestReportThatNeverComes: the message ends all the same, and is listed as
// handed over.
func TestReportThatNeverComes(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		s.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{PeerIDs: []string{"p"}}, nil
		}
		s.door.register(t.Context(), "bob", "phone")
		id := s.send(t, "alice", "bob", "hello")
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		v := s.state(t, id)
		if v.State != spool.StateHandedOver || v.Ended.IsZero() || v.Reason != message.NoAnswer {
			t.Errorf("it is %+v", v)
		}
		if n := len(rows(t, s.storage, "messages")) + len(rows(t, s.storage, "states")); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

func TestLifeEndsInQuarantine(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		release()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if v := s.state(t, ids[spool.StateQuarantined]); v.State != spool.StateFailed || v.Reason != message.Expired {
			t.Errorf("it is %+v", v)
		}
		if holds := rows(t, s.storage, "test/holds"); len(holds) != 0 {
			t.Errorf("%d reservations stand", len(holds))
		}
	})
}

package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// inBubble runs a test on a pipeline alone, on the bubble's clock.
func inBubble(t *testing.T, policy *testPolicy, change func(*pipeline.Parts), test func(*testing.T, *solo)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, alone(t, memory.Open(memory.NewDisk()), policy, change))
	})
}

// list returns all that a filter lets pass, page by page, by body: the tests'
// keys can't be seen, so peers stand for them.
func (s *solo) list(t *testing.T, f pipeline.Filter) (peers []string) {
	t.Helper()
	for {
		page, err := s.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Messages {
			peers = append(peers, v.Peer)
		}
		if page.Next == "" {
			return peers
		}
		if f.After, err = message.ParseID(page.Next); err != nil {
			t.Fatal(err)
		}
	}
}

// send submits a message whose peer is its body, and returns its id.
func (s *solo) send(t *testing.T, from, to, body string, change ...func(*plugin.Arrival)) message.ID {
	t.Helper()
	ticket := s.door.submit(from, to, body, append(change, func(a *plugin.Arrival) { a.Message.Peer = body })...)
	answer, err := ticket.Accepted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return answer.ID
}

func (s *solo) state(t *testing.T, id message.ID) pipeline.View {
	t.Helper()
	v, err := s.Show(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// everyState makes a message in each state; the key is the state, and the body.
func everyState(t *testing.T, s *solo) (ids map[spool.StateName]message.ID, release func()) {
	t.Helper()
	hang := make(chan struct{})
	s.door.take = func(m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
		switch spool.StateName(m.Body) {
		case spool.StateSending:
			<-hang
		case spool.StateQuarantined:
			return plugin.Receipt{}, message.Fail(message.Unbuildable, "x")
		case spool.StateHandedOver:
			return plugin.Receipt{PeerIDs: []string{"peer"}}, nil
		case spool.StateFailed:
			return plugin.Receipt{}, message.Fail(message.Declined, "no")
		}
		return plugin.Receipt{Final: true}, nil
	}
	s.door.register(t.Context(), "bob", "phone")
	ids = map[spool.StateName]message.ID{spool.StateWaiting: s.send(t, "alice", "nobody", string(spool.StateWaiting))}
	for i, state := range []spool.StateName{spool.StateSending, spool.StateQuarantined, spool.StateHandedOver, spool.StateDelivered, spool.StateFailed} {
		ids[state] = s.send(t, fmt.Sprint("sender", i), "bob", string(state))
	}
	return ids, func() { close(hang) }
}

func TestMessagesInEveryState(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		defer release()
		for state, id := range ids {
			if v := s.state(t, id); v.State != state || v.ID != id || v.To.Host != "example.com" {
				t.Errorf("%s is shown as %+v", state, v)
			}
			if got := s.list(t, pipeline.Filter{State: state}); !slices.Equal(got, []string{string(state)}) {
				t.Errorf("the list of %s has %q", state, got)
			}
		}
		want := []string{"waiting", "sending", "quarantined", "handed-over", "delivered", "failed"}
		for _, limit := range []int{0, 1, 2, 5000} {
			if got := s.list(t, pipeline.Filter{Limit: limit}); !slices.Equal(got, want) {
				t.Errorf("in pages of %d: %q", limit, got)
			}
		}
		for name, f := range map[string]pipeline.Filter{
			"from": {From: address("sender2")}, "to": {To: address("bob"), State: spool.StateHandedOver},
			"after": {After: ids[spool.StateQuarantined], Limit: 1}, "service": {Service: "test", State: spool.StateHandedOver},
		} {
			page, err := s.List(t.Context(), f)
			if err != nil || len(page.Messages) != 1 || page.Messages[0].ID != ids[spool.StateHandedOver] {
				t.Errorf("by %s: %+v, %v", name, page, err)
			}
		}
		if got := s.list(t, pipeline.Filter{Transport: "elsewhere"}); len(got) != 0 {
			t.Errorf("of another transport: %q", got)
		}
		if _, err := s.Show(t.Context(), message.ID{1}); reason(err) != message.UnknownRecipient {
			t.Errorf("one that never was: %v", err)
		}
	})
}

// TestViewTellsAllButTheText holds the view of a message that has failed, as
// callers of the admin API get it.
func TestViewTellsAllButTheText(t *testing.T) {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Labels = map[string]string{"tenant": "a"} })
	inBubble(t, policy, nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		defer release()
		var v map[string]any
		text, err := json.Marshal(s.state(t, ids[spool.StateFailed]))
		if err != nil || json.Unmarshal(text, &v) != nil {
			t.Fatal(err)
		}
		want := []string{"account", "attempts", "deliveries", "ended", "expiry", "from", "id", "labels", "peer", "public_id",
			"reason", "received", "revision", "service", "size", "state", "to", "transport", "type"}
		if got := slices.Sorted(maps.Keys(v)); !slices.Equal(got, want) {
			t.Errorf("keys %q", got)
		}
		if got := asJSON(v["deliveries"]); got != `[{"device":"phone","reason":"declined","state":"failed","transport":"door"}]` {
			t.Errorf("deliveries %s", got)
		}
		if v["reason"] != "declined" || v["size"] != 6.0 || v["transport"] != "door" || v["service"] != "test" {
			t.Errorf("got %s", text)
		}
	})
}

func TestCancel(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		for state, want := range map[spool.StateName]error{
			spool.StateWaiting: nil, spool.StateQuarantined: nil, spool.StateSending: pipeline.ErrConflict,
			spool.StateHandedOver: pipeline.ErrConflict, spool.StateDelivered: pipeline.ErrConflict, spool.StateFailed: pipeline.ErrConflict,
		} {
			if err := s.Cancel(t.Context(), ids[state]); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", state, err, want)
			}
			if want != nil {
				continue
			}
			if v := s.state(t, ids[state]); v.State != spool.StateFailed || v.Reason != message.Cancelled {
				t.Errorf("%s is then %+v", state, v)
			}
			if err := s.Cancel(t.Context(), ids[state]); !errors.Is(err, pipeline.ErrConflict) {
				t.Errorf("%s again: %v", state, err)
			}
		}
		if err := s.Cancel(t.Context(), message.ID{1}); reason(err) != message.UnknownRecipient {
			t.Errorf("one that never was: %v", err)
		}
		release()
		synctest.Wait()
		if holds := rows(t, s.storage, "test/holds"); len(holds) != 0 {
			t.Errorf("%d reservations stand", len(holds))
		}
		s.door.register(t.Context(), "nobody", "phone")
		synctest.Wait()
		if slices.Contains(s.door.bodies(), "waiting") {
			t.Error("a message that was cancelled is delivered")
		}
	})
}

// TestCancelTellsTheSender: one that waits for the outcome behind another.
func TestCancelTellsTheSender(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		hang := make(chan struct{})
		s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			<-hang
			return taken(m, r)
		}
		s.door.register(t.Context(), "bob", "phone")
		s.send(t, "alice", "bob", "first")
		ticket := s.door.submit("alice", "bob", "second")
		answer, err := ticket.Accepted(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Cancel(t.Context(), answer.ID); err != nil {
			t.Fatal(err)
		}
		if o := wantOutcome(t, ticket, plugin.OutcomeFailed); o.Failure.Reason != message.Cancelled {
			t.Errorf("the sender is told %v", o.Failure)
		}
		close(hang)
		s.send(t, "alice", "bob", "third")
		if got := s.door.bodies(); !slices.Equal(got, []string{"first", "third"}) {
			t.Errorf("delivered %q", got)
		}
	})
}

// TestCancelledHeadHoldsNothing: those behind it go at once.
func TestCancelledHeadHoldsNothing(t *testing.T) {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Retry.Backoff = []time.Duration{time.Hour} })
	inBubble(t, policy, nil, func(t *testing.T, s *solo) {
		s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			if string(m.Body) == "head" {
				return plugin.Receipt{}, message.FailForNow(message.Busy, "busy")
			}
			return taken(m, r)
		}
		s.door.register(t.Context(), "bob", "phone")
		head := s.send(t, "alice", "bob", "head")
		s.send(t, "alice", "bob", "behind")
		if v := s.state(t, head); v.State != spool.StateWaiting || v.Attempts != 1 || time.Until(v.Next) != time.Hour {
			t.Errorf("the head is %+v", v)
		}
		began := time.Now()
		if err := s.Cancel(t.Context(), head); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the one behind goes", func() bool { return len(s.door.bodies()) == 1 })
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("after %s", waited)
		}
	})
}

func TestRequeue(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		for _, state := range []spool.StateName{spool.StateSending, spool.StateHandedOver, spool.StateDelivered, spool.StateFailed} {
			if err := s.Requeue(t.Context(), ids[state]); !errors.Is(err, pipeline.ErrConflict) {
				t.Errorf("%s: %v", state, err)
			}
		}
		if err := s.Requeue(t.Context(), message.ID{1}); reason(err) != message.UnknownRecipient {
			t.Errorf("one that never was: %v", err)
		}
		if err := s.Requeue(t.Context(), ids[spool.StateWaiting]); err != nil {
			t.Errorf("one whose recipient isn't there: %v", err)
		}
		synctest.Wait()
		if v := s.state(t, ids[spool.StateWaiting]); v.State != spool.StateWaiting {
			t.Errorf("it is then %s", v.State)
		}
		release()
		s.door.take = taken
		if err := s.Requeue(t.Context(), ids[spool.StateQuarantined]); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if v := s.state(t, ids[spool.StateQuarantined]); v.State != spool.StateDelivered {
			t.Errorf("what was in quarantine is then %+v", v)
		}
	})
}

// TestRequeueEndsThePause, and those behind stay behind.
func TestRequeueEndsThePause(t *testing.T) {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Retry.Backoff = []time.Duration{time.Hour} })
	inBubble(t, policy, nil, func(t *testing.T, s *solo) {
		var well atomic.Bool
		s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			if !well.Load() {
				return plugin.Receipt{}, message.FailForNow(message.Busy, "busy")
			}
			return taken(m, r)
		}
		s.door.register(t.Context(), "bob", "phone")
		s.send(t, "alice", "bob", "one")
		two := s.send(t, "alice", "bob", "two")
		well.Store(true)
		if err := s.Requeue(t.Context(), two); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("delivered %q", got)
		}
	})
}

// TestRequeuedGetsItsPlaceBack: while the recipient is away it waits before
// those that came later.
func TestRequeuedGetsItsPlaceBack(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		s.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{}, message.Fail(message.Unbuildable, "x")
		}
		s.door.register(t.Context(), "bob", "phone")
		one := s.send(t, "alice", "bob", "one")
		s.door.gate.Register(t.Context(), plugin.Registration{Account: account("bob"), AOR: address("bob"), CallID: "x", CSeq: 9, All: true})
		s.send(t, "alice", "bob", "two")
		s.send(t, "alice", "bob", "three")
		s.door.take = taken
		if err := s.Requeue(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"one", "two", "three"}) {
			t.Errorf("delivered %q", got)
		}
	})
}

// TestListIsBounded: a filter that nothing passes looks at a part, and says
// where to go on.
func TestListIsBounded(t *testing.T) {
	inBubble(t, &testPolicy{change: func(p *plugin.Plan) { p.Processing = plugin.Discard }}, nil, func(t *testing.T, s *solo) {
		const n = 12_000
		for i := range n {
			if _, err := s.door.submit("alice", "bob", fmt.Sprint(i)).Accepted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		page, err := s.List(t.Context(), pipeline.Filter{State: spool.StateDelivered})
		if err != nil || len(page.Messages) != 0 || page.Next == "" {
			t.Errorf("%d messages, next %q, %v", len(page.Messages), page.Next, err)
		}
		if got := s.list(t, pipeline.Filter{Limit: pipeline.MaxLimit}); len(got) != n {
			t.Errorf("%d of %d are listed", len(got), n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.List(ctx, pipeline.Filter{}); err == nil {
			t.Error("a list goes on when its caller has gone")
		}
	})
}

// TestQuarantineIsFoundAtOnce, however many wait.
func TestQuarantineIsFoundAtOnce(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		for i := range 1500 {
			s.send(t, "alice", "nobody", fmt.Sprint(i))
		}
		s.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{}, message.Fail(message.Unbuildable, "x")
		}
		s.door.register(t.Context(), "bob", "phone")
		for i := range 100 { // more than are read at once
			s.send(t, "alice", "bob", fmt.Sprint("poison", i))
		}
		page, err := s.List(t.Context(), pipeline.Filter{State: spool.StateQuarantined, Limit: 90})
		if err != nil || len(page.Messages) != 90 || page.Messages[89].Peer != "poison89" {
			t.Errorf("%d messages, %v", len(page.Messages), err)
		}
		if got := s.list(t, pipeline.Filter{State: spool.StateQuarantined, Limit: 90}); len(got) != 100 {
			t.Errorf("%d of 100 are listed", len(got))
		}
		page, err = s.List(t.Context(), pipeline.Filter{State: spool.StateSending})
		if err != nil || len(page.Messages) != 0 || page.Next == "" {
			t.Errorf("a search for what isn't there looks at everything at once: %d messages, %v", len(page.Messages), err)
		}
	})
}

// TestListWhileMessagesEnd: each is listed, and once, whatever becomes of it.
func TestListWhileMessagesEnd(t *testing.T) {
	s := alone(t, memory.Open(memory.NewDisk()), &testPolicy{change: func(p *plugin.Plan) { p.Answer = plugin.AnswerAccepted }}, nil)
	const n = 1200 // more than is read at once of either
	var want []string
	for i := range n {
		body := fmt.Sprintf("%04d", i)
		want = append(want, body)
		ticket := s.door.submit("alice", fmt.Sprint("user", i%8), body, func(a *plugin.Arrival) { a.Message.Peer = body })
		if _, err := ticket.Accepted(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		s.door.register(t.Context(), fmt.Sprint("user", i), "phone")
		if got := s.list(t, pipeline.Filter{Limit: 7}); !slices.Equal(got, want) {
			t.Fatalf("%d of %d are listed", len(got), n)
		}
	}
}

func TestHistoryKeepsNoTextAndNoTyping(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		s.door.register(t.Context(), "bob", "phone")
		s.send(t, "alice", "bob", "typing", func(a *plugin.Arrival) { a.Message.ContentType = "application/im-iscomposing+xml" })
		s.send(t, "alice", "bob", "a secret", func(a *plugin.Arrival) {})
		history := rows(t, s.storage, "history")
		if len(history) != 1 {
			t.Fatalf("%d records, want 1", len(history))
		}
		for _, row := range history {
			if n := strings.Count(row, "a secret"); n != 1 { // the peer's name
				t.Errorf("the text is in the record: %q", row)
			}
		}
		if n := len(rows(t, s.storage, "messages")); n != 0 {
			t.Errorf("%d texts are on disk", n)
		}
	})
}

func TestHistoryIsForgotten(t *testing.T) {
	inBubble(t, charged(), func(p *pipeline.Parts) { p.Retention = time.Hour }, func(t *testing.T, s *solo) {
		s.door.register(t.Context(), "bob", "phone")
		for i := range 3000 { // more than a page
			s.send(t, "alice", "bob", fmt.Sprint(i))
		}
		time.Sleep(30 * time.Minute)
		young := s.send(t, "alice", "bob", "young")
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if got := rows(t, s.storage, "history"); len(got) != 1 || got[string(young[:])] == "" {
			t.Errorf("%d records are left", len(got))
		}
		time.Sleep(time.Hour)
		if got := rows(t, s.storage, "history"); len(got) != 0 {
			t.Errorf("%d records are kept for ever", len(got))
		}
	})
}

package pipeline_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// notBefore schedules a message.
func notBefore(after time.Duration) func(*plugin.Arrival) {
	at := time.Now().Add(after)
	return func(a *plugin.Arrival) { a.Message.NotBefore = at }
}

// stored is a policy that keeps messages for as long.
func stored(life time.Duration) *testPolicy {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Store = life })
	return policy
}

func TestScheduled(t *testing.T) {
	inBubble(t, stored(time.Hour), nil, func(t *testing.T, s *solo) {
		s.door.register(t.Context(), "bob", "phone")
		began := time.Now()
		ticket := s.door.submit("alice", "bob", "later", notBefore(24*time.Hour))
		answer, err := ticket.Accepted(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantOutcome(t, ticket, plugin.OutcomeWaiting)
		s.hand(t, "alice", "bob", "now")
		v := s.state(t, answer.ID)
		if at := began.Add(24 * time.Hour); v.State != spool.StateScheduled || !v.Next.Equal(at) || !v.Expiry.Equal(at.Add(time.Hour)) {
			t.Errorf("it is shown as %+v", v)
		}
		if got := s.found(t, "alice", answer.PublicID); got.State != plugin.SubmittedScheduled || !got.Ended.IsZero() {
			t.Errorf("it is found as %+v", got)
		}
		if got := s.list(t, pipeline.Filter{State: spool.StateScheduled}); len(got) != 1 {
			t.Errorf("%d are listed", len(got))
		}
		if holds := rows(t, s.storage, "test/holds"); len(holds) != 1 {
			t.Errorf("%d reservations stand", len(holds))
		}
		s.door.register(t.Context(), "bob", "phone") // which makes all go that waits for bob
		time.Sleep(24*time.Hour - time.Second)
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"now"}) {
			t.Errorf("before its time: %q", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"now", "later"}) {
			t.Errorf("at its time: %q", got)
		}
		if v := s.state(t, answer.ID); v.State != spool.StateDelivered {
			t.Errorf("it is then %+v", v)
		}
	})
}

// TestScheduledComesBehind those that wait when its time comes, also if another
// node has taken over since.
func TestScheduledComesBehind(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		t.Run(fmt.Sprint("restarts=", restarts), func(t *testing.T) {
			disk := memory.NewDisk()
			synctest.Test(t, func(t *testing.T) {
				s := alone(t, memory.Open(disk), stored(24*time.Hour), nil)
				s.hand(t, "alice", "bob", "later", notBefore(2*time.Hour))
				s.hand(t, "alice", "bob", "sooner", notBefore(time.Hour))
				s.hand(t, "alice", "bob", "now")
				time.Sleep(90 * time.Minute)
				s.hand(t, "alice", "bob", "then")
				if restarts {
					s = s.restart(t, disk, stored(24*time.Hour), nil)
				}
				time.Sleep(time.Hour)
				s.hand(t, "alice", "bob", "last")
				if restarts {
					s = s.restart(t, disk, stored(24*time.Hour), nil)
				}
				synctest.Wait()
				if waiting := s.list(t, pipeline.Filter{State: spool.StateWaiting}); len(waiting) != 5 {
					t.Errorf("%q wait", waiting)
				}
				s.door.register(t.Context(), "bob", "phone")
				synctest.Wait()
				if got := s.door.bodies(); !slices.Equal(got, []string{"now", "sooner", "then", "later", "last"}) {
					t.Errorf("delivered %q", got)
				}
			})
		})
	}
}

// TestScheduledIsRestored: it waits for its time on the next node.
func TestScheduledIsRestored(t *testing.T) {
	disk := memory.NewDisk()
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, memory.Open(disk), stored(time.Hour), nil)
		s.door.register(t.Context(), "bob", "phone")
		name := s.hand(t, "alice", "bob", "later", notBefore(10*time.Minute))
		s = s.restart(t, disk, stored(time.Hour), nil)
		synctest.Wait()
		if got := s.found(t, "alice", name); got.State != plugin.SubmittedScheduled {
			t.Errorf("it is then %+v", got)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"later"}) {
			t.Errorf("delivered %q", got)
		}
		if n := s.Snapshot()["repeated"]; n != 0 {
			t.Errorf("%d attempts are counted as repeats", n)
		}
	})
}

func TestScheduledExpires(t *testing.T) {
	inBubble(t, stored(time.Hour), nil, func(t *testing.T, s *solo) {
		s.door.register(t.Context(), "bob", "phone")
		began := time.Now()
		name := s.hand(t, "alice", "bob", "too late", notBefore(time.Hour), expires(time.Minute))
		at := s.hand(t, "alice", "bob", "at once or not at all", notBefore(2*time.Hour), expires(0))
		away := s.hand(t, "alice", "nobody", "away", notBefore(time.Hour))
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, name := range []string{name, at} {
			if got := s.found(t, "alice", name); got.Reason != message.Expired || got.Ended.After(began.Add(time.Minute)) {
				t.Errorf("it is then %+v", got)
			}
		}
		time.Sleep(2*time.Hour - 2*time.Minute)
		synctest.Wait()
		if got := s.found(t, "alice", away); got.State != plugin.SubmittedWaiting {
			t.Errorf("whose recipient isn't there: %+v", got)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := s.found(t, "alice", away); got.Reason != message.Expired {
			t.Errorf("whose recipient isn't there: %+v", got)
		}
		if got := s.door.bodies(); len(got) != 0 {
			t.Errorf("delivered %q", got)
		}
		if holds := rows(t, s.storage, "test/holds"); len(holds) != 0 {
			t.Errorf("%d reservations stand", len(holds))
		}
	})
}

// TestScheduledAndNotStored: it gets one attempt when its time comes.
func TestScheduledAndNotStored(t *testing.T) {
	inBubble(t, stored(0), nil, func(t *testing.T, s *solo) {
		s.door.register(t.Context(), "bob", "phone")
		there := s.hand(t, "alice", "bob", "there", notBefore(time.Hour))
		away := s.hand(t, "alice", "nobody", "away", notBefore(time.Hour))
		time.Sleep(time.Hour - time.Second)
		s.door.register(t.Context(), "bob", "phone")
		time.Sleep(time.Second)
		synctest.Wait()
		if got := s.found(t, "alice", there); got.State != plugin.SubmittedDelivered {
			t.Errorf("who is there: %+v", got)
		}
		if got := s.found(t, "alice", away); got.Reason != message.Unavailable {
			t.Errorf("who isn't: %+v", got)
		}
	})
}

func TestScheduledTimes(t *testing.T) {
	inBubble(t, stored(time.Hour), nil, func(t *testing.T, s *solo) {
		s.door.register(t.Context(), "bob", "phone")
		for after, want := range map[time.Duration]plugin.SubmittedState{
			-time.Hour: plugin.SubmittedDelivered, 0: plugin.SubmittedDelivered, time.Second: plugin.SubmittedScheduled, 30 * 24 * time.Hour: plugin.SubmittedScheduled,
		} {
			if got := s.found(t, "alice", s.hand(t, "alice", "bob", after.String(), notBefore(after))); got.State != want {
				t.Errorf("%s from now: %s", after, got.State)
			}
		}
		_, err := s.door.submit("alice", "bob", "x", notBefore(30*24*time.Hour+time.Second)).Accepted(t.Context())
		if f := message.AsFailure(err); f.Reason != message.Malformed || f.Temporary {
			t.Errorf("too far ahead: %v", err)
		}
	})
}

func TestScheduledCounts(t *testing.T) {
	limits := func(p *pipeline.Parts) { p.Limits = pipeline.Limits{Messages: 3, PerRecipient: 2} }
	inBubble(t, stored(time.Hour), limits, func(t *testing.T, s *solo) {
		for i := range 2 {
			s.hand(t, "alice", "bob", fmt.Sprint(i), notBefore(time.Hour))
		}
		_, err := s.door.submit("alice", "bob", "x").Accepted(t.Context())
		if reason(err) != message.LimitReached {
			t.Errorf("a third one for bob: %v", err)
		}
		s.hand(t, "alice", "carol", "x", notBefore(time.Hour))
		_, err = s.door.submit("alice", "dave", "x").Accepted(t.Context())
		if reason(err) != message.Overloaded {
			t.Errorf("a fourth one: %v", err)
		}
		if n := s.Snapshot()["waiting"]; n != 3 {
			t.Errorf("%d wait", n)
		}
	})
}

// TestOperatorsTakeScheduledInHand: it is cancelled, or sent before its time, which
// the next node knows.
func TestOperatorsTakeScheduledInHand(t *testing.T) {
	disk := memory.NewDisk()
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, memory.Open(disk), stored(24*time.Hour), nil)
		cancelled := s.send(t, "alice", "bob", "cancelled", notBefore(time.Hour))
		hurried := s.send(t, "alice", "bob", "hurried", notBefore(time.Hour))
		stays := s.send(t, "alice", "bob", "stays", notBefore(time.Hour))
		if err := s.Cancel(t.Context(), cancelled); err != nil {
			t.Fatal(err)
		}
		if err := s.Requeue(t.Context(), hurried); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			synctest.Wait()
			for id, want := range map[message.ID]spool.StateName{
				cancelled: spool.StateFailed, hurried: spool.StateWaiting, stays: spool.StateScheduled,
			} {
				if v := s.state(t, id); v.State != want {
					t.Errorf("want %s, got %+v", want, v)
				}
			}
			s = s.restart(t, disk, stored(24*time.Hour), nil)
		}
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"hurried"}) {
			t.Errorf("delivered %q", got)
		}
		time.Sleep(time.Hour)
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"hurried", "stays"}) {
			t.Errorf("delivered %q", got)
		}
		if left := rows(t, s.storage, "states"); len(left) != 0 {
			t.Errorf("%d states are left", len(left))
		}
	})
}

// TestScheduledHoldsNothingUp: many of them cost a registration nothing.
func TestScheduledHoldsNothingUp(t *testing.T) {
	inBubble(t, stored(time.Hour), nil, func(t *testing.T, s *solo) {
		for i := range 3000 {
			if _, err := s.door.submit("alice", "bob", fmt.Sprint(i), notBefore(time.Duration(3000-i)*time.Second)).Accepted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.door.register(t.Context(), "bob", "phone")
		s.hand(t, "alice", "bob", "now")
		if got := s.door.bodies(); !slices.Equal(got, []string{"now"}) {
			t.Fatalf("%d are delivered", len(got))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		got := s.door.bodies()
		if len(got) != 3001 || got[1] != "2999" || got[3000] != "0" {
			t.Errorf("%d are delivered, %q first", len(got), got[1])
		}
	})
}

// TestManyScheduledForOneMoment: more than are taken up at once.
func TestManyScheduledForOneMoment(t *testing.T) {
	inBubble(t, stored(time.Hour), nil, func(t *testing.T, s *solo) {
		const n, users = 3000, 1500
		for i := range users {
			s.door.register(t.Context(), fmt.Sprint("user", i), "phone")
		}
		at := notBefore(30 * time.Minute)
		for i := range n {
			if _, err := s.door.submit("alice", fmt.Sprint("user", i%users), fmt.Sprint(i), at).Accepted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if got := len(s.door.bodies()); got != n {
			t.Errorf("%d of %d are delivered", got, n)
		}
	})
}

// TestScheduledForOneAttempt: it goes at its time or not at all, and its next hop is
// told so.
func TestScheduledForOneAttempt(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		onStage(t, func(p *plugin.Plan) { p.Store = 0 }, func(t *testing.T, s *stage) {
			var routes []plugin.Route
			s.main.answer = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
				routes = append(routes, r)
				return plugin.Receipt{}, message.FailForNow(message.Busy, "later")
			}
			id := s.send(t, "alice", "bob", "x", notBefore(time.Hour))
			if restarts {
				s.restart()
			}
			time.Sleep(2 * time.Hour)
			if v := s.state(t, id); v.State != spool.StateFailed || v.Reason != message.Busy || len(routes) != 1 || !routes[0].Until.IsZero() {
				t.Errorf("restarts %t: %+v: %s", restarts, routes, asJSON(v))
			}
		})
	}
}

package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// replace puts a text in the place of a message of an account that is called as
// its address.
func (s *solo) replace(t *testing.T, user, name, body string, change ...func(*plugin.Replacement)) error {
	t.Helper()
	by := plugin.Replacement{Account: account(user), From: address(user), Body: []byte(body)}
	for _, c := range change {
		c(&by)
	}
	err := s.Replace(t.Context(), "door", user, name, by)
	synctest.Wait()
	return err
}

func TestReplace(t *testing.T) {
	for _, how := range []struct {
		name   string
		change func(*plugin.Arrival)
	}{{"long", func(*plugin.Arrival) {}}, {"short", short}} {
		t.Run(how.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				s := alone(t, memory.Open(disk), charged(), func(p *pipeline.Parts) { p.Retention = time.Hour })
				first := s.send(t, "alice", "bob", "first", how.change)
				s.send(t, "alice", "bob", "behind")
				name := s.state(t, first).PublicID
				last := first
				for i := range 3 {
					if err := s.replace(t, "alice", name, fmt.Sprint("again ", i)); err != nil {
						t.Fatal(err)
					}
					if v := s.state(t, last); v.State != spool.StateFailed || v.Reason != message.Cancelled {
						t.Errorf("what is replaced is then %+v", v)
					}
					if got := s.found(t, "alice", name); got.State != plugin.SubmittedWaiting || got.From != address("alice") || got.Recipient != address("bob") {
						t.Errorf("it is found as %+v", got)
					}
					s = s.restart(t, disk, charged(), func(p *pipeline.Parts) { p.Retention = time.Hour })
					waiting, err := s.List(t.Context(), pipeline.Filter{State: spool.StateWaiting})
					if err != nil || len(waiting.Messages) != 2 {
						t.Fatalf("%d wait, %v", len(waiting.Messages), err)
					}
					if last = waiting.Messages[1].ID; waiting.Messages[1].PublicID != name {
						t.Errorf("its name is %q", waiting.Messages[1].PublicID)
					}
				}
				if holds := rows(t, s.storage, "test/holds"); len(holds) != 2 {
					t.Errorf("%d reservations stand", len(holds))
				}
				s.door.register(t.Context(), "bob", "phone")
				synctest.Wait()
				if got := s.door.bodies(); !slices.Equal(got, []string{"behind", "again 2"}) {
					t.Errorf("delivered %q", got)
				}
				if got := s.found(t, "alice", name); got.State != plugin.SubmittedDelivered {
					t.Errorf("it is found as %+v", got)
				}
				if err := s.replace(t, "alice", name, "too late"); reason(err) != message.Conflict {
					t.Errorf("what has arrived: %v", err)
				}
				if n := len(rows(t, s.storage, "test/paid")); n != 2 {
					t.Errorf("%d are paid", n)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				for _, table := range []string{"history", "names", "messages", "states", "outbox"} {
					if left := rows(t, s.storage, table); len(left) != 0 {
						t.Errorf("%d rows are left in %s", len(left), table)
					}
				}
			})
		})
	}
}

// TestReplacedIsAnotherMessage to the next hop: another reference.
func TestReplacedIsAnotherMessage(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		references := map[string]bool{}
		s.door.take = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
			references[r.Reference] = true
			return plugin.Receipt{}, message.FailForNow(message.Busy, "busy")
		}
		s.door.register(t.Context(), "bob", "phone")
		name := s.hand(t, "alice", "bob", "first")
		if err := s.replace(t, "alice", name, "second"); err != nil {
			t.Fatal(err)
		}
		if len(references) != 2 {
			t.Errorf("references %v", references)
		}
	})
}

func TestReplaceKeepsWhatIsntSaid(t *testing.T) {
	inBubble(t, stored(24*time.Hour), nil, func(t *testing.T, s *solo) {
		began := time.Now()
		name := s.hand(t, "alice", "bob", "first", expires(3*time.Hour), notBefore(2*time.Hour), func(a *plugin.Arrival) {
			a.Message.ContentType, a.Message.DisplayName = "text/plain;charset=utf-8", "Alice"
		})
		time.Sleep(time.Hour)
		view := func() pipeline.View {
			page, err := s.List(t.Context(), pipeline.Filter{State: spool.StateScheduled})
			if err != nil || len(page.Messages) != 1 {
				t.Fatalf("%d are scheduled, %v", len(page.Messages), err)
			}
			return page.Messages[0]
		}
		if err := s.replace(t, "alice", name, "second"); err != nil {
			t.Fatal(err)
		}
		if v := view(); !v.Expiry.Equal(began.Add(3*time.Hour)) || !v.Next.Equal(began.Add(2*time.Hour)) || v.Type != "text/plain;charset=utf-8" || v.Size != 6 {
			t.Errorf("it is then %+v", v)
		}
		err := s.replace(t, "alice", name, "", func(r *plugin.Replacement) {
			at, life := began.Add(4*time.Hour), 5*time.Hour
			r.Body, r.NotBefore, r.Expires = nil, &at, &life
		})
		if err != nil {
			t.Fatal(err)
		}
		if v := view(); !v.Expiry.Equal(began.Add(6*time.Hour)) || !v.Next.Equal(began.Add(4*time.Hour)) || v.Size != 6 {
			t.Errorf("it is then %+v", v)
		}
		s.door.register(t.Context(), "bob", "phone")
		if err := s.replace(t, "alice", name, "now", func(r *plugin.Replacement) { r.NotBefore = new(time.Time) }); err != nil {
			t.Fatal(err)
		}
		if got := s.door.bodies(); !slices.Equal(got, []string{"now"}) {
			t.Errorf("delivered %q", got)
		}
	})
}

func TestReplaceIsRefused(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		for _, state := range []spool.StateName{spool.StateSending, spool.StateQuarantined, spool.StateHandedOver, spool.StateDelivered, spool.StateFailed} {
			v := s.state(t, ids[state])
			if err := s.replace(t, v.From.User, v.PublicID, "x"); reason(err) != message.Conflict {
				t.Errorf("%s: %v", state, err)
			}
			if after := s.state(t, ids[state]); after.State != state {
				t.Errorf("%s is then %s", state, after.State)
			}
		}
		release()
		name := s.state(t, ids[spool.StateWaiting]).PublicID
		for what, c := range map[string]struct {
			change func(*plugin.Replacement)
			want   message.Reason
		}{
			"another sender":  {func(r *plugin.Replacement) { r.From = address("mallory") }, message.UnknownMessage},
			"another account": {func(r *plugin.Replacement) { r.Account = account("mallory") }, message.Forbidden},
			"no identity":     {func(r *plugin.Replacement) { r.Account.Identities = nil }, message.Forbidden},
			"too large":       {func(r *plugin.Replacement) { r.Body = make([]byte, pipeline.MaxBody+1) }, message.TooLarge},
			"typing":          {func(r *plugin.Replacement) { r.ContentType = "application/im-iscomposing+xml" }, message.UnsupportedType},
			"too far ahead": {func(r *plugin.Replacement) {
				at := time.Now().Add(31 * 24 * time.Hour)
				r.NotBefore = &at
			}, message.Malformed},
		} {
			if err := s.replace(t, "alice", name, "x", c.change); reason(err) != c.want {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := s.replace(t, "mallory", name, "x"); reason(err) != message.UnknownMessage {
			t.Errorf("another's: %v", err)
		}
		s.door.register(t.Context(), "nobody", "phone")
		synctest.Wait()
		if got := s.door.bodies(); got[len(got)-1] != "waiting" {
			t.Errorf("delivered %q", got)
		}
	})
}

// TestRefusedReplacementLeavesTheFirst where it was.
func TestRefusedReplacementLeavesTheFirst(t *testing.T) {
	policy := charged()
	policy.asked = func(_ plugin.Question, more plugin.Supply, p *plugin.Plan) {
		switch more.Text() {
		case "discarded":
			p.Processing = plugin.Discard
			fallthrough
		case "limited":
			p.Limits = []plugin.Limit{{Name: "few", Key: "few", Count: 1, Per: time.Hour}}
		case "rejected":
			p.Processing, p.Reason = plugin.Reject, message.Rejected
		case "panics":
			panic("a policy that panics")
		}
	}
	for _, offline := range []bool{true, false} {
		t.Run(fmt.Sprint("offline=", offline), func(t *testing.T) {
			inBubble(t, policy, nil, func(t *testing.T, s *solo) {
				s.hand(t, "alice", "bob", "discarded") // and counted
				var ready bool
				s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
					if !ready {
						return plugin.Receipt{}, message.FailForNow(message.Busy, "busy")
					}
					return taken(m, r)
				}
				if !offline {
					s.door.register(t.Context(), "bob", "phone")
				}
				var names []string
				for i := range 3 {
					names = append(names, s.hand(t, "alice", "bob", fmt.Sprint(i)))
				}
				later := s.hand(t, "alice", "bob", "later", notBefore(time.Minute))
				for _, name := range append(names, later) {
					before := s.found(t, "alice", name)
					for body, want := range map[string]message.Reason{"rejected": message.Rejected, "panics": message.Internal, "limited": message.LimitReached} {
						if err := s.replace(t, "alice", name, body); reason(err) != want {
							t.Errorf("%s: %v", body, err)
						}
					}
					if after := s.found(t, "alice", name); after != before {
						t.Errorf("%+v is then %+v", before, after)
					}
				}
				ready = true
				s.door.register(t.Context(), "bob", "phone")
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if got := s.door.bodies(); !slices.Equal(got, []string{"0", "1", "2", "later"}) {
					t.Errorf("delivered %q", got)
				}
				if holds := rows(t, s.storage, "test/holds"); len(holds) != 0 {
					t.Errorf("%d reservations stand", len(holds))
				}
			})
		})
	}
}

// TestReplacementThatIsDiscarded: the first has ended, and the name tells so.
func TestReplacementThatIsDiscarded(t *testing.T) {
	policy := charged()
	policy.asked = func(_ plugin.Question, more plugin.Supply, p *plugin.Plan) {
		if more.Text() == "discarded" {
			p.Processing = plugin.Discard
		}
	}
	inBubble(t, policy, nil, func(t *testing.T, s *solo) {
		name := s.hand(t, "alice", "bob", "first")
		if err := s.replace(t, "alice", name, "discarded"); err != nil {
			t.Fatal(err)
		}
		if got := s.found(t, "alice", name); got.State != plugin.SubmittedDiscarded {
			t.Errorf("it is found as %+v", got)
		}
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		if got := s.door.bodies(); len(got) != 0 {
			t.Errorf("delivered %q", got)
		}
		if left := len(rows(t, s.storage, "messages")) + len(rows(t, s.storage, "test/holds")); left != 0 {
			t.Errorf("%d rows are left", left)
		}
	})
}

// TestTakenInHandWhileSent: whatever is asked while a message is on its way, it
// ends once: it arrives, or is cancelled, or another arrives in its place.
func TestTakenInHandWhileSent(t *testing.T) {
	s := alone(t, memory.Open(memory.NewDisk()), charged(), nil)
	const rounds = 300
	var all sync.WaitGroup
	fates := make([]struct {
		name      string
		cancelled int
		replaced  []string // bodies, in order
	}, rounds)
	for i := range rounds {
		user := fmt.Sprint("user", i%20)
		answer, err := s.door.submit("alice", user, fmt.Sprint(i, " first")).Accepted(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fate := &fates[i]
		fate.name = answer.PublicID
		all.Go(func() {
			for n := range 3 {
				body := fmt.Sprint(i, " again ", n)
				err := s.Replace(t.Context(), "door", "alice", fate.name, plugin.Replacement{Account: account("alice"), From: address("alice"), Body: []byte(body)})
				switch {
				case err == nil:
					fate.replaced = append(fate.replaced, body)
				case reason(err) != message.Conflict:
					t.Errorf("replace: %v", err)
				}
			}
		})
		all.Go(func() {
			n, err := s.CancelOf(t.Context(), "alice", plugin.Which{PublicID: fate.name})
			if fate.cancelled = n; err != nil && reason(err) != message.Conflict {
				t.Errorf("cancel: %v", err)
			}
		})
		all.Go(func() {
			for range 5 {
				if _, err := s.Find(t.Context(), "alice", fate.name); err != nil {
					t.Errorf("find: %v", err)
				}
			}
		})
		if i%5 == 0 {
			all.Go(func() {
				if err := s.door.register(t.Context(), user, "phone"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	for i := range 20 {
		s.door.register(t.Context(), fmt.Sprint("user", i), "phone")
	}
	eventually(t, "all have ended", func() bool {
		return s.Snapshot()["waiting"] == 0 && len(rows(t, s.storage, "test/holds")) == 0
	})
	arrived := map[string][]string{}
	for _, body := range s.door.bodies() {
		round, _, _ := strings.Cut(body, " ")
		arrived[round] = append(arrived[round], body)
	}
	for i, fate := range fates {
		last := fmt.Sprint(i, " first")
		if n := len(fate.replaced); n > 0 {
			last = fate.replaced[n-1]
		}
		got, found := arrived[fmt.Sprint(i)], s.found(t, "alice", fate.name)
		switch {
		case fate.cancelled == 1 && (len(got) > 0 || found.Reason != message.Cancelled):
			t.Errorf("cancelled, and %q has arrived; it is %+v", got, found)
		case fate.cancelled == 0 && (!slices.Equal(got, []string{last}) || found.State != plugin.SubmittedDelivered):
			t.Errorf("want %q, and %q has arrived; it is %+v", last, got, found)
		}
	}
}

// TestReplaceCrash lets the storage die at each of its calls in turn, while a
// message is replaced twice. On the next node there is then exactly one of them,
// under the same name: the one that was, or the one that was to be if nobody was
// told otherwise.
func TestReplaceCrash(t *testing.T) {
	for _, late := range []bool{false, true} {
		survived := false
		for k := 0; k < 200 && !survived; k++ {
			t.Run(fmt.Sprintf("late=%t/call=%d", late, k), func(t *testing.T) { survived = replaceCrash(t, k, late) })
		}
		if !survived {
			t.Error("the run doesn't end")
		}
	}
}

func replaceCrash(t *testing.T, k int, late bool) (survived bool) {
	disk := memory.NewDisk()
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, memory.Open(disk), charged(), nil)
		name := s.hand(t, "alice", "bob", "0")
		s.stop()

		storage := newDying(memory.Open(disk), k+10_000, late)
		s = alone(t, storage, charged(), nil)
		storage.left.Store(int64(k))
		sure, maybe := "0", ""
		for i := 1; i < 3; i++ {
			body := fmt.Sprint(i)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			err := s.Replace(ctx, "door", "alice", name, plugin.Replacement{Account: account("alice"), Body: []byte(body)})
			cancel()
			if err == nil {
				sure = body
				continue
			}
			if errors.Is(err, plugin.ErrUnknown) {
				maybe = body
			}
			break
		}
		survived = sure == "2"
		s.stop()

		s = alone(t, memory.Open(disk), charged(), nil)
		if got := s.found(t, "alice", name); got.State != plugin.SubmittedWaiting {
			t.Errorf("it is found as %+v", got)
		}
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		if got := s.door.bodies(); len(got) != 1 || got[0] != sure && got[0] != maybe {
			t.Errorf("delivered %q, want %q or %q", got, sure, maybe)
		}
		if got := s.found(t, "alice", name); got.State != plugin.SubmittedDelivered {
			t.Errorf("it is found as %+v", got)
		}
		if holds, paid := rows(t, s.storage, "test/holds"), rows(t, s.storage, "test/paid"); len(holds) != 0 || len(paid) != 1 {
			t.Errorf("%d reservations stand, %d messages are paid", len(holds), len(paid))
		}
	})
	return survived
}

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

// whichIs names a message.
func whichIs(name string) plugin.Which { return plugin.Which{PublicID: name} }

// TestCancelWhatWaitsForItsParts: it ends, there is a record of it, and it is known
// by its name also when that is a short one.
func TestCancelWhatWaitsForItsParts(t *testing.T) {
	between := plugin.Which{From: address("alice"), Recipient: address("bob")}
	for _, how := range []string{"its name", "its short name", "its addresses", "its id"} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%t", how, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					disk, policy := memory.NewDisk(), charged()
					s := alone(t, memory.Open(disk), policy, nil)
					if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
						t.Fatal(err)
					}
					arrives := []func(*plugin.Arrival){}
					if how == "its short name" {
						arrives = append(arrives, short)
					}
					answer := wantAccepted(t, s.door.submit("alice", "bob", "one", append(arrives, part(1, 3, 1))...), plugin.Answer{})
					wantAccepted(t, s.door.submit("alice", "bob", "two", append(arrives, part(1, 3, 2))...), answer)
					if restart {
						s = s.restart(t, disk, policy, nil)
					}
					if got, err := s.CancelOf(t.Context(), "mallory", whichIs(answer.PublicID)); reason(err) != message.UnknownMessage {
						t.Errorf("another account: %d, %v", got, err)
					}
					if got, err := s.CancelOf(t.Context(), "mallory", between); reason(err) != message.UnknownMessage {
						t.Errorf("another account: %d, %v", got, err)
					}
					n, err := 1, error(nil)
					switch how {
					case "its id":
						err = s.Cancel(t.Context(), answer.ID)
					case "its addresses":
						n, err = s.CancelOf(t.Context(), "alice", between)
					default:
						n, err = s.CancelOf(t.Context(), "alice", whichIs(answer.PublicID))
					}
					if n != 1 || err != nil {
						t.Fatalf("%d, %v", n, err)
					}
					if got := s.found(t, "alice", answer.PublicID); got.State != plugin.SubmittedFailed || got.Reason != message.Cancelled || got.Ended.IsZero() {
						t.Errorf("%+v", got)
					}
					if v := s.state(t, answer.ID); v.State != spool.StateFailed || v.Missing != 1 || v.Account != "alice" {
						t.Errorf("%s", asJSON(v))
					}
					if n, err := s.CancelOf(t.Context(), "alice", whichIs(answer.PublicID)); reason(err) != message.Conflict {
						t.Errorf("again: %d, %v", n, err)
					}
					wantAccepted(t, s.door.submit("alice", "bob", "two", part(1, 3, 2)), plugin.Answer{PublicID: answer.PublicID}) // a repeat
					time.Sleep(time.Hour)
					if got := s.door.bodies(); len(got) != 0 || len(rows(t, s.storage, "parts")) != 0 || s.Snapshot()["waiting"] != 0 {
						t.Errorf("%q", got)
					}
				})
			})
		}
	}
}

// TestCancelAllOfAPair: those that are whole and those that aren't.
func TestCancelAllOfAPair(t *testing.T) {
	lone(t, charged(), func(t *testing.T, s *solo) {
		s.hand(t, "alice", "bob", "whole")
		for i := range 3 {
			wantAccepted(t, s.door.submit("alice", "bob", "x", part(uint16(i), 2, 1)), plugin.Answer{})
		}
		other := wantAccepted(t, s.door.submit("alice", "carol", "x", part(7, 2, 1)), plugin.Answer{})
		n, err := s.CancelOf(t.Context(), "alice", plugin.Which{From: address("alice"), Recipient: address("bob")})
		if n != 4 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if got := s.found(t, "alice", other.PublicID); got.State != plugin.SubmittedWaiting {
			t.Errorf("%+v", got)
		}
	})
}

// TestReplaceWhatWaitsForItsParts: it isn't a message yet.
func TestReplaceWhatWaitsForItsParts(t *testing.T) {
	lone(t, charged(), func(t *testing.T, s *solo) {
		answer := wantAccepted(t, s.door.submit("alice", "bob", "one", part(1, 2, 1)), plugin.Answer{})
		by := plugin.Replacement{Account: account("alice"), Body: []byte("y")}
		if err := s.Replace(t.Context(), "door", "alice", answer.PublicID, by); reason(err) != message.Conflict {
			t.Errorf("%v", err)
		}
		wantAccepted(t, s.door.submit("alice", "bob", "two", part(1, 2, 2)), answer)
		synctest.Wait()
		if err := s.Replace(t.Context(), "door", "alice", answer.PublicID, by); err != nil {
			t.Errorf("once it is whole: %v", err)
		}
	})
}

// TestListWhatWaitsForItsParts beside what waits for its recipient, page by page, in
// the order of the ids.
func TestListWhatWaitsForItsParts(t *testing.T) {
	lone(t, charged(), func(t *testing.T, s *solo) {
		var want []message.ID
		for i := range 150 {
			var a plugin.Answer
			switch i % 3 {
			case 0:
				a = wantAccepted(t, s.door.submit("alice", "bob", "one", part(uint16(i), 3, 1)), a)
				wantAccepted(t, s.door.submit("alice", "bob", "two", part(uint16(i), 3, 2)), a)
			case 1:
				a = wantAccepted(t, s.door.submit("alice", "bob", "one", part(uint16(i), 2, 1)), a)
				wantAccepted(t, s.door.submit("alice", "bob", "two", part(uint16(i), 2, 2)), a)
			default:
				a, _ = s.door.submit("alice", "bob", fmt.Sprint(i)).Accepted(t.Context())
			}
			want = append(want, a.ID)
		}
		synctest.Wait()
		for _, limit := range []int{1, 7, 64, 1000} {
			var got []message.ID
			missing := 0
			for f := (pipeline.Filter{State: spool.StateWaiting, Limit: limit}); ; {
				page, err := s.List(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range page.Messages {
					got = append(got, v.ID)
					missing += v.Missing
					if v.Missing > 0 && (v.Size != len("onetwo") || v.Account != "alice" || v.To != address("bob") || v.Next.IsZero() || v.Received.IsZero()) {
						t.Fatalf("%s", asJSON(v))
					}
				}
				if page.Next == "" {
					break
				}
				if err := f.After.UnmarshalText([]byte(page.Next)); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, want) || missing != 50 {
				t.Errorf("by %d: %d messages, want %d, %d parts missing", limit, len(got), len(want), missing)
			}
		}
	})
}

// TestShortNameOfWhatWasRefused: it leads to the record.
func TestShortNameOfWhatWasRefused(t *testing.T) {
	for _, processing := range []plugin.Processing{plugin.Reject, plugin.Discard} {
		policy := charged()
		policy.also(func(p *plugin.Plan) { p.Processing, p.Reason = processing, message.Incomplete })
		lone(t, policy, func(t *testing.T, s *solo) {
			answer := wantAccepted(t, s.door.submit("alice", "bob", "one", part(1, 2, 1), short), plugin.Answer{})
			time.Sleep(2 * time.Minute)
			if got := s.found(t, "alice", answer.PublicID); got.Ended.IsZero() || got.Reason != "" && got.Reason != message.Incomplete {
				t.Errorf("%s: %+v", processing, got)
			}
		})
	}
}

// TestAgeOfAJoinedMessage: it is as old as its first part, though younger ones came
// before it.
func TestAgeOfAJoinedMessage(t *testing.T) {
	for _, younger := range []bool{false, true} {
		metrics := plugin.NewMetrics()
		inBubble(t, charged(), func(p *pipeline.Parts) { p.Metrics = metrics }, func(t *testing.T, s *solo) {
			wantAccepted(t, s.door.submit("alice", "bob", "one", part(1, 2, 1)), plugin.Answer{})
			time.Sleep(30 * time.Second)
			if younger {
				s.hand(t, "alice", "bob", "x")
			}
			time.Sleep(40 * time.Second) // its other part never came
			wait := 31 * time.Second     // for the next sweep
			time.Sleep(wait)
			if got := value(metrics, "spool_oldest_age_seconds"); got != 101 {
				t.Errorf("younger ones %t: it is %g s old", younger, got)
			}
		})
	}
}

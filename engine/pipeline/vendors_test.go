package pipeline_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// TestNextVendor: where a next hop can't be reached now, the next one gets its turn
// at once. After any other answer it doesn't.
func TestNextVendor(t *testing.T) {
	gone := fails(message.Unavailable, true)
	for name, c := range map[string]struct {
		main, backup func(*message.Message, plugin.Route) (plugin.Receipt, error)
		sent         [2]int // at once, by each
		by           string
	}{
		"the first one takes it": {nil, nil, [2]int{1, 0}, "main"},
		"the first one is gone":  {gone, nil, [2]int{1, 1}, "backup"},
		"both are":               {gone, gone, [2]int{1, 1}, ""},
		"gone for good":          {fails(message.Unavailable, false), nil, [2]int{1, 0}, ""},
		"busy":                   {fails(message.Busy, true), nil, [2]int{1, 0}, ""},
		"not answered":           {fails(message.NoAnswer, true), nil, [2]int{1, 0}, ""},
		"overloaded":             {fails(message.Overloaded, true), nil, [2]int{1, 0}, ""},
		"refused by the second":  {gone, fails(message.Declined, false), [2]int{1, 1}, ""},
	} {
		for _, routed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, routed), func(t *testing.T) {
				change := func(p *plugin.Plan) {
					p.Transports, p.ExternalRouting = []string{"door", "main", "backup"}, routed
				}
				onStage(t, change, func(t *testing.T, s *stage) {
					s.audit.routes = []plugin.Route{{Transport: "main", Address: "a"}, {Transport: "backup", Address: "b"}}
					s.main.answer, s.backup.answer = c.main, c.backup
					id := s.send(t, "alice", "?bob", "x")
					synctest.Wait()
					sent := [2]int{len(s.main.attempts()), len(s.backup.attempts())}
					want := c.sent
					switch {
					case routed && name == "gone for good":
						want[1], c.by = 1, "backup" // charging's next route
					case routed && name == "refused by the second":
						want[0] = 2 // which is the one route left
					}
					if sent != want {
						t.Errorf("%v attempts, want %v", sent, want)
					}
					v := s.state(t, id)
					if delivered := v.State == spool.StateDelivered; delivered != (c.by != "") || delivered && v.Deliveries[len(v.Deliveries)-1].Transport != c.by {
						t.Errorf("it is %s, want it by %q", asJSON(v), c.by)
					}
					if c.by == "backup" && s.backup.attempts()[0].reference == s.main.attempts()[0].reference {
						t.Error("two deliveries have one reference")
					}
				})
			})
		}
	}
}

// TestNextVendorIsNoWayRoundAPhone: who is registered is reached there or not at all.
func TestNextVendorIsNoWayRoundAPhone(t *testing.T) {
	onStage(t, func(p *plugin.Plan) { p.Transports = []string{"door", "main"} }, func(t *testing.T, s *stage) {
		s.door.take = fails(message.Unavailable, true)
		if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		s.send(t, "alice", "bob", "x")
		synctest.Wait()
		if n := len(s.main.attempts()); n != 0 {
			t.Errorf("%d attempts by the next hop", n)
		}
	})
}

// TestPartlySentStaysWithItsVendor, also after a restart, for as long as there is one.
func TestPartlySentStaysWithItsVendor(t *testing.T) {
	for _, routed := range []bool{false, true} {
		change := func(p *plugin.Plan) {
			p.Transports, p.ExternalRouting = []string{"main", "backup"}, routed
		}
		onStage(t, change, func(t *testing.T, s *stage) {
			s.audit.routes = []plugin.Route{{Transport: "main", Address: "a"}, {Transport: "backup", Address: "b"}}
			c := &smsc{}
			s.main.answer = fails(message.Unavailable, true)
			s.backup.answer = (&smsc{takes: []int{1, 0, -1}, why: message.NoAnswer}).answer
			id := s.send(t, "alice", "?bob", "x")
			synctest.Wait()
			s.main.answer = c.answer
			if v := s.state(t, id); len(v.Deliveries) != 1 || v.Deliveries[0].Transport != "backup" || v.Deliveries[0].State != spool.StateUnknown {
				t.Errorf("it is %s", asJSON(v))
			}
			s.restart()
			time.Sleep(time.Hour)
			synctest.Wait()
			if v := s.state(t, id); v.State != spool.StateHandedOver || v.Deliveries[0].Transport != "backup" || len(c.heard("x")) != 0 {
				t.Errorf("main has %v: %s", c.heard("x"), asJSON(v))
			}
		})
	}
}

// TestLostPartIsNoReasonForAnotherVendor: the plan has its fallback for that.
func TestLostPartIsNoReasonForAnotherVendor(t *testing.T) {
	onStage(t, func(p *plugin.Plan) { p.Transports = []string{"main", "backup"} }, func(t *testing.T, s *stage) {
		s.main.answer = (&smsc{takes: []int{1}}).answer
		id := s.send(t, "alice", "bob", "x")
		s.report("x-p0", lostPart)
		if v := s.state(t, id); v.Reason != message.Gone || len(s.backup.attempts()) != 0 {
			t.Errorf("it is %s", asJSON(v))
		}
	})
}

// TestUnknownOutcome: what wasn't answered is shown as that, also after a restart,
// until there is an answer.
func TestUnknownOutcome(t *testing.T) {
	change := func(p *plugin.Plan) { p.Retry.Backoff = []time.Duration{time.Minute} }
	for name, c := range map[string]struct {
		then  message.Reason
		state spool.StateName
	}{
		"busy":         {message.Busy, spool.StateWaiting},
		"not sent":     {message.Unavailable, spool.StateUnknown},
		"silent again": {message.NoAnswer, spool.StateUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, change, func(t *testing.T, s *stage) {
				s.main.answer = fails(message.NoAnswer, true)
				id := s.send(t, "alice", "bob", "x")
				synctest.Wait()
				s.main.answer = fails(c.then, true)
				is := func(want spool.StateName) {
					t.Helper()
					synctest.Wait()
					if v := s.state(t, id); v.State != spool.StateWaiting || len(v.Deliveries) != 1 || v.Deliveries[0].State != want {
						t.Errorf("it is %s, want its delivery to be %s", asJSON(v), want)
					}
				}
				is(spool.StateUnknown)
				s.restart()
				is(c.state)
				s.stop()
				s.main.answer = nil
				s.open()
				if v := s.ends(id); v.Deliveries[0].State != spool.StateDelivered || len(v.Deliveries) != 1 {
					t.Errorf("it is %s", asJSON(v))
				}
			})
		})
	}
}

// TestUnknownIsTheEnd: where the plan says so, what a device may have is never sent
// to it again, also if this node dies while it waits for the answers of others.
func TestUnknownIsTheEnd(t *testing.T) {
	change := func(p *plugin.Plan) { p.Transports, p.Retry.Unknown = []string{"door"}, plugin.UnknownFail }
	onStage(t, change, func(t *testing.T, s *stage) {
		var mu sync.Mutex
		asked, declines := map[string]int{}, false
		s.phones = newDoor()
		s.phones.take = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
			mu.Lock()
			defer mu.Unlock()
			asked[r.Binding.Device]++
			switch {
			case r.Binding.Device == "silent":
				return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silence")
			case declines:
				return plugin.Receipt{}, message.Fail(message.Declined, "no")
			}
			return plugin.Receipt{}, message.FailForNow(message.Busy, "later")
		}
		s.restart()
		if err := s.door.register(t.Context(), "bob", "silent", "busy"); err != nil {
			t.Fatal(err)
		}
		id := s.send(t, "alice", "bob", "x")
		synctest.Wait()
		s.restart()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		mu.Lock()
		if v := s.state(t, id); asked["silent"] != 1 || asked["busy"] < 3 || !slices.ContainsFunc(v.Deliveries, func(d spool.DeliverySummary) bool { return d.State == spool.StateUnknown }) {
			t.Errorf("asked %v: %s", asked, asJSON(v))
		}
		declines = true
		mu.Unlock()
		v := s.ends(id)
		for _, d := range v.Deliveries {
			if want := map[string]spool.StateName{"silent": spool.StateUnknown, "busy": spool.StateFailed}[d.Device]; d.State != want {
				t.Errorf("it is %s, want %s %s", asJSON(v), d.Device, want)
			}
		}
	})
}

// TestThrottled: what the next hop wants less of comes slower and in order, however
// long that takes, and isn't given up.
func TestThrottled(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration // what the next hop says
		pause time.Duration // what follows
	}{
		"it says when":        {2 * time.Minute, 2 * time.Minute},
		"it says soon":        {time.Millisecond, time.Second},
		"it doesn't say when": {0, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(p *plugin.Plan) {
				p.Retry.Attempts, p.Retry.Backoff, p.Store = 2, []time.Duration{10 * time.Second, time.Hour}, 24*time.Hour
			}
			onStage(t, change, func(t *testing.T, s *stage) {
				const times = 40
				var asked []time.Time
				var took []string
				s.main.answer = func(m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
					asked = append(asked, time.Now())
					if len(asked) <= times {
						return plugin.Receipt{}, &message.Failure{Reason: message.Overloaded, Temporary: true, RetryAfter: c.after}
					}
					took = append(took, string(m.Body))
					return plugin.Receipt{Final: true}, nil
				}
				var want []string
				var last message.ID
				for i := range 5 {
					want = append(want, fmt.Sprint(i))
					last = s.send(t, "alice", "bob", fmt.Sprint(i))
				}
				o, err := first(t, s.door.submit("alice", "bob", "now or never", expires(0)))
				if err != nil || o.State != plugin.OutcomeFailed || o.Failure.Reason != message.Unavailable {
					t.Errorf("what must go at once: %+v, %v", o, err)
				}
				time.Sleep(c.pause + c.pause/2)
				want = append(want, "late")
				s.send(t, "alice", "bob", "late")
				s.ends(last)
				synctest.Wait()
				for i := 1; i <= times; i++ {
					if pause := asked[i].Sub(asked[i-1]); pause != c.pause {
						t.Fatalf("attempt %d comes after %s, want %s", i+1, pause, c.pause)
					}
				}
				if !slices.Equal(took, want) {
					t.Errorf("it took %q, want %q", took, want)
				}
			})
		})
	}
}

// TestThrottledByOneDevice: the other one's answers don't count either while it waits.
func TestThrottledByOneDevice(t *testing.T) {
	change := func(p *plugin.Plan) { p.Transports, p.Retry.Attempts = []string{"door"}, 2 }
	for _, devices := range [][]string{{string(message.Busy), string(message.Overloaded)}, {string(message.Overloaded), string(message.Busy)}} {
		onStage(t, change, func(t *testing.T, s *stage) {
			s.door.take = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
				return plugin.Receipt{}, message.FailForNow(message.Reason(r.Binding.Device), "x")
			}
			if err := s.door.register(t.Context(), "bob", devices...); err != nil {
				t.Fatal(err)
			}
			id := s.send(t, "alice", "bob", "x")
			time.Sleep(time.Minute)
			synctest.Wait()
			if v := s.state(t, id); !v.Ended.IsZero() || v.Attempts < 50 {
				t.Errorf("it is %s", asJSON(v))
			}
		})
	}
}

// TestThrottledThenBusy: from then on attempts count, and a message is passed that
// holds its lane for too long.
func TestThrottledThenBusy(t *testing.T) {
	change := func(p *plugin.Plan) { p.Retry.Attempts, p.Retry.Backoff = 3, []time.Duration{time.Minute} }
	onStage(t, change, func(t *testing.T, s *stage) {
		why := []message.Reason{message.Overloaded, message.Busy, message.Overloaded, message.Busy, message.Overloaded, message.Busy}
		s.main.answer = func(m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
			if string(m.Body) != "one" {
				return plugin.Receipt{Final: true}, nil
			}
			reason := why[0]
			why = why[1:]
			return plugin.Receipt{}, message.FailForNow(reason, "x")
		}
		one, two := s.send(t, "alice", "bob", "one"), s.send(t, "alice", "bob", "two")
		time.Sleep(time.Minute + 20*time.Second)
		if v := s.state(t, two); !v.Ended.IsZero() {
			t.Errorf("it has passed: %s", asJSON(v))
		}
		time.Sleep(15 * time.Second)
		if v := s.state(t, two); v.Ended.IsZero() {
			t.Errorf("it hasn't passed: %s", asJSON(v))
		}
		if v := s.ends(one); v.Reason != message.Busy || v.Attempts != 6 || len(why) != 0 {
			t.Errorf("it is %s", asJSON(v))
		}
	})
}

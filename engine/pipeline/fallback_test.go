package pipeline_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// TestFallbackOfAStranger: whom no phone can register for is reached by the
// fallback, where the plan has one for that.
func TestFallbackOfAStranger(t *testing.T) {
	for name, c := range map[string]struct {
		fallback plugin.PlanFallback
		expires  []func(*plugin.Arrival)
		reached  bool
	}{
		"there is none":       {fallback: plugin.PlanFallback{}},
		"for any reason":      {fallback: plugin.PlanFallback{Transports: []string{"backup"}}, reached: true},
		"for this one":        {fallback: plugin.PlanFallback{Transports: []string{"backup"}, Reasons: []message.Reason{message.UnknownRecipient}}, reached: true},
		"for another one":     {fallback: plugin.PlanFallback{Transports: []string{"backup"}, Reasons: []message.Reason{message.Declined}}},
		"now or not at all":   {fallback: plugin.PlanFallback{Transports: []string{"backup"}}, expires: []func(*plugin.Arrival){expires(0)}, reached: true},
		"leads to phones too": {fallback: plugin.PlanFallback{Transports: []string{"door"}}},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(p *plugin.Plan) { p.Transports, p.Fallback = []string{"door"}, c.fallback }
			onStage(t, change, func(t *testing.T, s *stage) {
				ticket := s.door.submit("alice", "?bob", "x", c.expires...)
				if !c.reached {
					wantRefusal(t, ticket, message.UnknownRecipient, false)
					return
				}
				wantOutcome(t, ticket, plugin.OutcomeDelivered)
				if n := len(s.backup.attempts()); n != 1 {
					t.Errorf("%d attempts", n)
				}
			})
		})
	}
}

// TestFallbackOfAStrangerSurvives: one that was accepted and not sent goes by
// its fallback after a restart.
func TestFallbackOfAStrangerSurvives(t *testing.T) {
	change := func(p *plugin.Plan) {
		p.Transports, p.Fallback.Transports = []string{"door"}, []string{"backup"}
	}
	onStage(t, change, func(t *testing.T, s *stage) {
		busy := s.backup.isBusy()
		id := s.send(t, "alice", "?bob", "x")
		s.restartBefore(id) // as if the fallback had not been noted
		busy.Store(false)
		if v := s.ends(id); v.Reason != "" || v.State != spool.StateDelivered {
			t.Errorf("%s", asJSON(v))
		}
	})
}

// TestTypeOfATransportThatIsNotThere: it wouldn't pass if it were.
func TestTypeOfATransportThatIsNotThere(t *testing.T) {
	change := func(p *plugin.Plan) {
		p.Transports, p.MIME = []string{"smpp"}, map[string][]string{"smpp": {"text/plain", "message/cpim"}}
	}
	onStage(t, change, func(t *testing.T, s *stage) {
		html := func(a *plugin.Arrival) { a.Message.ContentType = "text/html" }
		_, err := first(t, s.door.submit("alice", "bob", "x", html))
		f, ok := errors.AsType[*message.Failure](err)
		if !ok || f.Reason != message.UnsupportedType || f.Temporary || !slices.Equal(f.Accept, []string{"text/plain", "message/cpim"}) {
			t.Errorf("%v", err)
		}
		wantRefusal(t, s.door.submit("alice", "bob", "x"), message.PolicyFailed, true)
	})
}

// TestOtherWayIsNotHeldUp: what needs no registration doesn't wait behind what
// waits for one, neither at once nor in its pauses.
func TestOtherWayIsNotHeldUp(t *testing.T) {
	byText := func(q plugin.Question, more plugin.Supply, p *plugin.Plan) {
		switch more.Text() {
		case "waits":
			p.Transports = []string{"door"}
		case "falls back":
			p.Transports, p.Fallback.Transports = []string{"door"}, []string{"backup"}
		}
	}
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.policy.asked = byText
		wantOutcome(t, s.door.submit("alice", "bob", "waits"), plugin.OutcomeWaiting)
		wantOutcome(t, s.door.submit("alice", "bob", "goes"), plugin.OutcomeDelivered)

		// One that falls back with the phone there, while the next one finds it gone.
		s.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{}, message.Fail(message.Declined, "no")
		}
		if err := s.door.register(t.Context(), "carol", "phone"); err != nil {
			t.Fatal(err)
		}
		busy := s.backup.isBusy()
		id := s.send(t, "alice", "carol", "falls back")
		s.door.gate.Register(t.Context(), plugin.Registration{Account: account("carol"), AOR: address("carol"), CallID: "x", CSeq: 9, All: true})
		wantOutcome(t, s.door.submit("alice", "carol", "waits"), plugin.OutcomeWaiting)
		time.Sleep(30 * time.Minute)
		busy.Store(false)
		if v := s.ends(id); v.Reason != "" {
			t.Errorf("%s", asJSON(v))
		}
	})
}

// TestOtherDoorIsNotHeldUp: who is registered at one door gets what comes through
// it, whatever waits for a registration at another.
func TestOtherDoorIsNotHeldUp(t *testing.T) {
	onStage(t, func(p *plugin.Plan) { p.Transports = []string{"door"} }, func(t *testing.T, s *stage) {
		s.policy.asked = func(_ plugin.Question, more plugin.Supply, p *plugin.Plan) {
			if more.Text() == "waits" {
				p.Transports = []string{"side"}
			}
		}
		if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		wantOutcome(t, s.door.submit("alice", "bob", "waits"), plugin.OutcomeWaiting)
		wantOutcome(t, s.door.submit("alice", "bob", "goes"), plugin.OutcomeDelivered)
		s.restart()
		wantOutcome(t, s.door.submit("alice", "bob", "goes, too"), plugin.OutcomeDelivered)
	})
}

// TestOrderIsKeptOnEachWay, with messages that go by two ways in turn.
func TestOrderIsKeptOnEachWay(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.policy.asked = func(_ plugin.Question, more plugin.Supply, p *plugin.Plan) {
			if more.Text() < "m" {
				p.Transports = []string{"door"}
			}
		}
		for _, body := range []string{"a", "x", "b", "y", "c", "z"} {
			s.door.submit("alice", "bob", body)
		}
		synctest.Wait()
		if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("the phone got %q", got)
		}
		if n := len(s.main.attempts()); n != 3 {
			t.Errorf("%d went over the trunk", n)
		}
	})
}

// TestFallbackAfterItsReport: the next hop took a message and says later that it
// wasn't delivered. It is paid for once, whatever follows.
func TestFallbackAfterItsReport(t *testing.T) {
	negative := plugin.Status{Reason: message.Undelivered}
	for name, c := range map[string]struct {
		change  func(*plugin.Plan)
		wait    time.Duration // before the report
		restart bool          // before the report
		backup  func(*message.Message, plugin.Route) (plugin.Receipt, error)
		second  *plugin.Status // what the second next hop reports; nil: nothing
		sent    int            // by the fallback
		reason  message.Reason
		paid    map[plugin.ChargingMoment]bool
	}{
		"delivered in the end": {sent: 1, paid: always},
		"after a restart":      {restart: true, sent: 1, paid: always},
		"for this reason":      {change: func(p *plugin.Plan) { p.Fallback.Reasons = []message.Reason{message.Undelivered} }, sent: 1, paid: always},
		"not for this reason": {
			change: func(p *plugin.Plan) { p.Fallback.Reasons = []message.Reason{message.Busy} },
			reason: message.Undelivered, paid: unlessOnDelivery,
		},
		"its life is over":    {wait: 2 * time.Hour, reason: message.Undelivered, paid: unlessOnDelivery},
		"refused there too":   {backup: fails(message.Declined, false), sent: 1, reason: message.Declined, paid: unlessOnDelivery},
		"reported there too":  {backup: takes("second"), second: &negative, sent: 1, reason: message.Undelivered, paid: unlessOnDelivery},
		"arrived by a report": {backup: takes("second"), second: &plugin.Status{Delivered: true}, sent: 1, paid: always},
	} {
		for _, when := range []plugin.ChargingMoment{plugin.OnAcceptance, plugin.OnHandover, plugin.OnDelivery} {
			t.Run(name+", paid on "+string(when), func(t *testing.T) {
				change := func(p *plugin.Plan) {
					p.Fallback.Transports, p.Charging.When = []string{"backup"}, when
					if c.change != nil {
						c.change(p)
					}
				}
				onStage(t, change, func(t *testing.T, s *stage) {
					s.main.answer, s.backup.answer = takes("first"), c.backup
					id := s.send(t, "alice", "bob", "x")
					time.Sleep(c.wait)
					if c.restart {
						s.restart()
					}
					report := func(transport, peerID string, status plugin.Status) {
						t.Helper()
						if err := s.Report(t.Context(), transport, peerID, status); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
					}
					report("main", "first", negative)
					report("main", "first", negative) // the next hop repeats itself
					if c.second != nil {
						s.restart()
						report("main", "first", negative)
						report("backup", "second", *c.second)
					}
					v := s.ends(id)
					if n := len(s.backup.attempts()); n != c.sent || v.Reason != c.reason || v.Attempts != 1+c.sent {
						t.Errorf("%d by the fallback: %s", n, asJSON(v))
					}
					if _, paid := rows(t, s.storage, "test/paid")[string(id[:])]; paid != c.paid[when] {
						t.Errorf("paid: %t", paid)
					}
					for _, table := range []string{"messages", "states", "outbox", "test/holds"} {
						if left := rows(t, s.storage, table); len(left) != 0 {
							t.Errorf("%d rows are left in %s", len(left), table)
						}
					}
					if charged := s.charged(); charged > 1 {
						t.Errorf("charged %d times", charged)
					}
				})
			})
		}
	}
}

var (
	always           = map[plugin.ChargingMoment]bool{plugin.OnAcceptance: true, plugin.OnHandover: true, plugin.OnDelivery: true}
	unlessOnDelivery = map[plugin.ChargingMoment]bool{plugin.OnAcceptance: true, plugin.OnHandover: true}
)

// restartBefore restarts without what has happened to a message.
func (s *stage) restartBefore(id message.ID) {
	s.t.Helper()
	s.stop()
	storage := memory.Open(s.disk)
	fence, err := storage.Acquire(s.t.Context(), "solo", time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := storage.Apply(s.t.Context(), fence, []plugin.Change{{Table: "states", Key: id[:]}}); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// isBusy answers every attempt that it is busy, until it isn't.
func (r *relay) isBusy() *atomic.Bool {
	var busy atomic.Bool
	busy.Store(true)
	r.answer = func(m *message.Message, route plugin.Route) (plugin.Receipt, error) {
		if busy.Load() {
			return plugin.Receipt{}, message.FailForNow(message.Busy, "later")
		}
		return taken(m, route)
	}
	return &busy
}

// takes answers that the next hop is responsible and will report.
func takes(peerID string) func(*message.Message, plugin.Route) (plugin.Receipt, error) {
	return func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		return plugin.Receipt{PeerIDs: []string{peerID}}, nil
	}
}

// charged is how many records told charging to take money.
func (s *stage) charged() (n int) {
	for _, r := range s.audit.settled() {
		if r.Charged {
			n++
		}
	}
	return n
}

package pipeline_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// TestPartlySentAndFailed: the money goes back, and the names of parts are forgotten.
func TestPartlySentAndFailed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*plugin.Plan)
		hop    *smsc
		reason message.Reason
	}{
		"refused":          {hop: &smsc{takes: []int{1, 1}, why: message.Declined, final: true}, reason: message.Declined},
		"tried too often":  {change: func(p *plugin.Plan) { p.Retry.Attempts = 2 }, hop: &smsc{takes: []int{1, 1}}, reason: message.Busy},
		"not answered":     {change: func(p *plugin.Plan) { p.Retry.Unknown = plugin.UnknownFail }, hop: &smsc{takes: []int{1}, why: message.NoAnswer}, reason: message.NoAnswer},
		"its life is over": {change: func(p *plugin.Plan) { p.Store = time.Minute }, hop: &smsc{takes: append([]int{1, 1}, make([]int, 99)...)}, reason: message.Expired},
		"now or never":     {change: func(p *plugin.Plan) { p.Store = 0 }, hop: &smsc{takes: []int{1}}, reason: message.Busy},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, c.change, func(t *testing.T, s *stage) {
				s.main.answer = c.hop.answer
				id := s.send(t, "alice", "bob", "x")
				v := s.ends(id)
				if v.State != spool.StateFailed || v.Reason != c.reason || s.charged() != 0 || c.hop.until.IsZero() != (v.Expiry == v.Received) {
					t.Errorf("charged %d times, until %s: %s", s.charged(), c.hop.until, asJSON(v))
				}
				s.report("x-p0", arrivedPart)
				s.nothingLeft()
			})
		})
	}
}

// TestPartlySentAndAbandoned: the fallback sends all of it.
func TestPartlySentAndAbandoned(t *testing.T) {
	change := func(p *plugin.Plan) {
		p.Retry.Attempts, p.Fallback.Transports, p.Fallback.Sender = 1, []string{"main"}, message.Address{User: "100"}
	}
	onStage(t, change, func(t *testing.T, s *stage) {
		c := &smsc{takes: []int{2, 1, 2}}
		s.main.answer = c.answer
		id := s.send(t, "alice", "bob", "x")
		time.Sleep(time.Minute)
		v := s.ends(id)
		if got := c.heard("x"); !slices.Equal(got, []int{0, 1, 0}) || v.Reason != message.Busy || s.charged() != 0 {
			t.Errorf("it got %v: %s", got, asJSON(v))
		}
		s.nothingLeft()
	})
}

// TestPartlySentInQuarantine: when it is sent on its way again it goes on where it was.
func TestPartlySentInQuarantine(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		c := &smsc{takes: []int{1, 1}, why: message.Unbuildable, final: true}
		s.main.answer = c.answer
		id := s.send(t, "alice", "bob", "x")
		s.report("x-p0", arrivedPart)
		s.restart()
		s.report("x-p0", arrivedPart)
		for range 2 {
			if v := s.state(t, id); v.State != spool.StateQuarantined {
				t.Fatalf("it is %s", asJSON(v))
			}
			if err := s.Requeue(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for _, part := range []int{1, 2} {
			s.report(fmt.Sprint("x-p", part), arrivedPart)
		}
		if v := s.ends(id); v.State != spool.StateDelivered || !slices.Equal(c.heard("x"), wholeOnce) {
			t.Errorf("it got %v: %s", c.heard("x"), asJSON(v))
		}
		s.nothingLeft()
	})
}

// TestPartlySentToAnotherDevice than that which takes it: what that one reports is
// of no interest.
func TestPartlySentToAnotherDevice(t *testing.T) {
	onStage(t, func(p *plugin.Plan) { p.Transports = []string{"door"} }, func(t *testing.T, s *stage) {
		c := &smsc{takes: []int{1}}
		s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			if r.Binding.Device == "partly" {
				return c.answer(m, r)
			}
			return plugin.Receipt{PeerIDs: []string{"whole"}}, nil
		}
		if err := s.door.register(t.Context(), "bob", "partly", "whole"); err != nil {
			t.Fatal(err)
		}
		id := s.send(t, "alice", "bob", "x")
		synctest.Wait()
		for _, status := range []plugin.Status{lostPart, arrivedPart} {
			if err := s.Report(t.Context(), "door", "x-p0", status); err != nil {
				t.Error(err)
			}
		}
		if v := s.state(t, id); v.State != spool.StateHandedOver {
			t.Errorf("it is %s", asJSON(v))
		}
		if err := s.Report(t.Context(), "door", "whole", arrivedPart); err != nil {
			t.Error(err)
		}
		if v := s.ends(id); v.State != spool.StateDelivered || s.charged() != 1 {
			t.Errorf("it is %s", asJSON(v))
		}
		s.nothingLeft()
	})
}

// TestPartlySentOnARouteThatRefuses: charging's next one gets all of it.
func TestPartlySentOnARouteThatRefuses(t *testing.T) {
	onStage(t, func(p *plugin.Plan) { p.ExternalRouting = true }, func(t *testing.T, s *stage) {
		s.audit.routes = []plugin.Route{{Transport: "main", Address: "a"}, {Transport: "backup", Address: "b"}}
		s.main.answer = (&smsc{takes: []int{1, 1}, why: message.Declined, final: true}).answer
		next := &smsc{}
		s.backup.answer = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			receipt, err := next.answer(m, r)
			for i := range receipt.PeerIDs {
				receipt.PeerIDs[i] = "b" + receipt.PeerIDs[i]
			}
			return receipt, err
		}
		id := s.send(t, "alice", "bob", "x")
		s.report("x-p0", lostPart)
		for part := range allParts {
			if err := s.Report(t.Context(), "backup", fmt.Sprint("bx-p", part), arrivedPart); err != nil {
				t.Error(err)
			}
		}
		if v := s.ends(id); v.State != spool.StateDelivered || s.charged() != 1 || !slices.Equal(next.heard("x"), wholeOnce) {
			t.Errorf("the next one has %v: %s", next.heard("x"), asJSON(v))
		}
		s.nothingLeft()
	})
}

// TestPartlySentIsNotReplaced: the next hop has half of it. It can be cancelled:
// the rest isn't sent.
func TestPartlySentIsNotReplaced(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			c := &smsc{takes: []int{1, 0}}
			s.main.answer = c.answer
			id := s.send(t, "alice", "bob", "x")
			if restarts {
				s.restart()
			}
			synctest.Wait() // else it may be at work
			name := s.state(t, id).PublicID
			by := plugin.Replacement{Account: account("alice"), Body: []byte("y")}
			if err := s.Replace(t.Context(), "door", "alice", name, by); reason(err) != message.Conflict {
				t.Errorf("restarts %t: %v", restarts, err)
			}
			if n, err := s.CancelOf(t.Context(), "alice", plugin.Which{PublicID: name}); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			time.Sleep(time.Hour)
			if v := s.state(t, id); v.Reason != message.Cancelled || len(c.heard("x")) != 1 || len(c.heard("y")) != 0 || s.charged() != 0 {
				t.Errorf("restarts %t: %s", restarts, asJSON(v))
			}
			s.nothingLeft()
		})
	}
}

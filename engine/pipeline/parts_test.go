package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// smsc is a next hop that gets messages in three parts. Progress is how many it
// has; its names for them are p0, p1 and p2, behind the text's first word.
type smsc struct {
	mu sync.Mutex
	// takes is how many parts are taken by each attempt, from the first on; then all
	// that are left are. A negative one: nothing is sent.
	takes []int
	why   message.Reason // why not all are taken; empty: busy
	final bool           // for good
	got   map[string][]int
	until time.Time
}

const allParts = 3

func (c *smsc) answer(m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.got == nil {
		c.got = map[string][]int{}
	}
	c.until = route.Until
	name := strings.Fields(string(m.Body))[0]
	had, n := len(route.Progress), allParts-len(route.Progress)
	if len(c.takes) > 0 {
		n, c.takes = min(c.takes[0], n), c.takes[1:]
	}
	if n < 0 {
		return plugin.Receipt{}, message.FailForNow(message.Unavailable, "not bound")
	}
	var r plugin.Receipt
	for i := had; i < had+n; i++ {
		c.got[name] = append(c.got[name], i)
		r.PeerIDs = append(r.PeerIDs, fmt.Sprint(name, "-p", i))
	}
	if had+n == allParts {
		return r, nil
	}
	r.Progress = make([]byte, had+n)
	if n == 0 {
		r = plugin.Receipt{}
	}
	return r, &message.Failure{Reason: orBusy(c.why), Temporary: !c.final}
}

func orBusy(why message.Reason) message.Reason {
	if why == "" {
		return message.Busy
	}
	return why
}

func (c *smsc) heard(name string) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got[name])
}

var wholeOnce = []int{0, 1, 2}

// report says what became of a part.
func (s *stage) report(name string, status plugin.Status) {
	s.t.Helper()
	synctest.Wait()
	if err := s.Report(s.t.Context(), "main", name, status); err != nil {
		s.t.Errorf("report of %s: %v", name, err)
	}
	synctest.Wait()
}

// nothingLeft checks that there is no trace of messages but their records.
func (s *stage) nothingLeft() {
	s.t.Helper()
	synctest.Wait()
	for _, table := range []string{"messages", "states", "outbox", "test/holds"} {
		if left := rows(s.t, s.storage, table); len(left) != 0 {
			s.t.Errorf("%d rows are left in %s", len(left), table)
		}
	}
	if n := s.Kept(); n != 0 {
		s.t.Errorf("%d names and lanes are remembered", n)
	}
}

var (
	arrivedPart = plugin.Status{Delivered: true}
	lostPart    = plugin.Status{Reason: message.Gone}
)

// TestRestOfAMessage: the next hop gets each part once, whatever lies between its
// attempts, and the message is charged once.
func TestRestOfAMessage(t *testing.T) {
	for _, when := range []plugin.ChargingMoment{plugin.OnAcceptance, plugin.OnHandover, plugin.OnDelivery} {
		for i, takes := range [][]int{{1, 1, 1}, {2, 0, 1}, {1, -1, 2}, {0, 2, -1, 0, 1}, {3}} {
			for _, restarts := range []bool{false, true} {
				why := []message.Reason{message.Busy, message.Overloaded, message.NoAnswer}[i%3]
				t.Run(fmt.Sprint(when, takes, restarts), func(t *testing.T) {
					onStage(t, func(p *plugin.Plan) { p.Charging.When = when }, func(t *testing.T, s *stage) {
						c := &smsc{takes: slices.Clone(takes), why: why}
						s.main.answer = c.answer
						id := s.send(t, "alice", "bob", "x")
						for range len(takes) {
							if restarts {
								s.restart()
							}
							time.Sleep(time.Minute)
							synctest.Wait()
						}
						if got := c.heard("x"); !slices.Equal(got, wholeOnce) {
							t.Errorf("it got the parts %v", got)
						}
						if v := s.state(t, id); v.State != spool.StateHandedOver || len(v.Deliveries) != 1 || v.Deliveries[0].State != spool.StateHandedOver {
							t.Errorf("it is %s", asJSON(v))
						}
						for i := range allParts {
							s.report(fmt.Sprint("x-p", i), arrivedPart)
						}
						v := s.ends(id)
						if v.State != spool.StateDelivered || len(v.Deliveries) != 1 || v.Deliveries[0].State != spool.StateDelivered {
							t.Errorf("it is %s", asJSON(v))
						}
						if n := s.charged(); n != 1 {
							t.Errorf("charged %d times", n)
						}
						s.nothingLeft()
					})
				})
			}
		}
	}
}

// TestReportsInAnyOrder: a message has arrived when all of its parts have, in
// whatever order that is told, how often, and how early.
func TestReportsInAnyOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 1, 0, 0, 2}, {0, 0, 0, 2, 0, 1}} {
		for early := range 3 { // reports before the last part is sent
			for _, restarts := range []bool{false, true} {
				t.Run(fmt.Sprint(order, early, restarts), func(t *testing.T) {
					onStage(t, nil, func(t *testing.T, s *stage) {
						c := &smsc{takes: []int{2}}
						if restarts { // each of which is followed by an attempt
							c.takes = []int{2, 0, 0}
						}
						s.main.answer = c.answer
						id := s.send(t, "alice", "bob", "x")
						said := map[int]bool{}
						for i, part := range order {
							if i == early {
								time.Sleep(time.Second)
							}
							if restarts {
								s.restart()
							}
							for part == 2 && len(c.heard("x")) < allParts {
								time.Sleep(time.Second)
								synctest.Wait()
							}
							s.report(fmt.Sprint("x-p", part), arrivedPart)
							said[part] = true
							if v := s.state(t, id); v.Ended.IsZero() == (len(said) == allParts && len(c.heard("x")) == allParts) {
								t.Errorf("after %v: %s", order[:i+1], asJSON(v))
							}
						}
						time.Sleep(time.Minute)
						v := s.ends(id)
						if v.State != spool.StateDelivered || s.charged() != 1 {
							t.Errorf("charged %d times: %s", s.charged(), asJSON(v))
						}
						if names := v.Deliveries[0].PeerIDs; !slices.Equal(names, []string{"x-p0", "x-p1", "x-p2"}) {
							t.Errorf("its parts are named %q", names)
						}
						s.report("x-p1", arrivedPart) // the next hop repeats itself
						s.nothingLeft()
					})
				})
			}
		}
	}
}

// TestLostPart: with one part the message is lost, whatever became of the others.
func TestLostPart(t *testing.T) {
	for name, c := range map[string]struct {
		takes    []int
		before   []int // parts that arrive first
		fallback bool
		restarts bool
	}{
		"of all":                                {},
		"behind another one":                    {before: []int{2}},
		"while it waits":                        {takes: []int{2}},
		"while it waits, behind another one":    {takes: []int{2}, before: []int{1}},
		"by the fallback":                       {fallback: true},
		"while it waits, by the fallback":       {takes: []int{2}, fallback: true},
		"while it waits, after a restart":       {takes: []int{2, 0}, restarts: true},
		"by the fallback, after a restart":      {before: []int{1}, fallback: true, restarts: true},
		"while it waits for the next hop":       {takes: []int{2, -1, -1, -1, -1}, before: []int{1}, fallback: true},
		"while it waits for the next hop alone": {takes: []int{1, -1, -1, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(p *plugin.Plan) {
				p.Retry.Backoff = []time.Duration{10 * time.Minute}
				if c.fallback {
					p.Fallback.Transports = []string{"backup"}
				}
			}
			onStage(t, change, func(t *testing.T, s *stage) {
				hop := &smsc{takes: c.takes}
				s.main.answer = hop.answer
				id := s.send(t, "alice", "bob", "x")
				if c.restarts {
					s.restart()
				}
				for _, part := range c.before {
					s.report(fmt.Sprint("x-p", part), arrivedPart)
				}
				s.report("x-p0", lostPart)
				v := s.state(t, id)
				switch {
				case c.fallback && (v.State != spool.StateDelivered || len(s.backup.attempts()) != 1 || s.charged() != 1):
					t.Errorf("%d by the fallback, charged %d times: %s", len(s.backup.attempts()), s.charged(), asJSON(v))
				case !c.fallback && (v.State != spool.StateFailed || v.Reason != message.Gone):
					t.Errorf("it is %s", asJSON(v))
				}
				for part := range allParts { // of what nobody waits for any more
					s.report(fmt.Sprint("x-p", part), arrivedPart)
				}
				if !c.fallback && len(c.takes) > 0 && s.charged() != 0 {
					t.Error("charged, though it was never handed over")
				}
				s.nothingLeft()
			})
		})
	}
}

// TestReportWhileTheRestIsSent: the peer says it again.
func TestReportWhileTheRestIsSent(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		c, under, release := &smsc{takes: []int{1}}, make(chan struct{}, 1), make(chan struct{})
		s.main.answer = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			if len(r.Progress) > 0 {
				under <- struct{}{}
				<-release
			}
			return c.answer(m, r)
		}
		id := s.send(t, "alice", "bob", "x")
		<-under
		if err := s.Report(t.Context(), "main", "x-p0", arrivedPart); !message.AsFailure(err).Temporary || err == nil {
			t.Errorf("while the rest is sent: %v", err)
		}
		close(release)
		for part := range allParts {
			s.report(fmt.Sprint("x-p", part), arrivedPart)
		}
		if v := s.ends(id); v.State != spool.StateDelivered {
			t.Errorf("it is %s", asJSON(v))
		}
	})
}

// TestOneNameForAllParts, as some peers have it.
func TestOneNameForAllParts(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.main.answer = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{PeerIDs: []string{"same", "same", "same"}}, nil
		}
		id := s.send(t, "alice", "bob", "x")
		s.report("same", arrivedPart)
		if v := s.ends(id); v.State != spool.StateDelivered || !slices.Equal(v.Deliveries[0].PeerIDs, []string{"same"}) {
			t.Errorf("it is %s", asJSON(v))
		}
		s.report("same", arrivedPart)
		s.nothingLeft()
	})
}

// TestLastPartIsNotReported: nobody will say what became of it.
func TestLastPartIsNotReported(t *testing.T) {
	for _, early := range []bool{false, true} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			s.main.answer = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
				if len(r.Progress) == 0 {
					return plugin.Receipt{PeerIDs: []string{"a"}, Progress: []byte{1}}, message.FailForNow(message.Busy, "later")
				}
				return plugin.Receipt{}, nil
			}
			id := s.send(t, "alice", "bob", "x")
			want := spool.StateDelivered
			if early {
				s.report("a", arrivedPart)
				want = spool.StateHandedOver
			}
			time.Sleep(2 * time.Second)
			if !early {
				s.report("a", arrivedPart)
			}
			if v := s.ends(id); v.State != want || s.charged() != 1 {
				t.Errorf("charged %d times: %s", s.charged(), asJSON(v))
			}
			s.nothingLeft()
		})
	}
}

// TestReceiptsOutOfBounds harm nobody: what was taken is, without its names; what
// wasn't is tried again, at the same next hop.
func TestReceiptsOutOfBounds(t *testing.T) {
	many := make([]string, plugin.MaxParts+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, receipt := range map[string]plugin.Receipt{
		"many parts":       {PeerIDs: many, Progress: []byte{1}},
		"a long name":      {PeerIDs: []string{strings.Repeat("x", plugin.MaxPeerID+1)}, Progress: []byte{1}},
		"an empty name":    {PeerIDs: []string{""}, Progress: []byte{1}},
		"a long progress":  {PeerIDs: []string{"x"}, Progress: make([]byte, plugin.MaxProgress+1)},
		"no progress":      {PeerIDs: []string{"x"}},
		"255 of 64 octets": {PeerIDs: many[:plugin.MaxParts], Progress: make([]byte, plugin.MaxProgress)},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, func(p *plugin.Plan) { p.Transports = []string{"main", "backup"} }, func(t *testing.T, s *stage) {
				sound, attempts := receipt.Validate(true) == nil, 0
				s.main.answer = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
					attempts++
					if attempts == 2 {
						return plugin.Receipt{Final: true}, nil
					}
					return receipt, message.FailForNow(message.Unavailable, "later")
				}
				id := s.send(t, "alice", "bob", "x")
				waiting := s.state(t, id)
				if v := s.ends(id); v.State != spool.StateDelivered || attempts != 2 || len(s.backup.attempts()) != 0 {
					t.Errorf("%d attempts: %s", attempts, asJSON(v))
				}
				if sound != (len(waiting.Deliveries) == 1) {
					t.Errorf("it waited as %s", asJSON(waiting))
				}
				if sound || name == "no progress" {
					return
				}
				s.main.answer = func(*message.Message, plugin.Route) (plugin.Receipt, error) { return receipt, nil }
				v := s.ends(s.send(t, "alice", "bob", "y"))
				if want := receipt.Validate(false) != nil; want != (v.State == spool.StateHandedOver && v.Reason == "") {
					t.Errorf("it is %s", asJSON(v))
				}
				s.nothingLeft()
			})
		})
	}
}

// TestRoute: a transport is told how long the message lives and how its text may be written.
func TestRoute(t *testing.T) {
	text := plugin.PlanText{Alphabets: []plugin.Alphabet{plugin.UCS2}, Transliterate: plugin.TransliterateNever}
	onStage(t, func(p *plugin.Plan) { p.Text = text }, func(t *testing.T, s *stage) {
		var route plugin.Route
		s.main.answer = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
			route = r
			return plugin.Receipt{Final: true}, nil
		}
		v := s.ends(s.send(t, "alice", "bob", "x"))
		if !route.Until.Equal(v.Expiry) || asJSON(route.Text) != asJSON(text) {
			t.Errorf("until %s, want %s; %+v", route.Until, v.Expiry, route.Text)
		}
	})
}

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

// bindable is a next hop that can be reached, or not.
type bindable struct {
	mu    sync.Mutex
	bound bool
	asked int
	took  []string
	also  func(body string) *message.Failure // nil: it takes all
}

func (b *bindable) answer(m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	body := string(m.Body)
	if !b.bound {
		return plugin.Receipt{}, message.FailForNow(message.Unavailable, "not bound")
	}
	if b.also != nil {
		if f := b.also(body); f != nil {
			return plugin.Receipt{}, f
		}
	}
	b.took = append(b.took, body)
	return plugin.Receipt{Final: true}, nil
}

func (b *bindable) bind(bound bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bound = bound
}

func (b *bindable) state() (asked int, took []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked, slices.Clone(b.took)
}

func slowly(p *plugin.Plan) {
	p.Retry.Backoff, p.Store = []time.Duration{15 * time.Minute}, 24*time.Hour
}

// TestReachable: what waits for a next hop goes as soon as it is back, in order,
// also what was passed meanwhile.
func TestReachable(t *testing.T) {
	onStage(t, slowly, func(t *testing.T, s *stage) {
		hop := &bindable{}
		s.main.answer = hop.answer
		for i := range 4 {
			s.send(t, "alice", "bob", fmt.Sprint(i))
			time.Sleep(20 * time.Second)
		}
		for i := range 3 {
			s.send(t, "alice", fmt.Sprint("?", i), fmt.Sprint("to ", i))
		}
		time.Sleep(time.Minute) // each has been passed by the next one
		hop.bind(true)
		s.Reachable("backup")
		synctest.Wait()
		if _, took := hop.state(); len(took) != 0 {
			t.Errorf("another next hop is back, and it took %q", took)
		}
		s.Reachable("main")
		synctest.Wait()
		_, took := hop.state()
		toBob := slices.DeleteFunc(slices.Clone(took), func(body string) bool { return len(body) > 1 })
		if len(took) != 7 || !slices.Equal(toBob, []string{"0", "1", "2", "3"}) {
			t.Errorf("it took %q", took)
		}
		s.nothingLeft()
	})
}

// TestReachableIsNotMissed that comes while an attempt finds out that there is no way.
func TestReachableIsNotMissed(t *testing.T) {
	onStage(t, slowly, func(t *testing.T, s *stage) {
		hop := &bindable{}
		first := true
		s.main.answer = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			receipt, err := hop.answer(m, r)
			if first {
				first = false
				hop.bind(true)
				s.Reachable("main")
			}
			return receipt, err
		}
		id := s.send(t, "alice", "bob", "x")
		synctest.Wait()
		if v := s.state(t, id); v.State != spool.StateDelivered {
			t.Errorf("it is %s", asJSON(v))
		}
	})
}

// TestReachableHurriesNothingElse: what is busy, or wants less, gets its pause,
// whichever next hop is back, and however often.
func TestReachableHurriesNothingElse(t *testing.T) {
	for _, why := range []message.Reason{message.Busy, message.Overloaded} {
		onStage(t, slowly, func(t *testing.T, s *stage) {
			hop := &bindable{}
			s.main.answer = hop.answer
			s.send(t, "alice", "bob", "x")
			synctest.Wait()
			hop.also = func(string) *message.Failure { return message.FailForNow(why, "x") }
			hop.bind(true)
			time.Sleep(15*time.Minute + time.Second) // so it is found out without a word
			for range 5 {
				s.Reachable("main")
				synctest.Wait()
			}
			if asked, _ := hop.state(); asked != 2 {
				t.Errorf("%s: it was asked %d times", why, asked)
			}
		})
	}
}

// TestReachableLeavesALaneQuiet in which one message found no way, and the next one is
// wanted less.
func TestReachableLeavesALaneQuiet(t *testing.T) {
	onStage(t, slowly, func(t *testing.T, s *stage) {
		hop := &bindable{bound: true}
		hop.also = func(body string) *message.Failure {
			if body == "one" {
				return message.FailForNow(message.Unavailable, "x")
			}
			return message.FailForNow(message.Overloaded, "x")
		}
		s.main.answer = hop.answer
		s.send(t, "alice", "bob", "one")
		s.send(t, "alice", "bob", "two")
		time.Sleep(time.Minute)
		s.Reachable("main")
		synctest.Wait()
		if asked, _ := hop.state(); asked != 2 {
			t.Errorf("it was asked %d times", asked)
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if asked, _ := hop.state(); asked < 3 {
			t.Errorf("it was asked %d times", asked)
		}
	})
}

// TestReachableOfEither: of two next hops, neither of which can be reached.
func TestReachableOfEither(t *testing.T) {
	for _, back := range []string{"main", "backup"} {
		change := func(p *plugin.Plan) { slowly(p); p.Transports = []string{"main", "backup"} }
		onStage(t, change, func(t *testing.T, s *stage) {
			hops := map[string]*bindable{"main": {}, "backup": {}}
			s.main.answer, s.backup.answer = hops["main"].answer, hops["backup"].answer
			s.send(t, "alice", "bob", "x")
			synctest.Wait()
			hops[back].bind(true)
			s.Reachable(back)
			synctest.Wait()
			if _, took := hops[back].state(); len(took) != 1 {
				t.Errorf("%s is back and took %q", back, took)
			}
		})
	}
}

// TestReachableWithABacklog, in which the oldest goes first.
func TestReachableWithABacklog(t *testing.T) {
	onStage(t, slowly, func(t *testing.T, s *stage) {
		hop := &bindable{}
		s.main.answer = hop.answer
		const n = 1000
		for i := range n {
			s.send(t, "alice", fmt.Sprint("?", i), fmt.Sprint(i))
		}
		synctest.Wait()
		hop.bind(true)
		s.Reachable("main")
		synctest.Wait()
		if _, took := hop.state(); len(took) != n {
			t.Errorf("it took %d of %d", len(took), n)
		}
		s.nothingLeft()
	})
}

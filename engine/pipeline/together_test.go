package pipeline_test

import (
	"fmt"
	"math/rand/v2"
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

// moodyHop takes messages as their first word says, until it is well: then it takes
// all. Parts of "half" it takes one by one.
type moodyHop struct {
	mu   sync.Mutex
	well bool
	got  []string // what it has, in order
}

func (h *moodyHop) answer(m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	body := string(m.Body)
	mood, _, _ := strings.Cut(body, " ")
	switch {
	case mood == "half" && len(route.Progress) == 0:
		h.got = append(h.got, body+"/1")
		return plugin.Receipt{PeerIDs: []string{"half-1"}, Progress: []byte{1}}, message.FailForNow(message.Overloaded, "less")
	case mood == "half" && h.well:
		h.got = append(h.got, body+"/2")
		return plugin.Receipt{PeerIDs: []string{"half-2"}}, nil
	case mood == "handed":
		h.got = append(h.got, body)
		return plugin.Receipt{PeerIDs: []string{"handed"}}, nil
	case h.well:
		h.got = append(h.got, body)
		return plugin.Receipt{Final: true}, nil
	case mood == "unbuildable":
		return plugin.Receipt{}, message.Fail(message.Unbuildable, "not in this protocol")
	}
	why := map[string]message.Reason{"quiet": message.Overloaded, "unknown": message.NoAnswer, "unbound": message.Unavailable, "half": message.Overloaded}
	return plugin.Receipt{}, message.FailForNow(orBusy(why[mood]), "later")
}

func (h *moodyHop) heals() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.well = true
}

func (h *moodyHop) has() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := slices.Clone(h.got)
	slices.Sort(got)
	return got
}

// TestAllAtOnceOverRestarts: messages of every kind are on disk, and what may happen
// to them happens in any order, with another node after each step. Each ends as it
// should, once, and is charged once if it was delivered; nothing is left.
func TestAllAtOnceOverRestarts(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			change := func(p *plugin.Plan) { p.Store, p.Charging.When = 24*time.Hour, plugin.OnDelivery }
			onStage(t, change, func(t *testing.T, s *stage) { allAtOnce(t, s, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func allAtOnce(t *testing.T, s *stage, random *rand.Rand) {
	hop := &moodyHop{}
	s.main.answer = hop.answer
	names := map[string]string{}
	for i, body := range []string{
		"busy cancelled", "busy replaced", "busy short", "quiet stays", "quiet cancelled", "unknown stays", "unbound stays",
		"half stays", "handed over", "unbuildable requeued", "unbuildable cancelled",
	} {
		var more []func(*plugin.Arrival)
		if strings.HasSuffix(body, "short") {
			more = append(more, short)
		}
		names[body] = s.hand(t, "alice", fmt.Sprint("bob", i), body, more...)
	}
	names["later stays"] = s.hand(t, "alice", "carol", "later stays", notBefore(2*time.Hour))
	names["later replaced"] = s.hand(t, "alice", "carol", "later replaced", notBefore(2*time.Hour))
	names["later hurried"] = s.hand(t, "alice", "carol", "later hurried", notBefore(20*time.Hour))
	parted := func(to, body string, number uint8, more ...func(*plugin.Arrival)) string {
		return s.hand(t, "alice", to, body, append(more, part(1, 2, number))...)
	}
	names["joined"] = parted("dave", "joined ", 1)
	names["torn"] = parted("erin", "torn", 2, short)
	names["parts cancelled"] = parted("fred", "x", 1, short)

	replace := func(name, body string) error {
		return s.Replace(t.Context(), "main", "alice", names[name], plugin.Replacement{Account: account("alice"), Body: []byte(body)})
	}
	cancel := func(name string) error {
		_, err := s.CancelOf(t.Context(), "alice", plugin.Which{PublicID: names[name]})
		return err
	}
	requeue := func(name string) error {
		id, _ := spool.NewNames([32]byte{}).ID(names[name])
		return s.Requeue(t.Context(), id)
	}
	steps := []func() error{
		func() error { return cancel("busy cancelled") },
		func() error { return cancel("quiet cancelled") },
		func() error { return cancel("unbuildable cancelled") },
		func() error { return cancel("parts cancelled") },
		func() error { return replace("busy replaced", "busy instead") },
		func() error { return replace("later replaced", "later instead") },
		func() error { return requeue("later hurried") },
		func() error { return s.Report(t.Context(), "main", "handed", arrivedPart) },
		func() error { return s.Report(t.Context(), "main", "half-1", arrivedPart) },
		func() error { parted("dave", "at last", 2); return nil },
		func() error { s.Reachable("main"); return nil },
	}
	random.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for i, step := range steps {
		if random.IntN(2) == 0 {
			s.restart()
		}
		synctest.Wait()
		if err := step(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	synctest.Wait()
	hop.heals()
	if err := requeue("unbuildable requeued"); err != nil {
		t.Error(err)
	}
	time.Sleep(6 * time.Hour)
	s.report("half-2", arrivedPart)
	want := []string{
		"[…]torn", "busy instead", "busy short", "half stays/1", "half stays/2", "handed over", "joined at last", "later hurried", "later instead",
		"later stays", "quiet stays", "unbound stays", "unbuildable requeued", "unknown stays",
	}
	if got := hop.has(); !slices.Equal(got, want) {
		t.Errorf("the next hop has %q", got)
	}
	if n := s.charged(); n != len(want)-1 {
		t.Errorf("charged %d times", n)
	}
	for what, name := range names {
		state := plugin.SubmittedDelivered
		if strings.HasSuffix(what, "cancelled") {
			state = plugin.SubmittedFailed
		}
		if got := s.found(t, "alice", name); got.State != state {
			t.Errorf("%s is %+v", what, got)
		}
	}
	s.nothingLeft()
	if left := rows(t, s.storage, "parts"); len(left) != 0 {
		t.Errorf("%d parts are left", len(left))
	}
}

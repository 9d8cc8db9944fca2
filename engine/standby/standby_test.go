package standby

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

func TestLeadsWhileItHoldsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, memory.NewDisk(), "a")
		if term := <-n.began; term.Fence != 1 {
			t.Errorf("fence %d", term.Fence)
		}
		time.Sleep(10 * TTL)
		synctest.Wait()
		if len(n.ended) != 0 || !n.Holds() {
			t.Error("a lease that could be renewed was lost")
		}
		n.says(1, "takes the lease: nobody had it")
		n.end()
		if n.Holds() {
			t.Error("it holds what it has released")
		}
	})
}

// With default settings another node takes over within TTL and one look of the
// last sign of life, and within one look of a clean stop.
func TestTakesOver(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(a *node)
		within time.Duration
		says   string
	}{
		"death": {func(a *node) {
			a.line.change(func(l *line) { l.cut = errors.New("gone") })
			a.stop()
			<-a.done
		}, TTL + askEvery, "takes over: node a didn't renew its lease, which ran out 0."},
		"clean stop": {func(a *node) { a.end() }, askEvery, "takes over: node a released its lease 0."},
		"stop with an heir": {func(a *node) {
			a.heir = "b"
			a.end()
		}, askEvery, "takes over: node a hands over"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				a := join(t, disk, "a")
				<-a.began
				b := join(t, disk, "b")
				time.Sleep(10 * TTL)
				b.says(1, "this node is a standby: node a is active")
				c.end(a)
				b.within(c.within, "after the end of the other")
				b.says(1, c.says)
				b.end()
			})
		})
	}
}

// Of several that could take over one does, and the others say once who it is.
func TestOneTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := join(t, disk, "a")
		<-a.began
		var others []*node
		for _, name := range []string{"b", "c", "d"} {
			others = append(others, join(t, disk, name))
		}
		time.Sleep(TTL)
		a.end()
		time.Sleep(time.Minute)
		synctest.Wait()
		active := 0
		for _, n := range others {
			active += len(n.began)
			n.says(1, "this node is a standby: node a is active")
			n.says(2-len(n.began), "this node is a standby: ")
		}
		if active != 1 {
			t.Errorf("%d take over", active)
		}
		for _, n := range others {
			n.end()
		}
	})
}

func TestStopsWhenTheLeaseIsLost(t *testing.T) {
	down := errors.New("database down")
	for name, c := range map[string]struct {
		lose, find func(*line)
		says       string
	}{
		"no answer": {func(l *line) { l.hangs = true }, func(l *line) { l.hangs = false }, "couldn't be renewed in time: context deadline exceeded"},
		"an error":  {func(l *line) { l.cut = down }, func(l *line) { l.cut = nil }, "couldn't be renewed in time: database down"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := join(t, memory.NewDisk(), "a")
				<-n.began
				time.Sleep(10 * TTL)
				lost := time.Now()
				n.line.change(c.lose)
				ended := <-n.ended
				if took := ended.Sub(lost); took > TTL-rest {
					t.Errorf("went on for %v", took)
				}
				if err := <-n.waits; err == nil {
					t.Error("it doesn't say what is wrong")
				}
				time.Sleep(time.Minute)
				n.says(1, "no longer the active node: the lease "+c.says)
				n.says(0, "it can't get the lease") // that is known
				if n.Holds() {
					t.Error("it holds what it has lost")
				}
				n.line.change(c.find)
				n.within(callWait+askEvery, "when the storage is back")
				n.says(1, "takes the lease again: the storage answers")
				n.end()
			})
		})
	}
}

// A short failure is no loss.
func TestOutlastsAShortFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, memory.NewDisk(), "a")
		<-n.began
		time.Sleep(10*TTL + renewEvery/2)
		n.line.change(func(l *line) { l.hangs = true })
		time.Sleep(TTL / 2)
		n.line.change(func(l *line) { l.hangs = false })
		time.Sleep(10 * TTL)
		synctest.Wait()
		if len(n.ended) != 0 || !n.Holds() {
			t.Error("the lease was lost")
		}
		n.end()
	})
}

// A node that stands still for longer than its lease lasts knows it the moment
// it wakes, whoever asks first.
func TestStoodStill(t *testing.T) {
	for name, other := range map[string]bool{"alone": false, "another took over": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				a := join(t, disk, "a")
				<-a.began
				var b *node
				if other {
					b = join(t, disk, "b")
				}
				time.Sleep(10 * TTL)
				a.line.change(func(l *line) { l.freeze = 30 * time.Second })
				time.Sleep(TTL + renewEvery)
				if a.Holds() {
					t.Error("it holds a lease that has run out")
				}
				<-a.ended
				a.says(1, "no longer the active node: this node stood still for 30.")
				if err := <-a.waits; err != nil {
					t.Errorf("it blames the storage: %v", err)
				}
				if !other {
					a.within(askEvery, "after the freeze")
					a.end()
					return
				}
				<-b.began
				time.Sleep(time.Minute)
				a.says(1, "this node is a standby: node b is active")
				if len(a.began) != 0 || len(b.ended) != 0 {
					t.Error("it takes the lease back")
				}
				a.end()
				b.end()
			})
		})
	}
}

func TestFencedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := join(t, disk, "a")
		term := <-a.began
		other := memory.Open(disk)
		if err := other.Release(t.Context(), term.Fence); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Acquire(t.Context(), "b", time.Hour); err != nil {
			t.Fatal(err)
		}
		<-a.ended
		a.says(1, "no longer the active node: fenced: a newer lease exists")
		time.Sleep(time.Minute)
		a.says(1, "this node is a standby: node b is active")
		a.end()
	})
}

func TestHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := join(t, disk, "a")
		<-a.began
		b, c := join(t, disk, "b"), join(t, disk, "c")
		time.Sleep(TTL)
		a.rests = 10 * TTL // the lease lasts until the term has ended
		if err := a.HandOver(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		a.says(1, "no longer the active node: it hands over to node c")
		c.within(askEvery, "that is named")
		time.Sleep(10 * TTL)
		if len(a.began)+len(b.began) != 0 {
			t.Error("another took the lease")
		}
		if err := a.HandOver(t.Context(), "b"); !errors.Is(err, ErrNotHeld) {
			t.Errorf("a standby hands over: %v", err)
		}
		if got := counted(a.metrics, "role_changes_total", roleStandby, Handover); got != 1 {
			t.Errorf("%v changes are counted", got)
		}
		if got := counted(c.metrics, "role_changes_total", roleActive, Handover); got != 1 {
			t.Errorf("%v changes are counted", got)
		}
		c.end()
		b.end()
		a.end()
	})
}

// A node that nobody takes the lease from has it again when the reservation ends.
func TestHandsOverToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := join(t, memory.NewDisk(), "a")
		<-a.began
		if err := a.HandOver(t.Context(), "ghost"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		a.within(reservedFor+askEvery, "after the reservation")
		if waited := time.Since(began); waited < reservedFor {
			t.Errorf("it takes the lease back after %v", waited)
		}
		a.says(1, "takes the lease again: no other node has come for it")
		a.end()
	})
}

// A lease is handed over to a node that dies before it comes: when the
// reservation has lapsed, somebody takes it.
func TestHandsOverToOneThatDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := join(t, disk, "a")
		<-a.began
		b, c := join(t, disk, "b"), join(t, disk, "c")
		time.Sleep(TTL)
		a.rests = time.Second
		handed := make(chan error, 1)
		go func() { handed <- a.HandOver(t.Context(), "b") }()
		synctest.Wait()
		b.end()
		if err := <-handed; err != nil {
			t.Fatal(err)
		}
		a.end()
		began := time.Now()
		c.within(reservedFor+askEvery, "a third one")
		if waited := time.Since(began); waited < reservedFor-askEvery {
			t.Errorf("it takes the lease after %v", waited)
		}
		c.end()
	})
}

// A node that is told to stop while it hands over hands over all the same.
func TestStopsWhileItHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := join(t, disk, "a")
		<-a.began
		b, c := join(t, disk, "b"), join(t, disk, "c")
		time.Sleep(TTL)
		a.rests, a.heir = time.Second, "c"
		handed := make(chan error, 1)
		go func() { handed <- a.HandOver(t.Context(), "b") }()
		synctest.Wait()
		a.end()
		if err := <-handed; err != nil {
			t.Error(err)
		}
		b.within(askEvery, "that was named")
		b.end()
		c.end()
	})
}

// The lease is lost while a term ends for a handover: who asked is told, and
// another node takes it when it has run out.
func TestLosesWhatItHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := join(t, disk, "a")
		<-a.began
		b := join(t, disk, "b")
		time.Sleep(TTL)
		a.rests = 4 * TTL
		handed := make(chan error, 1)
		go func() { handed <- a.HandOver(t.Context(), "b") }()
		synctest.Wait()
		a.line.change(func(l *line) { l.cut = errors.New("gone") })
		b.within(TTL+askEvery, "the other")
		if err := <-handed; !errors.Is(err, ErrNotHeld) {
			t.Errorf("handed over: %v", err)
		}
		a.line.change(func(l *line) { l.cut = nil })
		time.Sleep(TTL)
		if len(a.began)+len(b.ended) != 0 || a.Holds() {
			t.Error("two are active")
		}
		a.end()
		b.end()
	})
}

func TestHandoverThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := join(t, memory.NewDisk(), "a")
		<-a.began
		down := errors.New("database down")
		a.line.change(func(l *line) { l.cut = down })
		if err := a.HandOver(t.Context(), "b"); !errors.Is(err, down) {
			t.Errorf("hands over without a storage: %v", err)
		}
		a.line.change(func(l *line) { l.cut = nil })
		a.within(askEvery, "after all")
		a.end()
	})
}

// Two processes of one name don't take the lease from each other again and
// again: the one that comes later gets it, as after a crash.
func TestNamesake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		first := join(t, disk, "a")
		<-first.began
		second := join(t, disk, "a")
		<-second.began
		<-first.ended
		time.Sleep(time.Minute)
		if len(first.began)+len(second.began)+len(second.ended) != 0 {
			t.Error("the lease goes back and forth")
		}
		first.says(1, "another process that is named a is active")
		second.end()
		<-first.began
		first.end()
	})
}

func TestFirstFailureEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, memory.NewDisk(), "a")
		broken := errors.New("broken")
		n.fail <- broken
		if err := <-n.done; !errors.Is(err, broken) {
			t.Errorf("ends with %v", err)
		}
	})
}

// That a storage goes away just when a node starts is no mistake of whoever
// started it.
func TestFirstFailureWithoutTheStorageIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, memory.NewDisk(), "a")
		<-n.began
		n.line.change(func(l *line) { l.cut = errors.New("connection refused") })
		reset := errors.New("connection reset")
		n.fail <- reset
		for err := range n.waits {
			if errors.Is(err, reset) {
				break
			}
		}
		n.line.change(func(l *line) { l.cut = nil })
		<-n.began
		n.end()
	})
}

// A standby whose first term fails lets others try, and tries again.
func TestLaterFailuresAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := join(t, disk, "a")
		<-a.began
		b := join(t, disk, "b")
		time.Sleep(TTL)
		broken := errors.New("broken")
		b.fail <- broken
		if err := a.HandOver(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		<-b.ended
		b.says(1, "this node can't take traffic; it tries again")
		a.within(askEvery, "the other")
		for err := range b.waits {
			if errors.Is(err, broken) {
				break
			}
		}
		a.end()
		<-b.began
		b.end()
	})
}

// Nothing is left behind by a hundred changes: the bubble would find it.
func TestManyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		from := join(t, disk, "a")
		<-from.began
		to := join(t, disk, "b")
		time.Sleep(TTL)
		for range 100 {
			if err := from.HandOver(t.Context(), to.node); err != nil {
				t.Fatal(err)
			}
			to.within(askEvery, "the other")
			from, to = to, from
		}
		from.end()
		to.end()
	})
}

func TestConsider(t *testing.T) {
	for name, c := range map[string]struct {
		view view
		l    plugin.Lease
		want Reason // empty: it can't have it
	}{
		"nobody had it":              {view{}, plugin.Lease{State: plugin.LeaseFree}, Start},
		"another has it":             {view{}, plugin.Lease{Node: "b", State: plugin.LeaseHeld, Fence: 3}, ""},
		"another had it":             {view{}, plugin.Lease{Node: "b", State: plugin.LeaseExpired, Fence: 3}, Expired},
		"another gave it up":         {view{}, plugin.Lease{Node: "b", State: plugin.LeaseReleased, Fence: 3}, Released},
		"reserved for it":            {view{}, plugin.Lease{Node: "b", State: plugin.LeaseReserved, Next: "a"}, Handover},
		"reserved for another":       {view{}, plugin.Lease{Node: "b", State: plugin.LeaseReserved, Next: "c"}, ""},
		"its own, as after a crash":  {view{}, plugin.Lease{Node: "a", State: plugin.LeaseHeld, Fence: 3}, Start},
		"its own, ran out":           {view{}, plugin.Lease{Node: "a", State: plugin.LeaseExpired, Fence: 3}, Start},
		"its own, still":             {view{looked: true, fence: 3}, plugin.Lease{Node: "a", State: plugin.LeaseHeld, Fence: 3}, Storage},
		"its own, nobody came":       {view{looked: true, fence: 3}, plugin.Lease{Node: "a", State: plugin.LeaseReleased, Fence: 3}, Released},
		"perhaps its own":            {view{looked: true, fence: 3, unsure: true}, plugin.Lease{Node: "a", State: plugin.LeaseHeld, Fence: 4}, Storage},
		"a namesake's":               {view{looked: true, fence: 3}, plugin.Lease{Node: "a", State: plugin.LeaseHeld, Fence: 4}, ""},
		"a namesake's, from waiting": {view{looked: true}, plugin.Lease{Node: "a", State: plugin.LeaseHeld, Fence: 4}, ""},
		"a namesake's, that ran out": {view{looked: true, fence: 3}, plugin.Lease{Node: "a", State: plugin.LeaseExpired, Fence: 4}, Storage},
	} {
		c.view.node = "a"
		got, err := c.view.consider(c.l)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, plugin.ErrHeld) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// BenchmarkHolds measures what is asked for each message.
func BenchmarkHolds(b *testing.B) {
	m := New(nil, "a", slog.New(slog.DiscardHandler), nil, Roles{})
	m.extend(time.Now().Add(time.Hour))
	for b.Loop() {
		if !m.Holds() {
			b.Fatal("it doesn't")
		}
	}
}

package ratelimit

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is a limiter on a storage.
type bench struct {
	*Limiter
	spool   *spool.Spool
	storage plugin.Storage
}

// open makes a limiter on a disk. It must be called in a synctest bubble.
func open(t *testing.T, disk *memory.Disk) *bench {
	t.Helper()
	storage := memory.Open(disk)
	fence, err := storage.Acquire(t.Context(), "node", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c := spool.NewCommitter(storage, fence, slog.New(slog.DiscardHandler))
	go c.Run(t.Context())
	s := spool.New(storage, c)
	b := &bench{New(s), s, storage}
	if err := b.Restore(t.Context(), began); err != nil {
		t.Fatal(err)
	}
	return b
}

// bubble runs a test on an empty disk.
func bubble(t *testing.T, f func(t *testing.T, b *bench, disk *memory.Disk)) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		f(t, open(t, disk), disk)
	})
}

func limit(key string, count int, per time.Duration) plugin.Limit {
	return plugin.Limit{Name: "per_" + key, Key: key, Count: count, Per: per}
}

// put writes windows as a message's Put does.
func (b *bench) put(windows []spool.Window) error {
	b.spool.MoveWindows(windows, nil, nil)
	return nil
}

func (b *bench) take(t *testing.T, at time.Duration, limits ...plugin.Limit) error {
	t.Helper()
	return b.Take(limits, began.Add(at), b.put)
}

func (b *bench) onDisk(t *testing.T) map[string]int {
	t.Helper()
	synctest.Wait()
	counts := map[string]int{}
	if err := b.spool.Windows(t.Context(), func(w spool.Window) { counts[w.Key] = w.Count }); err != nil {
		t.Fatal(err)
	}
	return counts
}

func wantRefusal(t *testing.T, err error, name string, rest time.Duration) {
	t.Helper()
	r, ok := errors.AsType[*Refusal](err)
	if !ok || r.Limit.Name != name || r.Rest != rest {
		t.Fatalf("got %v, want that %s is full for %s", err, name, rest)
	}
	f := message.AsFailure(err)
	if f.Reason != message.LimitReached || !f.Temporary || f.RetryAfter != rest {
		t.Errorf("the failure is %+v", f)
	}
}

// TestWindow begins with its first message and lasts as long as it says.
func TestWindow(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, _ *memory.Disk) {
		l := limit("a", 2, time.Minute)
		for _, at := range []time.Duration{0, 59 * time.Second} {
			if err := b.take(t, at, l); err != nil {
				t.Fatal(err)
			}
		}
		wantRefusal(t, b.take(t, 59*time.Second, l), "per_a", time.Second)
		if n := b.Count(l, began.Add(59*time.Second)); n != 2 {
			t.Errorf("counts %d", n)
		}
		if n := b.Count(l, began.Add(time.Minute)); n != 0 {
			t.Errorf("counts %d when it is over", n)
		}
		if r := b.Full([]plugin.Limit{l}, began.Add(time.Minute)); r != nil {
			t.Error(r)
		}
		if err := b.take(t, time.Minute, l); err != nil || b.Count(l, began.Add(119*time.Second)) != 1 {
			t.Error("the next one doesn't begin", err)
		}
		if rows := b.onDisk(t); len(rows) != 0 {
			t.Errorf("a window of a minute is on disk: %v", rows)
		}
	})
}

// TestAllOrNothing: what one limit refuses, no other counts.
func TestAllOrNothing(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, _ *memory.Disk) {
		long, short := limit("long", 1, time.Hour), limit("short", 5, time.Minute)
		counted := limit("counted", 0, time.Hour)
		if err := b.take(t, 0, short, long, counted); err != nil {
			t.Fatal(err)
		}
		full := limit("short", 1, time.Minute) // as another revision has it
		wantRefusal(t, b.take(t, time.Second, full, long, counted), "per_long", time.Hour-time.Second)
		for _, l := range []plugin.Limit{short, long, counted} {
			if n := b.Count(l, began.Add(time.Second)); n != 1 {
				t.Errorf("%s counts %d", l.Name, n)
			}
		}
		for range 100 {
			if err := b.take(t, 2*time.Second, counted); err != nil {
				t.Fatal("without a count it refuses", err)
			}
		}
	})
}

func TestNotAccepted(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, _ *memory.Disk) {
		l := limit("a", 2, time.Hour)
		gone := errors.New("the storage is gone")
		if err := b.Take([]plugin.Limit{l}, began, func([]spool.Window) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		if n := b.Count(l, began); n != 0 || len(b.onDisk(t)) != 0 {
			t.Errorf("counts %d", n)
		}
		b.take(t, 0, l)
		b.take(t, time.Second, l)
		b.GiveBack([]plugin.Limit{l}, began) // the second had been written after it
		if rows := b.onDisk(t); rows["a"] != 1 || b.Count(l, began.Add(time.Minute)) != 1 {
			t.Errorf("on disk: %v", rows)
		}
		b.take(t, time.Hour, l)
		b.GiveBack([]plugin.Limit{l}, began.Add(time.Second)) // of the window before
		if n := b.Count(l, began.Add(time.Hour)); n != 1 {
			t.Errorf("the next window counts %d", n)
		}
		// What was given back hasn't begun a window.
		b.GiveBack([]plugin.Limit{l}, began.Add(time.Hour))
		b.take(t, 90*time.Minute, l)
		if n := b.Count(l, began.Add(149*time.Minute)); n != 1 {
			t.Errorf("counts %d", n)
		}
	})
}

// TestWithoutAMessageOnDisk: the windows of what is never stored are.
func TestWithoutAMessageOnDisk(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, _ *memory.Disk) {
		if err := b.Take([]plugin.Limit{limit("a", 2, time.Hour)}, began, nil); err != nil {
			t.Fatal(err)
		}
		if rows := b.onDisk(t); rows["a"] != 1 {
			t.Errorf("on disk: %v", rows)
		}
	})
}

func TestSurvives(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, disk *memory.Disk) {
		long, short, over := limit("long", 2, time.Hour), limit("short", 2, time.Minute), limit("over", 2, 2*time.Minute)
		b.take(t, -10*time.Minute, over)
		b.take(t, -time.Minute, long, short)
		b.take(t, -time.Minute, long)
		b.onDisk(t)
		next := open(t, disk)
		wantRefusal(t, next.take(t, 0, long), "per_long", 59*time.Minute)
		if n := next.Count(short, began.Add(-time.Second)) + next.Count(over, began); n != 0 {
			t.Errorf("counts %d of what is over, or was in memory alone", n)
		}
		if err := next.Sweep(t.Context(), began.Add(slot)); err != nil {
			t.Fatal(err)
		}
		if rows := next.onDisk(t); len(rows) != 1 || next.Windows() != 1 {
			t.Errorf("on disk: %v", rows)
		}
	})
}

// TestClockIsSetBack: nobody is refused for longer than a window lasts.
func TestClockIsSetBack(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, disk *memory.Disk) {
		l := limit("a", 1, time.Hour)
		b.take(t, 1000*time.Hour, l)
		b.onDisk(t)
		wantRefusal(t, b.take(t, 0, l), "per_a", time.Hour)
		wantRefusal(t, open(t, disk).take(t, 0, l), "per_a", time.Hour)
	})
}

func TestSweep(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, _ *memory.Disk) {
		const n = 2*sweepPage + 7
		for i := range n {
			b.take(t, 0, limit(fmt.Sprint(i), 1, time.Hour), limit(fmt.Sprint("m", i), 1, time.Minute))
		}
		again := limit("0", 1, time.Hour)
		b.take(t, time.Hour, again) // begun anew, and filed where it was
		if err := b.Sweep(t.Context(), began.Add(time.Minute)); err != nil || b.Windows() != 2*n {
			t.Errorf("%d windows, %v", b.Windows(), err)
		}
		if err := b.Sweep(t.Context(), began.Add(time.Minute+slot)); err != nil || b.Windows() != n {
			t.Errorf("%d windows, %v", b.Windows(), err)
		}
		if err := b.Sweep(t.Context(), began.Add(time.Hour+slot)); err != nil || b.Windows() != 1 {
			t.Errorf("%d windows, %v", b.Windows(), err)
		}
		if rows := b.onDisk(t); len(rows) != 1 || b.Count(again, began.Add(time.Hour)) != 1 {
			t.Errorf("on disk: %d", len(rows))
		}
		if err := b.Sweep(t.Context(), began.Add(2*time.Hour+slot)); err != nil || b.Windows() != 0 || len(b.onDisk(t)) != 0 || len(b.ends) != 0 {
			t.Errorf("%d windows, %v", b.Windows(), err)
		}
	})
}

func TestWindowsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, _ *memory.Disk) {
		b.max = 10
		for i := range 10 {
			if err := b.take(t, 0, limit(fmt.Sprint(i), 5, time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		f := message.AsFailure(b.take(t, 0, limit("0", 5, time.Minute), limit("one too many", 5, time.Minute)))
		if f.Reason != message.LimitReached || !f.Temporary || b.Windows() != 10 {
			t.Errorf("%v; %d windows", f, b.Windows())
		}
		if n := b.Count(limit("0", 5, time.Minute), began); n != 1 {
			t.Errorf("counts %d", n)
		}
		if err := b.take(t, time.Second, limit("0", 5, time.Minute)); err != nil {
			t.Error("one that is there", err)
		}
		if err := b.take(t, time.Minute+2*slot, limit("new", 5, time.Minute)); err != nil {
			t.Error("when the others are over", err)
		}
	})
}

// TestRowsNeverGoBack: whoever writes, in whatever order, the last row on disk is
// what is counted.
func TestRowsNeverGoBack(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, disk *memory.Disk) {
		l := limit("a", 0, time.Hour)
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(worker)))
				for range 200 {
					if b.take(t, 0, l) == nil && random.IntN(4) == 0 {
						b.GiveBack([]plugin.Limit{l}, began)
					}
				}
			})
		}
		all.Wait()
		want := b.Count(l, began)
		if rows := b.onDisk(t); rows["a"] != want {
			t.Errorf("on disk %d, in memory %d", rows["a"], want)
		}
		if n := open(t, disk).Count(l, began); n != want {
			t.Errorf("after a restart %d, want %d", n, want)
		}
	})
}

// TestAgainstModel compares with lists of times.
func TestAgainstModel(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench, _ *memory.Disk) {
		type model struct {
			began time.Duration
			count int
		}
		random := rand.New(rand.NewPCG(1, 2))
		keys := map[string]*model{}
		now := time.Duration(0)
		for range 20_000 {
			now += time.Duration(random.IntN(4000)) * time.Millisecond
			key := fmt.Sprint(random.IntN(20))
			l := limit(key, 5, 2*time.Minute)
			m := keys[key]
			if m == nil || now-m.began >= l.Per {
				m = &model{began: now}
				keys[key] = m
			}
			if random.IntN(50) == 0 {
				if err := b.Sweep(t.Context(), began.Add(now)); err != nil {
					t.Fatal(err)
				}
			}
			err := b.take(t, now, l)
			if refused := m.count == 5; refused != (err != nil) {
				t.Fatalf("%s at %s: %v; counted %d since %s", key, now, err, m.count, m.began)
			}
			m.count = min(m.count+1, 5)
		}
	})
}

func BenchmarkTake(b *testing.B) {
	l := New(spool.New(nil, nil))
	limits := []plugin.Limit{limit("sms/per_sender/1001@example.com", 0, time.Minute)}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Take(limits, began, func([]spool.Window) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

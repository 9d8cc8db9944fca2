package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// fakeStorage keeps rows in a map and fails when it is told to.
type fakeStorage struct {
	plugin.Storage // for what these tests don't call

	mu      sync.Mutex
	rows    map[string]string
	batches [][]string // the keys of each Apply that worked
	fail    error
	late    bool // a failing Apply has worked all the same
}

// offer is Put that tells of a refusal at once as of one later.
func offer(c *Committer, changes []plugin.Change, done func(error)) {
	if err := c.Put(changes, len(changes), done); err != nil {
		done(err)
	}
}

func newFakeStorage() *fakeStorage { return &fakeStorage{rows: map[string]string{}} }

func (s *fakeStorage) Apply(_ context.Context, _ plugin.Fence, changes []plugin.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && !s.late {
		return s.fail
	}
	var keys []string
	for _, c := range changes {
		keys = append(keys, string(c.Key))
		if c.Value == nil {
			delete(s.rows, string(c.Key))
		} else {
			s.rows[string(c.Key)] = string(c.Value)
		}
	}
	if s.fail != nil {
		return s.fail
	}
	s.batches = append(s.batches, keys)
	return nil
}

func (s *fakeStorage) set(fail error, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.late = fail, late
}

func (s *fakeStorage) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.rows[key]
	return ok
}

func change(key string) []plugin.Change {
	return []plugin.Change{{Table: "t", Key: []byte(key), Value: []byte("v")}}
}

// result notes what a writer was told.
func result(into *error, told *int) func(error) {
	return func(err error) { *into, *told = err, *told+1 }
}

func run(t *testing.T, s *fakeStorage) (*Committer, context.CancelFunc, chan error) {
	c := NewCommitter(s, 1, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, stop, done
}

func TestCommitterKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStorage()
		c := NewCommitter(s, 1, slog.New(slog.DiscardHandler))
		var want, got []string
		for i := range 100 {
			key := strconv.Itoa(i)
			want = append(want, key)
			c.Move(change(key), nil)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for _, batch := range s.batches {
			got = append(got, batch...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("wrote %v", got)
		}
		if len(s.batches) != 1 {
			t.Errorf("%d batches for what was there at once", len(s.batches))
		}
	})
}

// TestCommitterRefusesWhatWasNotApplied: at once, and repeats the Moves.
func TestCommitterRefusesWhatWasNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStorage()
		s.set(fmt.Errorf("disk full: %w", plugin.ErrNotApplied), false)
		c, stop, done := run(t, s)
		var put, move told
		offer(c, change("put"), put.tell)
		c.Move(change("move"), move.tell)
		synctest.Wait()
		put.want(t, message.StorageDown, false)
		move.wantNothing(t)
		if !c.Failing() {
			t.Error("the storage isn't said to fail")
		}
		s.set(nil, false)
		time.Sleep(2 * maxBackoff) // the clock of the bubble
		synctest.Wait()
		move.wantDone(t)
		if c.Failing() || s.has("put") || !s.has("move") {
			t.Errorf("failing %t, the refused put is on disk %t, the move %t", c.Failing(), s.has("put"), s.has("move"))
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestCommitterKnowsBeforeItTells: a Put that may be on disk is answered when it
// is known to be, or has been taken back.
func TestCommitterKnowsBeforeItTells(t *testing.T) {
	for name, c := range map[string]struct {
		late    bool // the Apply that fails is on disk
		outage  time.Duration
		refused bool
	}{
		"nothing written, short": {false, takeBackAfter / 2, false},
		"written, short":         {true, takeBackAfter / 2, false},
		"nothing written, long":  {false, 4 * takeBackAfter, true},
		"written, long":          {true, 4 * takeBackAfter, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeStorage()
				s.set(errors.New("connection lost"), c.late)
				committer, stop, done := run(t, s)
				defer func() { stop(); <-done }()
				var put, move, later told
				offer(committer, change("put"), put.tell)
				committer.Move(change("move"), move.tell)
				synctest.Wait()
				offer(committer, change("later"), later.tell)
				later.want(t, message.StorageDown, false)
				time.Sleep(c.outage)
				synctest.Wait()
				put.wantNothing(t)
				s.set(nil, false)
				time.Sleep(2 * maxBackoff)
				synctest.Wait()
				move.wantDone(t)
				if s.has("put") == c.refused {
					t.Errorf("the put is on disk: %t", s.has("put"))
				}
				if c.refused {
					put.want(t, message.StorageDown, false)
				} else {
					put.wantDone(t)
				}
			})
		})
	}
}

// TestCommitterDoesNotKnow: a Put that may be on disk when the lease is lost, or
// the node stops, is neither accepted nor refused.
func TestCommitterDoesNotKnow(t *testing.T) {
	for name, outage := range map[string]time.Duration{"not yet taken back": time.Second, "being taken back": 2 * takeBackAfter} {
		for how, fenced := range map[string]bool{"fenced": true, "stopped": false} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newFakeStorage()
					s.set(errors.New("connection lost"), true)
					committer, stop, done := run(t, s)
					defer stop()
					var put, move told
					offer(committer, change("put"), put.tell)
					committer.Move(change("move"), move.tell)
					time.Sleep(outage)
					if fenced {
						s.set(plugin.ErrFenced, false)
					} else {
						stop()
					}
					<-done
					put.want(t, message.StorageDown, true)
					move.want(t, message.Standby, false)
				})
			})
		}
	}
}

// told is what a writer was told.
type told struct {
	times int
	err   error
}

func (o *told) tell(err error) { o.times, o.err = o.times+1, err }

func (o *told) want(t *testing.T, reason message.Reason, unknown bool) {
	t.Helper()
	if o.times != 1 || o.err == nil {
		t.Fatalf("told %d times: %v", o.times, o.err)
	}
	if f := message.AsFailure(o.err); f.Reason != reason || !f.Temporary || errors.Is(f, plugin.ErrUnknown) != unknown {
		t.Errorf("told %v, want %s, unknown: %t", o.err, reason, unknown)
	}
}

func (o *told) wantDone(t *testing.T) {
	t.Helper()
	if o.times != 1 || o.err != nil {
		t.Errorf("told %d times: %v; want that it is on disk", o.times, o.err)
	}
}

func (o *told) wantNothing(t *testing.T) {
	t.Helper()
	if o.times != 0 {
		t.Errorf("told %d times: %v; want nothing yet", o.times, o.err)
	}
}

// hungStorage takes a write and answers when its caller gives up.
type hungStorage struct {
	*fakeStorage
	begun chan struct{}
}

func (s hungStorage) Apply(ctx context.Context, _ plugin.Fence, _ []plugin.Change) error {
	close(s.begun)
	<-ctx.Done()
	return ctx.Err()
}

// TestCommitterIsAbandoned: a storage that hangs keeps it for no time, and all
// writers are told.
func TestCommitterIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hungStorage{newFakeStorage(), make(chan struct{})}
		c := NewCommitter(s, 1, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- c.Run(t.Context()) }()
		var put, move, queued told
		offer(c, change("put"), put.tell)
		c.Move(change("move"), move.tell)
		<-s.begun
		c.Move(change("queued"), queued.tell)
		began := time.Now()
		c.Abandon()
		if err := <-done; err != nil || time.Since(began) > 0 {
			t.Errorf("it ended after %v: %v", time.Since(began), err)
		}
		put.want(t, message.StorageDown, true)
		move.want(t, message.Standby, false)
		queued.want(t, message.Standby, false)
	})
}

func TestCommitterEndsWhenFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStorage()
		s.set(plugin.ErrFenced, false)
		c, stop, done := run(t, s)
		defer stop()
		var put, move, after error
		var told int
		offer(c, change("put"), result(&put, &told))
		c.Move(change("move"), result(&move, &told))
		if err := <-done; !errors.Is(err, plugin.ErrFenced) {
			t.Errorf("ends with %v", err)
		}
		offer(c, change("after"), result(&after, &told))
		for _, err := range []error{put, move, after} {
			if f := message.AsFailure(err); err == nil || !f.Reason.OfNode() {
				t.Errorf("a writer was told %v", err)
			}
		}
		if told != 3 || len(s.rows) != 0 {
			t.Errorf("told %d of 3, %d rows written", told, len(s.rows))
		}
	})
}

// TestCommitterTellsAllWhenFenced: also those whose writes don't fit into the
// batch that is refused.
func TestCommitterTellsAllWhenFenced(t *testing.T) {
	s := newFakeStorage()
	s.set(plugin.ErrFenced, false)
	c := NewCommitter(s, 1, slog.New(slog.DiscardHandler))
	told := 0
	const writes = 4
	for range writes {
		big := []plugin.Change{{Table: "t", Key: []byte("k"), Value: make([]byte, maxBatchBytes/2+1)}}
		c.Move(big, func(err error) {
			told++
			if f := message.AsFailure(err); err == nil || !f.Reason.OfNode() {
				t.Errorf("a writer was told %v", err)
			}
		})
	}
	if err := c.Run(t.Context()); !errors.Is(err, plugin.ErrFenced) {
		t.Errorf("ends with %v", err)
	}
	if told != writes {
		t.Errorf("told %d of %d", told, writes)
	}
}

func TestCommitterBoundsItsQueue(t *testing.T) {
	c := NewCommitter(newFakeStorage(), 1, slog.New(slog.DiscardHandler)) // nobody runs it
	big := []plugin.Change{{Table: "t", Key: []byte("k"), Value: make([]byte, 1<<20)}}
	var refused error
	for range 2 * maxQueuedBytes >> 20 {
		offer(c, big, func(err error) { refused = err })
	}
	if f := message.AsFailure(refused); refused == nil || f.Reason != message.Overloaded {
		t.Errorf("a full queue answers %v", refused)
	}
	if c.bytes > maxQueuedBytes {
		t.Errorf("%d octets are queued", c.bytes)
	}
}

// tableStorage reads what a fakeStorage was given, which has one table.
type tableStorage struct{ *fakeStorage }

func (s *tableStorage) Scan(_ context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []plugin.Change
	for _, key := range slices.Sorted(maps.Keys(s.rows)) {
		if key >= string(from) && (to == nil || key < string(to)) && len(found) < n {
			found = append(found, plugin.Change{Table: table, Key: []byte(key), Value: []byte(s.rows[key])})
		}
	}
	return found, nil
}

package spool

import (
	"context"
	"errors"
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

func TestCommitterRefusesPutsAndRepeatsMoves(t *testing.T) {
	for name, late := range map[string]bool{"nothing written": false, "written all the same": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeStorage()
				s.set(errors.New("disk full"), late)
				c, stop, done := run(t, s)
				var put, move error
				var putTold, moveTold int
				c.Put(change("put"), result(&put, &putTold))
				c.Move(change("move"), result(&move, &moveTold))
				synctest.Wait()
				if f := message.AsFailure(put); putTold != 1 || f.Reason != message.StorageDown || !f.Temporary {
					t.Errorf("the put was told %d times: %v", putTold, put)
				}
				if moveTold != 0 || !c.Failing() {
					t.Errorf("the move was told %d times, failing: %t", moveTold, c.Failing())
				}
				s.set(nil, false)
				time.Sleep(2 * maxBackoff) // the clock of the bubble
				synctest.Wait()
				if moveTold != 1 || move != nil || c.Failing() {
					t.Errorf("after recovery the move was told %d times: %v", moveTold, move)
				}
				if _, ok := s.rows["put"]; ok {
					t.Error("a refused put is on disk")
				}
				if _, ok := s.rows["move"]; !ok {
					t.Error("a move is lost")
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestCommitterEndsWhenFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStorage()
		s.set(plugin.ErrFenced, false)
		c, stop, done := run(t, s)
		defer stop()
		var put, move, after error
		var told int
		c.Put(change("put"), result(&put, &told))
		c.Move(change("move"), result(&move, &told))
		if err := <-done; !errors.Is(err, plugin.ErrFenced) {
			t.Errorf("ends with %v", err)
		}
		c.Put(change("after"), result(&after, &told))
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
		c.Put(big, func(err error) { refused = err })
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

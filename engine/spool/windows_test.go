package spool

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

func TestWindowSurvives(t *testing.T) {
	want := Window{Digest: DigestKey("k"), Key: "k", Began: time.UnixMicro(7).UTC(), Per: 2 * time.Minute, Count: 3}
	row := want.row()
	if got, err := decodeWindow(row.Key, row.Value); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range row.Value {
		if _, err := decodeWindow(row.Key, row.Value[:n]); err == nil {
			t.Fatalf("a row cut after %d of %d octets is taken", n, len(row.Value))
		}
	}
	if _, err := decodeWindow(row.Key[1:], row.Value); err == nil {
		t.Error("a key that was cut is taken")
	}
}

func TestWindowsAreMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := memory.Open(memory.NewDisk())
		fence, err := storage.Acquire(t.Context(), "node", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		c := NewCommitter(storage, fence, slog.New(slog.DiscardHandler))
		go c.Run(t.Context())
		s := New(storage, c)
		a, b := Window{Digest: DigestKey("a"), Key: "a", Count: 1}, Window{Digest: DigestKey("b"), Key: "b", Count: 2}
		s.MoveWindows([]Window{a, b}, nil, nil)
		s.MoveWindows(nil, []Digest{a.Digest}, nil)
		synctest.Wait()
		var got []Window
		if err := s.Windows(t.Context(), func(w Window) { got = append(got, w) }); err != nil || len(got) != 1 || got[0].Key != "b" || got[0].Count != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestTakenBackIsWhatWasNew: a Put that may have been written leaves no row that
// it created; others that it wrote stay, for they were there before.
func TestTakenBackIsWhatWasNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStorage()
		s.set(errors.New("no answer"), true)
		c, stop, _ := run(t, s)
		defer stop()
		var refused error
		changes := append(change("new"), change("count")...)
		if err := c.Put(changes, 1, func(err error) { refused = err }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(takeBackAfter + time.Second)
		s.set(nil, false)
		time.Sleep(2 * maxBackoff)
		synctest.Wait()
		if f := message.AsFailure(refused); refused == nil || f.Reason != message.StorageDown || errors.Is(refused, plugin.ErrUnknown) {
			t.Errorf("told %v", refused)
		}
		if _, stays := s.rows["new"]; stays || s.rows["count"] == "" {
			t.Errorf("the rows are %v", s.rows)
		}
	})
}

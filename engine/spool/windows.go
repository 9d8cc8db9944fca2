package spool

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Window is what a rate limit has counted for one key.
type Window struct {
	Digest Digest // of the key
	Key    string // for people; what was read back for memory needn't keep it
	Began  time.Time
	Per    time.Duration // how long it lasts
	Count  int           // messages
}

// Ends is when the window is over.
func (w *Window) Ends() time.Time { return w.Began.Add(w.Per) }

// windowFormat is the version of the rows in table windows.
const windowFormat = 1

func (w *Window) row() plugin.Change {
	v := writer{b: make([]byte, 0, len(w.Digest)+len(w.Key)+24)}
	v.b = append(v.b, w.Digest[:]...)
	v.uint(windowFormat)
	v.string(w.Key)
	v.time(w.Began)
	v.duration(w.Per)
	v.uint(uint64(w.Count))
	key := v.b[:len(w.Digest):len(w.Digest)]
	return plugin.Change{Table: tableWindows, Key: key, Value: v.b[len(key):]}
}

func decodeWindow(key, value []byte) (Window, error) {
	if len(key) != len(Digest{}) {
		return Window{}, errCorrupt
	}
	r := &reader{b: value}
	r.version(windowFormat, windowFormat)
	w := Window{Digest: Digest(key), Key: r.string(), Began: r.time(), Per: r.duration(), Count: int(r.uint())}
	return w, r.done()
}

// Windows calls f with each window that is on disk.
func (s *Spool) Windows(ctx context.Context, f func(Window)) error {
	return scan(ctx, s.storage, tableWindows, nil, func(key, value []byte) error {
		w, err := decodeWindow(key, value)
		if err == nil {
			f(w)
		}
		return err
	})
}

// MoveWindows writes windows, and deletes others. done may be nil.
func (s *Spool) MoveWindows(write []Window, deleted []Digest, done func(error)) {
	changes := make([]plugin.Change, 0, len(write)+len(deleted))
	for i := range write {
		changes = append(changes, write[i].row())
	}
	for i := range deleted {
		changes = append(changes, plugin.Change{Table: tableWindows, Key: deleted[i][:]})
	}
	s.committer.Move(changes, done)
}

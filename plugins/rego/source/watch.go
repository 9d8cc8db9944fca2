package source

import (
	"context"
	"sync"
	"time"
)

// The watch looks at the files twice a second: what changes becomes visible as
// a change of names, sizes, times or inodes whichever way it is made.
const (
	watchEvery = 500 * time.Millisecond
	// quiet is for how long nothing may have changed before a change counts as
	// complete.
	quiet = time.Second
	// unquiet is after how long it is read all the same.
	unquiet = time.Minute
)

// Watcher notices changes of what a configuration names.
type Watcher struct {
	look func() look // nil: what is built in, which never changes

	mu   sync.Mutex
	seen look // when the last reading began
	read bool // whether there was one
}

// NewWatcher returns one that has seen nothing yet.
func NewWatcher(config Config) *Watcher { return &Watcher{look: watched(config)} }

// watched returns how to look at what a configuration names.
func watched(config Config) func() look {
	switch {
	case config.Bundle.File != "":
		return config.Bundle.look
	case config.Dir != "":
		return DirectoryRoom(config.Dir).Look
	}
	return nil
}

// Begin is called before the source is read: what changes from then on counts.
func (w *Watcher) Begin() {
	if w.look == nil {
		return
	}
	seen := w.look()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.read = seen, true
}

// Wait returns nil when the source has changed since the last reading began, and
// seems to be complete.
func (w *Watcher) Wait(ctx context.Context) error {
	if w.look == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	last, calm, restless := w.look(), time.Duration(0), time.Duration(0)
	for {
		if err := sleep(ctx, watchEvery); err != nil {
			return err
		}
		now := w.look()
		if w.known(now) {
			calm, restless = 0, 0
			last = now
			continue
		}
		restless += watchEvery
		calm += watchEvery
		if !now.equal(last) {
			calm, last = 0, now
		}
		if calm >= quiet || restless >= unquiet {
			return nil
		}
	}
}

// known tells whether a look shows what the last Read began with. Before there
// was one, the first look counts.
func (w *Watcher) known(now look) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.read {
		w.seen, w.read = now, true
	}
	return now.equal(w.seen)
}

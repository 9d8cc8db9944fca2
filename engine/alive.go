package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// applyStuck is how long one call of Storage.Apply may take before the node
// counts as stuck: three times its deadline.
const applyStuck = 30 * time.Second

// termStuck is how long a term may take to end: several times what its drain and
// the last write may.
const termStuck = time.Minute

var errSilent = fmt.Errorf("the pipeline doesn't answer for %v", answerWait)

// watchedStorage notes since when it has been writing. It has one writer.
type watchedStorage struct {
	plugin.Storage
	since atomic.Int64 // nanoseconds since 1970; 0: it doesn't write just now
}

// Apply is plugin.Storage.
func (s *watchedStorage) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	s.since.Store(time.Now().UnixNano())
	defer s.since.Store(0)
	return s.Storage.Apply(ctx, f, changes)
}

// writing is how long the call that is under way has taken.
func (s *watchedStorage) writing(now time.Time) time.Duration {
	since := s.since.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// answerWait is how long the pipeline may take to tell how it is: far longer
// than any lock of it is held.
const answerWait = 5 * time.Second

// Alive tells whether the node does its work: nil, or what is stuck. It is for
// a watchdog that restarts the process: it is cheap, and it returns within 5 s
// even if the pipeline never does. It is called between the calls of Run's
// started and Run's return.
func (e *Engine) Alive() error {
	if stuck := e.storage.writing(time.Now()); stuck > applyStuck {
		return fmt.Errorf("the storage has been writing for %v", stuck.Round(time.Second))
	}
	if since := e.ending.Load(); since != nil && time.Since(*since) > termStuck {
		return fmt.Errorf("this node is no longer the active one, and its work hasn't ended for %v", time.Since(*since).Round(time.Second))
	}
	if t := e.term.Load(); t != nil {
		return e.pulse.feel(func() { t.pipeline.Snapshot() })
	}
	return nil
}

// pulse looks whether something comes back that may not. Of looks that don't,
// one is left behind at most.
type pulse chan struct{}

func newPulse() pulse { return make(pulse, 1) }

func (p pulse) feel(look func()) error {
	silent := time.NewTimer(answerWait)
	defer silent.Stop()
	select {
	case p <- struct{}{}:
	case <-silent.C:
		return errSilent
	}
	answered := make(chan struct{})
	go func() {
		look()
		close(answered)
		<-p
	}()
	select {
	case <-answered:
		return nil
	case <-silent.C:
		return errSilent
	}
}

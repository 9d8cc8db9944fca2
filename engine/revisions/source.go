package revisions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	compileWait = time.Minute // for reading and compiling
	// lookPause is between two looks at a source that says all the time that it
	// has changed.
	lookPause = 200 * time.Millisecond
	// A source that can't be watched is read instead, less and less often.
	minWatchPause = time.Second
	maxWatchPause = time.Minute
)

// Source is a place where policies come from, as the book works with it: one
// call at a time of what allows no more. Make one with NewSource, and Close it,
// whether the book has taken it or not.
type Source struct {
	source plugin.PolicySource
	words  string
	log    *slog.Logger
	turn   chan struct{} // held while it is read or compiles
	reads  uint64        // how often it was read; guarded by turn
	closed bool          // guarded by turn

	unwatch context.CancelFunc // nil: it isn't watched
	watched chan struct{}      // closed when it isn't any more
}

// NewSource returns a source. words are what the operator calls it: "dir ./policies".
func NewSource(s plugin.PolicySource, words string, log *slog.Logger) *Source {
	return &Source{source: s, words: words, log: log, turn: make(chan struct{}, 1)}
}

// Close lets go, when nobody works with the source any more.
func (s *Source) Close() error {
	if s.unwatch != nil {
		s.unwatch()
		<-s.watched
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.closed = true
	return s.source.Close()
}

// edition is a revision that can decide.
type edition struct {
	plugin.Policy
	bundle plugin.Bundle
	report plugin.PolicyReport
	by     *Source // that compiled it
}

// is tells whether it is that revision.
func (e *edition) is(revision string) bool { return e != nil && e.bundle.Revision == revision }

// revision is empty if there is none.
func (e *edition) revision() string {
	if e == nil {
		return ""
	}
	return e.bundle.Revision
}

// Found is a good revision that a source holds.
type Found struct {
	edition *edition
	read    uint64 // which reading of the source
}

var errClosed = errors.New("this source of policies was exchanged for another")

// take waits until nobody works with the source.
func (s *Source) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed {
		<-s.turn
		return errClosed
	}
	return nil
}

// find reads the source and compiles what it holds, unless that is known. With an
// error comes which reading it was of, if the source was read.
func (s *Source) find(ctx context.Context, known *edition) (*Found, error) {
	ctx, cancel := context.WithTimeout(ctx, compileWait)
	defer cancel()
	if err := s.take(ctx); err != nil {
		return &Found{}, err
	}
	defer func() { <-s.turn }()
	s.reads++
	f := &Found{read: s.reads}
	bundle, err := s.source.Read(ctx)
	if err == nil {
		err = checkBundle(bundle)
	}
	if err != nil {
		return f, err
	}
	if known.is(bundle.Revision) && known.by == s {
		f.edition = known
		return f, nil
	}
	f.edition, err = s.compileNow(ctx, bundle)
	return f, err
}

// compile makes a policy of a bundle that another source may have read.
func (s *Source) compile(ctx context.Context, b plugin.Bundle) (*edition, error) {
	ctx, cancel := context.WithTimeout(ctx, compileWait)
	defer cancel()
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	return s.compileNow(ctx, b)
}

// compileNow is for who has the turn. What a compiler stumbles over is no reason
// for the whole node to fall.
func (s *Source) compileNow(ctx context.Context, b plugin.Bundle) (e *edition, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("compiling policies panics", "revision", b.Revision, "panic", p, "stack", string(debug.Stack()))
			e, err = nil, fmt.Errorf("revision %s: compiling it panics: %v", b.Revision, p)
		}
	}()
	policy, report, err := s.source.Compile(ctx, b)
	if err != nil {
		return nil, err
	}
	return &edition{Policy: policy, bundle: b, report: report, by: s}, nil
}

// watch looks at a source whenever it has changed, until ctx ends.
func (b *Book) watch(ctx context.Context, s *Source) {
	defer close(s.watched)
	pause := minWatchPause
	for {
		steady := time.AfterFunc(2*pause, func() { b.note(s, watching, nil) })
		err := s.source.Watch(ctx)
		steady.Stop()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			b.note(s, watching, nil)
			pause = minWatchPause
			err = sleep(ctx, lookPause)
		} else {
			b.note(s, watching, fmt.Errorf("changes aren't noticed at once: %w", err))
			err = sleep(ctx, pause)
			pause = min(2*pause, maxWatchPause)
		}
		if err != nil {
			return
		}
		b.look(ctx, s)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

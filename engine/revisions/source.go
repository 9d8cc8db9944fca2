package revisions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	// workWait is for reading, compiling and trying; sources that bound their tests
	// allow them less.
	workWait = 90 * time.Second
	// lastWait is for what doesn't end with its context to do so all the same.
	lastWait  = time.Second
	closeWait = 3 * time.Second
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
	turn   chan struct{}             // held while it is read or compiles
	reads  uint64                    // how often it was read; guarded by turn
	closed bool                      // guarded by turn
	trying atomic.Pointer[time.Time] // since when something new is compiled and tried; nil: nothing is

	unwatch context.CancelFunc // nil: it isn't watched
	watched chan struct{}      // closed when it isn't any more
}

// NewSource returns a source. words are what the operator calls it: "dir ./policies".
func NewSource(s plugin.PolicySource, words string, log *slog.Logger) *Source {
	return &Source{source: s, words: words, log: log, turn: make(chan struct{}, 1)}
}

// Close lets go, when nobody works with the source any more. An error is also
// that somebody does who doesn't end: then it stays open.
func (s *Source) Close() error {
	enough := time.After(closeWait)
	if s.unwatch != nil {
		s.unwatch()
		select {
		case <-s.watched:
		case <-enough:
			return errHangs
		}
	}
	select {
	case s.turn <- struct{}{}:
	case <-enough:
		return errHangs
	}
	defer func() { <-s.turn }()
	s.closed = true
	return s.source.Close()
}

// edition is a revision that can decide.
type edition struct {
	plugin.Policy
	bundle plugin.Bundle
	report plugin.PolicyReport
	by     *Source   // that compiled it
	found  time.Time // when that was
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

var (
	errClosed = errors.New("this source of policies was exchanged for another")
	errHangs  = errors.New("the policies are being read or tried, and that doesn't end")
	errSlow   = fmt.Errorf("reading and trying the policies isn't done within %v", workWait)
	errBusy   = fmt.Errorf("the policies are being read and tried already, for more than %v", workWait)
)

// take waits until nobody works with the source.
func (s *Source) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, workWait, errBusy)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
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
	if err := s.take(ctx); err != nil {
		return &Found{}, err
	}
	s.reads++
	f := &Found{read: s.reads}
	e, err := s.work(ctx, func(ctx context.Context) (*edition, error) { return s.examine(ctx, known) })
	f.edition = e
	return f, err
}

func (s *Source) examine(ctx context.Context, known *edition) (*edition, error) {
	bundle, err := s.source.Read(ctx)
	if err == nil {
		err = checkBundle(bundle)
	}
	if err != nil {
		return nil, err
	}
	if known.is(bundle.Revision) && known.by == s {
		return known, nil
	}
	now := time.Now().UTC()
	s.trying.Store(&now)
	defer s.trying.Store(nil)
	return s.compileNow(ctx, bundle)
}

// compile makes a policy of a bundle that another source may have read.
func (s *Source) compile(ctx context.Context, b plugin.Bundle) (*edition, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	return s.work(ctx, func(ctx context.Context) (*edition, error) { return s.compileNow(ctx, b) })
}

// work does something for who has the turn, which ends with it. What doesn't end
// in time, such as the reading of a file system that hangs, is left behind and
// keeps the turn: whoever waits for it is told so, and the node can stop.
func (s *Source) work(ctx context.Context, do func(context.Context) (*edition, error)) (*edition, error) {
	var e *edition
	var err error
	ctx, cancel := context.WithTimeoutCause(ctx, workWait, errSlow)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		e, err = do(ctx)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		<-s.turn
	}()
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastWait, func() { close(late) }) })
	defer stop()
	select {
	case <-ended:
		return e, err
	case <-late:
		return nil, context.Cause(ctx)
	}
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
	return &edition{Policy: policy, bundle: b, report: report, by: s, found: time.Now().UTC()}, nil
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

package revisions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// writeWait is how long the storage may take to keep a revision.
const writeWait = 30 * time.Second

// Config is what a book needs of its node.
type Config struct {
	Node    string
	Log     *slog.Logger
	Metrics *plugin.Metrics
	// Stored is the storage, for reading: its Commit isn't called.
	Stored plugin.Tables
	// Peers tells what the source of each node that is there holds, by the node's
	// name, in a map that is the caller's. It must not block.
	Peers func() map[string]Held
}

// Held is the newest good revision that a source held.
type Held struct {
	Revision string // empty: none yet
	Broken   bool   // what the source holds now can't be used
}

// Book is the policies that decide, and how they come to. Make one with New,
// then Start it. It is a plugin.Policy while this node is the active one. Its
// methods may be called from any goroutine; those that change something wait
// for each other.
type Book struct {
	c       Config
	decides atomic.Pointer[edition]
	meter   *meter

	changing  chan struct{} // held by whoever changes what is in force, or could be
	following sync.WaitGroup

	mu    sync.Mutex // held for moments
	state state      // guarded by mu; but for troubles only whoever holds changing writes it
}

// state is what a book knows. Nothing that it points to is ever changed.
type state struct {
	source  *Source
	read    uint64   // of the readings of the source the newest that counts
	own     *edition // the newest good revision that the source held; nil: none
	ahead   *edition // the active one, which another node put in force; nil: not compiled
	record  *record  // of the storage, as far as it is known
	sure    bool     // the record is what is stored, but for other nodes
	pending *edition // to be put in force as soon as it can be stored; nil: none is
	insists string   // the revision that an operator wants at the next beginning
	ruling  ruling
	lead    *lead // nil: this node isn't the active one

	failed   string // the active revision that couldn't be compiled
	failedAt time.Time
	troubles [kinds]trouble
}

// New returns a book without a source.
func New(c Config) *Book {
	b := &Book{c: c, changing: make(chan struct{}, 1)}
	b.state.record = &record{}
	b.meter = newMeter(c.Metrics, b)
	return b
}

// Decide is plugin.Policy. A decision that has begun ends with the revision that
// it began with.
func (b *Book) Decide(ctx context.Context, q plugin.Question, more plugin.Supply) (plugin.Plan, error) {
	return b.decides.Load().Decide(ctx, q, more)
}

// Start reads the source for the first time. A source that can't be used is an
// error, which tells all its mistakes, unless a stored revision can stand in.
func (b *Book) Start(ctx context.Context, s *Source) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.unlock()
	b.set(func(st *state) { st.source = s })
	f, err := s.find(ctx, nil)
	if err == nil {
		b.set(func(st *state) { st.own, st.read = f.edition, f.read })
		return nil
	}
	r, problem := shelf{b.c.Stored}.read(ctx)
	if problem != nil {
		return errors.Join(err, problem)
	}
	now := situation{now: time.Now(), broken: true, active: r.active.Revision, confirmed: r.active.Confirmed, maxAge: s.source.MaxAge()}
	switch {
	case now.active == "":
		return err
	case now.rule() == neither:
		return errors.Join(err, now.tooOld())
	}
	e, problem := b.stored(ctx, r)
	if problem != nil {
		return errors.Join(err, fmt.Errorf("and revision %s, which is stored, can't stand in: %w", now.active, problem))
	}
	b.set(func(st *state) { st.ahead, st.record = e, r })
	b.note(s, holding, err)
	return nil
}

// Watch begins to watch the source, until ctx ends or the source is closed. It
// is called after Start, and after each Adopt.
func (b *Book) Watch(ctx context.Context) {
	s := b.get().source
	if s.unwatch != nil {
		return
	}
	ctx, s.unwatch = context.WithCancel(ctx)
	s.watched = make(chan struct{})
	go b.watch(ctx, s)
}

// Wait returns when what Follow began has ended, as it was told to.
func (b *Book) Wait() { b.following.Wait() }

// look takes what the source holds now, if that is good.
func (b *Book) look(ctx context.Context, s *Source) {
	f, err := s.find(ctx, b.get().own)
	if ctx.Err() != nil {
		return
	}
	if b.lock(ctx) != nil {
		return
	}
	defer b.unlock()
	before := b.get()
	switch {
	case s != before.source || f.read < before.read: // overtaken
	case err != nil:
		b.meter.refused.Inc()
		b.note(s, holding, err)
	default:
		b.offer(before, f)
	}
}

// offer takes a revision that was found. The caller holds changing.
func (b *Book) offer(before state, f *Found) {
	b.set(func(st *state) { st.own, st.read = f.edition, f.read })
	b.note(f.edition.by, holding, nil)
	verdict := b.reconsider(before, f.edition)
	known := before.own.is(f.edition.revision()) && verdict != edited || before.lead != nil && verdict == agreed
	if known || before.lead == nil {
		b.meter.of(known).Inc()
	}
	if before.lead == nil {
		if !known {
			b.c.Log.Info("policies are ready, for when this node is the active one", "revision", f.edition.revision())
		}
		return
	}
	if verdict != edited {
		b.set(func(st *state) {
			st.ruling = verdict
			if verdict == agreed && st.pending != nil {
				st.pending = f.edition // what was to take its place may be in storage
			}
		})
		return
	}
	if b.putInForce(before.lead, f.edition) == nil {
		b.meter.taken.Inc()
	}
}

// reconsider is what a revision that the source holds now means for the active
// node. The first good one since the process began, and one that is good again,
// may be as old as one that is there when a node becomes active.
func (b *Book) reconsider(before state, e *edition) ruling {
	switch {
	case before.lead == nil:
		return neither
	case b.decides.Load().is(e.revision()):
		return agreed
	case before.pending.is(e.revision()):
		return before.ruling
	case before.own != nil && !before.own.is(e.revision()):
		return edited
	}
	return b.situation(b.get(), before.record, time.Now()).rule()
}

// Prepare reads the source that the book has, for an operator who wants what it
// holds; or another one, which is to take its place.
func (b *Book) Prepare(ctx context.Context, s *Source) (*Found, error) {
	if s == nil {
		s = b.get().source
	}
	f, err := s.find(ctx, b.get().own)
	if err != nil {
		b.meter.refused.Inc()
	}
	return f, err
}

// Adopt takes what Prepare has found, and its source instead of the one before.
// On the active node it is in force then; insists: it is to be when this node
// goes on as the active one in a moment. An error: it couldn't be stored, and
// nothing has changed. revert goes back.
func (b *Book) Adopt(ctx context.Context, f *Found, insists bool) (revert func(), err error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.unlock()
	before, decided := b.get(), b.decides.Load()
	if f.edition.by == before.source && f.read < before.read {
		return func() {}, nil // the watcher was faster, and saw something newer
	}
	b.set(func(st *state) {
		if f.edition.by != st.source {
			st.ahead, st.failed = nil, ""
		}
		st.source, st.own, st.read, st.insists = f.edition.by, f.edition, f.read, ""
		st.troubles[holding], st.troubles[watching] = trouble{}, trouble{}
		if insists && st.lead == nil {
			st.insists = f.edition.revision()
		}
	})
	revert = func() { b.revert(before, decided) }
	switch {
	case before.lead == nil:
	case decided.is(f.edition.revision()) && before.sure:
		b.decides.Store(f.edition) // with other settings, perhaps
		b.set(func(st *state) { st.ruling, st.pending = agreed, nil })
	default:
		err = b.putInForce(before.lead, f.edition)
	}
	if err != nil {
		b.goBack(before, decided)
		return nil, err
	}
	known := before.own.is(f.edition.revision()) && (before.lead == nil || decided.is(f.edition.revision()))
	b.meter.of(known).Inc()
	return revert, nil
}

// revert goes back to what was before Adopt. What decided before is in storage:
// that it is the active one again is written as soon as possible.
func (b *Book) revert(before state, decided *edition) {
	b.changing <- struct{}{}
	defer b.unlock()
	b.goBack(before, decided)
}

func (b *Book) goBack(before state, decided *edition) {
	now := b.get()
	b.set(func(st *state) {
		st.source, st.own, st.read, st.ahead = before.source, before.own, before.read, before.ahead
		st.insists, st.failed, st.troubles = "", before.failed, before.troubles
		st.pending = before.pending
		if now.lead != nil && (!st.sure || st.record.active.Revision != decided.revision()) {
			st.pending = decided
		}
	})
	b.decides.Store(decided)
}

// stored compiles the active revision, unless that was done already.
func (b *Book) stored(ctx context.Context, r *record) (*edition, error) {
	st := b.get()
	for _, e := range []*edition{b.decides.Load(), st.ahead, st.own} {
		if e.is(r.active.Revision) && e.by == st.source {
			return e, nil
		}
	}
	f := r.facts[r.active.Revision]
	bundle, err := shelf{b.c.Stored}.content(ctx, r.active.Revision, f)
	if err != nil {
		return nil, err
	}
	return st.source.compile(ctx, bundle)
}

// putInForce stores a revision and lets it decide. What can't be stored doesn't
// decide: it is tried again. The caller holds changing.
func (b *Book) putInForce(l *lead, e *edition) error {
	ctx, cancel := context.WithTimeout(l.ctx, writeWait)
	defer cancel()
	next, err := b.keepActive(ctx, l.shelf, e)
	if err != nil {
		b.set(func(st *state) { st.pending, st.sure = e, false })
		b.note(nil, storing, err)
		return err
	}
	b.decides.Store(e)
	b.set(func(st *state) { st.record, st.sure, st.pending, st.ruling = next, true, nil, agreed })
	b.note(nil, storing, nil)
	b.c.Log.Info("policies are in force", "revision", e.revision(), "services", len(e.report.Services), "tests", e.report.Tests)
	for _, warning := range e.report.Warnings {
		b.c.Log.Warn("of the policies: "+warning, "revision", e.revision())
	}
	return nil
}

func (b *Book) keepActive(ctx context.Context, s shelf, e *edition) (*record, error) {
	st := b.get()
	r := st.record
	if !st.sure {
		var err error
		if r, err = s.read(ctx); err != nil {
			return nil, err
		}
	}
	now := time.Now().UTC()
	a := active{Revision: e.revision(), Since: now, Node: b.c.Node, Confirmed: now}
	if e.is(r.active.Revision) {
		a.Since, a.Node = r.active.Since, r.active.Node
	}
	holders := map[string]string{b.c.Node: st.own.revision()}
	for node, held := range b.c.Peers() {
		if node != b.c.Node {
			holders[node] = held.Revision
		}
	}
	return s.put(ctx, r, e.bundle, a, holders, now)
}

func (b *Book) lock(ctx context.Context) error {
	select {
	case b.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Book) unlock() { <-b.changing }

// get returns what is known now.
func (b *Book) get() state {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

func (b *Book) set(change func(*state)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.state)
}

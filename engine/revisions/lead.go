package revisions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	tendEvery    = 5 * time.Second
	confirmEvery = 10 * time.Minute // at most: a source may want it more often
	sweepEvery   = time.Hour
	followEvery  = 4 * time.Second
	retryAhead   = time.Minute // to compile what couldn't be compiled
)

// lead is the time for which this node is the active one.
type lead struct {
	ctx   context.Context
	end   context.CancelFunc
	shelf shelf
	over  chan struct{} // closed when nothing is written any more

	confirmAt, sweepAt time.Time // guarded by Book.changing
}

// UnusableError is why no revision can decide on a node: what is wrong with what
// its source holds, and with what is stored.
type UnusableError struct{ Err error }

// Error tells all mistakes, one a line.
func (e *UnusableError) Error() string { return e.Err.Error() }

// Unwrap returns them.
func (e *UnusableError) Unwrap() error { return e.Err }

// Lead begins the time for which this node is the active one: it decides which
// revision is in force, see the package comment, and has stored it when it
// returns. An error: none can be. tables are written until End.
func (b *Book) Lead(ctx context.Context, tables plugin.Tables) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.unlock()
	l := &lead{shelf: shelf{tables}, over: make(chan struct{})}
	r, err := l.shelf.read(ctx)
	if err != nil {
		return err
	}
	l.ctx, l.end = context.WithCancel(ctx)
	b.set(func(st *state) { st.record, st.sure, st.lead, st.pending = r, true, l, nil })
	if err := b.begin(ctx, l, r); err != nil {
		l.end()
		b.set(func(st *state) { st.lead, st.pending = nil, nil })
		return err
	}
	b.set(func(st *state) {
		st.insists = ""
		st.troubles[storing], st.troubles[following] = trouble{}, trouble{}
	})
	go b.tend(l)
	return nil
}

func (b *Book) begin(ctx context.Context, l *lead, r *record) error {
	st := b.get()
	known := b.situation(st, r, time.Now())
	verdict := known.rule()
	b.set(func(st *state) { st.ruling = verdict })
	switch verdict {
	case neither:
		return &UnusableError{errors.Join(st.troubles[holding].err, known.tooOld())}
	case edited:
		return b.putInForce(l, st.own)
	case agreed, standOver:
		b.decides.Store(st.own)
		if verdict == standOver {
			b.c.Log.Error("the policies of this node can't be used: the last good ones, which are in force, go on", "revision", st.own.revision(),
				"error", st.troubles[holding].err)
		}
		return nil
	}
	e, err := b.stored(ctx, r)
	if err != nil && verdict == stale {
		b.c.Log.Error("the revision in force can't be used here: this node puts its own in force", "revision", r.active.Revision, "error", err)
		return b.putInForce(l, st.own)
	}
	if err != nil {
		return &UnusableError{errors.Join(st.troubles[holding].err, err)}
	}
	b.decides.Store(e)
	if verdict == standIn {
		b.c.Log.Error("the policies of this node can't be used: the stored revision stands in", "revision", e.revision(),
			"confirmed", r.active.Confirmed, "error", st.troubles[holding].err)
		return nil
	}
	b.c.Log.Warn("the policies of this node are older than those in force, which go on", "revision", e.revision(), "node", r.active.Node, "own", st.own.revision())
	return nil
}

func (b *Book) situation(st state, r *record, now time.Time) situation {
	return situation{
		now: now, own: st.own.revision(), broken: st.troubles[holding].err != nil,
		insists: st.insists != "" && st.own.is(st.insists),
		active:  r.active.Revision, confirmed: r.active.Confirmed, maxAge: st.source.source.MaxAge(),
		noted: r.notes[b.c.Node].Revision, known: r.known(st.own.revision()),
	}
}

// End ends what Lead began, when nothing is decided any more; what is still to
// be written goes to the tables. It may be called without.
func (b *Book) End() {
	st := b.get()
	l := st.lead
	if l == nil {
		return
	}
	l.end()
	<-l.over
	b.changing <- struct{}{}
	defer b.unlock()
	if st = b.get(); b.isCurrent(st) { // so that a node may be away for MaxAge from now
		_, changes := st.record.confirm(time.Now().UTC(), nil)
		l.shelf.tables.Commit(changes)
	}
	b.set(func(st *state) { st.lead, st.pending, st.troubles[storing] = nil, nil, trouble{} })
}

// tend does now and then what a leading node has to.
func (b *Book) tend(l *lead) {
	defer close(l.over)
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		if b.lock(l.ctx) == nil {
			b.tendOnce(l, time.Now().UTC())
			b.unlock()
		}
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			return
		}
	}
}

func (b *Book) tendOnce(l *lead, now time.Time) {
	st := b.get()
	if st.pending != nil {
		if b.putInForce(l, st.pending) == nil {
			b.meter.taken.Inc()
		}
		return
	}
	next, changes := st.record, []plugin.Change(nil)
	holders, news := b.holders(st)
	if news || len(holders) > 0 && !now.Before(l.confirmAt) {
		next, changes = next.confirm(now, holders)
		l.confirmAt = now.Add(confirmPause(st.source.source.MaxAge()))
	}
	if !now.Before(l.sweepAt) {
		swept, old := next.sweep(now)
		next, changes = swept, append(changes, old...)
		l.sweepAt = now.Add(sweepEvery)
	}
	ctx, cancel := context.WithTimeout(l.ctx, writeWait)
	defer cancel()
	if err := l.shelf.commit(ctx, changes); err != nil {
		l.confirmAt, l.sweepAt = time.Time{}, time.Time{}
		b.set(func(st *state) { st.sure = false })
		return // others say that the storage fails
	}
	b.set(func(st *state) { st.record = next })
}

// confirmPause is how often a revision is confirmed that may stand in for maxAge.
func confirmPause(maxAge time.Duration) time.Duration {
	if maxAge == 0 {
		return confirmEvery
	}
	return max(tendEvery, min(confirmEvery, maxAge/4))
}

// holders are the nodes whose sources hold the active revision. news: of one of
// them that isn't noted.
func (b *Book) holders(st state) (holders map[string]string, news bool) {
	peers := b.c.Peers()
	peers[b.c.Node] = Held{Revision: st.own.revision(), Broken: !b.isCurrent(st)}
	holders = map[string]string{}
	for node, held := range peers {
		if held.Broken || held.Revision != st.record.active.Revision {
			continue
		}
		holders[node] = held.Revision
		news = news || st.record.notes[node].Revision != held.Revision
	}
	return holders, news
}

// Follow keeps up with what the active node puts in force, and compiles it, so
// that a take-over needn't wait for that. It returns at once, and goes on until
// ctx ends.
func (b *Book) Follow(ctx context.Context) {
	b.following.Go(func() {
		for ctx.Err() == nil {
			if err := b.followOnce(ctx); err != nil && ctx.Err() == nil {
				b.c.Log.Debug("reading the revisions of the policies failed; it will be tried again", "reason", err)
			}
			_ = sleep(ctx, followEvery)
		}
	})
}

func (b *Book) followOnce(ctx context.Context) error {
	s := shelf{b.c.Stored}
	a, err := s.readActive(ctx)
	if err != nil {
		return err
	}
	if err := b.learn(ctx, s, a); err != nil {
		return err
	}
	st := b.get()
	now := time.Now()
	if a.Revision == "" || st.own.is(a.Revision) || st.failed == a.Revision && now.Sub(st.failedAt) < retryAhead {
		return nil
	}
	e, err := b.stored(ctx, st.record)
	if ctx.Err() != nil {
		return nil
	}
	if err := b.lock(ctx); err != nil {
		return nil
	}
	defer b.unlock()
	b.set(func(st *state) {
		st.ahead, st.failed = e, ""
		if err != nil {
			st.failed, st.failedAt = a.Revision, now
		}
	})
	if err != nil {
		err = fmt.Errorf("revision %s, which is in force, can't be used on this node: %w", a.Revision, err)
	}
	b.note(nil, following, err)
	return nil
}

// learn notes what is stored, unless this node has begun to lead.
func (b *Book) learn(ctx context.Context, s shelf, a active) error {
	st := b.get()
	r := &record{active: a, facts: st.record.facts, notes: st.record.notes}
	if a.Revision != st.record.active.Revision || r.facts == nil {
		all, err := s.read(ctx)
		if err != nil {
			return err
		}
		r = all
	}
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.unlock()
	b.set(func(st *state) {
		if st.lead == nil {
			st.record = r
		}
	})
	if st.own.is(r.active.Revision) {
		b.note(nil, following, nil)
	}
	return nil
}

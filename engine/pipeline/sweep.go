package pipeline

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Bounds of the housekeeping.
const (
	sweepEvery        = 30 * time.Second
	sweepPage         = 4096      // accounts or messages at once
	sweepDevicesEvery = time.Hour // it looks at all of them, which are remembered for a month

	// There may be a backlog of millions when the retention is shortened: pages
	// are small, and between them is room for the traffic.
	deletePage  = 1024 // rows
	deletePause = 20 * time.Millisecond
)

// every does some housekeeping again and again, until the pipeline ends.
func (p *Pipeline) every(d time.Duration, sweep func(now time.Time)) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-ticker.C:
			sweep(now)
		}
	}
}

// sweep does the housekeeping that nobody waits for.
func (p *Pipeline) sweep(now time.Time) {
	p.Locations.Sweep(now, sweepPage)
	p.expireQuarantined(now)
	p.expireReports(now)
	p.sweepSeen(now)
	p.sweepFailed(p.limiter.Sweep(p.ctx, now))
	p.findOldest(now)
}

// sweepSeen deletes the rows of submissions that need no longer be known.
func (p *Pipeline) sweepSeen(now time.Time) {
	var last []byte
	p.inPages(func() (n int, err error) {
		n, last, err = p.Spool.SweepSeen(p.ctx, last, now, deletePage)
		return n, err
	})
}

// forgetHistory deletes the records of messages that were received too long ago.
func (p *Pipeline) forgetHistory(now time.Time) {
	var last message.ID
	p.inPages(func() (n int, err error) {
		n, last, err = p.Spool.Forget(p.ctx, p.names, last, now.Add(-p.bounds.Load().retention), deletePage)
		return n, err
	})
}

// inPages deletes one page after the other, until one isn't full.
func (p *Pipeline) inPages(deletes func() (int, error)) {
	for {
		n, err := deletes()
		p.sweepFailed(err)
		if n < deletePage || err != nil || !pause(p.ctx, deletePause) {
			return
		}
	}
}

// findOldest looks for the oldest message, from where the last one was: what
// has come in since is younger.
func (p *Pipeline) findOldest(now time.Time) {
	since := now.Add(-2 * sweepEvery) // if there was none at the last sweep
	before := p.oldest.Load()
	if before != 0 {
		since = time.UnixMilli(before)
	}
	id, err := p.Spool.Oldest(p.ctx, since)
	switch {
	case err != nil:
		p.sweepFailed(err)
	case id.IsZero():
		p.oldest.CompareAndSwap(before, 0)
	default:
		p.oldest.CompareAndSwap(before, id.Time().UnixMilli())
	}
}

// foundOlder notes a message that was joined from parts: it is as old as the first
// of them.
func (p *Pipeline) foundOlder(id message.ID) {
	at := id.Time().UnixMilli()
	for {
		oldest := p.oldest.Load()
		if oldest != 0 && oldest <= at || p.oldest.CompareAndSwap(oldest, at) {
			return
		}
	}
}

func (p *Pipeline) oldestAge(now time.Time) time.Duration {
	oldest := p.oldest.Load()
	if oldest == 0 {
		return 0
	}
	return now.Sub(time.UnixMilli(oldest))
}

func (p *Pipeline) sweepFailed(err error) {
	if err != nil && p.ctx.Err() == nil {
		p.Log.Warn("housekeeping failed; it will be tried again", "reason", err)
	}
}

// pause waits and tells whether the wait was full.
func pause(ctx context.Context, d time.Duration) bool {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-waiting.Done()
	return ctx.Err() == nil
}

package pipeline

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Bounds of the housekeeping.
const (
	sweepEvery = 30 * time.Second
	sweepPage  = 4096 // rows, accounts or messages at once

	// The history may have a backlog of millions when the retention is
	// shortened: pages are small, and between them is room for the traffic.
	historyPage  = 1024
	historyPause = 20 * time.Millisecond
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
	p.findOldest(now)
}

func (p *Pipeline) sweepSeen(now time.Time) {
	for {
		n, err := p.Seen.Sweep(p.ctx, now, sweepPage)
		p.sweepFailed(err)
		if n < sweepPage || err != nil {
			return
		}
	}
}

// forgetHistory deletes the records of messages that were received too long ago.
func (p *Pipeline) forgetHistory(now time.Time) {
	var last message.ID
	for {
		n, next, err := p.Spool.Forget(p.ctx, last, now.Add(-p.bounds.Load().retention), historyPage)
		p.sweepFailed(err)
		if n < historyPage || err != nil || !pause(p.ctx, historyPause) {
			return
		}
		last = next
	}
}

// findOldest looks for the oldest message, from where the last one was: what
// has come in since is younger.
func (p *Pipeline) findOldest(now time.Time) {
	since := now.Add(-2 * sweepEvery) // if there was none at the last sweep
	if oldest := p.oldest.Load(); oldest != 0 {
		since = time.UnixMilli(oldest)
	}
	id, err := p.Spool.Oldest(p.ctx, since)
	switch {
	case err != nil:
		p.sweepFailed(err)
	case id.IsZero():
		p.oldest.Store(0)
	default:
		p.oldest.Store(id.Time().UnixMilli())
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

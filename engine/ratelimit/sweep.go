package ratelimit

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/spool"
)

// Sweep forgets the windows that are over, and deletes their rows. It returns
// when that is on disk, or ctx ends.
func (l *Limiter) Sweep(ctx context.Context, now time.Time) error {
	for {
		done := make(chan error, 1)
		more := l.sweep(now, func(err error) { done <- err })
		select {
		case err := <-done:
			if err != nil || !more {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sweep looks at one page, and tells whether there are more.
func (l *Limiter) sweep(now time.Time, done func(error)) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expire(now, done)
}

// expire forgets the windows of one page that are over. done, which may be nil,
// is told when their rows are deleted. The deletions are queued under the lock:
// if a key is counted again, its new row comes behind.
func (l *Limiter) expire(now time.Time, done func(error)) (more bool) {
	var deleted []spool.Digest
	current := slotOf(now)
	for left := sweepPage; left > 0 && len(l.ends) > 0 && l.oldest < current; {
		page := l.takeFiled(left)
		left -= len(page) + 1
		for _, digest := range page {
			w := l.windows[digest]
			if ends := w.began.Add(w.per); w.count > 0 && slotOf(ends) >= current {
				l.file(digest, ends)
				continue
			}
			delete(l.windows, digest)
			if w.onDisk {
				deleted = append(deleted, digest)
			}
		}
	}
	switch {
	case len(deleted) > 0:
		l.spool.MoveWindows(nil, deleted, done)
	case done != nil:
		done(nil)
	}
	return len(l.ends) > 0 && l.oldest < current
}

// takeFiled takes up to n windows out of the oldest slot, which goes when it is
// empty.
func (l *Limiter) takeFiled(n int) []spool.Digest {
	filed := l.ends[l.oldest]
	kept := max(0, len(filed)-n)
	if kept > 0 {
		l.ends[l.oldest] = filed[:kept]
	} else {
		delete(l.ends, l.oldest)
		l.oldest++
	}
	return filed[kept:]
}

// file notes when a window is to be looked at.
func (l *Limiter) file(digest spool.Digest, ends time.Time) {
	s := slotOf(ends)
	if len(l.ends) == 0 || s < l.oldest {
		l.oldest = s
	}
	l.ends[s] = append(l.ends[s], digest)
}

func slotOf(t time.Time) int64 { return t.Unix() / int64(slot/time.Second) }

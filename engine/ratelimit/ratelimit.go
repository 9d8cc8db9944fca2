// Package ratelimit counts messages by the keys of their service's limits, and
// says when a limit is reached. A window begins with its first message and lasts
// as long as its limit says; those of over a minute are on disk as well, written
// in the same transaction as the messages that they count.
//
// It must not know what a limit counts by, nor what becomes of a message.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// Bounds of the windows.
const (
	MaxWindows = 1_000_000
	// inMemory is how long a window is at most that needn't survive this node.
	inMemory = time.Minute
	// slot is how exactly it is known which windows are over: these are looked
	// for where others end at about the same time.
	slot = 10 * time.Second
	// sweepPage is how many of them are looked at before others get their turn.
	sweepPage = 4096
)

// Limiter counts. It may be used from several goroutines.
type Limiter struct {
	spool *spool.Spool
	max   int

	mu      sync.Mutex
	windows map[spool.Digest]*window
	// ends are the windows by the slot in which each was to end when it was put
	// there. One that has begun anew since is put elsewhere when the slot is over.
	ends   map[int64][]spool.Digest
	oldest int64 // slot that may have any
}

// window is spool.Window in memory, where its key needn't be known.
type window struct {
	began  time.Time
	per    time.Duration
	count  int
	onDisk bool // there is a row, or one is on its way
}

// New returns a limiter that has counted nothing.
func New(s *spool.Spool) *Limiter {
	return &Limiter{spool: s, max: MaxWindows, windows: map[spool.Digest]*window{}, ends: map[int64][]spool.Digest{}}
}

// Restore reads what is on disk. It comes before anything is counted.
func (l *Limiter) Restore(ctx context.Context, now time.Time) error {
	err := l.spool.Windows(ctx, func(w spool.Window) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if w.Began.After(now) { // by another node's clock
			w.Began = now
		}
		l.windows[w.Digest] = &window{began: w.Began, per: w.Per, count: w.Count, onDisk: true}
		ends := w.Ends()
		if ends.Before(now) {
			ends = now
		}
		l.file(w.Digest, ends)
	})
	if err != nil {
		return fmt.Errorf("read the rate limits: %w", err)
	}
	return nil
}

// Windows is how many there are; some of them may be over.
func (l *Limiter) Windows() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.windows)
}

// Count is how many messages a limit has counted in the window that is open at now.
func (l *Limiter) Count(limit plugin.Limit, now time.Time) int {
	digest := spool.DigestKey(limit.Key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.open(digest, limit, now); w != nil {
		return w.count
	}
	return 0
}

// Full tells which limit refuses a message at now, nil: none. It counts nothing,
// so Take may say something else a moment later.
func (l *Limiter) Full(limits []plugin.Limit, now time.Time) *Refusal {
	digests := digestsOf(limits)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full(digests, limits, now)
}

// Take counts a message with all its limits, if none refuses it: then put writes
// it, together with those of its windows that are on disk. If put returns an error,
// or later tells of one, nothing has been counted: see GiveBack. put may be nil:
// then the windows are written by themselves. It is called under a lock, so that
// no window goes back on disk; it must not call the limiter.
//
// An error is that of put; a *Refusal, which unwraps to a *message.Failure; or
// that there are too many windows, a *message.Failure, temporary.
func (l *Limiter) Take(limits []plugin.Limit, now time.Time, put func([]spool.Window) error) error {
	digests := digestsOf(limits)
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.full(digests, limits, now); r != nil {
		return r
	}
	if !l.room(digests, now) {
		// Not a reason about this node: there are messages without limits.
		return message.FailForNow(message.LimitReached, "%d windows of rate limits are open", len(l.windows))
	}
	for i, limit := range limits {
		l.count(digests[i], limit, now)
	}
	if put == nil {
		l.move(l.written(digests, limits))
		return nil
	}
	err := put(l.written(digests, limits))
	if err != nil {
		l.uncount(digests, now)
	}
	return err
}

// GiveBack takes back what Take has counted at a time, when put told later that
// the message wasn't kept.
func (l *Limiter) GiveBack(limits []plugin.Limit, taken time.Time) {
	digests := digestsOf(limits)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uncount(digests, taken)
	l.move(l.written(digests, limits)) // others may have written more meanwhile
}

func digestsOf(limits []plugin.Limit) []spool.Digest {
	digests := make([]spool.Digest, len(limits))
	for i := range limits {
		digests[i] = spool.DigestKey(limits[i].Key)
	}
	return digests
}

// open returns the window of a key that isn't over, or nil. How long it lasts
// is for the limit to say as it is now. One that began in the future, by a clock
// that has been set back, begins now.
func (l *Limiter) open(digest spool.Digest, limit plugin.Limit, now time.Time) *window {
	w := l.windows[digest]
	if w == nil || w.count == 0 || now.Sub(w.began) >= limit.Per {
		return nil
	}
	if w.began.After(now) {
		w.began = now
	}
	return w
}

// full returns the refusal that lasts longest.
func (l *Limiter) full(digests []spool.Digest, limits []plugin.Limit, now time.Time) (longest *Refusal) {
	for i, limit := range limits {
		w := l.open(digests[i], limit, now)
		if w == nil || limit.Count <= 0 || w.count < limit.Count {
			continue
		}
		if rest := limit.Per - now.Sub(w.began); longest == nil || rest > longest.Rest {
			longest = &Refusal{Limit: limit, Rest: rest}
		}
	}
	return longest
}

// room tells whether there may be a window for each of the keys.
func (l *Limiter) room(digests []spool.Digest, now time.Time) bool {
	fits := func() bool {
		lacking := 0
		for _, digest := range digests {
			if l.windows[digest] == nil {
				lacking++
			}
		}
		return len(l.windows)+lacking <= l.max
	}
	if fits() {
		return true
	}
	l.expire(now, nil)
	return fits()
}

// count counts one message, in a new window if none is open.
func (l *Limiter) count(digest spool.Digest, limit plugin.Limit, now time.Time) {
	w := l.open(digest, limit, now)
	if w == nil {
		w = l.begin(digest, limit, now)
	}
	w.count++
	w.per = limit.Per
	w.onDisk = w.onDisk || w.per > inMemory
}

// begin makes a window, or lets one that is over begin anew.
func (l *Limiter) begin(digest spool.Digest, limit plugin.Limit, now time.Time) *window {
	w := l.windows[digest]
	if w == nil {
		w = &window{}
		l.windows[digest] = w
		l.file(digest, now.Add(limit.Per))
	}
	w.began, w.count = now, 0
	return w
}

// uncount takes back what was counted at a time, in windows that are still those.
func (l *Limiter) uncount(digests []spool.Digest, taken time.Time) {
	for _, digest := range digests {
		if w := l.windows[digest]; w != nil && w.count > 0 && !w.began.After(taken) {
			w.count--
		}
	}
}

// written returns the windows of limits as they are to be on disk.
func (l *Limiter) written(digests []spool.Digest, limits []plugin.Limit) (rows []spool.Window) {
	for i, digest := range digests {
		if w := l.windows[digest]; w != nil && w.onDisk {
			rows = append(rows, spool.Window{Digest: digest, Key: limits[i].Key, Began: w.began, Per: w.per, Count: w.count})
		}
	}
	return rows
}

func (l *Limiter) move(rows []spool.Window) {
	if len(rows) > 0 {
		l.spool.MoveWindows(rows, nil, nil)
	}
}

// Refusal says which limit is reached.
type Refusal struct {
	Limit plugin.Limit
	Rest  time.Duration // until its window is over
}

// Error says what was reached, and not by whom.
func (r *Refusal) Error() string {
	return fmt.Sprintf("limit %s: %d messages within %s", r.Limit.Name, r.Limit.Count, r.Limit.Per)
}

// Unwrap returns the failure that the sender is told.
func (r *Refusal) Unwrap() error {
	return &message.Failure{Reason: message.LimitReached, Temporary: true, RetryAfter: r.Rest, Err: errors.New(r.Error())}
}

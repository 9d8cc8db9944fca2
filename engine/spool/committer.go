package spool

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Bounds of the committer.
const (
	maxBatchBytes  = plugin.MaxApply / 2
	maxQueuedBytes = 64 << 20 // beyond that new messages are refused
	minBackoff     = 50 * time.Millisecond
	maxBackoff     = time.Second
	applyWait      = 10 * time.Second // for one Apply
)

// commitBounds are the buckets for the time of a transaction.
var commitBounds = []time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// errStopped is what a writer gets when the committer has ended.
var errStopped = message.FailForNow(message.Standby, "this node is no longer the active one")

// errGivenUp ends a committer that was told to stop while the storage fails:
// what is queued behind a lost batch must not overtake it.
var errGivenUp = errors.New("the storage fails and the node stops")

// Committer is the only writer of a storage: it gathers the changes of all
// callers into one Apply at a time, in the order in which they came.
//
// There are two kinds of writes. A Put brings in something new and may be
// refused: when the storage fails it is taken back and its caller told. A Move
// says what has happened already; it is repeated until the storage takes it.
type Committer struct {
	storage plugin.Storage
	fence   plugin.Fence
	log     *slog.Logger

	mu      sync.Mutex
	queue   []write
	bytes   int // in queue
	stopped bool
	wake    chan struct{}

	failing  atomic.Pointer[error] // why the storage refuses writes; nil: it doesn't
	measured atomic.Pointer[measures]
	written  atomic.Int64 // see Written
}

// measures are what is counted of a committer that Measure was called for.
type measures struct {
	commits, errors *plugin.Counter
	took            *plugin.Histogram
}

// write is one caller's changes: all or nothing.
type write struct {
	changes   []plugin.Change
	bytes     int
	refusable bool
	done      func(error) // called once by the committer's goroutine; must not block; may be nil
}

// NewCommitter returns a committer that writes under a fence. Run makes it work.
func NewCommitter(storage plugin.Storage, fence plugin.Fence, log *slog.Logger) *Committer {
	c := &Committer{storage: storage, fence: fence, log: log, wake: make(chan struct{}, 1)}
	c.measure(nil)
	return c
}

func (c *Committer) measure(m *plugin.Metrics) {
	c.measured.Store(&measures{
		commits: m.Counter("storage_commits_total", "Transactions that the storage has taken."),
		errors:  m.Counter("storage_commit_errors_total", "Transactions that the storage has refused."),
		took:    m.Histogram("storage_commit_seconds", "How long the storage took for a transaction, until it was on disk.", commitBounds),
	})
	m.Gauge("storage_failing", "Whether the storage refuses writes just now.", func() float64 {
		if c.Failing() {
			return 1
		}
		return 0
	})
}

// Failing tells whether the storage refuses writes just now.
func (c *Committer) Failing() bool { return c.failing.Load() != nil }

// Failure is why the storage refuses writes just now; nil: it doesn't.
func (c *Committer) Failure() error {
	if why := c.failing.Load(); why != nil {
		return *why
	}
	return nil
}

// Written is a time before which no other node had written since this one got
// its fence, and up to which this one had: when the last transaction that the
// storage took began; 1970: it took none.
func (c *Committer) Written() time.Time { return time.UnixMicro(c.written.Load()) }

// Put commits changes that create new rows, or refuses them: then no row of
// theirs stays. done gets nil once they are on disk, else a *message.Failure.
func (c *Committer) Put(changes []plugin.Change, done func(error)) {
	if c.Failing() {
		done(message.FailForNow(message.StorageDown, "the storage fails"))
		return
	}
	if err := c.add(write{changes: changes, bytes: size(changes), refusable: true, done: done}); err != nil {
		done(err)
	}
}

// Move commits changes behind everything that came before. done, which may be
// nil, gets nil once they are on disk, or an error when this committer ends
// before.
func (c *Committer) Move(changes []plugin.Change, done func(error)) {
	err := c.add(write{changes: changes, bytes: size(changes), done: done})
	if err != nil && done != nil {
		done(err)
	}
}

// wait commits changes and waits until they are on disk, or ctx ends.
func (c *Committer) wait(ctx context.Context, changes []plugin.Change) error {
	done := make(chan error, 1)
	c.Move(changes, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return message.FailForNow(message.StorageDown, "the storage doesn't answer in time")
	}
}

func (c *Committer) add(w write) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errStopped
	}
	if w.refusable && c.bytes+w.bytes > maxQueuedBytes {
		return message.FailForNow(message.Overloaded, "%d octets wait to be written", c.bytes)
	}
	c.queue = append(c.queue, w)
	c.bytes += w.bytes
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// Run writes until ctx ends; then it tries once to write what is queued, and
// returns nil. It returns plugin.ErrFenced when a newer lease exists. Whatever
// is left then is told that it was not written.
func (c *Committer) Run(ctx context.Context) error {
	err := c.loop(ctx)
	for err == nil {
		batch := c.next()
		if len(batch) == 0 {
			break
		}
		err = c.commit(ctx, batch)
	}
	c.stop()
	if errors.Is(err, errGivenUp) {
		return nil
	}
	return err
}

func (c *Committer) loop(ctx context.Context) error {
	for {
		batch := c.next()
		if len(batch) > 0 {
			if err := c.commit(ctx, batch); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
	}
}

// next takes as many writes off the queue as fit into one Apply.
func (c *Committer) next() []write {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < len(c.queue) && (n == 0 || bytes+c.queue[n].bytes <= maxBatchBytes) {
		bytes += c.queue[n].bytes
		n++
	}
	batch := c.queue[:n:n]
	c.queue = c.queue[n:]
	c.bytes -= bytes
	return batch
}

// commit applies a batch. When that fails, the Puts in it are refused and
// what they may have left is deleted, and the rest is repeated until it is on
// disk. It returns an error only if this committer must end.
func (c *Committer) commit(ctx context.Context, batch []write) error {
	backoff := minBackoff
	for {
		err := c.apply(ctx, batch)
		if err == nil {
			c.recovered()
			finish(batch, nil)
			return nil
		}
		if errors.Is(err, plugin.ErrFenced) {
			c.failing.Store(&err)
			finish(batch, errStopped)
			return plugin.ErrFenced
		}
		c.fails(err)
		batch = takeBack(batch, err)
		c.refuseQueued(err)
		if !sleep(ctx, backoff) {
			finish(batch, errStopped)
			return errGivenUp
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// apply finishes also when the node is told to stop: what can be kept is kept.
func (c *Committer) apply(ctx context.Context, batch []write) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyWait)
	defer cancel()
	measured, began := c.measured.Load(), time.Now()
	err := c.storage.Apply(ctx, c.fence, join(batch))
	measured.took.Observe(time.Since(began))
	if err != nil {
		measured.errors.Inc()
		return err
	}
	measured.commits.Inc()
	c.written.Store(began.UnixMicro())
	return nil
}

func (c *Committer) fails(err error) {
	if c.failing.Swap(&err) == nil {
		c.log.Error("storage refuses writes: new messages are refused until it recovers", "reason", err)
	}
}

func (c *Committer) recovered() {
	if c.Failing() {
		c.failing.Store(nil)
		c.log.Info("storage takes writes again")
	}
}

// takeBack refuses the Puts of a batch. Whether the storage has them isn't
// known, so each is replaced by the deletion of its rows.
func takeBack(batch []write, cause error) []write {
	rest := make([]write, len(batch))
	for i, w := range batch {
		rest[i] = w
		if !w.refusable {
			continue
		}
		rest[i] = write{changes: deletions(w.changes)}
		w.done(&message.Failure{Reason: message.StorageDown, Temporary: true, Err: cause})
	}
	return rest
}

// refuseQueued tells the callers of queued Puts at once, rather than letting
// them wait for a storage that fails. Nothing of theirs was written.
func (c *Committer) refuseQueued(cause error) {
	c.mu.Lock()
	var refused []write
	kept := c.queue[:0:0]
	for _, w := range c.queue {
		if w.refusable {
			refused = append(refused, w)
			c.bytes -= w.bytes
			continue
		}
		kept = append(kept, w)
	}
	c.queue = kept
	c.mu.Unlock()
	finish(refused, &message.Failure{Reason: message.StorageDown, Temporary: true, Err: cause})
}

// stop refuses everything from now on.
func (c *Committer) stop() {
	c.mu.Lock()
	c.stopped = true
	left := c.queue
	c.queue = nil
	c.mu.Unlock()
	finish(left, errStopped)
}

func finish(batch []write, err error) {
	for _, w := range batch {
		if w.done != nil {
			w.done(err)
		}
	}
}

func join(batch []write) []plugin.Change {
	if len(batch) == 1 {
		return batch[0].changes
	}
	n := 0
	for _, w := range batch {
		n += len(w.changes)
	}
	all := make([]plugin.Change, 0, n)
	for _, w := range batch {
		all = append(all, w.changes...)
	}
	return all
}

func deletions(changes []plugin.Change) []plugin.Change {
	deletes := make([]plugin.Change, len(changes))
	for i, change := range changes {
		deletes[i] = plugin.Change{Table: change.Table, Key: change.Key}
	}
	return deletes
}

func size(changes []plugin.Change) int {
	n := 0
	for _, c := range changes {
		n += len(c.Table) + len(c.Key) + len(c.Value)
	}
	return n
}

// sleep waits and tells whether the wait was full.
func sleep(ctx context.Context, d time.Duration) bool {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-waiting.Done()
	return ctx.Err() == nil
}

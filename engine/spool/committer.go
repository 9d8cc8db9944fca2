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
	// takeBackAfter is how long Puts that may have been written are tried again,
	// before they are taken back: their peers wait for an answer, and one that
	// the storage stumbles over mustn't hold up all others.
	takeBackAfter = 5 * time.Second
)

// errStopped is what a writer gets when the committer has ended.
var errStopped = message.FailForNow(message.Standby, "this node is no longer the active one")

// errGivenUp ends a committer that was told to stop while the storage fails, or
// to give up: what is queued behind a lost batch must not overtake it.
var errGivenUp = errors.New("the storage fails and the node stops")

// Committer is the only writer of a storage: it gathers the changes of all
// callers into one Apply at a time, in the order in which they came.
//
// There are two kinds of writes. A Put brings in something new and may be
// refused, as soon as it is sure that nothing stays of it: at once while the
// storage fails; if it may have been written already, when that is known or has
// been taken back. A Move says what has happened already; it is repeated until
// the storage takes it.
type Committer struct {
	storage plugin.Storage
	fence   plugin.Fence
	log     *slog.Logger

	mu      sync.Mutex
	queue   []write
	bytes   int // in queue
	stopped bool
	wake    chan struct{}

	applying context.Context    // of every Apply; it outlives the end of Run's context
	abandon  context.CancelFunc // ends it

	failing  atomic.Pointer[error] // why the storage refuses writes; nil: it doesn't
	measured atomic.Pointer[Measures]
	written  atomic.Int64 // see Written
}

// write is one caller's changes: all or nothing.
type write struct {
	changes   []plugin.Change
	fresh     int // of changes, from the first: rows that are new, which a Put that is refused leaves none of
	bytes     int
	refusable bool
	undo      func() []plugin.Change // what to write back in place of what the others have deleted; nil: nothing
	done      func(error)            // called once by the committer's goroutine; must not block; may be nil
}

// NewCommitter returns a committer that writes under a fence. Run makes it work.
func NewCommitter(storage plugin.Storage, fence plugin.Fence, log *slog.Logger) *Committer {
	c := &Committer{storage: storage, fence: fence, log: log, wake: make(chan struct{}, 1)}
	c.applying, c.abandon = context.WithCancel(context.Background()) // whoever runs it decides when
	c.Count(NewMeasures(nil))
	return c
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

// Put commits changes or refuses them. The first ones, as many as fresh, create
// rows; the others write rows that may be there already, with what stays true
// without this Put. An error is a *message.Failure: nothing is written, and done
// isn't called. Else done gets nil once all are on disk, or a *message.Failure:
// then none of the rows stays that it created, unless it is plugin.ErrUnknown.
func (c *Committer) Put(changes []plugin.Change, fresh int, done func(error)) error {
	return c.put(changes, fresh, nil, done)
}

// put is Put for changes of which some delete rows: where it is taken back, undo
// says what was there. It is called on the goroutine on which done is.
func (c *Committer) put(changes []plugin.Change, fresh int, undo func() []plugin.Change, done func(error)) error {
	if c.Failing() {
		return message.FailForNow(message.StorageDown, "the storage fails")
	}
	return c.add(write{changes: changes, fresh: fresh, bytes: size(changes), refusable: true, undo: undo, done: done})
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

// Abandon gives up what is being written and all that is queued, for a node that
// has lost its lease: it mustn't wait for a storage that hangs before it asks for
// another one. Run returns soon.
func (c *Committer) Abandon() { c.abandon() }

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

// commit applies a batch until it is on disk. It returns an error only if this
// committer must end.
func (c *Committer) commit(ctx context.Context, batch []write) error {
	backoff, began := minBackoff, time.Now()
	unsure := false // whether the storage has it already
	for {
		err := c.apply(batch)
		if err == nil {
			c.recovered()
			finish(batch, nil)
			return nil
		}
		if errors.Is(err, plugin.ErrFenced) {
			c.failing.Store(&err)
			abandon(batch, unsure)
			return plugin.ErrFenced
		}
		c.fails(err)
		c.refuseQueued(err)
		unsure = unsure || !errors.Is(err, plugin.ErrNotApplied)
		switch {
		case !unsure:
			batch = refusePuts(batch, err)
		case time.Since(began) > takeBackAfter:
			batch = takeBack(batch, err)
		}
		if c.applying.Err() != nil || !sleep(ctx, backoff) {
			abandon(batch, unsure)
			return errGivenUp
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// apply finishes also when the node is told to stop: what can be kept is kept.
func (c *Committer) apply(batch []write) error {
	ctx, cancel := context.WithTimeout(c.applying, applyWait)
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

// refusePuts takes the Puts out of a batch of which nothing was written.
func refusePuts(batch []write, cause error) []write {
	puts, moves := split(batch)
	finish(puts, storageDown(cause))
	return moves
}

// takeBack replaces the Puts of a batch, which the storage may have, by the
// deletion of their rows. Their callers are told once it is done.
func takeBack(batch []write, cause error) []write {
	rest := make([]write, len(batch))
	for i, w := range batch {
		rest[i] = w
		if w.refusable {
			back := deletions(w.changes[:w.fresh])
			if w.undo != nil {
				back = append(back, w.undo()...)
			}
			rest[i] = write{changes: back, done: func(err error) { w.done(takenBack(err, cause)) }}
		}
	}
	return rest
}

// takenBack is what a Put's caller is told; err is of the deletion of its rows.
func takenBack(err, cause error) error {
	if err != nil {
		return unknown
	}
	return storageDown(cause)
}

// unknown is what the caller of a Put gets that may be on disk, when this
// committer ends.
var unknown = message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown)

func storageDown(cause error) *message.Failure {
	return &message.Failure{Reason: message.StorageDown, Temporary: true, Err: cause}
}

// abandon tells all callers of a batch that this committer ends.
func abandon(batch []write, unsure bool) {
	puts, moves := split(batch)
	finish(moves, errStopped)
	if unsure {
		finish(puts, unknown)
		return
	}
	finish(puts, errStopped)
}

func split(batch []write) (puts, moves []write) {
	for _, w := range batch {
		if w.refusable {
			puts = append(puts, w)
		} else {
			moves = append(moves, w)
		}
	}
	return puts, moves
}

// refuseQueued tells the callers of queued Puts at once, rather than letting
// them wait for a storage that fails. Nothing of theirs was written.
func (c *Committer) refuseQueued(cause error) {
	c.mu.Lock()
	refused, kept := split(c.queue)
	for _, w := range refused {
		c.bytes -= w.bytes
	}
	c.queue = kept
	c.mu.Unlock()
	finish(refused, storageDown(cause))
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

package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/imgate/imgate/engine/plugin"
)

// storage is an open store. One goroutine writes, so the order of writes is the
// order in which it takes them, and nobody waits longer than their context
// allows, even for a disk that hangs.
type storage struct {
	db    *pebble.DB
	lock  *pebble.Lock
	guard *guard

	jobs chan func()   // taken by the writer
	quit chan struct{} // closed by Close
	idle chan struct{} // closed when the writer has ended

	lease *plugin.LocalLease // in memory: see the package's comment
	space space              // the writer's own

	purge   *purge
	purging context.CancelFunc
	purged  chan struct{} // closed when nothing is purged any more
}

const (
	// closeWithin bounds Close. Pebble waits for compactions that are under way.
	closeWithin = 30 * time.Second
	// closeFullWithin is the same while the disk is full: nobody waits for what
	// is under way, since nobody was told that it is done.
	closeFullWithin = 2 * time.Second
)

var (
	errClosed   = errors.New("the store is closed")
	errLackOver = errors.New("the disk couldn't take what was written for a moment")
)

// work is the writer.
func (s *storage) work() {
	defer close(s.idle)
	for {
		select {
		case job := <-s.jobs:
			job()
		case <-s.quit:
			return
		}
	}
}

// do lets the writer do a job and waits for its result. If the context ends
// first, the disk lacks something, or the guard breaks, the job may or may not
// be done; plugin.ErrNotApplied: the writer never got it.
func do[R any](ctx context.Context, s *storage, job func() (R, error)) (R, error) {
	type outcome struct {
		result R
		err    error
	}
	var none R
	done := make(chan outcome, 1)
	run := func() {
		result, err := job()
		done <- outcome{result, err}
	}
	lacking := s.guard.lack.felt()
	if err := s.give(ctx, run, lacking); err != nil {
		return none, notApplied(err)
	}
	select {
	case o := <-done:
		return o.result, o.err
	case <-lacking:
		return none, s.guard.lack.err()
	case <-s.guard.broken:
		return none, s.guard.err()
	case <-ctx.Done():
		return none, fmt.Errorf("wait for the disk: %w", ctx.Err())
	}
}

// give hands a job to the writer.
func (s *storage) give(ctx context.Context, run func(), lacking <-chan struct{}) error {
	select {
	case <-lacking:
		return s.guard.lack.err()
	default:
	}
	select {
	case s.jobs <- run:
		return nil
	case <-lacking:
		return s.guard.lack.err()
	case <-s.guard.broken:
		return s.guard.err()
	case <-s.quit:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("wait for earlier writes: %w", ctx.Err())
	}
}

func notApplied(err error) error { return fmt.Errorf("%w: %w", err, plugin.ErrNotApplied) }

func (s *storage) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	batch, err := s.batch(changes)
	if err != nil {
		return notApplied(err)
	}
	_, err = do(ctx, s, func() (none struct{}, err error) {
		if !s.lease.Admits(f) {
			return none, plugin.ErrFenced
		}
		return none, s.commit(batch)
	})
	return err
}

// batch copies the changes into a Pebble batch.
func (s *storage) batch(changes []plugin.Change) (*pebble.Batch, error) {
	const overhead = 16 // octets, at most, of a change besides its key and value
	size := 64
	for _, c := range changes {
		size += len(c.Table) + len(c.Key) + len(c.Value) + overhead
	}
	batch := s.db.NewBatchWithSize(size)
	for _, c := range changes {
		if err := put(batch, c); err != nil {
			return nil, fmt.Errorf("gather changes: %w", err)
		}
		if c.Value == nil {
			s.purge.deleted(c.Table)
		}
	}
	return batch, nil
}

func put(batch *pebble.Batch, c plugin.Change) error {
	size := len(c.Table) + 1 + len(c.Key)
	if c.Value == nil {
		op := batch.DeleteDeferred(size)
		writeKey(op.Key, c.Table, c.Key)
		return op.Finish()
	}
	op := batch.SetDeferred(size, len(c.Value))
	writeKey(op.Key, c.Table, c.Key)
	copy(op.Value, c.Value)
	return op.Finish()
}

// writeKey writes where a row is kept: behind its table's name and a zero
// octet, which no name has in it.
func writeKey(to []byte, table string, key []byte) {
	n := copy(to, table)
	to[n] = 0
	copy(to[n+1:], key)
}

func keyOf(table string, key []byte) []byte {
	b := make([]byte, len(table)+1+len(key))
	writeKey(b, table, key)
	return b
}

// commit writes a batch to disk. It runs on the writer only.
func (s *storage) commit(batch *pebble.Batch) error {
	if err := s.space.check(time.Now()); err != nil {
		return notApplied(err)
	}
	if err := s.db.Apply(batch, pebble.Sync); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	// Pebble reports the worst errors elsewhere and then returns nil.
	if err := s.guard.err(); err != nil {
		return err
	}
	return batch.Close()
}

func (s *storage) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if err := s.guard.err(); err != nil {
		return nil, err
	}
	bounds := &pebble.IterOptions{LowerBound: keyOf(table, from), UpperBound: append([]byte(table), 1)}
	if to != nil {
		bounds.UpperBound = keyOf(table, to)
	}
	rows, err := s.db.NewIterWithContext(ctx, bounds)
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	found, err := read(ctx, rows, table, n)
	if err := errors.Join(err, rows.Close(), s.guard.err()); err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	return found, nil
}

func read(ctx context.Context, rows *pebble.Iterator, table string, n int) ([]plugin.Change, error) {
	var found []plugin.Change
	for ok := rows.First(); ok && len(found) < n; ok = rows.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		value, err := rows.ValueAndErr()
		if err != nil {
			return nil, err
		}
		found = append(found, plugin.Change{
			Table: table,
			Key:   bytes.Clone(rows.Key()[len(table)+1:]),
			Value: append([]byte{}, value...), // not nil, even of an empty row
		})
	}
	return found, rows.Error()
}

// Acquire is the writer's job, so that no write of an older fence comes behind.
func (s *storage) Acquire(ctx context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	return do(ctx, s, func() (plugin.Fence, error) { return s.lease.Acquire(node, ttl, s.writeFence) })
}

func (s *storage) writeFence(f plugin.Fence) error {
	batch := s.db.NewBatch()
	err := batch.Set(fenceKey, binary.BigEndian.AppendUint64(nil, uint64(f)), nil)
	if err == nil {
		err = s.commit(batch)
	}
	if err != nil {
		return fmt.Errorf("keep the fence: %w", err)
	}
	return nil
}

// Renew waits for no write: whoever leads goes on leading while the disk is slow
// or full, and says that it is.
func (s *storage) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	if err := errors.Join(ctx.Err(), s.guard.err()); err != nil {
		return err
	}
	return s.lease.Renew(f, ttl)
}

func (s *storage) Release(_ context.Context, f plugin.Fence) error {
	s.lease.Release(f)
	return nil
}

func (s *storage) Handover(_ context.Context, f plugin.Fence, to string, ttl time.Duration) error {
	return s.lease.Handover(f, to, ttl)
}

func (s *storage) Lease(context.Context) (plugin.Lease, error) {
	return s.lease.Lease(), s.guard.err()
}

// Attend knows the nodes of this process alone: no other can open the store.
func (s *storage) Attend(_ context.Context, node, note string) ([]plugin.Attendant, error) {
	return s.lease.Attend(node, note), s.guard.err()
}

// Close closes Pebble and then unlocks the directory. If the disk has failed or
// hangs, Pebble can't be closed: the directory stays locked until the process
// ends, and nothing more is written to it.
func (s *storage) Close() error {
	close(s.quit)
	s.purging()
	closed := make(chan error, 1)
	go func() {
		<-s.idle
		<-s.purged
		closed <- s.db.Close()
	}()
	limit := closeWithin
	select {
	case <-s.guard.lack.felt():
		limit = closeFullWithin
	default:
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case err := <-closed:
		return errors.Join(err, s.lock.Close())
	case <-s.guard.broken:
		return s.guard.err()
	case <-timeout.C:
		s.guard.fail(fmt.Errorf("not closed within %v", limit))
		return s.guard.err()
	}
}

// Package memory is a storage in memory, for tests and demonstrations: nothing
// survives the process. A Disk stands for what a real storage keeps on disk, so
// that a test can close a storage, as a crash would, and open it again. It must
// not know what the rows mean.
package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/imgate/imgate/engine/plugin"
)

// Plugin is the storage as operators configure it.
var Plugin = plugin.DefineStorage("memory", "keeps everything in memory and nothing after the process ends: for tests and demonstrations", Config{}, New)

// Config has nothing to configure.
type Config struct{}

// Validate has nothing to refuse.
func (Config) Validate() error { return nil }

// New opens a storage on an empty Disk of its own.
func New(context.Context, plugin.Env, Config) (plugin.Storage, error) {
	return Open(NewDisk()), nil
}

// Disk is what outlives a storage: the rows, the lease and its fence. Its rows
// take as much memory as they need; whoever writes them holds the bound. It may
// be open several times at once: those are nodes that share one storage.
type Disk struct {
	mu     sync.RWMutex
	tables map[string]*table
	lease  *plugin.LocalLease
}

// NewDisk returns an empty Disk.
func NewDisk() *Disk { return &Disk{tables: map[string]*table{}, lease: plugin.NewLocalLease(0)} }

// Open opens a storage on a Disk. What it does after Close is refused, so that
// in a crash test nothing of a node that was closed reaches the Disk.
func Open(d *Disk) plugin.Storage { return &storage{disk: d} }

// errClosed is what every method of a storage returns after Close.
var errClosed = errors.New("the storage is closed")

type storage struct {
	disk   *Disk
	closed atomic.Bool
}

func (s *storage) Close() error {
	s.closed.Store(true)
	return nil
}

func (s *storage) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if err := s.usable(ctx); err != nil {
		return fmt.Errorf("%w: %w", err, plugin.ErrNotApplied)
	}
	return s.write(ctx, func(d *Disk) error {
		if !d.lease.Admits(f) {
			return plugin.ErrFenced
		}
		for _, c := range changes {
			d.change(c)
		}
		return nil
	})
}

func (d *Disk) change(c plugin.Change) {
	t := d.tables[c.Table]
	if t == nil {
		t = &table{}
		d.tables[c.Table] = t
	}
	if c.Value == nil {
		t.remove(c.Key)
		return
	}
	t.put(bytes.Clone(c.Key), bytes.Clone(c.Value))
}

func (s *storage) Scan(ctx context.Context, name string, from, to []byte, n int) ([]plugin.Change, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	s.disk.mu.RLock()
	defer s.disk.mu.RUnlock()
	t := s.disk.tables[name]
	if t == nil {
		return nil, nil
	}
	var found []plugin.Change
	for r := range t.between(from, to) {
		if len(found) >= n {
			break
		}
		found = append(found, plugin.Change{Table: name, Key: bytes.Clone(r.key), Value: bytes.Clone(r.value)})
	}
	return found, nil
}

func (s *storage) write(ctx context.Context, do func(*Disk) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return do(s.disk)
}

func (s *storage) usable(ctx context.Context) error {
	if s.closed.Load() {
		return errClosed
	}
	return ctx.Err()
}

// Package pebble is the storage that needs nothing but a directory: an
// embedded Pebble, for a node that shares its data with no other. It must not
// know what the rows mean.
//
// Only one process can have the directory open. So a lease can't outlive the
// process that holds it, and a node that is started again after a crash need
// not wait for its own lease to run out: there is no lease when the storage is
// opened. Fences are on disk and go on growing.
//
// While less than 64 MiB are free on the disk nothing is written, and every
// write returns an error. Should the disk fail, the storage stops: every method
// returns an error until the process is started again, and what was
// acknowledged is there then.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/imgate/imgate/engine/plugin"
)

// Plugin is the storage as operators configure it.
var Plugin = plugin.DefineStorage("pebble", "keeps everything in a directory of this machine", Config{}, New)

// Config has nothing to configure: the directory is the node's data directory,
// and what else could be set has one value that serves all.
type Config struct{}

// Validate has nothing to refuse.
func (Config) Validate() error { return nil }

// New opens the storage in the folder pebble of the data directory, and makes
// the folder if there is none.
func New(_ context.Context, env plugin.Env, _ Config) (plugin.Storage, error) {
	return open(vfs.Default, filepath.Join(env.DataDir, "pebble"), env.Log)
}

func open(fs vfs.FS, dir string, log *slog.Logger) (*storage, error) {
	lock, err := lockDirectory(fs, dir)
	if err != nil {
		return nil, err
	}
	g := newGuard(fs)
	db, err := pebble.Open(dir, options(g, lock, log))
	if err != nil {
		return nil, errors.Join(describe(dir, err), lock.Close())
	}
	fence, err := readFence(db)
	if err := errors.Join(err, g.err()); err != nil {
		return nil, errors.Join(describe(dir, err), db.Close(), lock.Close())
	}
	g.arm()
	s := &storage{
		db: db, lock: lock, guard: g,
		jobs: make(chan func()), quit: make(chan struct{}), idle: make(chan struct{}),
		space: space{fs: fs, dir: dir},
		lease: plugin.NewLocalLease(fence),
		purge: &purge{db: db, log: log}, purged: make(chan struct{}),
	}
	// It lasts as long as the store, not as long as opening it.
	ctx, cancel := context.WithCancel(context.Background())
	s.purging = cancel
	go func() {
		defer close(s.purged)
		s.purge.run(ctx)
	}()
	go s.work()
	return s, nil
}

func lockDirectory(fs vfs.FS, dir string) (*pebble.Lock, error) {
	if err := makeDirectory(fs, dir); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := pebble.LockDirectory(dir, fs)
	if err == nil {
		return lock, nil
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return nil, fmt.Errorf("write to the data directory: %w", err)
	}
	return nil, fmt.Errorf("another imgate uses the directory %s: stop it, or give this one another data_dir: %w", dir, err)
}

// makeDirectory makes a directory and those above it, for this user alone, so
// that a power cut can't take them away again.
func makeDirectory(fs vfs.FS, dir string) error {
	parent := fs.PathDir(dir)
	if _, err := fs.Stat(dir); err == nil || parent == dir {
		return nil
	}
	if err := makeDirectory(fs, parent); err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	above, err := fs.OpenDir(parent)
	if err != nil {
		return err
	}
	return errors.Join(above.Sync(), above.Close())
}

// describe tells an operator what can be done about a store that doesn't open.
func describe(dir string, err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("the store in %s is damaged: restore it from a copy, or move it away to begin with an empty one: %w", dir, err)
	}
	return fmt.Errorf("open the store in %s: %w", dir, err)
}

// fenceKey is where the fence of the newest lease is kept. No table's name
// begins with a zero octet.
var fenceKey = []byte("\x00fence")

func readFence(db *pebble.DB) (plugin.Fence, error) {
	value, closer, err := db.Get(fenceKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the fence: %w", err)
	}
	defer closer.Close()
	if len(value) != 8 {
		return 0, fmt.Errorf("read the fence: %d octets, expected 8: %w", len(value), pebble.ErrCorruption)
	}
	return plugin.Fence(binary.BigEndian.Uint64(value)), nil
}

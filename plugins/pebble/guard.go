package pebble

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guard is the file system that Pebble sees. It stands between Pebble and a
// disk that fails, because Pebble (v2.1.7) doesn't survive one:
//
//   - A write or sync of the log that fails goes to Logger.Fatalf, which is
//     meant to end the process. If Fatalf returns, the commit counts as done.
//   - A log that can't be closed or made when the memtable is full is a panic
//     with a lock that was given up, and unlocking it again ends the process.
//   - A manifest that can't be written goes to Fatalf as well.
//   - A table that can't be written is tried again at once and for ever.
//
// So an error of the log, the manifest or the directory never reaches Pebble.
// If what is missing can come back (space, file descriptors), the guard waits
// for it and Pebble sees a slow disk; whoever waits for Pebble meanwhile is told
// so at once (see lack). After any other error the disk may no
// longer be trusted, not even if the next sync succeeds: the guard is broken for
// good, and the operation never returns; nor does any later one that would
// change a file. For the files that is the same as if the process had been
// killed at that moment, which Pebble is made for: all that was acknowledged is
// there when it is opened again.
//
// An error of writing a table is passed on, a moment later so that Pebble's next
// try isn't a hot loop: Pebble removes the half of a table and writes a new one.
// A table that can't be read breaks the guard too, because Pebble would go on
// trying at full speed to compact it.
//
// While Pebble is being opened (until arm) all errors are passed on.
type guard struct {
	vfs.FS
	armed  atomic.Bool
	once   sync.Once
	broken chan struct{} // closed when there is a cause
	cause  error
	lack   lack
}

const (
	// retryAfter is how long after an error that passes the next try is made.
	retryAfter = 200 * time.Millisecond
	// retryTableAfter is how long after an error of a table Pebble hears of it.
	// It logs each, and tries again at once.
	retryTableAfter = time.Second
)

func newGuard(fs vfs.FS) *guard {
	return &guard{FS: fs, broken: make(chan struct{}), lack: lack{begun: make(chan struct{})}}
}

// arm makes the guard keep errors from Pebble.
func (g *guard) arm() { g.armed.Store(true) }

// fail makes every later change of a file wait for ever. Only the first cause
// is kept.
func (g *guard) fail(cause error) {
	g.once.Do(func() {
		g.cause = cause
		close(g.broken)
	})
}

// err returns why the guard is broken, nil if it isn't.
func (g *guard) err() error {
	select {
	case <-g.broken:
		return fmt.Errorf("the store has stopped, restart when its disk is well: %w", g.cause)
	default:
		return nil
	}
}

// check does one change of a file until Pebble may see the result.
func (g *guard) check(name string, change func() error) error {
	waits := false
	defer func() {
		if waits {
			g.lack.ends()
		}
	}()
	for {
		g.waitIfBroken()
		err := change()
		if err == nil || !g.armed.Load() {
			return err
		}
		if isTable(name) {
			time.Sleep(retryTableAfter)
			return err
		}
		if !comesBack(err) {
			g.fail(err)
			continue
		}
		if !waits {
			waits = true
			g.lack.begins(err)
		}
		time.Sleep(retryAfter)
	}
}

// waitIfBroken doesn't return once the guard is armed and broken.
func (g *guard) waitIfBroken() {
	if !g.armed.Load() {
		return
	}
	select {
	case <-g.broken:
		select {}
	default:
	}
}

// isTable tells the files that Pebble can do without until they are complete.
func isTable(name string) bool {
	switch filepath.Ext(name) {
	case ".sst", ".blob":
		return true
	}
	return false
}

// comesBack tells whether an operation that failed changed nothing and may
// succeed later.
func comesBack(err error) bool {
	for _, passing := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// Create makes a file whose changes are guarded too.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.open(name, func() (vfs.File, error) { return g.FS.Create(name, category) })
}

// OpenReadWrite opens a file whose changes are guarded too.
func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.open(name, func() (vfs.File, error) { return g.FS.OpenReadWrite(name, category, opts...) })
}

// Open opens a file whose reads are watched.
func (g *guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, guard: g}, nil
}

// ReuseForWrite opens a file whose changes are guarded too.
func (g *guard) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.open(newname, func() (vfs.File, error) { return g.FS.ReuseForWrite(oldname, newname, category) })
}

// OpenDir opens a directory whose syncs are guarded.
func (g *guard) OpenDir(name string) (vfs.File, error) {
	return g.open(name, func() (vfs.File, error) { return g.FS.OpenDir(name) })
}

func (g *guard) open(name string, open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := g.check(name, func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardedFile{File: f, guard: g, name: name}, nil
}

// Rename is guarded.
func (g *guard) Rename(oldname, newname string) error {
	return g.check(newname, func() error { return g.FS.Rename(oldname, newname) })
}

// Link is guarded.
func (g *guard) Link(oldname, newname string) error {
	return g.check(newname, func() error { return g.FS.Link(oldname, newname) })
}

// MkdirAll is guarded.
func (g *guard) MkdirAll(dir string, perm os.FileMode) error {
	return g.check(dir, func() error { return g.FS.MkdirAll(dir, perm) })
}

// Remove waits if the guard is broken. Pebble can live with its errors.
func (g *guard) Remove(name string) error {
	g.waitIfBroken()
	return g.FS.Remove(name)
}

// RemoveAll waits if the guard is broken. Pebble can live with its errors.
func (g *guard) RemoveAll(name string) error {
	g.waitIfBroken()
	return g.FS.RemoveAll(name)
}

// Unwrap returns the file system below.
func (g *guard) Unwrap() vfs.FS { return g.FS }

// watchedFile is a file that is only read.
type watchedFile struct {
	vfs.File
	guard *guard
}

// ReadAt breaks the guard if it fails.
func (f *watchedFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.File.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) && f.guard.armed.Load() {
		f.guard.fail(err)
	}
	return n, err
}

// guardedFile is a file whose changes are guarded.
type guardedFile struct {
	vfs.File
	guard *guard
	name  string
}

// Write goes on where it stopped, if space was missing for the rest.
func (f *guardedFile) Write(p []byte) (int, error) {
	written := 0
	err := f.guard.check(f.name, func() error {
		n, err := f.File.Write(p[written:])
		written += n
		return err
	})
	return written, err
}

// WriteAt goes on where it stopped, if space was missing for the rest.
func (f *guardedFile) WriteAt(p []byte, offset int64) (int, error) {
	written := 0
	err := f.guard.check(f.name, func() error {
		n, err := f.File.WriteAt(p[written:], offset+int64(written))
		written += n
		return err
	})
	return written, err
}

// Sync is never tried again: what it failed to write may be lost already.
func (f *guardedFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData is never tried again: what it failed to write may be lost already.
func (f *guardedFile) SyncData() error { return f.sync(f.File.SyncData) }

// SyncTo is never tried again: what it failed to write may be lost already.
func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// Close may be what tells that writing failed, as a sync is.
func (f *guardedFile) Close() error { return f.sync(f.File.Close) }

func (f *guardedFile) sync(sync func() error) error {
	return f.guard.check(f.name, func() error {
		if err := sync(); err != nil {
			return &syncError{err}
		}
		return nil
	})
}

// syncError hides what an error of a sync is, so that it isn't waited out.
type syncError struct{ err error }

// Error returns what happened.
func (e *syncError) Error() string { return e.err.Error() }

package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/imgate/imgate/engine/plugin"
)

// sickDisk is a disk in memory that can fall ill and lose its power.
type sickDisk struct {
	*vfs.MemFS
	illness atomic.Pointer[func(errorfs.Op) error]
}

func newSickDisk() *sickDisk { return &sickDisk{MemFS: vfs.NewCrashableMem()} }

func (d *sickDisk) fs() vfs.FS {
	return errorfs.Wrap(d.MemFS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if illness := d.illness.Load(); illness != nil {
			return (*illness)(op)
		}
		return nil
	}))
}

func (d *sickDisk) fallIll(illness func(errorfs.Op) error) { d.illness.Store(&illness) }
func (d *sickDisk) recover()                               { d.illness.Store(nil) }

// fails makes an operation on files whose name has a part return an error.
func fails(kind errorfs.OpKind, part string, err error) func(errorfs.Op) error {
	return func(op errorfs.Op) error {
		if op.Kind == kind && strings.Contains(filepath.Base(op.Path), part) {
			return err
		}
		return nil
	}
}

// TestFailingDisk lets one operation fail for good while rows are written until
// the memtable has been full several times: Apply returns an error instead of
// ending the process, so does everything after it, and all that was
// acknowledged is there when the store is opened again.
func TestFailingDisk(t *testing.T) {
	for name, illness := range map[string]func(errorfs.Op) error{
		"sync of the log":               fails(errorfs.OpFileSyncData, ".log", syscall.EIO),
		"sync of the log, out of space": fails(errorfs.OpFileSyncData, ".log", syscall.ENOSPC),
		"write of the log":              fails(errorfs.OpFileWrite, ".log", syscall.EIO),
		"new log":                       fails(errorfs.OpCreate, ".log", syscall.EROFS),
		"sync of the directory":         fails(errorfs.OpFileSync, "pebble", syscall.EIO),
		"write of the manifest":         fails(errorfs.OpFileWrite, "MANIFEST", syscall.EIO),
		"sync of the manifest":          fails(errorfs.OpFileSync, "MANIFEST", syscall.EIO),
	} {
		t.Run(name, func(t *testing.T) {
			disk := newSickDisk()
			s := opened(t, disk.fs())
			f := acquired(t, s, "gw1")
			mustPut(t, s, f, 0)
			disk.fallIll(illness)
			acknowledged, err := putUntilError(t, s, f)
			wantError(t, err, "the store has stopped")

			wantError(t, put1(t.Context(), s, f, acknowledged), "the store has stopped")
			_, err = s.Scan(t.Context(), "spool", nil, nil, 1)
			wantError(t, err, "the store has stopped")
			_, err = s.Acquire(t.Context(), "gw1", time.Hour)
			wantError(t, err, "the store has stopped")

			after := opened(t, disk.CrashClone(vfs.CrashCloneCfg{}))
			wantRows(t, after, acknowledged)
		})
	}
}

// TestPassingTrouble lets an operation fail for a while: nothing is lost, and
// the store goes on when the trouble is over.
func TestPassingTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		illness func(errorfs.Op) error
		want    error
	}{
		"no space for the log":      {fails(errorfs.OpFileWrite, ".log", syscall.ENOSPC), syscall.ENOSPC},
		"no descriptor for the log": {fails(errorfs.OpCreate, ".log", syscall.EMFILE), syscall.EMFILE},
		"no space for the manifest": {fails(errorfs.OpFileWrite, "MANIFEST", syscall.ENOSPC), syscall.ENOSPC},
		"no space for a table":      {fails(errorfs.OpFileWrite, ".sst", syscall.ENOSPC), context.DeadlineExceeded},
		"no table can be made":      {fails(errorfs.OpCreate, ".sst", syscall.EIO), context.DeadlineExceeded},
		"no table can be synced":    {fails(errorfs.OpFileSyncData, ".sst", syscall.EIO), context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := newSickDisk()
			s := opened(t, disk.fs())
			f := acquired(t, s, "gw1")
			disk.fallIll(c.illness)
			acknowledged, err := putUntilError(t, s, f)
			if !errors.Is(err, c.want) {
				t.Fatalf("during the trouble: %v, want %v", err, c.want)
			}
			if err := s.Renew(t.Context(), f, time.Hour); err != nil {
				t.Errorf("the lease is lost to a trouble that passes: %v", err)
			}
			disk.recover()
			putWhenWell(t, s, f, acknowledged)
			if err := flush(t.Context(), s); err != nil {
				t.Fatalf("flush after the trouble: %v", err)
			}
			wantRows(t, s, acknowledged+1)
			wantRows(t, opened(t, disk.CrashClone(vfs.CrashCloneCfg{})), acknowledged+1)
		})
	}
}

// TestLackIsSaidAtOnce lets the log find no space: writes are refused at once,
// not at the end of their contexts, and the row under way is written later.
func TestLackIsSaidAtOnce(t *testing.T) {
	disk := newSickDisk()
	s := opened(t, disk.fs())
	f := acquired(t, s, "gw1")
	mustPut(t, s, f, 0)
	disk.fallIll(fails(errorfs.OpFileWrite, ".log", syscall.ENOSPC))
	for range 3 {
		// t.Context() has no end: an answer is proof enough that nobody waited.
		wantError(t, put1(t.Context(), s, f, 1), "the disk can't take what is written, the store waits for it: ")
	}
	if _, err := s.Acquire(t.Context(), "gw1", time.Hour); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Acquire: %v", err)
	}
	if _, err := s.Scan(t.Context(), "spool", nil, nil, 10); err != nil {
		t.Errorf("reading: %v", err)
	}
	disk.recover()
	putWhenWell(t, s, f, 2)
	wantRows(t, s, 3)
}

// TestCloseOnAFullDisk: whoever stops the node needn't make room first.
func TestCloseOnAFullDisk(t *testing.T) {
	disk := newSickDisk()
	s, err := open(disk.fs(), "data/pebble", discard())
	if err != nil {
		t.Fatal(err)
	}
	f := acquired(t, s, "gw1")
	mustPut(t, s, f, 0)
	disk.fallIll(fails(errorfs.OpFileWrite, ".log", syscall.ENOSPC))
	wantError(t, put1(t.Context(), s, f, 1), "the store waits for it")
	wantError(t, s.Close(), "not closed within "+closeFullWithin.String())
	wantRows(t, opened(t, disk.CrashClone(vfs.CrashCloneCfg{})), 1)
}

func TestHangingDisk(t *testing.T) {
	disk := newSickDisk()
	s := opened(t, disk.fs())
	f := acquired(t, s, "gw1")
	hanging, well := make(chan struct{}, 10), make(chan struct{})
	disk.fallIll(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData {
			hanging <- struct{}{}
			<-well
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	applied := make(chan error, 1)
	go func() { applied <- put1(ctx, s, f, 0) }()
	<-hanging
	cancel()
	wantError(t, <-applied, "wait for the disk")
	wantError(t, s.Renew(ctx, f, time.Hour), "context canceled")

	disk.recover()
	close(well)
	mustPut(t, s, f, 1)
	wantRows(t, s, 2)
}

func TestFullDisk(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := opened(t, disk)
	f := acquired(t, s, "gw1")
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: minFree - 1, TotalBytes: 1 << 40})
	s.space.checked = time.Time{} // nobody writes at this moment
	wantError(t, put1(t.Context(), s, f, 0), "the disk of data/pebble is full: 63 MiB are free")
	wantRows(t, s, 0)

	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: minFree, TotalBytes: 1 << 40})
	s.space.checked = time.Time{}
	mustPut(t, s, f, 0)
}

func TestFreeSpaceIsAskedForNowAndThen(t *testing.T) {
	disk := vfs.NewMem()
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: minFree, TotalBytes: 1 << 40})
	s := space{fs: disk, dir: "data"}
	now := time.Now()
	if err := s.check(now); err != nil {
		t.Fatal(err)
	}
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 0, TotalBytes: 1 << 40})
	if err := s.check(now.Add(spaceKnownFor - 1)); err != nil {
		t.Errorf("asked again too early: %v", err)
	}
	if err := s.check(now.Add(spaceKnownFor)); err == nil {
		t.Error("didn't ask again")
	}
}

// TestDamagedTable damages a table: the rows in it are an error, not missing,
// and nothing is written any more.
func TestDamagedTable(t *testing.T) {
	disk := vfs.NewMem()
	s, err := open(disk, "data/pebble", discard())
	if err != nil {
		t.Fatal(err)
	}
	f := acquired(t, s, "gw1")
	for i := range 100 {
		row := plugin.Change{Table: "spool", Key: fmt.Appendf(nil, "%06d", i), Value: words(1000)}
		if err := s.Apply(t.Context(), f, []plugin.Change{row}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.db.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	damageTables(t, disk)

	s = opened(t, disk)
	if _, err := s.Scan(t.Context(), "spool", nil, nil, 100); err == nil {
		t.Error("Scan of a damaged table returns no error")
	}
	_, err = s.Acquire(t.Context(), "gw1", time.Hour)
	wantError(t, err, "the store has stopped")
}

func TestUnreadableTable(t *testing.T) {
	disk := newSickDisk()
	s := opened(t, disk.fs())
	f := acquired(t, s, "gw1")
	mustPut(t, s, f, 0)
	if err := flush(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	disk.fallIll(fails(errorfs.OpFileReadAt, ".sst", syscall.EIO))
	_, err := s.Scan(t.Context(), "spool", nil, nil, 1)
	wantError(t, err, "the store has stopped")
	wantError(t, put1(t.Context(), s, f, 1), "the store has stopped")
}

// damageTables overwrites what is in the middle of each table.
func damageTables(t *testing.T, fs *vfs.MemFS) {
	t.Helper()
	names, err := fs.List("data/pebble")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !isTable(name) {
			continue
		}
		f, err := fs.OpenReadWrite("data/pebble/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(bytes.Repeat([]byte{0xee}, 100), info.Size()/2)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

const rowSize = 10_000

func put1(ctx context.Context, s *storage, f plugin.Fence, i int) error {
	key := fmt.Appendf(nil, "%06d", i)
	return s.Apply(ctx, f, []plugin.Change{{Table: "spool", Key: key, Value: bytes.Repeat(key, rowSize/len(key))}})
}

func mustPut(t *testing.T, s *storage, f plugin.Fence, i int) {
	t.Helper()
	if err := put1(t.Context(), s, f, i); err != nil {
		t.Fatalf("row %d: %v", i, err)
	}
}

// putWhenWell writes a row as soon as the store takes one again.
func putWhenWell(t *testing.T, s *storage, f plugin.Fence, i int) {
	t.Helper()
	for {
		err := put1(t.Context(), s, f, i)
		if err == nil {
			return
		}
		if s.guard.err() != nil || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EMFILE) && !errors.Is(err, errLackOver) {
			t.Fatalf("after the trouble: %v", err)
		}
		time.Sleep(retryAfter) // the guard looks again by the clock
	}
}

// putUntilError writes rows, and has the memtable written to a table after
// each, until one of the two fails or isn't done within half a second. It
// returns how many rows were acknowledged.
func putUntilError(t *testing.T, s *storage, f plugin.Fence) (int, error) {
	t.Helper()
	acknowledged := 0
	for acknowledged < 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := put1(ctx, s, f, acknowledged)
		if err == nil {
			acknowledged++
			err = flush(ctx, s)
		}
		cancel()
		if err != nil {
			return acknowledged, err
		}
	}
	t.Fatal("nothing failed")
	return 0, nil
}

// flush has the memtable written to a table.
func flush(ctx context.Context, s *storage) error {
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		if done, err := s.db.AsyncFlush(); err == nil {
			<-done
		}
	}()
	select {
	case <-flushed:
		return nil
	case <-s.guard.broken:
		return s.guard.err()
	case <-s.guard.lack.felt():
		return s.guard.lack.err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wantRows checks that the first n rows are there. One more may be: the one
// that wasn't acknowledged.
func wantRows(t *testing.T, s *storage, n int) {
	t.Helper()
	rows, err := s.Scan(t.Context(), "spool", nil, nil, n+2)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < n || len(rows) > n+1 {
		t.Errorf("%d rows, %d were acknowledged", len(rows), n)
	}
}

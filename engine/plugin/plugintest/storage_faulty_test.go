package plugintest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// TestStorageMatrix shows that each case of the suite bites.
func TestStorageMatrix(t *testing.T) {
	t.Parallel()
	prove(t, storageCases(), brokenStorage(func(*plainStorage) {}), slices.Concat(rowFaults, applyFaults, leaseFaults, standbyFaults))
}

// plainStorage is a sound storage of the plainest kind. A fault replaces one of
// its functions.
type plainStorage struct {
	*plainDisk

	apply   func(s *plainStorage, changes []plugin.Change) error
	ended   func(s *plainStorage, changes []plugin.Change) error // Apply with a context that has ended
	fenced  func(s *plainStorage, f plugin.Fence) bool
	refused func(s *plainStorage, changes []plugin.Change)
	scan    func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error)
	acquire func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error)
	renew   func(s *plainStorage, f plugin.Fence, ttl time.Duration) error
	release func(s *plainStorage, f plugin.Fence) error
	cede    func(s *plainStorage, f plugin.Fence, to string, ttl time.Duration) error // Handover
	lease   func(s *plainStorage) plugin.Lease
	attend  func(s *plainStorage, node, note string) ([]plugin.Attendant, error)
	called  func(s *plainStorage) error // before each call that concerns the lease
	reopen  func(*plainDisk) *plainDisk
}

// plainDisk is what outlives a plainStorage.
type plainDisk struct {
	mu     sync.Mutex
	tables map[string]map[string][]byte
	plainLease

	// For faults in what happens at the same time.
	scans    int
	calls    int        // that concern the lease
	scanned  *sync.Cond // scans or calls grew; mu is its lock
	applying bool
}

func brokenStorage(breakIt func(*plainStorage)) func(T) StorageHarness {
	return func(T) StorageHarness {
		disk := &plainDisk{tables: map[string]map[string][]byte{}, plainLease: plainLease{notes: map[string]plainNote{}}}
		disk.scanned = sync.NewCond(&disk.mu)
		opened := false
		return StorageHarness{Open: func(T) plugin.Storage {
			s := &plainStorage{
				plainDisk: disk,
				apply:     soundApply, ended: soundEnded, fenced: soundFenced, refused: func(*plainStorage, []plugin.Change) {},
				scan:    soundScan,
				acquire: soundAcquire, renew: soundRenew, release: soundRelease,
				cede: soundHandover, lease: soundLease, attend: soundAttend,
				called: func(*plainStorage) error { return nil },
				reopen: func(d *plainDisk) *plainDisk { return d },
			}
			breakIt(s)
			if opened {
				s.plainDisk = s.reopen(disk)
			}
			opened = true
			return s
		}}
	}
}

func (s *plainStorage) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return s.ended(s, changes)
	}
	if s.fenced(s, f) {
		s.refused(s, changes)
		return plugin.ErrFenced
	}
	return s.apply(s, changes)
}

func (s *plainStorage) Scan(_ context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans++
	s.scanned.Broadcast()
	return s.scan(s, table, from, to, n)
}

func (s *plainStorage) Close() error { return nil }

func soundApply(s *plainStorage, changes []plugin.Change) error {
	for _, c := range changes {
		s.set(c)
	}
	return nil
}

func soundEnded(*plainStorage, []plugin.Change) error { return plugin.ErrNotApplied }

// set makes one change. It copies what it keeps.
func (d *plainDisk) set(c plugin.Change) {
	if c.Value == nil {
		delete(d.tables[c.Table], string(c.Key))
		return
	}
	d.table(c.Table)[string(c.Key)] = bytes.Clone(c.Value)
}

func (d *plainDisk) table(name string) map[string][]byte {
	if d.tables[name] == nil {
		d.tables[name] = map[string][]byte{}
	}
	return d.tables[name]
}

func soundFenced(s *plainStorage, f plugin.Fence) bool { return f == 0 || f != s.fence }

func soundScan(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
	var found []plugin.Change
	for _, key := range slices.Sorted(maps.Keys(s.tables[table])) {
		if key >= string(from) && (to == nil || key < string(to)) && len(found) < n {
			found = append(found, plugin.Change{Table: table, Key: []byte(key), Value: bytes.Clone(s.tables[table][key])})
		}
	}
	return found, nil
}

// scanFault breaks the scan of a storage that is sound otherwise.
func scanFault(name, breaks string, scan func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error)) fault[StorageHarness] {
	return fault[StorageHarness]{name, breaks, brokenStorage(func(s *plainStorage) { s.scan = scan })}
}

// rowsFault breaks what a sound scan returns.
func rowsFault(name, breaks string, spoil func([]plugin.Change)) fault[StorageHarness] {
	return scanFault(name, breaks, func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
		found, err := soundScan(s, table, from, to, n)
		spoil(found)
		return found, err
	})
}

var rowFaults = []fault[StorageHarness]{
	rowsFault("cuts a value at its first zero octet", "what was applied is scanned, octet by octet", func(found []plugin.Change) {
		for i := range found {
			found[i].Value, _, _ = bytes.Cut(found[i].Value, []byte{0})
		}
	}),
	rowsFault("sorts without regard to case", "rows come in the order of their keys' octets", func(found []plugin.Change) {
		slices.SortStableFunc(found, func(a, b plugin.Change) int {
			return bytes.Compare(lowerASCII(a.Key), lowerASCII(b.Key))
		})
	}),
	scanFault("includes to", "a scan starts at from and ends before to",
		func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			if to != nil {
				to = append(bytes.Clone(to), 0)
			}
			return soundScan(s, table, from, to, n)
		}),
	scanFault("excludes from", "a scan starts at from and ends before to",
		func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			if len(from) > 0 {
				from = append(bytes.Clone(from), 0)
			}
			return soundScan(s, table, from, to, n)
		}),
	scanFault("takes no to for an empty one", "no to means no end",
		func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			return soundScan(s, table, from, append([]byte{}, to...), n)
		}),
	scanFault("ends at 0xff without to", "no to means no end",
		func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			if to == nil {
				to = []byte{0xff}
			}
			return soundScan(s, table, from, to, n)
		}),
	scanFault("returns a row too many", "a scan returns at most n rows",
		func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			return soundScan(s, table, from, to, n+1)
		}),
	rowsFault("returns nil for an empty value", "an empty value is a row", func(found []plugin.Change) {
		for i := range found {
			if len(found[i].Value) == 0 {
				found[i].Value = nil
			}
		}
	}),
	scanFault("doesn't know a table before it is written to", "a table that was never written to is empty",
		func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			if s.tables[table] == nil {
				return nil, errors.New("no such table")
			}
			return soundScan(s, table, from, to, n)
		}),
	scanFault("returns its own memory", "what a scan returns is the caller's",
		func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			found, err := soundScan(s, table, from, to, n)
			for i := range found {
				found[i].Value = s.tables[table][string(found[i].Key)]
			}
			return found, err
		}),
	rowsFault("returns values that overlap", "what a scan returns is the caller's", func(found []plugin.Change) {
		values := []byte{}
		for _, f := range found {
			values = append(values, f.Value...)
		}
		for i := range found {
			size := len(found[i].Value)
			found[i].Value, values = values[:size], values[size:]
		}
	}),
	{"loses the newest Apply when it is closed", "what was applied outlives Close", brokenStorage(func(s *plainStorage) {
		s.reopen = func(d *plainDisk) *plainDisk {
			d.set(aRow("spool", "a", "1"))
			return d
		}
	})},
}

func lowerASCII(key []byte) []byte {
	lower := bytes.Clone(key)
	for i, b := range lower {
		if 'A' <= b && b <= 'Z' {
			lower[i] = b + 'a' - 'A'
		}
	}
	return lower
}

// applyFault breaks the Apply of a storage that is sound otherwise.
func applyFault(name, breaks string, apply func(s *plainStorage, changes []plugin.Change) error) fault[StorageHarness] {
	return fault[StorageHarness]{name, breaks, brokenStorage(func(s *plainStorage) { s.apply = apply })}
}

var applyFaults = []fault[StorageHarness]{
	applyFault("doesn't delete what is on disk", "a nil value deletes", func(s *plainStorage, changes []plugin.Change) error {
		before := maps.Clone(s.table("spool"))
		err := soundApply(s, changes)
		for _, c := range changes {
			if value, ok := before[string(c.Key)]; ok && c.Value == nil {
				s.table(c.Table)[string(c.Key)] = value
			}
		}
		return err
	}),
	applyFault("applies a batch from behind", "of two changes to one key the later counts", func(s *plainStorage, changes []plugin.Change) error {
		changes = slices.Clone(changes)
		slices.Reverse(changes)
		return soundApply(s, changes)
	}),
	applyFault("takes an empty value for nil", "an empty value is a row", func(s *plainStorage, changes []plugin.Change) error {
		changes = slices.Clone(changes)
		for i := range changes {
			changes[i].Value = append([]byte(nil), changes[i].Value...)
		}
		return soundApply(s, changes)
	}),
	{"joins table and key without a mark between", "tables are apart", brokenStorage(joinTables)},
	{"writes the first change before it looks at the fence", "an Apply that is refused changes nothing", brokenStorage(func(s *plainStorage) {
		s.refused = func(s *plainStorage, changes []plugin.Change) { s.set(changes[0]) }
	})},
	applyFault("shows half of a batch", "a scan sees all of an Apply or nothing", func(s *plainStorage, changes []plugin.Change) error {
		if s.applying || len(changes) < 10 || len(s.table("spool")) < len(changes) {
			return soundApply(s, changes)
		}
		s.applying = true // from now on; once is enough
		half := len(changes) / 2
		_ = soundApply(s, changes[:half])
		s.awaitScan() // only the case gets here; it scans all the time
		return soundApply(s, changes[half:])
	}),
	{"refuses a scan beside Apply", "scans run beside each other and beside Apply", brokenStorage(func(s *plainStorage) {
		s.apply = func(s *plainStorage, changes []plugin.Change) error {
			if changes[0].Table == "busy" && len(s.table("busy")) == 0 {
				s.applying = true
				s.awaitScan() // only the case gets here; it scans all the time
				s.applying = false
			}
			return soundApply(s, changes)
		}
		s.scan = func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
			if s.applying {
				return nil, errors.New("busy")
			}
			return soundScan(s, table, from, to, n)
		}
	})},
	applyFault("keeps the caller's values", "what Apply was given stays the caller's", func(s *plainStorage, changes []plugin.Change) error {
		err := soundApply(s, changes)
		for _, c := range changes {
			if kept, ok := s.table(c.Table)[string(c.Key)]; ok && bytes.Equal(kept, c.Value) {
				s.table(c.Table)[string(c.Key)] = c.Value
			}
		}
		return err
	}),
	{"says that nothing was applied after it was", "an Apply that says that nothing was applied has applied nothing", brokenStorage(func(s *plainStorage) {
		s.ended = func(s *plainStorage, changes []plugin.Change) error {
			return errors.Join(soundApply(s, changes), plugin.ErrNotApplied)
		}
	})},
	applyFault("takes only half a mebibyte", "a key, a value and an Apply may be as large as the limits", func(s *plainStorage, changes []plugin.Change) error {
		for _, c := range changes {
			if len(c.Value) > plugin.MaxValue/2 {
				return errors.New("too large")
			}
		}
		return soundApply(s, changes)
	}),
}

// awaitScan lets go of the lock until another goroutine has begun a scan. The
// case that needs it never stops scanning.
func (d *plainDisk) awaitScan() {
	for seen := d.scans; d.scans == seen; {
		d.scanned.Wait()
	}
}

// joinTables keeps all rows in one table, under the table's name and the key.
func joinTables(s *plainStorage) {
	s.apply = func(s *plainStorage, changes []plugin.Change) error {
		for _, c := range changes {
			s.set(plugin.Change{Key: append([]byte(c.Table), c.Key...), Value: c.Value})
		}
		return nil
	}
	s.scan = func(s *plainStorage, table string, from, to []byte, n int) ([]plugin.Change, error) {
		if to == nil {
			to = scanEnd()
		}
		found, err := soundScan(s, "", append([]byte(table), from...), append([]byte(table), to...), n)
		for i := range found {
			found[i].Table, found[i].Key = table, found[i].Key[len(table):]
		}
		return found, err
	}
}

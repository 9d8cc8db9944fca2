package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// StorageHarness is how a case gets at the storage under test.
type StorageHarness struct {
	// Open opens the storage. A case that has closed one may open it again, and
	// must then find what was on disk. The case closes what it opens.
	Open func(t T) plugin.Storage
}

// Storage runs the suite of storages. harness is called once for each case and
// must give it a storage that is empty.
func Storage(t *testing.T, harness func(T) StorageHarness) {
	t.Helper()
	run(t, storageCases(), harness)
}

// leaseForever is a ttl that doesn't run out while a case runs.
const leaseForever = time.Hour

// storageCases are the promises of plugin.Storage. A case judges its own
// promise and nothing else: where it needs another one, it makes do without
// if that one is broken.
func storageCases() []Case[StorageHarness] {
	return slices.Concat(rowCases(), leaseCases(), standbyCases())
}

func rowCases() []Case[StorageHarness] {
	return []Case[StorageHarness]{
		{"what was applied is scanned, octet by octet", storageRoundTrip},
		{"rows come in the order of their keys' octets", storageOrder},
		{"a scan starts at from and ends before to", storageBounds},
		{"no to means no end", storageNoEnd},
		{"a scan returns at most n rows", storageLimit},
		{"a nil value deletes", storageDeletes},
		{"of two changes to one key the later counts", storageLaterCounts},
		{"an empty value is a row", storageEmptyValue},
		{"a table that was never written to is empty", storageUnknownTable},
		{"tables are apart", storageTablesApart},
		{"an Apply that is refused changes nothing", storageRefusal},
		{"an Apply that says that nothing was applied has applied nothing", storageNotApplied},
		{"a scan sees all of an Apply or nothing", storageAtomic},
		{"scans run beside each other and beside Apply", storageConcurrent},
		{"what was applied outlives Close", storageDurable},
		{"what a scan returns is the caller's", storageScanOwned},
		{"what Apply was given stays the caller's", storageApplyOwned},
		{"a key, a value and an Apply may be as large as the limits", storageLimits},
	}
}

func storageRoundTrip(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	want := []plugin.Change{aRow("spool", "a\x00\n\xff", "1\x00\n\xff"), aRow("spool", "b", "\x00")}
	applyRows(t, s, f, want...)
	expectRows(t, scanTable(t, s, "spool"), want...)
}

func storageOrder(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f, someRows("spool", "b", "\xff", "\x00")...)
	applyRows(t, s, f, someRows("spool", "aa", "a", "a\x00", "B")...)
	expectRowKeys(t, scanTable(t, s, "spool"), "\x00", "B", "a", "a\x00", "aa", "b", "\xff")
}

func storageBounds(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f, someRows("spool", "a", "b", "c", "d")...)
	expectRowKeys(t, scanRows(t, s, "spool", "b", []byte("d"), 10), "b", "c")
	expectRowKeys(t, scanRows(t, s, "spool", "aa", []byte("bb"), 10), "b")
	expectRowKeys(t, scanRows(t, s, "spool", "", []byte("b"), 10), "a")
	expectRowKeys(t, scanRows(t, s, "spool", "c", []byte("c"), 10))
}

func storageNoEnd(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f, someRows("spool", "a", "b", "\xff\xff")...)
	expectRowKeys(t, scanRows(t, s, "spool", "", nil, 10), "a", "b", "\xff\xff")
}

func storageLimit(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f, someRows("spool", "a", "b", "c")...)
	expectRowKeys(t, scanRows(t, s, "spool", "", scanEnd(), 2), "a", "b")
}

func storageDeletes(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f, someRows("spool", "a", "b", "c")...)
	applyRows(t, s, f, aDeletion("spool", "b"), aDeletion("spool", "never"))
	expectRowKeys(t, scanTable(t, s, "spool"), "a", "c")
}

func storageLaterCounts(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f,
		aRow("spool", "a", "1"), aRow("spool", "a", "2"),
		aRow("spool", "b", "1"), aDeletion("spool", "b"),
		aDeletion("spool", "c"), aRow("spool", "c", "3"))
	expectRows(t, scanTable(t, s, "spool"), aRow("spool", "a", "2"), aRow("spool", "c", "3"))
}

func storageEmptyValue(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f, aRow("spool", "a", ""))
	got := scanTable(t, s, "spool")
	expectRows(t, got, aRow("spool", "a", ""))
	if len(got) == 1 && got[0].Value == nil {
		t.Errorf("the empty value came back as nil, which would delete the row")
	}
}

func storageUnknownTable(t T, h StorageHarness) {
	s, _ := openLeased(t, h)
	expectRows(t, scanTable(t, s, "unheard/of"))
}

func storageTablesApart(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	applyRows(t, s, f, aRow("a", "bk", "a"), aRow("ab", "k", "ab"), aRow("a/b", "k", "a/b"), aRow("b", "bk", "b"))
	applyRows(t, s, f, aDeletion("b", "k"), aDeletion("a", "k"))
	expectRows(t, scanTable(t, s, "a"), aRow("a", "bk", "a"))
	expectRows(t, scanTable(t, s, "ab"), aRow("ab", "k", "ab"))
	expectRows(t, scanTable(t, s, "a/b"), aRow("a/b", "k", "a/b"))
	expectRows(t, scanTable(t, s, "b"), aRow("b", "bk", "b"))
}

func storageRefusal(t T, h StorageHarness) {
	s, old := openLeased(t, h)
	applyRows(t, s, old, aRow("spool", "kept", "1"), aRow("spool", "other", "1"))
	supersedeLease(t, s, old)
	err := s.Apply(t.Context(), old, []plugin.Change{aRow("spool", "kept", "2"), aDeletion("spool", "other"), aRow("spool", "new", "2")})
	if err == nil {
		return // that it must be refused is a case of its own
	}
	expectRows(t, scanTable(t, s, "spool"), aRow("spool", "kept", "1"), aRow("spool", "other", "1"))
}

// storageNotApplied calls Apply with a context that has ended: what comes of that
// is the storage's business, as long as it is true.
func storageNotApplied(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	before := aRow("spool", "a", "1")
	applyRows(t, s, f, before)
	ended, end := context.WithCancel(t.Context())
	end()
	err := s.Apply(ended, f, []plugin.Change{aRow("spool", "b", "1")})
	if errors.Is(err, plugin.ErrNotApplied) {
		expectRows(t, scanTable(t, s, "spool"), before)
	}
}

// storageAtomic rewrites a set of rows, a generation in each Apply, while
// another goroutine reads the set: each time, all rows are of one generation.
func storageAtomic(t T, h StorageHarness) {
	const generations, width = 30, 40
	s, f := openLeased(t, h)
	generation := func(g int) []plugin.Change {
		batch := make([]plugin.Change, width)
		for i := range batch {
			batch[i] = aRow("spool", fmt.Sprintf("%03d", i), fmt.Sprint(g))
		}
		return batch
	}
	applyRows(t, s, f, generation(0)...)
	written := inBackground(t, func() error {
		for g := 1; g <= generations; g++ {
			if err := s.Apply(t.Context(), f, generation(g)); err != nil {
				return fmt.Errorf("generation %d: %w", g, err)
			}
		}
		return nil
	})
	for {
		select {
		case err := <-written:
			if err != nil {
				t.Errorf("%v", err)
			}
			return
		default:
			storageOneGeneration(t, s, width)
		}
	}
}

func storageOneGeneration(t T, s plugin.Storage, width int) {
	t.Helper()
	got, err := s.Scan(t.Context(), "spool", nil, scanEnd(), width+1)
	if err != nil {
		return // that a scan runs beside Apply is a case of its own
	}
	if len(got) != width {
		t.Fatalf("a scan beside Apply saw %d rows of %d", len(got), width)
	}
	for _, r := range got {
		if !bytes.Equal(r.Value, got[0].Value) {
			t.Fatalf("a scan saw half of an Apply: %s beside %s", briefRow(got[0]), briefRow(r))
		}
	}
}

func storageConcurrent(t T, h StorageHarness) {
	const scanners, rounds = 4, 20
	s, f := openLeased(t, h)
	still := someRows("still", "a", "b")
	applyRows(t, s, f, still...)

	writing, stop := context.WithCancel(t.Context())
	defer stop()
	var ended []<-chan error
	for range scanners {
		ended = append(ended, inBackground(t, func() error {
			for writing.Err() == nil {
				got, err := s.Scan(t.Context(), "still", nil, scanEnd(), 10)
				if err != nil {
					return err
				}
				if diff := rowsDiffer(got, still); diff != "" {
					return errors.New(diff)
				}
			}
			return nil
		}))
	}
	for i := range rounds {
		applyRows(t, s, f, aRow("busy", fmt.Sprint(i), "1"))
	}
	stop()
	for _, e := range ended {
		if err := <-e; err != nil {
			t.Errorf("a scan beside others and beside Apply: %v", err)
		}
	}
}

func storageDurable(t T, h StorageHarness) {
	s := h.Open(t)
	f := acquireLease(t, s, "a", leaseForever)
	applyRows(t, s, f, aRow("spool", "a", "1"), aRow("spool", "b", "1"), aRow("cdr", "c", "1"))
	applyRows(t, s, f, aRow("spool", "a", "2"))
	closeStorage(t, s)

	s = openStorage(t, h)
	expectRows(t, scanTable(t, s, "spool"), aRow("spool", "a", "2"), aRow("spool", "b", "1"))
	expectRows(t, scanTable(t, s, "cdr"), aRow("cdr", "c", "1"))
}

func storageScanOwned(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	want := []plugin.Change{aRow("spool", "a", "1"), aRow("spool", "b", "2")}
	applyRows(t, s, f, want...)
	got := scanTable(t, s, "spool")
	for i := range got {
		expectRows(t, got[i:], want[min(i, len(want)):]...) // what was done to one row spoils no other
		scribbleOver(got[i].Key)
		scribbleOver(got[i].Value)
	}
	expectRows(t, scanTable(t, s, "spool"), want...)
}

func storageApplyOwned(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	changes := []plugin.Change{aRow("spool", "a", "1"), aRow("spool", "b", "2")}
	applyRows(t, s, f, changes...)
	for i := range changes {
		scribbleOver(changes[i].Key)
		scribbleOver(changes[i].Value)
		changes[i] = plugin.Change{}
	}
	expectRows(t, scanTable(t, s, "spool"), aRow("spool", "a", "1"), aRow("spool", "b", "2"))
}

func storageLimits(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	var batch []plugin.Change
	for left := plugin.MaxApply; left > plugin.MaxKey; {
		key := bytes.Repeat([]byte{'k'}, plugin.MaxKey)
		key[0] = 'a' + byte(len(batch))
		value := bytes.Repeat(key[:1], min(plugin.MaxValue, left-plugin.MaxKey))
		batch = append(batch, plugin.Change{Table: "spool", Key: key, Value: value})
		left -= len(key) + len(value)
	}
	applyRows(t, s, f, batch...)
	expectRows(t, scanTable(t, s, "spool"), batch...)
}

// aRow is a row of a table, with slices of its own.
func aRow(table, key, value string) plugin.Change {
	return plugin.Change{Table: table, Key: []byte(key), Value: []byte(value)}
}

func aDeletion(table, key string) plugin.Change {
	return plugin.Change{Table: table, Key: []byte(key)}
}

// someRows are rows with a value that doesn't matter.
func someRows(table string, keys ...string) []plugin.Change {
	batch := make([]plugin.Change, len(keys))
	for i, key := range keys {
		batch[i] = aRow(table, key, "1")
	}
	return batch
}

// scanEnd lies behind every key of this suite, so that a scan need not depend on
// what a nil end means.
func scanEnd() []byte { return bytes.Repeat([]byte{0xff}, plugin.MaxKey) }

// scribbleOver overwrites a slice, and what lies behind it if the slice says that
// this is its own.
func scribbleOver(b []byte) {
	b = b[:cap(b)]
	for i := range b {
		b[i] = '#'
	}
}

// openStorage opens the storage and closes it at the end of the case.
func openStorage(t T, h StorageHarness) plugin.Storage {
	t.Helper()
	s := h.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// openLeased opens the storage and takes the lease for longer than the case runs.
func openLeased(t T, h StorageHarness) (plugin.Storage, plugin.Fence) {
	t.Helper()
	s := openStorage(t, h)
	return s, acquireLease(t, s, "a", leaseForever)
}

func closeStorage(t T, s plugin.Storage) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func acquireLease(t T, s plugin.Storage, node string, ttl time.Duration) plugin.Fence {
	t.Helper()
	f, err := s.Acquire(t.Context(), node, ttl)
	if err != nil {
		t.Fatalf("Acquire by node %q: %v", node, err)
	}
	return f
}

func applyRows(t T, s plugin.Storage, f plugin.Fence, changes ...plugin.Change) {
	t.Helper()
	if err := s.Apply(t.Context(), f, changes); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func scanRows(t T, s plugin.Storage, table, from string, to []byte, n int) []plugin.Change {
	t.Helper()
	rows, err := s.Scan(t.Context(), table, []byte(from), to, n)
	if err != nil {
		t.Fatalf("Scan of %q: %v", table, err)
	}
	return rows
}

// scanTable reads a table of fewer than 100 rows.
func scanTable(t T, s plugin.Storage, table string) []plugin.Change {
	t.Helper()
	return scanRows(t, s, table, "", scanEnd(), 100)
}

func expectRows(t T, got []plugin.Change, want ...plugin.Change) {
	t.Helper()
	if diff := rowsDiffer(got, want); diff != "" {
		t.Errorf("%s", diff)
	}
}

func expectRowKeys(t T, got []plugin.Change, want ...string) {
	t.Helper()
	keys := make([]string, len(got))
	for i, r := range got {
		keys[i] = string(r.Key)
	}
	if fmt.Sprintf("%q", keys) != fmt.Sprintf("%q", want) {
		t.Errorf("scanned the keys %q, want %q", keys, want)
	}
}

// rowsDiffer says how two lists of rows differ, without printing large ones.
func rowsDiffer(got, want []plugin.Change) string {
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i]
		if g.Table != w.Table || !bytes.Equal(g.Key, w.Key) || !bytes.Equal(g.Value, w.Value) {
			return fmt.Sprintf("row %d is %s, want %s", i, briefRow(g), briefRow(w))
		}
	}
	switch {
	case len(got) > len(want):
		return fmt.Sprintf("%d rows, want %d: the first too many is %s", len(got), len(want), briefRow(got[len(want)]))
	case len(got) < len(want):
		return fmt.Sprintf("%d rows, want %d: the first missing is %s", len(got), len(want), briefRow(want[len(got)]))
	}
	return ""
}

func briefRow(c plugin.Change) string {
	return fmt.Sprintf("{%s %.20q (%d octets) %.20q (%d octets)}", c.Table, c.Key, len(c.Key), c.Value, len(c.Value))
}

// inBackground runs what a case does beside its own goroutine, and keeps the
// storage open until it has ended. Its error comes through the channel, because
// only the case's own goroutine may fail the case.
func inBackground(t T, work func() error) <-chan error {
	result, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		result <- work()
	}()
	t.Cleanup(func() { <-ended })
	return result
}

// supersedeLease takes a lease that is newer than old, by whichever way works: that
// each way works is a case of its own.
func supersedeLease(t T, s plugin.Storage, old plugin.Fence) plugin.Fence {
	t.Helper()
	if f, err := s.Acquire(t.Context(), "a", leaseForever); err == nil && f > old {
		return f
	}
	_ = s.Release(t.Context(), old)
	f, err := s.Acquire(t.Context(), "b", leaseForever)
	if err != nil || f <= old {
		t.Fatalf("can't get a newer lease than %d: fence %d, %v", old, f, err)
	}
	return f
}

package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Storage(t, func(plugintest.T) plugintest.StorageHarness {
		disk := NewDisk()
		return plugintest.StorageHarness{Open: func(plugintest.T) plugin.Storage { return Open(disk) }}
	})
}

func TestPlugin(t *testing.T) {
	s, err := plugin.Open[plugin.Storage](t.Context(), Plugin, plugin.Env{}, Plugin.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), "gw1", time.Second); err != nil {
		t.Error(err)
	}
}

func TestTwoNodesShareADisk(t *testing.T) {
	disk := NewDisk()
	first, second := Open(disk), Open(disk)
	old, err := first.Acquire(t.Context(), "gw1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Acquire(t.Context(), "gw2", time.Hour); err != plugin.ErrHeld {
		t.Fatalf("the second node: %v, want ErrHeld", err)
	}
	if err := first.Release(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Acquire(t.Context(), "gw2", time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := first.Apply(t.Context(), old, nil); err != plugin.ErrFenced {
		t.Errorf("Apply by the first node: %v, want ErrFenced", err)
	}
}

func TestClosedRefuses(t *testing.T) {
	disk := NewDisk()
	s := Open(disk)
	f, err := s.Acquire(t.Context(), "gw1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), f, []plugin.Change{{Table: "spool", Key: []byte("k"), Value: []byte("v")}}); !errors.Is(err, errClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	if _, err := s.Scan(t.Context(), "spool", nil, nil, 1); err != errClosed {
		t.Errorf("Scan after Close: %v", err)
	}
}

// TestTableAgainstMap compares a table with a map that is sorted each time,
// over random changes of keys that meet often.
func TestTableAgainstMap(t *testing.T) {
	for _, keys := range []int{10, pageRows, 4 * pageRows} {
		t.Run(fmt.Sprint(keys, " keys"), func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, uint64(keys)))
			table, want := &table{}, map[string][]byte{}
			for step := range 10 * keys {
				key := number(random.IntN(keys))
				if random.IntN(3) == 0 {
					table.remove(key)
					delete(want, string(key))
				} else {
					table.put(key, number(step))
					want[string(key)] = number(step)
				}
			}
			compare(t, table, want, nil, nil)
			for range 100 {
				compare(t, table, want, number(random.IntN(keys)), number(random.IntN(keys)))
			}
			for key := range want {
				table.remove([]byte(key))
			}
			if len(table.pages) != 0 {
				t.Errorf("an empty table has %d pages", len(table.pages))
			}
		})
	}
}

func compare(t *testing.T, table *table, want map[string][]byte, from, to []byte) {
	t.Helper()
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(key string) bool {
		return key < string(from) || to != nil && key >= string(to)
	})
	i := 0
	for e := range table.between(from, to) {
		if i >= len(keys) || string(e.key) != keys[i] || !bytes.Equal(e.value, want[keys[i]]) {
			t.Fatalf("between %x and %x, row %d is %x: %x", from, to, i, e.key, e.value)
		}
		i++
	}
	if i != len(keys) {
		t.Fatalf("between %x and %x: %d rows, want %d", from, to, i, len(keys))
	}
}

func TestGrowingKeysLeaveFullPages(t *testing.T) {
	table := &table{}
	for i := range 10 * pageRows {
		table.put(number(i), nil)
	}
	if len(table.pages) > 11 {
		t.Errorf("%d pages for %d rows of growing keys", len(table.pages), 10*pageRows)
	}
}

// BenchmarkScan reads 100,000 rows in scans of 1,000.
func BenchmarkScan(b *testing.B) {
	s := Open(NewDisk())
	f, err := s.Acquire(b.Context(), "gw1", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 100_000 {
		if err := s.Apply(b.Context(), f, []plugin.Change{{Table: "spool", Key: number(i), Value: make([]byte, 100)}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		var from []byte
		rows := 0
		for {
			page, err := s.Scan(b.Context(), "spool", from, nil, 1000)
			if err != nil {
				b.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			rows += len(page)
			from = append(page[len(page)-1].Key, 0)
		}
		if rows != 100_000 {
			b.Fatalf("read %d rows", rows)
		}
	}
}

func number(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

package pebble

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// options suit rows that are written, read once if at all, and deleted soon: a
// memtable that most of them never leave, and tables that cost little CPU.
func options(g *guard, lock *pebble.Lock, log *slog.Logger) *pebble.Options {
	reports := reports{log: log, guard: g}
	events := pebble.MakeLoggingEventListener(reports)
	events.DataCorruption = func(info pebble.DataCorruptionInfo) { reports.Fatalf("damaged: %s", info) }
	o := &pebble.Options{
		FS:            g,
		Lock:          lock,
		Logger:        reports,
		EventListener: &events,
		// Named, so that a newer Pebble doesn't convert the files by itself.
		FormatMajorVersion: pebble.FormatValueSeparation,

		// A row that is deleted before its memtable is full is never written to
		// a table: at 12,000 messages a second one lasts for about two seconds.
		MemTableSize:                32 << 20,
		MemTableStopWritesThreshold: 3,
		CacheSize:                   32 << 20,
		MaxOpenFiles:                500,

		// The committer has one batch under way, so this is how long it gathers.
		WALMinSyncInterval: func() time.Duration { return time.Millisecond },

		// A few large compactions cost less than many small ones. Reads are
		// scans, so some more levels in L0 don't hurt.
		L0CompactionThreshold:      8,
		L0StopWritesThreshold:      64,
		LBaseMaxBytes:              256 << 20,
		CompactionConcurrencyRange: func() (lower, upper int) { return 1, 2 },
	}
	o.TargetFileSizes[0] = 8 << 20
	o.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	o.Levels[1].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	return o
}

// reports passes on what Pebble says: its errors as errors, the rest at debug.
type reports struct {
	log   *slog.Logger
	guard *guard
}

// Infof reports what Pebble does: flushes, compactions, files.
func (r reports) Infof(format string, args ...any) {
	r.log.Debug("pebble", "event", event{format, args})
}

// event is a report that is put into words only if somebody listens.
type event struct {
	format string
	args   []any
}

// LogValue puts the report into words.
func (e event) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf(e.format, e.args...)) }

// Errorf reports what Pebble can live with.
func (r reports) Errorf(format string, args ...any) {
	r.log.Error("pebble", "error", fmt.Sprintf(format, args...))
}

// Fatalf reports what Pebble can't live with. It returns although Pebble
// doesn't expect it: from now on no file changes, and nothing that Pebble
// returns is believed.
func (r reports) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	r.guard.fail(err)
	r.log.Error("pebble: the store has stopped", "error", err)
}

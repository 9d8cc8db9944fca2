package pebble

import (
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/imgate/imgate/engine/plugin"
)

// BenchmarkApply writes what becomes of messages that are delivered at once:
// each Apply puts 16 of them, and takes the 16 before out again with their
// outbox rows and CDRs, as a committer does. An op is a message. It reports the
// CPU time of the whole process, compactions included.
func BenchmarkApply(b *testing.B) {
	const width = 16
	s, err := open(vfs.Default, b.TempDir(), discard())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	f, err := s.Acquire(b.Context(), "gw1", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	text := words(1 << 20)
	before := cpuTime(b)
	b.ResetTimer()
	for first := 0; first < b.N; first += width {
		var changes []plugin.Change
		for i := first; i < first+width; i++ {
			changes = append(changes, messageChanges(text, i, width)...)
		}
		if err := s.Apply(b.Context(), f, changes); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	used := cpuTime(b) - before
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
}

func messageChanges(text []byte, i, width int) []plugin.Change {
	value := func(size int) []byte {
		at := i * 37 % (len(text) - size)
		return text[at : at+size]
	}
	changes := []plugin.Change{{Table: "spool", Key: messageKey(i), Value: value(700)}}
	if done := i - width; done >= 0 {
		changes = append(changes,
			plugin.Change{Table: "spool", Key: messageKey(done)},
			plugin.Change{Table: "outbox", Key: messageKey(done), Value: value(100)},
			plugin.Change{Table: "cdr", Key: messageKey(done), Value: value(200)})
	}
	if settled := i - 2*width; settled >= 0 {
		changes = append(changes, plugin.Change{Table: "outbox", Key: messageKey(settled)})
	}
	return changes
}

// messageKey has the layout of a message's id: it grows, and its end is random.
func messageKey(i int) []byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(i))
	return binary.BigEndian.AppendUint64(key, uint64(i)*0x9e3779b97f4a7c15)
}

// words are octets that compress about as well as messages do.
func words(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, size)
	for i := range text {
		text[i] = "etaoin shrdlu cmfwyp"[random.IntN(20)]
	}
	return text
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

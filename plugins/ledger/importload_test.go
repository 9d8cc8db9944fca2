package ledger

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/pebble"
)

// openOnDisk opens the ledger on Pebble, with the engine's committer before it.
func openOnDisk(t testing.TB) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	storage, err := plugin.Open[plugin.Storage](t.Context(), pebble.Plugin, plugin.Env{DataDir: t.TempDir(), Log: log}, pebble.Plugin.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	fence, err := storage.Acquire(t.Context(), "test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	committer := spool.NewCommitter(storage, fence, log)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { committer.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := storage.Close(); err != nil {
			t.Error(err)
		}
	})
	return openNode(t, spool.NewTables("ledger", storage, committer))
}

// manyAccounts is a file of so many accounts.
func manyAccounts(count int) []byte {
	var text bytes.Buffer
	text.WriteString("aor,password,balance,identities,attributes\n")
	for i := range count {
		fmt.Fprintf(&text, "%d@sip.example.com,secret-%d,10.00,+1555%07d,plan=gold\n", i, i, i)
	}
	return text.Bytes()
}

// peakMemory watches how much more of the heap the process holds than now, until
// it is stopped, and returns the most of it in octets.
func peakMemory() (stop func() uint64) {
	runtime.GC()
	before, most := heapInUse(), uint64(0)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			most = max(most, heapInUse())
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-stopped
		return most - before
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// The promise is 100,000 accounts in 30 s. The test holds five times that, as
// its machine may have other things to do.
func TestImportOf100kOnDisk(t *testing.T) {
	const accounts = 100_000
	file := filepath.Join(t.TempDir(), "accounts.csv")
	if err := os.WriteFile(file, manyAccounts(accounts), 0o600); err != nil {
		t.Fatal(err)
	}
	n := openOnDisk(t)
	began := time.Now()
	out, err := runCommand(t, n, nil, "account", "import", file)
	if err != nil || out != "imported 100000 accounts\n" {
		t.Fatalf("got %v and %q", err, out)
	}
	took := time.Since(began)
	t.Logf("%d accounts in %s", accounts, took.Round(time.Millisecond))
	if took > 150*time.Second {
		t.Errorf("it took %s", took)
	}
	if again := openTestBook(t, n.book.tables, time.Now()); len(again.names) != 2*accounts {
		t.Errorf("%d names are on disk, want %d", len(again.names), 2*accounts)
	}
}

func BenchmarkImport100k(b *testing.B) {
	text := string(manyAccounts(100_000))
	for b.Loop() {
		b.StopTimer()
		n := openOnDisk(b)
		peak := peakMemory()
		b.StartTimer()
		if reply := n.do(b.Context(), "POST", "/v1/accounts/import", text); reply.Code != http.StatusCreated {
			b.Fatalf("got %d %s", reply.Code, reply.Body)
		}
		b.StopTimer()
		b.ReportMetric(float64(peak())/1e6, "peak-MB")
		b.StartTimer()
	}
}

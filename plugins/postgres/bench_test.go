package postgres

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/ledger"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// benchSheets are the sheets that we ship, with values that cost nothing to read.
func benchSheets() []plugin.Sheet {
	sheets := spool.Sheets()
	for _, s := range ledger.Accounts.Sheets {
		s.Table = ledger.Accounts.Name + "/" + s.Table
		sheets = append(sheets, s)
	}
	moment := time.Now()
	for i := range sheets {
		columns := sheets[i].Columns
		sheets[i].Read = func(c plugin.Change) ([]any, error) {
			values := make([]any, len(columns))
			for i, column := range columns {
				values[i] = benchValue(column.Type, c.Key, moment)
			}
			return values, nil
		}
	}
	return sheets
}

func benchValue(of plugin.ColumnType, key []byte, moment time.Time) any {
	switch of {
	case plugin.ColumnNumber:
		return int64(1)
	case plugin.ColumnFlag:
		return true
	case plugin.ColumnMoment:
		return moment
	case plugin.ColumnMoney:
		return plugin.Unit / 100
	case plugin.ColumnID:
		var id message.ID
		copy(id[:], key)
		return id
	default:
		return "user" + strconv.Itoa(int(key[len(key)-1])) + "@sip.example.com"
	}
}

// benchMessage are the changes of one message from Put until it is settled: ten
// operations on rows, of which the last ones are of another Apply.
func benchMessage(n int) (put, moved []plugin.Change) {
	key := binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(n))
	spent := []byte("account" + strconv.Itoa(n%1000))
	put = []plugin.Change{
		{Table: "messages", Key: key, Value: make([]byte, 600)},
		{Table: "seen", Key: key, Value: make([]byte, 40)},
		{Table: "ledger/holds", Key: key, Value: make([]byte, 80)},
	}
	moved = []plugin.Change{
		{Table: "messages", Key: key},
		{Table: "history", Key: key, Value: make([]byte, 250)},
		{Table: "outbox", Key: key, Value: make([]byte, 200)},
		{Table: "ledger/cdrs", Key: key, Value: make([]byte, 200)},
		{Table: "ledger/spent", Key: spent, Value: make([]byte, 16)},
		{Table: "ledger/holds", Key: key},
		{Table: "outbox", Key: key},
	}
	return put, moved
}

func benchStorage(b *testing.B) (*postgrestest.Server, *storage, plugin.Fence) {
	server := postgrestest.Start(b, "shared_preload_libraries=pg_stat_statements", "max_wal_size=4GB")
	s := openAt(b, plugin.Env{Log: quiet(), Sheets: benchSheets()}, server.URL())
	f, err := s.Acquire(b.Context(), "a", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	return server, s, f
}

func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("%d changes", size), func(b *testing.B) {
			_, s, f := benchStorage(b)
			n := 0
			for b.Loop() {
				changes := make([]plugin.Change, size)
				for i := range changes {
					n++
					changes[i] = plugin.Change{Table: "seen", Key: binary.BigEndian.AppendUint64(nil, uint64(n)), Value: make([]byte, 100)}
				}
				if err := s.Apply(b.Context(), f, changes); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "µs/change")
		})
	}
}

// BenchmarkMessages applies messages as the committer does at load: each Apply
// brings in some and settles those before. It reports the CPU time of a message
// in PostgreSQL and here.
func BenchmarkMessages(b *testing.B) {
	for _, size := range []int{4, 16, 64, 256} {
		b.Run(fmt.Sprintf("%d messages", size), func(b *testing.B) {
			server, s, f := benchStorage(b)
			n := 0
			var last []plugin.Change
			before, ours := server.CPU(), ownCPU(b)
			for b.Loop() {
				changes := last
				last = nil
				for range size {
					n++
					put, moved := benchMessage(n)
					changes = append(changes, put...)
					last = append(last, moved...)
				}
				if err := s.Apply(b.Context(), f, changes); err != nil {
					b.Fatal(err)
				}
			}
			messages := float64(b.N * size)
			b.ReportMetric(float64((server.CPU()-before).Microseconds())/messages, "µs-PostgreSQL/message")
			b.ReportMetric(float64((ownCPU(b)-ours).Microseconds())/messages, "µs-here/message")
			b.ReportMetric(messages/b.Elapsed().Seconds(), "messages/s")
			if os.Getenv("STATEMENTS") != "" {
				report(b, server, messages)
			}
		})
	}
}

// report shows where PostgreSQL's time goes.
func report(b *testing.B, server *postgrestest.Server, messages float64) {
	server.Query(b, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
	rows := server.Query(b, "SELECT calls, round(total_exec_time*1000) AS us, round((mean_exec_time*1000)::numeric,1), wal_bytes, left(regexp_replace(query, '\\s+', ' ', 'g'), 70) FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 14")
	for _, r := range rows {
		us, err := strconv.ParseFloat(r[1], 64)
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("%6.1f µs/message  %s", us/messages, strings.Join(r, "  "))
	}
}

func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	return postgrestest.OwnCPU(b)
}

func BenchmarkScan(b *testing.B) {
	_, s, f := benchStorage(b)
	var changes []plugin.Change
	for n := range 10_000 {
		put, _ := benchMessage(n)
		changes = append(changes, put[0])
	}
	if err := s.Apply(b.Context(), f, changes); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		rows, err := s.Scan(b.Context(), "messages", changes[4000].Key, nil, 1000)
		if err != nil || len(rows) != 1000 {
			b.Fatal(len(rows), err)
		}
	}
}

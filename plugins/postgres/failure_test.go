package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

func acquire(t testing.TB, s *storage, node string, ttl time.Duration) plugin.Fence {
	t.Helper()
	f, err := s.Acquire(t.Context(), node, ttl)
	if err != nil {
		t.Fatalf("Acquire by %s: %v", node, err)
	}
	return f
}

func apply(t testing.TB, s *storage, f plugin.Fence, changes ...plugin.Change) {
	t.Helper()
	if err := s.Apply(t.Context(), f, changes); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func row(table, key, value string) plugin.Change {
	return plugin.Change{Table: table, Key: []byte(key), Value: []byte(value)}
}

// valueOf returns the value of a row; empty: there is none.
func valueOf(t testing.TB, s *storage, table, key string) string {
	t.Helper()
	rows, err := s.Scan(t.Context(), table, []byte(key), append([]byte(key), 0), 1)
	if err != nil {
		t.Fatalf("Scan: %v", err)
	}
	if len(rows) == 0 {
		return ""
	}
	return string(rows[0].Value)
}

// TestDatabaseCrashes crashes the server again and again while a node writes
// without a pause, and looks after each crash what is there: all that was
// acknowledged, and of the one Apply that failed all or nothing.
func TestDatabaseCrashes(t *testing.T) {
	const crashes = 4
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet(), Sheets: []plugin.Sheet{{Table: "own"}}}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	load := &load{storage: s, fence: f, acknowledged: make(chan int)}
	go load.run(t.Context())
	for range crashes {
		for range 20 {
			<-load.acknowledged
		}
		server.Crash()
		for range load.acknowledged { // until it fails
		}
		server.Resume()
		load.check(t)
		load.acknowledged = make(chan int)
		go load.run(t.Context())
	}
	server.Crash()
	for range load.acknowledged {
	}
	server.Resume()
}

// load writes a series: number n puts rows in two tables, overwrites the newest
// number and deletes the rows of n-10.
type load struct {
	storage      *storage
	fence        plugin.Fence
	next         int
	acknowledged chan int // closed when an Apply fails
}

func (l *load) run(ctx context.Context) {
	defer close(l.acknowledged)
	for {
		key := fmt.Sprintf("%06d", l.next)
		old := []byte(fmt.Sprintf("%06d", l.next-10))
		err := l.storage.Apply(ctx, l.fence, []plugin.Change{
			row("own", key, key), row("shared", key, key), row("own", "newest", key),
			{Table: "own", Key: old}, {Table: "shared", Key: old},
		})
		if err != nil {
			return
		}
		l.acknowledged <- l.next
		l.next++
	}
}

// check looks whether the rows are those of the last number that was
// acknowledged, or of the one behind it.
func (l *load) check(t *testing.T) {
	t.Helper()
	failed := fmt.Sprintf("%06d", l.next)
	newest := valueOf(t, l.storage, "own", "newest")
	if newest == failed {
		l.next++
	}
	if last := fmt.Sprintf("%06d", l.next-1); newest != last {
		t.Errorf("%s is the newest, want %s or %s", newest, last, failed)
	}
	for _, table := range []string{"own", "shared"} {
		rows, err := l.storage.Scan(t.Context(), table, nil, []byte("a"), 100)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, r := range rows {
			got = append(got, string(r.Key))
		}
		for n := max(0, l.next-10); n < l.next; n++ {
			want = append(want, fmt.Sprintf("%06d", n))
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("table %s has %v, want %v", table, got, want)
		}
	}
}

// TestDatabaseRestarts: connections that lay idle meanwhile are replaced, and
// nobody notices.
func TestDatabaseRestarts(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f, row("spool", "a", "1"))
	valueOf(t, s, "spool", "a")
	server.Crash()
	if _, err := s.Lease(t.Context()); err == nil {
		t.Error("the lease is told without a database")
	}
	server.Resume()
	apply(t, s, f, row("spool", "a", "2"))
	if err := s.Renew(t.Context(), f, time.Hour); err != nil {
		t.Errorf("Renew: %v", err)
	}
	if got := valueOf(t, s, "spool", "a"); got != "2" {
		t.Errorf("after the restart: %s", got)
	}
}

// TestDatabaseFreezes: every call returns, and when the database goes on, what
// it had been sent before is not written over what came after.
func TestDatabaseFreezes(t *testing.T) {
	server := postgrestest.Start(t)
	metrics := plugin.NewMetrics()
	s := openAt(t, plugin.Env{Log: quiet(), Metrics: metrics}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f, row("spool", "a", "0"))
	valueOf(t, s, "spool", "a")
	server.Freeze()
	calls := map[string]func(context.Context) error{
		"Apply":  func(ctx context.Context) error { return s.Apply(ctx, f, []plugin.Change{row("spool", "a", "1")}) },
		"Renew":  func(ctx context.Context) error { return s.Renew(ctx, f, time.Hour) },
		"Lease":  func(ctx context.Context) error { _, err := s.Lease(ctx); return err },
		"Attend": func(ctx context.Context) error { _, err := s.Attend(ctx, "a", ""); return err },
		"Scan": func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := s.Scan(ctx, "spool", nil, nil, 1)
			return err
		},
	}
	type ended struct {
		name string
		err  error
		took time.Duration
	}
	all := make(chan ended, len(calls))
	for name, call := range calls {
		go func() {
			start := time.Now()
			err := call(t.Context())
			all <- ended{name, err, time.Since(start)}
		}()
	}
	for range calls {
		e := <-all
		if e.err == nil || e.took > applyWithin+time.Second {
			t.Errorf("%s of a frozen database: %v after %v", e.name, e.err, e.took)
		}
	}
	if got := gauge(metrics, "postgres_connected"); got != 0 {
		t.Errorf("frozen, postgres_connected is %v", got)
	}
	server.Thaw()
	apply(t, s, f, row("spool", "a", "2"))
	if got := valueOf(t, s, "spool", "a"); got != "2" {
		t.Errorf("after the thaw: %s", got)
	}
	if got := gauge(metrics, "postgres_connected"); got != 1 {
		t.Errorf("thawed, postgres_connected is %v", got)
	}
}

// TestCloseWaitsForNobody: a node can end while the database is frozen.
func TestCloseWaitsForNobody(t *testing.T) {
	server := postgrestest.Start(t)
	s, err := New(t.Context(), plugin.Env{Log: quiet()}, Config{URL: server.URL(), Schema: "imgate"})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s.(*storage), acquire(t, s.(*storage), "a", time.Hour))
	valueOf(t, s.(*storage), "spool", "a")
	server.Freeze()
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*closeWithin {
		t.Errorf("Close took %v", took)
	}
	if err := s.Apply(t.Context(), 1, nil); !errors.Is(err, errClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	if _, err := s.Lease(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Lease after Close: %v", err)
	}
}

func gauge(m *plugin.Metrics, name string) float64 {
	for _, s := range m.Series() {
		if s.Name == name {
			return s.Value()
		}
	}
	return -1
}

// TestHalfSentApply: a node falls silent in the middle of an Apply, at each of
// several places, and another one takes over at once. What is left of the Apply
// comes later and changes nothing.
func TestHalfSentApply(t *testing.T) {
	server := postgrestest.Start(t)
	changes := []plugin.Change{row("own", "a", "half"), row("shared", "a", "half"), row("shared", "b", strings.Repeat("x", 3000))}
	env := plugin.Env{Log: quiet(), Sheets: []plugin.Sheet{{Table: "own"}}}
	for i, after := range []int{0, 20, 80, 110, 180, 400, 3000} {
		t.Run(fmt.Sprintf("after %d octets", after), func(t *testing.T) {
			at := server.Another("half_" + string(rune('a'+i)))
			relay, through := startRelay(t, at)
			frozen, other := openAt(t, env, through), openAt(t, env, at)
			old := acquire(t, frozen, "a", 300*time.Millisecond)
			apply(t, frozen, old, row("own", "a", "whole"))
			gate := relay.stopAfter(after)
			ended := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				ended <- frozen.Apply(ctx, old, changes)
			}()
			gate.waitHeld()
			start := time.Now()
			f := waitForLease(t, other, "b")
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("the other node had to wait %v for the lease", took)
			}
			apply(t, other, f, row("own", "b", "other"))
			gate.lift()
			err := <-ended
			if err != nil && !errors.Is(err, plugin.ErrFenced) { // it was just about to begin anew
				err = frozen.Apply(t.Context(), old, changes)
			}
			if !errors.Is(err, plugin.ErrFenced) {
				t.Errorf("the frozen node's Apply: %v, want ErrFenced", err)
			}
			if got := valueOf(t, other, "own", "a"); got != "whole" {
				t.Errorf("the row is %q", got)
			}
			if got := valueOf(t, other, "shared", "b"); got != "" {
				t.Errorf("there is a row of the half Apply")
			}
		})
	}
}

// waitForLease takes the lease as soon as it runs out.
func waitForLease(t testing.TB, s *storage, node string) plugin.Fence {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		f, err := s.Acquire(t.Context(), node, time.Hour)
		if err == nil {
			return f
		}
		if !errors.Is(err, plugin.ErrHeld) {
			t.Fatalf("Acquire: %v", err)
		}
	}
	t.Fatal("the lease doesn't run out")
	return 0
}

// TestAbandonedApply: an Apply is given up while it is on its way, another one
// follows on a new connection, and then the first arrives.
func TestAbandonedApply(t *testing.T) {
	server := postgrestest.Start(t)
	relay, through := startRelay(t, server.URL())
	s := openAt(t, plugin.Env{Log: quiet()}, through)
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f, row("spool", "a", "0"))
	gate := relay.stopAfter(0)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Apply(ctx, f, []plugin.Change{row("spool", "a", "1")}); err == nil {
		t.Fatal("an Apply that nobody received was acknowledged")
	}
	apply(t, s, f, row("spool", "a", "2"))
	gate.lift()
	apply(t, s, f, row("spool", "b", "2"))
	if got := valueOf(t, s, "spool", "a"); got != "2" {
		t.Errorf("the Apply that was given up has overwritten its successor: %s", got)
	}
}

// TestSupersededSession: even a session that couldn't be ended can't write any
// more once there is a newer one.
func TestSupersededSession(t *testing.T) {
	server := postgrestest.Start(t)
	first := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	f := acquire(t, first, "a", time.Hour)
	apply(t, first, f, row("spool", "a", "1"))
	if _, err := first.writer.conn.Exec(t.Context(), "SET application_name = 'hidden'"); err != nil {
		t.Fatal(err)
	}
	second := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	second.writer.process = first.process
	apply(t, second, f, row("spool", "a", "2"))
	statements := first.writer.encoder.encode([]plugin.Change{row("spool", "a", "3")})
	err := first.writer.send(t.Context(), statements)
	if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != stateSuperseded {
		t.Errorf("the older session: %v", err)
	}
	if got := valueOf(t, second, "spool", "a"); got != "2" {
		t.Errorf("the older session has written: %s", got)
	}
}

// TestOlderFence: a session of an older lease that couldn't be ended is stopped
// by the fence alone, and knows it.
func TestOlderFence(t *testing.T) {
	server := postgrestest.Start(t)
	first := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	old := acquire(t, first, "a", time.Hour)
	apply(t, first, old, row("spool", "a", "1"))
	if _, err := first.writer.conn.Exec(t.Context(), "SET application_name = 'hidden'"); err != nil {
		t.Fatal(err)
	}
	if err := first.Release(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	second := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	// Its session has the same number as the older one's: only the fence tells.
	apply(t, second, acquire(t, second, "b", time.Hour), row("spool", "a", "2"))
	err := first.Apply(t.Context(), old, []plugin.Change{row("spool", "a", "3")})
	if !errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Apply of the older lease: %v, want ErrFenced", err)
	}
	if got := valueOf(t, second, "spool", "a"); got != "2" {
		t.Errorf("the older lease has written: %s", got)
	}
}

// TestFailedStatementUndoesAll: the first statements of an Apply don't stay if a
// later one fails.
func TestFailedStatementUndoesAll(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet(), Sheets: []plugin.Sheet{{Table: "own"}}}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f, row("own", "a", "1"))
	server.Query(t, "ALTER TABLE imgate.rows_own ADD CHECK (value0 <> 'bad')")
	err := s.Apply(t.Context(), f, []plugin.Change{row("shared", "a", "2"), row("own", "a", "bad")})
	if err == nil || errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Apply that fails: %v", err)
	}
	if got := valueOf(t, s, "shared", "a"); got != "" {
		t.Errorf("half of it stayed: %s", got)
	}
	apply(t, s, f, row("shared", "a", "3"))
}

// TestLongQueryHoldsUpNobody: somebody reads for a long time, and writers go on.
func TestLongQueryHoldsUpNobody(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet(), Sheets: fakeSheets()}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	long, err := connect(t.Context(), s.writer.config, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	defer disconnect(long)
	for _, sql := range []string{"SET idle_in_transaction_session_timeout = 0", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM imgate.waiting"} {
		if _, err := long.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 50 {
		apply(t, s, f, waitingRow(n, "alice@a.example", "text"))
	}
	// And a node that is started meanwhile finds nothing to change.
	openAt(t, plugin.Env{Log: quiet(), Sheets: fakeSheets()}, server.URL())
}

// TestRelationThatIsRead: a node that would have to change it waits for the
// reader a moment, lets writers go on, and says so.
func TestRelationThatIsRead(t *testing.T) {
	server := postgrestest.Start(t)
	older := fakeSheets()
	older[0].Columns, older[0].Read = nil, nil
	s := openAt(t, plugin.Env{Log: quiet(), Sheets: older}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	long, err := connect(t.Context(), s.writer.config, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	defer disconnect(long)
	for _, sql := range []string{"SET idle_in_transaction_session_timeout = 0", "BEGIN", "SELECT count(*) FROM imgate.rows_messages"} {
		if _, err := long.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	_, err = New(t.Context(), plugin.Env{Log: quiet(), Sheets: fakeSheets()}, Config{URL: server.URL(), Schema: "imgate"})
	if err == nil || !strings.Contains(err.Error(), "long query") {
		t.Errorf("a node that would change what is read: %v", err)
	}
	apply(t, s, f, waitingRow(1, "alice@a.example", "text"))
}

// TestFenceGivenTwice: a replica that was promoted may not know the newest
// lease, and give its fence to another node. Only that one may use it.
func TestFenceGivenTwice(t *testing.T) {
	server := postgrestest.Start(t)
	first := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	second := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	f := acquire(t, first, "a", time.Hour)
	apply(t, first, f, row("spool", "a", "1"))
	server.Query(t, "UPDATE imgate.core_lease SET fence = 0, ends = NULL, node = '', process = ''")
	server.Query(t, "UPDATE imgate.core_fence SET fence = 0, writer = 0")
	if again := acquire(t, second, "b", time.Hour); again != f {
		t.Fatalf("the fence is %d, want %d again", again, f)
	}
	apply(t, second, f, row("spool", "a", "2"))
	err := first.Apply(t.Context(), f, []plugin.Change{row("spool", "a", "3")})
	if err != nil && !errors.Is(err, plugin.ErrFenced) { // its session was ended
		err = first.Apply(t.Context(), f, []plugin.Change{row("spool", "a", "3")})
	}
	if !errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Apply by the first node: %v, want ErrFenced", err)
	}
	if err := first.Renew(t.Context(), f, time.Hour); !errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Renew by the first node: %v, want ErrFenced", err)
	}
	apply(t, second, f, row("spool", "b", "2"))
	if got := valueOf(t, second, "spool", "a"); got != "2" {
		t.Errorf("the row is %q", got)
	}
}

// TestSameNameTwice: whoever loses the lease to a node of the same name is told.
func TestSameNameTwice(t *testing.T) {
	server := postgrestest.Start(t)
	first := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	second := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	f := acquire(t, first, "a", time.Hour)
	acquire(t, second, "a", time.Hour)
	err := first.Renew(t.Context(), f, time.Hour)
	if !errors.Is(err, plugin.ErrFenced) || !strings.Contains(err.Error(), "bears the same name") {
		t.Errorf("Renew: %v", err)
	}
}

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config Config
		keys   string // of those that are wrong
	}{
		{Config{URL: "postgres://imgate@db.example:5432/imgate", Schema: "imgate"}, ""},
		{Config{URL: "postgresql://imgate@db.example/imgate?sslmode=require", Schema: "_a1"}, ""},
		{Config{URL: "postgres://imgate@one.example,two.example:5433/imgate", Schema: "imgate", Password: "p"}, ""},
		{Config{Schema: "imgate"}, "url"},
		{Config{URL: "host=db.example", Schema: "imgate"}, "url"},
		{Config{URL: "postgres://imgate:secret@db.example:port/imgate", Schema: "imgate"}, "url"},
		{Config{URL: "postgres://imgate@db.example/imgate?sslmode=secret", Schema: "imgate"}, "url"},
		{Config{URL: "postgres://imgate@db.example/imgate", Schema: "Imgate", Password: "secret\x00"}, "password schema"},
		{Config{URL: "postgres://imgate@db.example/imgate", Schema: "pg_imgate"}, "schema"},
		{Config{URL: "postgres://imgate@db.example/imgate", Schema: strings.Repeat("a", 41)}, "schema"},
		{Config{URL: "postgres://imgate@db.example/imgate", Schema: `a"; DROP`}, "schema"},
	} {
		err := c.config.Validate()
		var keys []string
		for err := range all(err) {
			wrong, ok := errors.AsType[*plugin.InvalidKey](err)
			if !ok {
				t.Errorf("%v is no InvalidKey", err)
				continue
			}
			keys = append(keys, wrong.Key)
		}
		if strings.Join(keys, " ") != c.keys {
			t.Errorf("%s: %v, want %q to be wrong", c.config.URL, err, c.keys)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a secret is told: %v", err)
		}
	}
}

// all goes through the errors that were joined.
func all(err error) func(func(error) bool) {
	return func(yield func(error) bool) {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			return
		}
		for _, e := range joined.Unwrap() {
			if !yield(e) {
				return
			}
		}
	}
}

func TestPasswordOfItsOwn(t *testing.T) {
	c, err := Config{URL: "postgres://imgate:one@db.example/imgate", Password: "two", Schema: "imgate"}.connection()
	if err != nil || c.Password != "two" {
		t.Errorf("password %q, %v", c.Password, err)
	}
}

// TestOpensAtOnce opens an empty database from several nodes at the same time.
func TestOpensAtOnce(t *testing.T) {
	const nodes = 8
	server := postgrestest.Start(t)
	var started sync.WaitGroup
	errs := make([]error, nodes)
	for n := range nodes {
		started.Go(func() {
			c := Config{URL: server.URL(), Schema: "imgate"}
			s, err := New(t.Context(), plugin.Env{Log: quiet(), Sheets: fakeSheets()}, c)
			if err == nil {
				err = s.Close()
			}
			errs[n] = err
		})
	}
	started.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// TestSchemas: the strangest names that are allowed, side by side.
func TestSchemas(t *testing.T) {
	server := postgrestest.Start(t)
	for _, name := range []string{"select", "_", "a", "a_0", "axb", strings.Repeat("z", 40)} {
		s, err := New(t.Context(), plugin.Env{Log: quiet(), Sheets: fakeSheets()}, Config{URL: server.URL(), Schema: name})
		if err != nil {
			t.Fatal(err)
		}
		opened := s.(*storage)
		f := acquire(t, opened, "a", time.Hour)
		apply(t, opened, f, row("spool", "a", name))
		acquire(t, opened, "a", time.Hour)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, server, "0", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'imgate/%/1'")
}

// waitFor asks again and again until the answer is what it should be.
func waitFor(t *testing.T, s *postgrestest.Server, want, sql string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = s.Query(t, sql)[0][0]; got == want {
			return
		}
	}
	t.Fatalf("%s: %s, want %s", sql, got, want)
}

func TestRefusals(t *testing.T) {
	server := postgrestest.Start(t)
	latin := strings.Replace(server.URL(), "/imgate?", "/latin?", 1)
	server.Query(t, "CREATE DATABASE latin OWNER imgate ENCODING 'LATIN1' TEMPLATE template0")
	number := []plugin.Sheet{{Table: "messages", Name: "waiting", Columns: []plugin.Column{{Name: "account", Type: plugin.ColumnNumber}}, Read: readWaiting}}
	renamed := []plugin.Sheet{{Table: "messages", Name: "waiting", Columns: []plugin.Column{{Name: "other", Type: plugin.ColumnNumber}}, Read: readWaiting}}
	for name, c := range map[string]struct {
		url, sql string
		sheets   []plugin.Sheet
		want     string
	}{
		"a newer version":       {server.Another("newer"), "INSERT INTO imgate.core_version VALUES (1000)", nil, "newer imgate"},
		"a column's other type": {server.Another("typed"), "", number, `column "account"`},
		"a column's other name": {server.Another("named"), "", renamed, `view "waiting"`},
		"another encoding":      {latin, "", nil, "LATIN1"},
		"no such database":      {strings.Replace(server.URL(), "/imgate?", "/nowhere?", 1), "", nil, "nowhere"},
		"no such host":          {strings.Replace(server.Another("hosts"), "127.0.0.1", "nowhere.invalid", 1), "", nil, "nowhere.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			first, err := New(t.Context(), plugin.Env{Log: quiet(), Sheets: fakeSheets()}, Config{URL: server.URL(), Schema: "imgate"})
			if c.sql != "" || c.sheets != nil {
				first, err = New(t.Context(), plugin.Env{Log: quiet(), Sheets: fakeSheets()}, Config{URL: c.url, Schema: "imgate"})
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := first.Close(); err != nil {
				t.Error(err)
			}
			if c.sql != "" {
				server.QueryAt(t, c.url, c.sql)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			s, err := New(ctx, plugin.Env{Log: quiet(), Sheets: c.sheets}, Config{URL: c.url, Schema: "imgate"})
			if err == nil {
				_ = s.Close()
				t.Fatal("it opens")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("refused with %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestPoolerIsRefused(t *testing.T) {
	server := postgrestest.Start(t)
	relay, through := startRelay(t, server.URL())
	relay.spoil = true
	_, err := New(t.Context(), plugin.Env{Log: quiet()}, Config{URL: through, Schema: "imgate"})
	if !errors.Is(err, errPooler) {
		t.Errorf("through a pooler: %v", err)
	}
}

// TestDatabaseDownAtStart: the error says where the database should be, and
// nothing of the password.
func TestDatabaseDownAtStart(t *testing.T) {
	server := postgrestest.Start(t)
	server.Crash()
	url := strings.Replace(server.URL(), "imgate@", "imgate:secret@", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	_, err := New(ctx, plugin.Env{Log: quiet()}, Config{URL: url, Schema: "imgate"})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:") || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "secret") {
		t.Errorf("without a database: %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		s, err := New(t.Context(), plugin.Env{Log: quiet()}, Config{URL: url, Schema: "imgate"})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	server.Resume()
	if err := <-opened; err != nil {
		t.Errorf("the database came up: %v", err)
	}
}

// TestFollowsTheDatabase: of two hosts the one that takes writes is used, and
// the other one when that changes.
func TestFollowsTheDatabase(t *testing.T) {
	first, second := postgrestest.Start(t), postgrestest.Start(t)
	// Where a database is copied to another host, both have the same in them.
	openAt(t, plugin.Env{Log: quiet()}, second.URL())
	takesWrites(t, second, "off")
	both := strings.Replace(first.URL(), hostOf(first), hostOf(second)+","+hostOf(first), 1)
	s := openAt(t, plugin.Env{Log: quiet()}, both)
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f, row("spool", "a", "1"))
	takesWrites(t, first, "off")
	takesWrites(t, second, "on")
	copied := []string{"UPDATE imgate.core_lease SET fence = 1, process = '" + s.process + "'", "UPDATE imgate.core_fence SET fence = 1"}
	for _, sql := range copied {
		second.Query(t, sql)
	}
	apply(t, s, f, row("spool", "a", "2"))
	for server, want := range map[*postgrestest.Server]string{first: "1", second: "2"} {
		if got := server.Query(t, "SELECT convert_from(value0, 'UTF8') FROM imgate.core_rows"); len(got) != 1 || got[0][0] != want {
			t.Errorf("%s has %v, want %s", hostOf(server), got, want)
		}
	}
}

func hostOf(s *postgrestest.Server) string {
	_, behind, _ := strings.Cut(s.URL(), "@")
	host, _, _ := strings.Cut(behind, "/")
	return host
}

// takesWrites makes a server take writes or refuse them, and waits until new
// sessions know it. Those that are there learn it first.
func takesWrites(t *testing.T, s *postgrestest.Server, on string) {
	t.Helper()
	readOnly := map[string]string{"on": "off", "off": "on"}[on]
	s.Query(t, "ALTER SYSTEM SET default_transaction_read_only = "+readOnly)
	s.Query(t, "SELECT pg_reload_conf()")
	for s.Query(t, "SHOW default_transaction_read_only")[0][0] != readOnly {
		if t.Context().Err() != nil {
			t.Fatal("the setting doesn't change")
		}
	}
}

// TestWarnsOfSettings: a server that may lose what it acknowledged is told of.
func TestWarnsOfSettings(t *testing.T) {
	server := postgrestest.Start(t, "fsync=off", "synchronous_commit=off")
	var said lockedBuffer
	s := openAt(t, plugin.Env{Log: slog.New(slog.NewTextHandler(&said, nil))}, server.URL())
	if !strings.Contains(said.String(), "setting=fsync") || strings.Contains(said.String(), "full_page_writes") {
		t.Errorf("it said %s", said.String())
	}
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f)
	var set string
	err := s.writer.conn.QueryRow(t.Context(), "SELECT current_setting('synchronous_commit')").Scan(&set)
	if err != nil || set != "on" {
		t.Errorf("the writer's synchronous_commit is %s, %v", set, err)
	}
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestSaysWhenTheDatabaseIsLost: once, and once when it is back.
func TestSaysWhenTheDatabaseIsLost(t *testing.T) {
	server := postgrestest.Start(t)
	var said lockedBuffer
	s := openAt(t, plugin.Env{Log: slog.New(slog.NewTextHandler(&said, nil))}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	server.Crash()
	for range 5 {
		_ = s.Apply(t.Context(), f, nil)
		_, _ = s.Lease(t.Context())
	}
	server.Resume()
	for deadline := time.Now().Add(10 * steadyAfter); !strings.Contains(said.String(), "again") && time.Now().Before(deadline); {
		apply(t, s, f)
	}
	for text, want := range map[string]int{"the database doesn't answer": 1, "the database answers again": 1} {
		if got := strings.Count(said.String(), text); got != want {
			t.Errorf("%q was said %d times, want %d:\n%s", text, got, want, said.String())
		}
	}
}

// TestNewColumns: rows that are there already get their columns, and grants on
// the view stay.
func TestNewColumns(t *testing.T) {
	const rows = 2*fillRows + 7
	server := postgrestest.Start(t)
	env := plugin.Env{Log: quiet(), Sheets: fakeSheets()}
	older := env
	older.Sheets = fakeSheets()
	older.Sheets[0].Columns = older.Sheets[0].Columns[:2]
	older.Sheets[0].Read = func(c plugin.Change) ([]any, error) {
		values, err := readWaiting(c)
		if err != nil {
			return nil, err
		}
		return values[:2], nil
	}
	s := openAt(t, older, server.URL())
	f := acquire(t, s, "a", time.Hour)
	var changes []plugin.Change
	for n := range rows {
		changes = append(changes, waitingRow(n, "alice@a.example", "text"))
	}
	apply(t, s, f, append(changes, row("messages", "odd", "unreadable"))...)
	server.Query(t, "CREATE ROLE clerk")
	server.Query(t, "GRANT SELECT ON imgate.waiting TO clerk")
	openAt(t, env, server.URL())
	waitFor(t, server, fmt.Sprint(rows), "SELECT count(*) FROM imgate.waiting WHERE \"order\" = 'text' AND attempts IS NOT NULL")
	waitFor(t, server, "0", "SELECT count(*) FROM imgate.core_fill")
	if got := server.Query(t, "SELECT has_table_privilege('clerk', 'imgate.waiting', 'SELECT')")[0][0]; got != "t" {
		t.Error("the grant is gone")
	}
	openAt(t, older, server.URL()) // a node that isn't up to date yet
}

// TestTableGetsASheet: rows that were among others move to a relation of their
// own, but not while somebody may be writing; and they stay there.
func TestTableGetsASheet(t *testing.T) {
	server := postgrestest.Start(t)
	without := plugin.Env{Log: quiet()}
	with := plugin.Env{Log: quiet(), Sheets: fakeSheets()}
	s := openAt(t, without, server.URL())
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f, waitingRow(1, "alice@a.example", "text"), row("other", "a", "1"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := New(ctx, with, Config{URL: server.URL(), Schema: "imgate"}); err == nil || !strings.Contains(err.Error(), "stop all nodes") {
		t.Fatalf("while another node is active: %v", err)
	}
	if err := s.Release(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	for _, env := range []plugin.Env{with, without} {
		s := openAt(t, env, server.URL())
		if got := valueOf(t, s, "messages", "1"); got != "alice@a.example|text" {
			t.Errorf("with %d sheets: %q", len(env.Sheets), got)
		}
		f := acquire(t, s, "b", time.Hour)
		apply(t, s, f, waitingRow(1, "alice@a.example", "text"), waitingRow(2, "bob@a.example", "text"))
		if err := s.Release(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Query(t, "SELECT count(*) FROM imgate.rows_messages")[0][0]; got != "2" {
		t.Errorf("%s rows in the relation", got)
	}
}

// TestBroken lists what ends a connection, and what is worth another try when
// the storage is opened.
func TestBroken(t *testing.T) {
	state := func(code string) error { return fmt.Errorf("x: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		err             error
		broken, passing bool
	}{
		{nil, false, false},
		{io.ErrUnexpectedEOF, true, true},
		{context.DeadlineExceeded, true, true},
		{context.Canceled, false, false},
		{plugin.ErrFenced, false, false},
		{errPooler, false, false},
		{&refusal{"newer"}, true, false},
		{state("08006"), true, true},
		{state("57P01"), true, true},
		{state("25P04"), true, true}, // transaction_timeout
		{state(stateSuperseded), true, true},
		{state(stateLockTimeout), false, true},
		{state(stateDeadlock), false, true},
		{state("53100"), false, false}, // disk_full
		{state("42501"), false, false}, // insufficient_privilege
	} {
		if got := broken(c.err); got != c.broken {
			t.Errorf("broken(%v) = %t", c.err, got)
		}
		if got := passing(c.err); got != c.passing {
			t.Errorf("passing(%v) = %t", c.err, got)
		}
	}
}

// TestLoginIsRefused: a role that may not log in any more is a database that
// doesn't answer, and at the start there is no point in waiting.
func TestLoginIsRefused(t *testing.T) {
	server := postgrestest.Start(t)
	metrics := plugin.NewMetrics()
	s := openAt(t, plugin.Env{Log: quiet(), Metrics: metrics}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	server.Query(t, "ALTER ROLE imgate NOLOGIN")
	if err := s.Apply(t.Context(), f, nil); err == nil || errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Apply: %v", err)
	}
	if got := gauge(metrics, "postgres_connected"); got != 0 {
		t.Errorf("postgres_connected is %v", got)
	}
	start := time.Now()
	_, err := New(t.Context(), plugin.Env{Log: quiet()}, Config{URL: server.URL(), Schema: "imgate"})
	if took := time.Since(start); err == nil || took > openWithin/2 {
		t.Errorf("New: %v after %v", err, took)
	}
}

func TestPlaceNamesHosts(t *testing.T) {
	c, err := Config{URL: "postgres://imgate:secret@one.example,two.example:5433/imgate?sslmode=prefer", Schema: "imgate"}.connection()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("database %q at %s, %s", "imgate", net.JoinHostPort("one.example", "5432"), net.JoinHostPort("two.example", "5433"))
	if got := place(c); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

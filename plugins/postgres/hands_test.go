package postgres

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// Tests of what administrators and other users of a database do to it.

// TestSettingsOfTheRole: somebody has set the role's sessions up strangely.
func TestSettingsOfTheRole(t *testing.T) {
	server := postgrestest.Start(t)
	for _, setting := range []string{
		"search_path = public", "bytea_output = 'escape'", "DateStyle = 'SQL, DMY'", "IntervalStyle = 'sql_standard'",
		"TimeZone = 'Asia/Kathmandu'", "standard_conforming_strings = off", "client_encoding = 'LATIN1'",
		"statement_timeout = 1", "lock_timeout = 1", "idle_in_transaction_session_timeout = 1",
		"default_transaction_isolation = 'serializable'", "default_transaction_deferrable = on",
		"enable_indexscan = off", "enable_nestloop = off", "synchronous_commit = off", "extra_float_digits = -15",
		"array_nulls = off", "quote_all_identifiers = on", "application_name = 'x'", "client_min_messages = 'debug5'",
	} {
		server.Query(t, "ALTER ROLE imgate SET "+setting)
	}
	s := openAt(t, plugin.Env{Log: quiet(), Sheets: fakeSheets()}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	for n := range 20 {
		apply(t, s, f, waitingRow(n, `o'brien\@a.example`, "Grüße\\"), row("spool", "a\\", "\x00'"))
	}
	if err := s.Renew(t.Context(), f, time.Hour); err != nil {
		t.Errorf("Renew: %v", err)
	}
	if l, err := s.Lease(t.Context()); err != nil || l.State != plugin.LeaseHeld || l.Left > time.Hour || l.Left < 50*time.Minute {
		t.Errorf("Lease: %+v, %v", l, err)
	}
	if got := valueOf(t, s, "spool", "a\\"); got != "\x00'" {
		t.Errorf("a row is %q", got)
	}
	if got := server.Query(t, `SELECT count(*) FROM imgate.waiting WHERE account = 'o''brien\@a.example'`)[0][0]; got != "20" {
		t.Errorf("%s rows are shown", got)
	}
}

// TestNameOfAnotherRolesSession: somebody who may but read calls a session like
// one that writes. It can't be ended, and is in nobody's way.
func TestNameOfAnotherRolesSession(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	server.Query(t, "CREATE ROLE billing LOGIN")
	c, err := Config{URL: strings.Replace(server.URL(), "imgate@", "billing@", 1), Schema: "imgate"}.connection()
	if err != nil {
		t.Fatal(err)
	}
	other, err := connect(t.Context(), c, "imgate/imgate/0")
	if err != nil {
		t.Fatal(err)
	}
	defer disconnect(other)
	apply(t, s, acquire(t, s, "a", time.Hour), row("spool", "a", "1"))
}

// TestRowsThatAreDeleted: the rows of the lease and of the fence are made anew,
// and fences go on growing.
func TestRowsThatAreDeleted(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	for _, relation := range []string{"core_lease", "core_fence"} {
		apply(t, s, f, row("spool", "a", relation))
		server.Query(t, "DELETE FROM imgate."+relation)
		if relation == "core_lease" {
			err := s.Renew(t.Context(), f, time.Hour)
			if !errors.Is(err, plugin.ErrFenced) || !strings.Contains(err.Error(), "deleted") {
				t.Errorf("Renew without a row: %v", err)
			}
			if l, err := s.Lease(t.Context()); err != nil || l.State != plugin.LeaseFree {
				t.Errorf("Lease without a row: %+v, %v", l, err)
			}
		} else if err := s.Apply(t.Context(), f, nil); !errors.Is(err, plugin.ErrFenced) {
			t.Errorf("Apply without a row: %v", err)
		}
		next := acquire(t, s, "a", time.Hour)
		if next <= f {
			t.Errorf("without a row of %s the fence is %d after %d", relation, next, f)
		}
		f = next
	}
	apply(t, s, f, row("spool", "a", "2"))
}

// TestClockIsPutBack: what was to last seconds isn't in force for an hour when
// the server's clock is put back by one.
func TestClockIsPutBack(t *testing.T) {
	const ttl = 3 * time.Second
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	back := func(column string) {
		server.Query(t, "UPDATE imgate.core_lease SET "+column+" = "+column+" + interval '1 hour'")
	}
	f := acquire(t, s, "a", ttl)
	back("ends")
	if l, err := s.Lease(t.Context()); err != nil || l.State != plugin.LeaseExpired || l.Left > 0 {
		t.Errorf("Lease: %+v, %v", l, err)
	}
	if err := s.Renew(t.Context(), f, ttl); err != nil { // whoever lives keeps it
		t.Errorf("Renew: %v", err)
	}
	if l, err := s.Lease(t.Context()); err != nil || l.State != plugin.LeaseHeld || l.Left > ttl {
		t.Errorf("Lease after Renew: %+v, %v", l, err)
	}
	back("ends")
	f = acquire(t, s, "b", ttl)
	if err := s.Handover(t.Context(), f, "c", ttl); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), "d", ttl); !errors.Is(err, plugin.ErrHeld) {
		t.Errorf("Acquire of a reserved lease: %v", err)
	}
	back("reserved")
	if l, err := s.Lease(t.Context()); err != nil || l.State != plugin.LeaseReleased {
		t.Errorf("Lease: %+v, %v", l, err)
	}
	acquire(t, s, "d", ttl)
	if _, err := s.Attend(t.Context(), "dead", ""); err != nil {
		t.Fatal(err)
	}
	server.Query(t, "UPDATE imgate.core_nodes SET seen = seen + interval '1 hour'")
	for range 2 { // who attends now sees it no more
		if _, err := s.Attend(t.Context(), "alive", ""); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.Attend(t.Context(), "alive", ""); err != nil || len(all) != 1 {
		t.Errorf("Attend: %v, %v", all, err)
	}
}

// TestHostThatSaysNothing: the machine of the first host is gone and doesn't even
// refuse. Calls that have a second get to the next.
func TestHostThatSaysNothing(t *testing.T) {
	server := postgrestest.Start(t)
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	both := strings.Replace(server.URL(), hostOf(server), silent.Addr().String()+","+hostOf(server), 1)
	for _, url := range []string{both, strings.Replace(both, "sslmode=disable", "sslmode=prefer", 1)} {
		s := openAt(t, plugin.Env{Log: quiet()}, url)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Lease(ctx); err != nil {
			t.Errorf("Lease: %v", err)
		}
	}
}

// TestReadOnlyHost says what is wrong with a host, and which it is.
func TestReadOnlyHost(t *testing.T) {
	server := postgrestest.Start(t)
	server.Query(t, "ALTER ROLE imgate SET default_transaction_read_only = on")
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	_, err := New(ctx, plugin.Env{Log: quiet()}, Config{URL: server.URL(), Schema: "imgate"})
	if !errors.Is(err, errReadOnly) || !strings.Contains(err.Error(), hostOf(server)) || strings.Contains(err.Error(), "\n") {
		t.Errorf("New: %v", err)
	}
}

// TestLockedLease: somebody has locked the lease. The error is about that, and
// comes before the callers give up.
func TestLockedLease(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet()}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	other, err := connect(t.Context(), s.writer.config, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	defer disconnect(other)
	for _, sql := range []string{"BEGIN", "LOCK TABLE imgate.core_lease"} {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.Renew(ctx, f, time.Hour); err == nil || !strings.Contains(err.Error(), "pg_blocking_pids") {
		t.Errorf("Renew: %v", err)
	}
}

// TestLinkIsSteady: while some calls succeed and others don't, it isn't said of
// each.
func TestLinkIsSteady(t *testing.T) {
	var said lockedBuffer
	l := newLink(plugin.Env{Log: slog.New(slog.NewTextHandler(&said, nil))}, &config{})
	now := time.Now()
	for range 10 {
		_ = l.toldAt(now, io.ErrUnexpectedEOF)
		now = now.Add(steadyAfter / 2)
		_ = l.toldAt(now, nil)
	}
	if got := strings.Count(said.String(), "\n"); got != 1 {
		t.Errorf("while it comes and goes:\n%s", said.String())
	}
	_ = l.toldAt(now.Add(steadyAfter/2), nil)
	if got := strings.Count(said.String(), "answers again"); got != 1 {
		t.Errorf("when it has come:\n%s", said.String())
	}
}

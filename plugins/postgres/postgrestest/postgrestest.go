// Package postgrestest runs a real PostgreSQL for tests: in a temporary folder,
// on loopback only, with a disk that it waits for as in production. It ends
// with the test, and with the test's process also when that is killed.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Who is who in the server. The owner owns the database and nothing else.
const (
	superuser = "root_of_tests"
	owner     = "imgate"
	database  = "imgate"
)

// Bounds of what the server is waited for.
const (
	startWithin = 30 * time.Second
	stopWithin  = 10 * time.Second
	queryWithin = 10 * time.Second
	startTries  = 5 // with a port each
)

// Server is a PostgreSQL that belongs to one test. Its methods are not for
// several goroutines at once.
type Server struct {
	t        testing.TB
	binaries string
	account  *account // who runs it; nil: whoever runs the test
	dir      string
	settings []string
	port     int
	running  *postmaster // nil: it is stopped
}

// Start starts a server with an empty database, and stops it when the test
// ends. A setting is as in postgresql.conf: "fsync=off". Where PostgreSQL isn't
// installed the test is skipped, but with CI set or as root it fails.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	binaries, err := findBinaries()
	if err != nil {
		if os.Getuid() == 0 || os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s := &Server{t: t, binaries: binaries, settings: settings}
	t.Cleanup(s.end)
	if err := s.initialise(); err != nil {
		t.Fatalf("make a PostgreSQL for the test: %v", err)
	}
	if err := s.startSomewhere(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	s.create(database)
	return s
}

// URL returns where the database is. All calls return the same.
func (s *Server) URL() string { return s.url(owner, database) }

// Another makes one more database, empty and of the same owner, and returns
// where it is. name is [a-z_]+.
func (s *Server) Another(name string) string {
	s.t.Helper()
	s.create(name)
	return s.url(owner, name)
}

func (s *Server) url(user, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User(user),
		Host: fmt.Sprintf("127.0.0.1:%d", s.port), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Crash ends the server at once, without a checkpoint, as "pg_ctl stop -m
// immediate" does: clients lose their connections, and the next start recovers
// from the log.
func (s *Server) Crash() {
	s.t.Helper()
	if err := s.stop(); err != nil {
		s.t.Fatalf("crash PostgreSQL: %v", err)
	}
}

// Resume starts a server that Crash ended, on the same folder and port, and
// waits until it answers.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start PostgreSQL again: %v", err)
	}
}

// Freeze stops all processes of the server where they are: clients stay
// connected and hear nothing.
func (s *Server) Freeze() {
	s.t.Helper()
	if err := s.running.freeze(); err != nil {
		s.t.Fatalf("freeze PostgreSQL: %v", err)
	}
}

// Thaw lets a server go on that was frozen.
func (s *Server) Thaw() {
	s.t.Helper()
	if err := s.running.thaw(); err != nil {
		s.t.Fatalf("thaw PostgreSQL: %v", err)
	}
}

// Query runs one statement in the database as a superuser and returns its rows
// as text; NULL is "NULL".
func (s *Server) Query(t testing.TB, sql string, args ...any) [][]string {
	t.Helper()
	rows, err := s.query(t.Context(), database, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

// QueryAt is Query in the database that a URL names.
func (s *Server) QueryAt(t testing.TB, at, sql string, args ...any) [][]string {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.query(t.Context(), strings.TrimPrefix(u.Path, "/"), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

func (s *Server) query(ctx context.Context, database, sql string, args ...any) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url(superuser, database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found [][]string
	for rows.Next() {
		found = append(found, texts(rows.RawValues()))
	}
	return found, rows.Err()
}

func texts(values [][]byte) []string {
	row := make([]string, len(values))
	for i, v := range values {
		row[i] = string(v)
		if v == nil {
			row[i] = "NULL"
		}
	}
	return row
}

// create makes a database, and its owner if there is none yet.
func (s *Server) create(name string) {
	s.t.Helper()
	ctx := s.t.Context()
	statements := []string{
		"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '" + owner + "') THEN CREATE ROLE " + owner + " LOGIN; END IF; END $$",
		"CREATE DATABASE " + pgx.Identifier{name}.Sanitize() + " OWNER " + owner,
	}
	for _, sql := range statements {
		if _, err := s.query(ctx, "postgres", sql); err != nil {
			s.t.Fatalf("make the database %s: %v", name, err)
		}
	}
}

// initialise makes the server's folder. Only making it isn't waited for by the
// disk: what the server writes is.
func (s *Server) initialise() (err error) {
	if s.account, err = whoRuns(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "imgate-postgres-"); err != nil {
		return err
	}
	if err := s.account.own(s.dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), startWithin)
	defer cancel()
	initdb := exec.CommandContext(ctx, filepath.Join(s.binaries, "initdb"),
		"--pgdata", s.data(), "--username", superuser, "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync")
	initdb.Dir = s.dir
	initdb.SysProcAttr = s.account.attributes()
	if said, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, said)
	}
	return nil
}

func (s *Server) data() string    { return filepath.Join(s.dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// startSomewhere starts the server on a port that nobody uses. Another test
// may take it in between: then on another one.
func (s *Server) startSomewhere() (err error) {
	for range startTries {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.start(); err == nil {
			return nil
		}
	}
	return err
}

// start starts the server and waits until it answers.
func (s *Server) start() error {
	if s.running != nil {
		return errors.New("it runs already")
	}
	running, err := s.launch()
	if err != nil {
		return err
	}
	s.running = running
	if err := s.answers(); err != nil {
		return errors.Join(fmt.Errorf("%w; it said: %s", err, s.said()), s.stop())
	}
	return nil
}

// answers waits until the server takes clients. Another test's may have taken
// the port, and answer in its place.
func (s *Server) answers() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), startWithin)
	defer cancel()
	for {
		where, err := s.query(ctx, "postgres", "SHOW data_directory")
		if err == nil && where[0][0] == s.data() {
			return nil
		}
		select {
		case <-s.running.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) stop() error {
	running := s.running
	s.running = nil
	if running == nil {
		return nil
	}
	return running.stop()
}

// said returns the end of the server's log.
func (s *Server) said() string {
	const enough = 2000
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-enough):])
}

// end lets go of everything.
func (s *Server) end() {
	if err := s.stop(); err != nil {
		s.t.Errorf("stop PostgreSQL: %v", err)
	}
	if s.dir == "" {
		return
	}
	if s.t.Failed() {
		s.t.Logf("PostgreSQL said last: %s", s.said())
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Errorf("remove PostgreSQL's folder: %v", err)
	}
}

// Package postgres is the storage that several nodes share: a PostgreSQL, in
// which one schema is imgate's own. It must not know what the rows mean beyond
// what their sheets say.
//
// It relies on PostgreSQL 12 or later, or what is like it in all this:
//
//   - Transactions at READ COMMITTED that wait for each other's row locks
//     (FOR UPDATE) and then see the newest version of the row, and that are on
//     disk when they are acknowledged.
//   - Statements that are sent together up to one Sync of the extended protocol
//     are one transaction: an Apply is one round trip.
//   - INSERT … ON CONFLICT DO UPDATE, unnest of several arrays, an index on
//     bytea, whose order is that of the octets.
//   - PL/pgSQL, advisory locks that end with the transaction, and catalogs that
//     tell which columns there are.
//   - pg_stat_activity and pg_terminate_backend: whoever takes the lease ends the
//     sessions that write under an older one, so that a node which froze in the
//     middle of a write keeps nobody waiting. All nodes have to log in as the
//     same role for that.
//   - One session for each connection. A pooler in between, such as PgBouncer,
//     breaks this, and is refused.
//   - A database in UTF-8.
//
// A table that has a sheet is a relation of its own, with the sheet's columns
// beside key and value, and a view of these columns alone that bears the sheet's
// name: that is what people ask. Nothing is ever read back from the columns. A
// role that may read the views needs no more than
//
//	GRANT USAGE ON SCHEMA imgate TO billing;
//	GRANT SELECT ON imgate.accounts, imgate.spent, imgate.cdrs TO billing;
//	ALTER ROLE billing SET statement_timeout = '1min';
//
// and must not get the relations themselves: their values hold secrets and the
// text of messages. The last line is there because PostgreSQL keeps all versions
// of all rows for as long as a query runs, and rows that change often become slow
// to write; a query that takes hours belongs on a replica.
//
// Each node has at most seven connections.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Plugin is the storage as operators configure it.
var Plugin = plugin.DefineStorage("postgres", "keeps everything in a PostgreSQL that several nodes share", Config{Schema: "imgate"}, New)

// openWithin is how long New waits for a database that can't be reached. A node
// that is started while the database is restarted so comes up by itself; then
// it ends with the reason, and whoever started it may try again.
const openWithin = 20 * time.Second

// storage is an open storage.
type storage struct {
	schema  schema
	process string // which process this is
	writer  *writer
	leases  *sessions // apart from the scans, so that nobody waits for these
	scans   *sessions
	fill    *filling
}

// Sizes of the pools. Scan is called from a few goroutines.
const (
	leaseSessions = 2
	scanSessions  = 4
)

// hurried is the configuration of the sessions for the lease. The calls have a
// second, and a lock that isn't had should be named before they end.
func hurried(c *config) *config {
	c = c.Copy()
	c.RuntimeParams["lock_timeout"] = "700ms"
	return c
}

// New opens the storage: it makes the schema if there is none, brings it up to
// date, and waits up to 20 s for a database that can't be reached.
func New(ctx context.Context, env plugin.Env, c Config) (plugin.Storage, error) {
	config, err := c.connection()
	if err != nil {
		return nil, err
	}
	schema := schema{name: c.Schema}
	tables, err := tablesOf(env.Sheets)
	if err != nil {
		return nil, err
	}
	link := newLink(env, config)
	tables, err = open(ctx, config, schema, tables, link)
	if err != nil {
		return nil, fmt.Errorf("open the schema %q of %s: %w", c.Schema, place(config), err)
	}
	layout, reader := newLayout(schema, tables), newReader(env)
	process := process()
	s := &storage{
		schema: schema, process: process,
		writer: newWriter(config, schema, process, layout, reader, link),
		leases: newSessions(hurried(config), schema, link, leaseSessions),
		scans:  newSessions(config, schema, link, scanSessions),
	}
	s.fill = startFilling(s.scans, layout, reader)
	return s, nil
}

// open waits until the database answers and brings the schema up to date.
func open(ctx context.Context, config *config, schema schema, tables []table, link *link) ([]table, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	var reason error // of the last attempt that had its time
	for {
		laid, err := prepare(ctx, config, schema, tables, link)
		if err == nil || !passing(err) {
			return laid, err
		}
		if reason == nil || ctx.Err() == nil {
			reason = err
		}
		select {
		case <-ctx.Done():
			return nil, reason
		case <-time.After(openPause):
		}
	}
}

const openPause = 250 * time.Millisecond

// process tells this process from others that bear the same node's name.
func process() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("process %d on %s, started %s", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339Nano))
}

func (s *storage) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	return s.writer.apply(ctx, f, changes)
}

// Close waits for nobody longer than closeWithin: what the database doesn't
// answer any more it undoes by itself.
func (s *storage) Close() error {
	s.fill.stop()
	s.writer.close()
	s.leases.close()
	s.scans.close()
	return nil
}

var errClosed = errors.New("the storage is closed")

package postgres

import (
	"context"
	"embed"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// migrations make what is the same in every schema: sql/0001.sql and so on, each
// applied once, in order. One that was released is never changed.
//
//go:embed sql/*.sql
var migrations embed.FS

// Bounds of bringing a schema up to date.
const (
	migrateWithin = time.Minute
	// ddlWait is how long a change of a relation may wait for those who read
	// it: whoever writes waits behind it meanwhile. It is longer than the second
	// after which PostgreSQL cancels an autovacuum that is in the way.
	ddlWait = "1500ms"
	// turnWait is how long one node waits while another one does the same.
	turnWait = "15s"
)

// prepare brings the schema up to date, and returns the tables that have a
// relation of their own: those with a sheet, and those that had one. Of several
// nodes at once one does it and the others find it done.
func prepare(ctx context.Context, config *config, s schema, tables []table, link *link) ([]table, error) {
	ctx, cancel := context.WithTimeout(ctx, migrateWithin)
	defer cancel()
	conn, err := connect(ctx, config, s.sessionName())
	if err != nil {
		return nil, err
	}
	defer disconnect(conn)
	if err := inspect(ctx, conn, link); err != nil {
		return nil, err
	}
	var laid []table
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		laid, err = update(ctx, tx, s, tables)
		return err
	})
	return laid, err
}

// oldest is the oldest PostgreSQL that has all that is relied on.
const oldest = 12_00_00

// inspect refuses a server that can't do what is needed, and warns of one that
// may lose what it acknowledged.
func inspect(ctx context.Context, conn *pgx.Conn, link *link) error {
	var version int
	var encoding string
	settings := map[string]string{"fsync": "", "full_page_writes": ""}
	err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')").Scan(&version, &encoding)
	if err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	if version < oldest {
		return &refusal{fmt.Sprintf("the server is PostgreSQL %d: 12 or later is needed", version/10000)}
	}
	if encoding != "UTF8" {
		return &refusal{fmt.Sprintf("the database is encoded in %s: make one with ENCODING 'UTF8'", encoding)}
	}
	for name := range settings {
		var value string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return fmt.Errorf("read the server's settings: %w", err)
		}
		if value == "off" {
			link.log.Warn("the database may lose what it has acknowledged when its machine fails", "place", link.where, "setting", name, "value", value)
		}
	}
	return nil
}

// update is what is done in one transaction, by one node at a time.
func update(ctx context.Context, tx pgx.Tx, s schema, tables []table) ([]table, error) {
	for _, sql := range []string{
		"SET LOCAL statement_timeout = 0",
		"SET LOCAL lock_timeout = '" + turnWait + "'",
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", lockNumber(s)),
		"SET LOCAL lock_timeout = '" + ddlWait + "'",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("wait for other nodes that bring the schema up to date: %w", err)
		}
	}
	if err := migrate(ctx, tx, s); err != nil {
		return nil, err
	}
	return lay(ctx, tx, s, tables)
}

// lockNumber is the schema's own among the database's advisory locks.
func lockNumber(s schema) int64 {
	h := fnv.New64a()
	h.Write([]byte("imgate/" + s.name))
	return int64(h.Sum64())
}

// migrate applies the migrations that the schema lacks.
func migrate(ctx context.Context, tx pgx.Tx, s schema) error {
	files, err := migrations.ReadDir("sql")
	if err != nil {
		return err
	}
	version, err := versionOf(ctx, tx, s)
	if err != nil {
		return err
	}
	if version > len(files) {
		return &refusal{fmt.Sprintf("it is of version %d and was made by a newer imgate: this one knows version %d at most", version, len(files))}
	}
	for i := version; i < len(files); i++ {
		text, err := migrations.ReadFile("sql/" + files[i].Name())
		if err != nil {
			return err
		}
		if err := execute(ctx, tx, s.expand(string(text))); err != nil {
			return fmt.Errorf("apply migration %s: %w", files[i].Name(), err)
		}
		sql := "INSERT INTO " + s.of("core_version") + " (version) VALUES ($1)"
		if _, err := tx.Exec(ctx, sql, i+1); err != nil {
			return fmt.Errorf("note migration %s: %w", files[i].Name(), err)
		}
	}
	return nil
}

// expand puts the schema's name into a migration.
func (s schema) expand(sql string) string {
	return strings.NewReplacer("$schema", pgx.Identifier{s.name}.Sanitize(), "$sessions", s.writers()).Replace(sql)
}

// execute runs statements that have no parameters, as one.
func execute(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// versionOf makes the schema if there is none, and returns its version.
func versionOf(ctx context.Context, tx pgx.Tx, s schema) (int, error) {
	var exists bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", s.name).Scan(&exists)
	if err != nil {
		return 0, fmt.Errorf("look for the schema: %w", err)
	}
	if !exists {
		if err := execute(ctx, tx, "CREATE SCHEMA "+pgx.Identifier{s.name}.Sanitize()); err != nil {
			return 0, fmt.Errorf("make the schema: %w", err)
		}
	}
	table := s.of("core_version")
	sql := "CREATE TABLE IF NOT EXISTS " + table + " (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())"
	if err := execute(ctx, tx, sql); err != nil {
		return 0, fmt.Errorf("make the list of migrations: %w", err)
	}
	var version int
	err = tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM "+table).Scan(&version)
	if err != nil {
		return 0, fmt.Errorf("read the schema's version: %w", err)
	}
	return version, nil
}

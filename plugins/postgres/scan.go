package postgres

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/imgate/imgate/engine/plugin"
)

// scanWithin bounds a scan, should its context not.
const scanWithin = 10 * time.Second

func (s *storage) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, scanWithin)
	defer cancel()
	sql, args := s.writer.layout.of(table).page(table, from, to, n)
	var found []plugin.Change
	err := s.scans.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		found, err = collect(rows, table)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("scan table %q: %w", table, err)
	}
	return found, nil
}

// page is the statement that reads rows of a table.
func (r *relation) page(table string, from, to []byte, n int) (sql string, args []any) {
	if from == nil {
		from = []byte{} // nil is NULL
	}
	sql, args = r.scan, []any{from}
	if to != nil {
		sql, args = r.scanTo, append(args, to)
	}
	args = append(args, max(0, n))
	if r.shared {
		args = append(args, table)
	}
	return sql, args
}

// collect copies the rows out of the connection's buffer.
func collect(rows pgx.Rows, table string) ([]plugin.Change, error) {
	defer rows.Close()
	var found []plugin.Change
	for rows.Next() {
		row := rows.RawValues()
		found = append(found, plugin.Change{
			Table: table,
			Key:   bytes.Clone(row[0]),
			Value: append([]byte{}, row[1]...), // not nil, even of an empty row
		})
	}
	return found, rows.Err()
}

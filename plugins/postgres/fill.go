package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/imgate/imgate/engine/plugin"
)

// filling fills the columns of rows that were written before their relation had
// them. It works beside all else, in small steps, and goes on where it was after
// a restart. Several nodes may do it at once. What a node of the older version
// writes afterwards has only the columns that it knows.
type filling struct {
	sessions *sessions
	layout   *layout
	reader   *reader
	log      *slog.Logger
	cancel   context.CancelFunc
	ended    chan struct{}
}

// The steps of filling.
const (
	fillRows   = 500
	fillPause  = 20 * time.Millisecond // so that writers come in between
	fillAgain  = 10 * time.Second      // after an error
	fillWithin = 10 * time.Second      // one step
)

func startFilling(s *sessions, l *layout, r *reader) *filling {
	ctx, cancel := context.WithCancel(context.Background()) // as long as the storage is open
	f := &filling{sessions: s, layout: l, reader: r, log: r.log, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for _, r := range l.all {
			if r.fill != "" {
				f.run(ctx, r)
			}
		}
	}()
	return f
}

func (f *filling) stop() {
	f.cancel()
	<-f.ended
}

// run fills one relation.
func (f *filling) run(ctx context.Context, r *relation) {
	total := 0
	for ctx.Err() == nil {
		n, done, err := f.step(ctx, r)
		total += n
		pause := fillPause
		switch {
		case err != nil && ctx.Err() == nil:
			f.log.Warn("older rows can't be given their new columns; it is tried again", "table", r.table.name, "reason", err)
			pause = fillAgain
		case done && total > 0:
			f.log.Info("older rows were given their new columns", "table", r.table.name, "rows", total)
			return
		case done:
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// step fills some rows, and tells whether they were the last.
func (f *filling) step(ctx context.Context, r *relation) (n int, done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, fillWithin)
	defer cancel()
	err = f.sessions.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		n, done, err = f.stepIn(ctx, conn, r)
		return err
	})
	return n, done, err
}

func (f *filling) stepIn(ctx context.Context, conn *pgx.Conn, r *relation) (n int, done bool, err error) {
	var after []byte
	err = conn.QueryRow(ctx, "SELECT after FROM "+f.schema().of("core_fill")+" WHERE relation = $1", r.table.relation()).Scan(&after)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, true, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read how far older rows are filled: %w", err)
	}
	rows, err := conn.Query(ctx, r.scan, after, fillRows)
	if err != nil {
		return 0, false, err
	}
	found, err := collect(rows, r.table.name)
	if err != nil {
		return 0, false, err
	}
	return len(found), len(found) < fillRows, f.write(ctx, conn, r, found)
}

func (f *filling) schema() schema { return f.layout.schema }

// write gives rows their columns unless they were changed meanwhile: whoever
// did that has given them theirs. It takes its turn with the writers, and is
// sent as one transaction: whoever falls silent in between holds up nobody.
func (f *filling) write(ctx context.Context, conn *pgx.Conn, r *relation, rows []plugin.Change) error {
	arrays := arraysOf(r)
	reset(arrays)
	for _, row := range rows {
		arrays[0].put(row.Key)
		arrays[1].put(row.Value)
		f.reader.put(r.table, arrays[2:], row)
	}
	s := f.schema()
	var batch pgconn.Batch
	batch.ExecParams("SELECT FROM "+s.of("core_fence")+" WHERE one FOR NO KEY UPDATE", nil, nil, nil, nil)
	if len(rows) > 0 {
		batch.ExecParams(r.fill, finish(nil, arrays), nil, binaryFormat, nil)
	}
	relation := []byte(r.table.relation())
	if len(rows) < fillRows {
		batch.ExecParams("DELETE FROM "+s.of("core_fill")+" WHERE relation = $1::text", [][]byte{relation}, nil, binaryFormat, nil)
	} else {
		next := append(bytes.Clone(rows[len(rows)-1].Key), 0)
		batch.ExecParams("UPDATE "+s.of("core_fill")+" SET after = $2::bytea WHERE relation = $1::text", [][]byte{relation, next}, nil, binaryFormat, nil)
	}
	if err := conn.PgConn().ExecBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("fill older rows: %w", err)
	}
	return nil
}

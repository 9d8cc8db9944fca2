package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/imgate/imgate/engine/plugin"
)

// Bounds of an Apply. The committer gives it 10 s; a database that doesn't
// answer is to be known before.
const (
	applyWithin  = 8 * time.Second // all of it
	answerWithin = 5 * time.Second // one attempt
)

// writer has the one connection that writes.
type writer struct {
	config  *config
	schema  schema
	process string
	layout  *layout
	link    *link

	mu      sync.Mutex
	encoder *encoder
	conn    *pgx.Conn // nil: none
	fence   plugin.Fence
	begun   [][]byte // the parameters of admit: fence, and number of the session
	closed  bool
}

func newWriter(c *config, s schema, process string, l *layout, r *reader, link *link) *writer {
	return &writer{config: c, schema: s, process: process, layout: l, encoder: newEncoder(l, r), link: link}
}

// apply writes changes. If the connection breaks meanwhile they are sent again
// on another, once: whether they were written before makes no difference, since
// nothing else was written in between, and the session that broke can't write
// any more.
func (w *writer) apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	ctx, cancel := context.WithTimeout(ctx, applyWithin)
	defer cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	statements := w.encoder.encode(changes)
	connected := w.conn != nil
	first := w.write(ctx, f, statements)
	if !connected || !broken(first) || ctx.Err() != nil {
		return w.link.told(first)
	}
	w.link.replaced.Inc()
	return outcome(first, w.link.told(w.write(ctx, f, statements)))
}

// outcome is what came of two attempts. If the second came to nothing it isn't
// known what became of the first, unless that is.
func outcome(first, second error) error {
	nothing := errors.Is(second, plugin.ErrNotApplied) || errors.Is(second, plugin.ErrFenced)
	if nothing && !errors.Is(first, plugin.ErrNotApplied) {
		return fmt.Errorf("%w; and then: %v", first, second)
	}
	return second
}

// write makes one attempt. One that fails takes the connection with it: the
// next begins anew.
func (w *writer) write(ctx context.Context, f plugin.Fence, statements []statement) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if w.conn != nil && w.fence != f {
		w.drop()
	}
	if w.conn == nil {
		if err := w.begin(ctx, f); err != nil {
			w.drop()
			return notApplied(explained(err))
		}
	}
	if err := w.send(ctx, statements); err != nil {
		w.drop()
		return err
	}
	return nil
}

// send sends all statements as one transaction and waits until it is on disk.
func (w *writer) send(ctx context.Context, statements []statement) error {
	var batch pgconn.Batch
	batch.ExecPrepared(admitName, w.begun, binaryFormat, nil)
	for _, s := range statements {
		batch.ExecPrepared(w.name(s), s.parameters, binaryFormat, nil)
	}
	err := w.conn.PgConn().ExecBatch(ctx, &batch).Close()
	refused, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case answered && refused.Code == stateFenced:
		return fmt.Errorf("%w: %s", plugin.ErrFenced, refused.Message)
	case answered && rolledBack(refused):
		return notApplied(fmt.Errorf("write to the database: %w", explained(err)))
	case err != nil:
		return fmt.Errorf("write to the database: %w", err)
	}
	return nil
}

// rolledBack tells whether the server says that the transaction came to nothing.
// What ends the session, or is about the connection, says nothing of it.
func rolledBack(e *pgconn.PgError) bool {
	if e.SeverityUnlocalized != "ERROR" || e.Code == stateUnknown {
		return false
	}
	return e.Code == stateSuperseded || !isBroken(e.Code)
}

// notApplied marks an error after which nothing can have been written.
func notApplied(err error) error {
	if errors.Is(err, plugin.ErrFenced) {
		return err
	}
	return fmt.Errorf("%w: %w", err, plugin.ErrNotApplied)
}

var binaryFormat = []int16{pgx.BinaryFormatCode}

// begin opens a session that alone may write under a fence.
func (w *writer) begin(ctx context.Context, f plugin.Fence) (err error) {
	w.fence = f
	w.conn, err = connect(ctx, w.config, w.schema.writers()+strconv.FormatUint(uint64(f), 10))
	if err != nil {
		return err
	}
	var session *int64
	err = w.conn.QueryRow(ctx, "SELECT "+w.schema.of("begin_writing")+"($1, $2)", pgx.QueryExecModeExec, int64(f), w.process).Scan(&session)
	if err != nil {
		return fmt.Errorf("begin to write to the database: %w", err)
	}
	if session == nil {
		return fmt.Errorf("%w: this process doesn't hold the newest lease under the fence %d", plugin.ErrFenced, f)
	}
	w.begun = [][]byte{number(uint64(f)), number(uint64(*session))}
	return w.prepare(ctx)
}

const admitName = "admit"

// name is what a statement is called in the session.
func (w *writer) name(s statement) string {
	if s.removes {
		return "remove " + s.relation.table.name
	}
	return "write " + s.relation.table.name
}

// prepare prepares all statements in one round trip.
func (w *writer) prepare(ctx context.Context) error {
	pipeline := w.conn.PgConn().StartPipeline(ctx)
	pipeline.SendPrepare(admitName, "SELECT "+w.schema.of("admit")+"($1, $2)", nil)
	for _, r := range w.layout.all {
		pipeline.SendPrepare(w.name(statement{relation: r}), r.upsert, nil)
		pipeline.SendPrepare(w.name(statement{relation: r, removes: true}), r.remove, nil)
	}
	err := errors.Join(pipeline.Sync(), pipeline.Close())
	if err != nil {
		return fmt.Errorf("prepare to write to the database: %w", err)
	}
	return nil
}

func (w *writer) drop() {
	if w.conn != nil {
		disconnect(w.conn)
		w.conn = nil
	}
}

func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.drop()
}

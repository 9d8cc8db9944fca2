package postgres

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/imgate/imgate/engine/plugin"
)

// statement is one statement of an Apply with its parameters.
type statement struct {
	relation   *relation
	removes    bool // else it writes
	parameters [][]byte
}

// encoder makes statements of changes: at most two for each relation. It is
// used by one goroutine, and what it returns is good until it is used again.
type encoder struct {
	layout     *layout
	reader     *reader
	relations  map[*relation]*pending
	statements []statement
}

// pending is what is to be changed in a relation.
type pending struct {
	newest  map[string]struct{} // keys whose last change is in kept
	kept    []int               // of the changes, the last first
	upsert  []array
	remove  []array
	sent    [][]byte
	removed [][]byte
}

func newEncoder(l *layout, r *reader) *encoder {
	e := &encoder{layout: l, reader: r, relations: map[*relation]*pending{}}
	for _, rel := range l.all {
		p := &pending{newest: map[string]struct{}{}, upsert: arraysOf(rel), remove: []array{newArray(pgtype.ByteaOID)}}
		if rel.shared {
			p.remove = append(p.remove, newArray(pgtype.TextOID))
		}
		e.relations[rel] = p
	}
	return e
}

// encode returns the statements for changes. Of several changes to one key only
// the last is among them, so their order doesn't matter.
func (e *encoder) encode(changes []plugin.Change) []statement {
	for i := len(changes) - 1; i >= 0; i-- {
		e.keep(i, changes[i])
	}
	e.statements = e.statements[:0]
	for _, rel := range e.layout.all {
		if p := e.relations[rel]; len(p.kept) > 0 {
			e.gather(rel, p, changes)
		}
	}
	return e.statements
}

func (e *encoder) keep(i int, c plugin.Change) {
	rel := e.layout.of(c.Table)
	p := e.relations[rel]
	before := len(p.newest)
	if rel.shared {
		p.newest[c.Table+"\x00"+string(c.Key)] = struct{}{}
	} else {
		p.newest[string(c.Key)] = struct{}{}
	}
	if len(p.newest) > before {
		p.kept = append(p.kept, i)
	}
}

// gather puts the rows in the order in which they came: keys that grow find
// their place in an index faster.
func (e *encoder) gather(rel *relation, p *pending, changes []plugin.Change) {
	reset(p.upsert)
	reset(p.remove)
	for i := len(p.kept) - 1; i >= 0; i-- {
		c := changes[p.kept[i]]
		if c.Value == nil {
			p.remove[0].put(c.Key)
			if rel.shared {
				p.remove[1].putText(c.Table)
			}
			continue
		}
		e.put(rel, p.upsert, c)
	}
	clear(p.newest)
	p.kept = p.kept[:0]
	if p.remove[0].n > 0 {
		p.removed = finish(p.removed, p.remove)
		e.statements = append(e.statements, statement{relation: rel, removes: true, parameters: p.removed})
	}
	if p.upsert[0].n > 0 {
		p.sent = finish(p.sent, p.upsert)
		e.statements = append(e.statements, statement{relation: rel, parameters: p.sent})
	}
}

// put puts a row to be written into the arrays of its relation.
func (e *encoder) put(rel *relation, arrays []array, c plugin.Change) {
	arrays[0].put(c.Key)
	arrays[1].put(c.Value)
	if rel.shared {
		arrays[2].putText(c.Table)
		return
	}
	e.reader.put(rel.table, arrays[2:], c)
}

func reset(arrays []array) {
	for i := range arrays {
		arrays[i].reset()
	}
}

func finish(to [][]byte, arrays []array) [][]byte {
	to = to[:0]
	for i := range arrays {
		to = append(to, arrays[i].finish())
	}
	return to
}

// reader reads rows for people, one at a time.
type reader struct {
	log    *slog.Logger
	failed *plugin.Counter

	mu     sync.Mutex
	logged time.Time // when a failure was logged last
}

// failureEvery is how often a row that doesn't read is logged.
const failureEvery = time.Minute

func newReader(env plugin.Env) *reader {
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &reader{
		log:    log,
		failed: env.Metrics.Counter("postgres_unreadable_rows_total", "Rows that were kept but whose columns are empty, because they couldn't be read."),
	}
}

// put puts the columns of a row into their arrays. Of one that doesn't read
// they are empty.
func (r *reader) put(t table, arrays []array, c plugin.Change) {
	if len(t.columns) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	values, why := read(t, c)
	if why != "" {
		r.fails(t, why)
	}
	for i, column := range t.columns {
		if why != "" {
			arrays[i].putNull()
			continue
		}
		arrays[i].putValue(values[i], column)
	}
}

// read returns a value for each column, or why there are none.
func read(t table, c plugin.Change) (values []any, why string) {
	if t.read == nil {
		return nil, "this version doesn't know the table"
	}
	values, err := t.read(c)
	if err != nil {
		return nil, err.Error()
	}
	if len(values) != len(t.columns) {
		return nil, "the sheet returned another number of columns than it has"
	}
	for i, column := range t.columns {
		if !suits(values[i], column.Type) {
			return nil, "the sheet returned another type than it promised for " + column.Name
		}
	}
	return values, ""
}

func (r *reader) fails(t table, why string) {
	r.failed.Inc()
	now := time.Now()
	if now.Sub(r.logged) < failureEvery {
		return
	}
	r.logged = now
	r.log.Warn("a row can't be shown: it is kept, and its columns are empty", "table", t.name, "reason", strings.ToValidUTF8(why, "?"))
}

package spool

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Spool keeps messages that are ours and not yet delivered, and the records
// that charging hasn't settled.
type Spool struct {
	storage   plugin.Storage
	committer *Committer
}

// New returns the spool on a storage, written by a committer.
func New(storage plugin.Storage, committer *Committer) *Spool {
	return &Spool{storage: storage, committer: committer}
}

// Failing tells whether the storage refuses writes just now: then nothing may
// be sent, since it couldn't be noted that it was.
func (s *Spool) Failing() bool { return s.committer.Failing() }

// With is what is written in one transaction with a new message.
type With struct {
	Reservation []plugin.Change // rows that make its reservation durable
	Charge      *plugin.Record  // goes to the outbox at once; nil: when its fate is known
	Windows     []Window        // in which it was counted
	Also        []plugin.Change // rows that are as new as it is
	Parts       *Joined         // that it was joined from; nil: it came whole
}

// Put writes a new message. An error is a *message.Failure: nothing is written,
// and done isn't called. Else done gets nil once it is on disk, or a
// *message.Failure: then nothing is left of it, but that Windows may have been
// written, and its parts are there as before.
func (s *Spool) Put(e *Entry, with With, done func(error)) error {
	changes, fresh, err := rows(e, with)
	if err != nil {
		return err
	}
	var undo func() []plugin.Change
	if with.Parts != nil {
		undo = with.Parts.undo
	}
	return s.committer.put(changes, fresh, undo, done)
}

// Rows are what Put writes, for a message that takes another one's place: see
// MoveWith. An error is a *message.Failure.
func Rows(e *Entry, with With) ([]plugin.Change, error) {
	changes, _, err := rows(e, with)
	return changes, err
}

// rows are those of a new message; the first ones, as many as fresh, are new, too.
func rows(e *Entry, with With) (changes []plugin.Change, fresh int, err error) {
	row := entryRow(e)
	if len(row.Value) > plugin.MaxValue {
		return nil, 0, message.Fail(message.TooLarge, "%d octets with all that belongs to it, at most %d", len(row.Value), plugin.MaxValue)
	}
	n := 1 + len(with.Reservation) + len(with.Windows) + len(with.Also)
	if with.Charge != nil {
		n++
	}
	changes = make([]plugin.Change, 0, n)
	changes = append(changes, row)
	changes = append(changes, with.Reservation...)
	changes = append(changes, with.Also...)
	if with.Charge != nil {
		changes = append(changes, outboxRow(with.Charge))
	}
	if with.Parts != nil {
		changes = append(changes, with.Parts.seenRows()...)
	}
	fresh = len(changes)
	for i := range with.Windows {
		changes = append(changes, with.Windows[i].row())
	}
	if with.Parts != nil {
		changes = append(changes, with.Parts.deletions()...)
	}
	return changes, fresh, nil
}

func entryRow(e *Entry) plugin.Change {
	return plugin.Change{Table: tableMessages, Key: e.Message.ID[:], Value: encodeEntry(e)}
}

func outboxRow(r *plugin.Record) plugin.Change {
	w := &writer{}
	encodeRecord(w, *r)
	const key = len(message.ID{}) // which the record begins with
	return plugin.Change{Table: tableOutbox, Key: w.b[:key:key], Value: w.b}
}

// Fate is what a Move says of a message.
type Fate struct {
	ID message.ID
	// State is written where Final is false.
	State State
	// Final: the message leaves the spool. What is then kept of it is Ended;
	// nil: nothing but Seen.
	Final bool
	Ended *Summary
	// Seen is remembered, where Ended doesn't tell of the submission, or is
	// written so late that it may be overlooked, see Seen.Late.
	Seen *Seen
	// Record is for charging: it goes to the outbox. Nil: nothing to settle.
	Record *plugin.Record
	// Receipt is the message that tells its sender how it has ended. Nil: nobody
	// wants to know.
	Receipt *Entry
}

// Move writes what happened to a message, in one transaction with the record
// that charges for it. done may be nil.
func (s *Spool) Move(f Fate, done func(error)) { s.MoveWith(f, nil, done) }

// MoveWith is Move, and writes other changes in the same transaction.
func (s *Spool) MoveWith(f Fate, also []plugin.Change, done func(error)) {
	key := bytes.Clone(f.ID[:]) // f stays on the stack, and what it points to
	changes := make([]plugin.Change, 0, 5+len(also))
	if f.Final {
		changes = append(changes, plugin.Change{Table: tableMessages, Key: key})
		if f.State.stored() {
			changes = append(changes, plugin.Change{Table: tableStates, Key: key})
		}
	} else {
		changes = append(changes, plugin.Change{Table: tableStates, Key: key, Value: encodeState(f.State)})
	}
	if f.Ended != nil {
		changes = append(changes, f.Ended.Row())
	}
	if f.Seen != nil {
		changes = append(changes, f.Seen.row())
	}
	if f.Record != nil {
		changes = append(changes, outboxRow(f.Record))
	}
	if f.Receipt != nil {
		changes = append(changes, entryRow(f.Receipt))
	}
	s.committer.Move(append(changes, also...), done)
}

// stored tells whether there is a row for the state: a message that went at
// the first attempt never had one.
func (s State) stored() bool {
	return s.Attempts > 0 || s.Fallback || s.HandedOver || s.Hurried || s.Quarantined != "" || len(s.Deliveries) > 0
}

// Settled removes records from the outbox, in one transaction with what
// charging wants to write.
func (s *Spool) Settled(records []plugin.Record, changes []plugin.Change, done func(error)) {
	for _, record := range records {
		changes = append(changes, plugin.Change{Table: tableOutbox, Key: slices.Clone(record.Key[:])})
	}
	s.committer.Move(changes, done)
}

// Load reads a waiting message back. It is nil if there is none.
func (s *Spool) Load(ctx context.Context, id message.ID) (*Entry, error) {
	entries, err := s.LoadNear(ctx, []message.ID{id})
	return entries[id], err
}

// LoadNear reads waiting messages back; their ids are in ascending order. It
// returns the first one, if it is there, and of the others those that are found
// without reading much more.
func (s *Spool) LoadNear(ctx context.Context, ids []message.ID) (map[message.ID]*Entry, error) {
	last := ids[len(ids)-1]
	rows, err := s.storage.Scan(ctx, tableMessages, ids[0][:], append(last[:], 0), len(ids))
	if err != nil {
		return nil, fmt.Errorf("read message %s: %w", ids[0], err)
	}
	entries := make(map[message.ID]*Entry, len(rows))
	for _, row := range rows {
		id := message.ID(row.Key)
		if !slices.Contains(ids, id) {
			continue
		}
		e, err := decodeEntry(row.Value)
		switch {
		case err == nil:
			entries[id] = e
		case id == ids[0]:
			return nil, fmt.Errorf("message %s: %w", id, err)
		}
	}
	return entries, nil
}

// State reads what has happened to one message; the zero State if it went at once.
func (s *Spool) State(ctx context.Context, id message.ID) (State, error) {
	rows, err := s.storage.Scan(ctx, tableStates, id[:], append(id[:], 0), 1)
	if err != nil || len(rows) == 0 {
		return State{}, err
	}
	return decodeState(rows[0].Value)
}

// States reads what has happened to each message that didn't go at once.
func (s *Spool) States(ctx context.Context) (map[message.ID]State, error) {
	states := map[message.ID]State{}
	err := scan(ctx, s.storage, tableStates, nil, func(key, value []byte) error {
		state, err := decodeState(value)
		if err != nil {
			return err
		}
		states[message.ID(key)] = state
		return nil
	})
	return states, err
}

// Page reads up to n messages from an id on, in the order of arrival. All of
// them are in memory then, with their bodies.
func (s *Spool) Page(ctx context.Context, from message.ID, n int) ([]*Entry, error) {
	return read(ctx, s.storage, tableMessages, from[:], nil, n, func(_, value []byte) (*Entry, error) { return decodeEntry(value) })
}

// Oldest returns the id of the oldest message among those received since; zero:
// there is none.
func (s *Spool) Oldest(ctx context.Context, since time.Time) (message.ID, error) {
	from := firstID(since)
	rows, err := s.storage.Scan(ctx, tableMessages, from[:], nil, 1)
	if err != nil || len(rows) == 0 {
		return message.ID{}, err
	}
	return message.ID(rows[0].Key), nil
}

// Entries calls f with each waiting message in the order of arrival.
func (s *Spool) Entries(ctx context.Context, f func(*Entry)) error {
	return scan(ctx, s.storage, tableMessages, nil, func(_, value []byte) error {
		e, err := decodeEntry(value)
		if err == nil {
			f(e)
		}
		return err
	})
}

// Outbox reads up to n records that charging hasn't settled, from an id on.
func (s *Spool) Outbox(ctx context.Context, from message.ID, n int) ([]plugin.Record, error) {
	return read(ctx, s.storage, tableOutbox, from[:], nil, n, func(_, value []byte) (plugin.Record, error) {
		r := &reader{b: value}
		return decodeRecord(r), r.done()
	})
}

// read returns what up to n rows of a table say.
func read[T any](ctx context.Context, storage plugin.Storage, table string, from, to []byte, n int, decode func(key, value []byte) (T, error)) ([]T, error) {
	rows, err := storage.Scan(ctx, table, from, to, n)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", table, err)
	}
	read := make([]T, len(rows))
	for i, row := range rows {
		if read[i], err = decode(row.Key, row.Value); err != nil {
			return nil, fmt.Errorf("table %s, row %x: %w", table, row.Key, err)
		}
	}
	return read, nil
}

// scan calls f for each row of a table from a key on.
func scan(ctx context.Context, storage plugin.Storage, table string, from []byte, f func(key, value []byte) error) error {
	for n := firstPage; ; {
		rows, err := storage.Scan(ctx, table, from, nil, n)
		if err != nil {
			return fmt.Errorf("read table %s: %w", table, err)
		}
		for _, row := range rows {
			if err := f(row.Key, row.Value); err != nil {
				return fmt.Errorf("table %s, row %x: %w", table, row.Key, err)
			}
		}
		if len(rows) < n {
			return nil
		}
		from = append(rows[n-1].Key, 0)
		n = min(maxPage, 1+pageBytes/(1+size(rows)/n))
	}
}

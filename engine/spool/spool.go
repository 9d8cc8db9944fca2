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

// Measure registers what is counted of the writes to the storage.
func (s *Spool) Measure(m *plugin.Metrics) { s.committer.measure(m) }

// Put writes a new message, together with rows that make its reservation
// durable. done gets nil once it is on disk, else a *message.Failure; then
// nothing is left of it.
func (s *Spool) Put(e *Entry, reservation []plugin.Change, done func(error)) {
	row := encodeEntry(e)
	if len(row) > plugin.MaxValue {
		done(message.Fail(message.TooLarge, "%d octets with all that belongs to it, at most %d", len(row), plugin.MaxValue))
		return
	}
	changes := make([]plugin.Change, 0, 1+len(reservation))
	changes = append(changes, plugin.Change{Table: tableMessages, Key: e.Message.ID[:], Value: row})
	s.committer.Put(append(changes, reservation...), done)
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
	// Seen is remembered, where Ended doesn't tell of the submission.
	Seen *Seen
	// Record is for charging: it goes to the outbox. Nil: nothing to settle.
	Record *plugin.Record
}

// Move writes what happened to a message, in one transaction with the record
// that charges for it. done may be nil.
func (s *Spool) Move(f Fate, done func(error)) {
	key := bytes.Clone(f.ID[:]) // f stays on the stack, and what it points to
	changes := make([]plugin.Change, 0, 5)
	if f.Final {
		changes = append(changes, plugin.Change{Table: tableMessages, Key: key})
		if f.State.stored() {
			changes = append(changes, plugin.Change{Table: tableStates, Key: key})
		}
	} else {
		changes = append(changes, plugin.Change{Table: tableStates, Key: key, Value: encodeState(f.State)})
	}
	if f.Ended != nil {
		changes = append(changes, f.Ended.row())
	}
	if f.Seen != nil {
		changes = append(changes, f.Seen.row())
	}
	if f.Record != nil {
		w := &writer{}
		encodeRecord(w, *f.Record)
		changes = append(changes, plugin.Change{Table: tableOutbox, Key: key, Value: w.b})
	}
	s.committer.Move(changes, done)
}

// stored tells whether there is a row for the state: a message that went at
// the first attempt never had one.
func (s State) stored() bool {
	return s.Attempts > 0 || s.HandedOver || s.Quarantined != "" || len(s.Deliveries) > 0
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
	rows, err := s.storage.Scan(ctx, tableMessages, id[:], append(id[:], 0), 1)
	if err != nil {
		return nil, fmt.Errorf("read message %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	e, err := decodeEntry(rows[0].Value)
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", id, err)
	}
	return e, nil
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
	rows, err := s.storage.Scan(ctx, tableMessages, from[:], nil, n)
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	entries := make([]*Entry, len(rows))
	for i, row := range rows {
		if entries[i], err = decodeEntry(row.Value); err != nil {
			return nil, fmt.Errorf("message %x: %w", row.Key, err)
		}
	}
	return entries, nil
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
	rows, err := s.storage.Scan(ctx, tableOutbox, from[:], nil, n)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	records := make([]plugin.Record, len(rows))
	for i, row := range rows {
		r := &reader{b: row.Value}
		records[i] = decodeRecord(r)
		if err := r.done(); err != nil {
			return nil, fmt.Errorf("outbox, record %x: %w", row.Key, err)
		}
	}
	return records, nil
}

// scan calls f for each row of a table from a key on.
func scan(ctx context.Context, storage plugin.Storage, table string, from []byte, f func(key, value []byte) error) error {
	for {
		rows, err := storage.Scan(ctx, table, from, nil, pageSize)
		if err != nil {
			return fmt.Errorf("read table %s: %w", table, err)
		}
		for _, row := range rows {
			if err := f(row.Key, row.Value); err != nil {
				return fmt.Errorf("table %s, row %x: %w", table, row.Key, err)
			}
		}
		if len(rows) < pageSize {
			return nil
		}
		from = append(rows[len(rows)-1].Key, 0)
	}
}

package spool

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// A submission is remembered for SeenFor at least. It is kept in generations,
// which are forgotten as a whole: a map for each two minutes.
const (
	SeenFor         = 10 * time.Minute
	seenGeneration  = 2 * time.Minute
	seenGenerations = int(SeenFor/seenGeneration) + 1
	seenKept        = SeenFor + seenGeneration // on disk

	// maxSeen bounds the memory: about 60 octets for each. At 8,000 messages a
	// second it is reached, and the oldest are forgotten before their time.
	maxSeen = 5_000_000
)

// How far back a node reads that keeps up with another one's records, see
// SeenTable.CatchUp.
const (
	// promptly is how soon after its receipt a message ends of whose submission
	// nothing but its record tells.
	promptly = 3 * time.Second
	// clockSlack is by how much the clocks of two nodes may differ, and for how
	// long a record may be on its way to the committer.
	clockSlack = 5 * time.Second
)

// Digest is what is kept of a submission's key.
type Digest [16]byte

// DigestKey shortens a plugin.Arrival's Key. Keys contain what attackers
// choose, hence a cryptographic digest.
func DigestKey(key string) Digest {
	sum := sha256.Sum256([]byte(key))
	return Digest(sum[:16])
}

// Seen is a submission whose first outcome is known.
type Seen struct {
	Digest   Digest
	ID       message.ID // on disk only: memory needn't tell
	PublicID string
	At       time.Time // when it was received; read back from table seen: Noted
	Noted    time.Time // when that became of it; on disk only
	State    plugin.OutcomeState
	Reason   message.Reason // why, if it failed
}

// seenRow is Seen without pointers, so that the garbage collector passes over
// millions of them.
type seenRow struct {
	public [16]byte // the public id's octets, or a short one's characters
	short  bool
	state  plugin.OutcomeState
	reason uint8 // index in message.Reasons, plus one
}

// SeenTable remembers submissions. It outlives the lease of a node, who then
// keeps up with what the active node writes. It may be used from several
// goroutines.
type SeenTable struct {
	storage plugin.Storage

	mu          sync.Mutex
	generations [seenGenerations]map[Digest]seenRow
	current     int64 // number of the newest generation since 1970
	max         int   // entries
	early       uint64

	// Times by the clock of whoever wrote what was read. The committer keeps the
	// order: when something is there that was written at a time, so is everything
	// that was written before.
	reading sync.Mutex // held by who reads; it guards what follows
	newest  time.Time  // of what was read
	settled time.Time  // newest when the last reading began: what was written before is known
}

// NewSeenTable returns an empty table.
func NewSeenTable(storage plugin.Storage) *SeenTable {
	return &SeenTable{storage: storage, max: maxSeen}
}

// Measure registers how much is remembered.
func (t *SeenTable) Measure(m *plugin.Metrics) {
	m.Gauge("seen_submissions", "Submissions that are remembered, to know a repeat.", func() float64 { return float64(t.count()) })
	m.CounterFunc("seen_forgotten_early_total", "Submissions forgotten before their time because too many were remembered.", func() float64 {
		t.mu.Lock()
		defer t.mu.Unlock()
		return float64(t.early)
	})
}

func (t *SeenTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size()
}

func (t *SeenTable) size() int {
	n := 0
	for _, generation := range t.generations {
		n += len(generation)
	}
	return n
}

// makeRoom forgets the oldest generation that holds anything, if the table is full.
func (t *SeenTable) makeRoom() {
	if t.size() < t.max {
		return
	}
	for n := t.current + 1; n <= t.current+int64(seenGenerations); n++ {
		slot := &t.generations[n%int64(seenGenerations)] // the one after the current is the oldest
		if len(*slot) > 0 {
			t.early += uint64(len(*slot))
			*slot = nil
			return
		}
	}
}

// Lookup finds a submission that was seen.
func (t *SeenTable) Lookup(now time.Time, d Digest) (Seen, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
	if row, ok := t.find(d); ok {
		return row.seen(d), true
	}
	return Seen{}, false
}

func (t *SeenTable) find(d Digest) (seenRow, bool) {
	for _, generation := range t.generations {
		if row, ok := generation[d]; ok {
			return row, true
		}
	}
	return seenRow{}, false
}

// Remember notes in memory what became of a submission. On disk it is in the
// record of the message that has ended; of one that leaves no record, in a row
// that Spool.Move writes.
func (t *SeenTable) Remember(now time.Time, s Seen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
	n := s.At.Unix() / int64(seenGeneration/time.Second)
	if n <= t.current-int64(seenGenerations) {
		return
	}
	n = min(n, t.current)
	t.makeRoom()
	slot := &t.generations[n%int64(seenGenerations)]
	if *slot == nil {
		*slot = map[Digest]seenRow{}
	}
	(*slot)[s.Digest] = newSeenRow(s)
}

// turn forgets the generations that are too old.
func (t *SeenTable) turn(now time.Time) {
	n := now.Unix() / int64(seenGeneration/time.Second)
	for t.current < n {
		t.current = max(t.current+1, n-int64(seenGenerations))
		t.generations[t.current%int64(seenGenerations)] = nil
	}
}

// known tells whether the last word on a submission is remembered.
func (t *SeenTable) known(d Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	row, ok := t.find(d)
	return ok && row.state != plugin.OutcomeWaiting
}

// CatchUp reads what was written since it was last called; the first time, all
// that is remembered. A node that waits for the lease calls it every few
// seconds, and once it has the lease, so that it then knows all. What is still
// in the spool it doesn't read: whoever takes that up remembers it.
//
// The records of messages are in the order of their receipt, and are written
// when they end. One that ends later than promptly has a row in table seen,
// where the order is that of writing. So it suffices to read the records from a
// little before what the last reading has found, if clocks don't differ by more
// than clockSlack. After an error the next call reads the same again.
func (t *SeenTable) CatchUp(ctx context.Context, now time.Time) error {
	t.reading.Lock()
	defer t.reading.Unlock()
	if t.newest.IsZero() { // the end first: the next reading begins with what was found there
		if err := t.read(ctx, now, now.Add(-promptly-clockSlack)); err != nil {
			return err
		}
	}
	settled := t.newest
	from := t.settled.Add(-promptly - clockSlack)
	if oldest := now.Add(-seenKept); from.Before(oldest) {
		from = oldest
	}
	if err := t.read(ctx, now, from); err != nil {
		return err
	}
	t.settled = settled
	return nil
}

// Wrote notes until when this node has written under its lease, if it has
// caught up when that began: all of it is remembered.
func (t *SeenTable) Wrote(until time.Time) {
	t.reading.Lock()
	defer t.reading.Unlock()
	if until.After(t.settled) {
		t.newest, t.settled = until, until
	}
}

// read reads what was written from a time on, and the records of messages that
// were received then.
func (t *SeenTable) read(ctx context.Context, now, from time.Time) error {
	err := scan(ctx, t.storage, tableSeen, seenKey(from), func(key, value []byte) error {
		s, err := decodeSeen(key, value)
		if err == nil {
			t.learn(now, s)
		}
		return err
	})
	if err != nil {
		return err
	}
	oldest := firstID(from)
	return scan(ctx, t.storage, tableHistory, oldest[:], func(key, value []byte) error {
		s, err := decodeSubmission(key, value, t.known)
		if err == nil && s.Digest != (Digest{}) {
			t.learn(now, s)
		}
		return err
	})
}

func (t *SeenTable) learn(now time.Time, s Seen) {
	t.Remember(now, s)
	if s.Noted.After(t.newest) {
		t.newest = s.Noted
	}
}

// Late tells whether a message that ends needs Fate.Seen, so that nodes that
// keep up see its end: its record is where they have read already.
func (s *Seen) Late() bool {
	age := s.Noted.Sub(s.At)
	return age > promptly && age < seenKept
}

// SweepSeen deletes up to n rows of submissions from disk, from a key on, that
// are no longer needed. It returns how many, and the last one's key.
func (s *Spool) SweepSeen(ctx context.Context, from []byte, now time.Time, n int) (int, []byte, error) {
	rows, err := s.storage.Scan(ctx, tableSeen, from, seenKey(now.Add(-seenKept)), n)
	if err != nil {
		return 0, from, fmt.Errorf("sweep submissions: %w", err)
	}
	if len(rows) == 0 {
		return 0, from, nil
	}
	return len(rows), rows[len(rows)-1].Key, s.committer.wait(ctx, deletions(rows))
}

func seenKey(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, 24), uint64(t.Unix()))
}

// row orders submissions by when they were noted: for who keeps up, and so that
// those to delete come first.
func (s *Seen) row() plugin.Change {
	w := &writer{b: make([]byte, 0, 48)}
	w.id(s.ID)
	w.string(s.PublicID)
	w.uint(uint64(s.State))
	w.string(string(s.Reason))
	return plugin.Change{Table: tableSeen, Key: append(seenKey(s.Noted), s.Digest[:]...), Value: w.b}
}

func decodeSeen(key, value []byte) (Seen, error) {
	if len(key) != 24 {
		return Seen{}, errCorrupt
	}
	r := &reader{b: value}
	s := Seen{
		Digest: Digest(key[8:]), Noted: time.Unix(int64(binary.BigEndian.Uint64(key)), 0),
		ID: r.id(), PublicID: r.string(), State: plugin.OutcomeState(r.uint()), Reason: message.Reason(r.string()),
	}
	s.At = s.Noted // the first of several parts may have come long before
	return s, r.done()
}

func newSeenRow(s Seen) seenRow {
	row := seenRow{state: s.State}
	if row.short = len(s.PublicID) == shortName; row.short {
		copy(row.public[:], s.PublicID)
	} else {
		base64.RawURLEncoding.Decode(row.public[:], []byte(s.PublicID))
	}
	row.reason = uint8(slices.Index(message.Reasons[:], s.Reason) + 1)
	return row
}

func (r seenRow) seen(d Digest) Seen {
	s := Seen{Digest: d, PublicID: base64.RawURLEncoding.EncodeToString(r.public[:]), State: r.state}
	if r.short {
		s.PublicID = string(r.public[:shortName])
	}
	if r.reason > 0 {
		s.Reason = message.Reasons[r.reason-1]
	}
	return s
}

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

	// maxSeen bounds the memory: about 60 octets for each. At 8,000 messages a
	// second it is reached, and the oldest are forgotten before their time.
	maxSeen = 5_000_000
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
	At       time.Time // when it was received
	State    plugin.OutcomeState
	Reason   message.Reason // why, if it failed
}

// seenRow is Seen without pointers, so that the garbage collector passes over
// millions of them.
type seenRow struct {
	public [16]byte // the public id's octets
	state  plugin.OutcomeState
	reason uint8 // index in message.Reasons, plus one
}

// SeenTable remembers submissions. It may be used from several goroutines.
type SeenTable struct {
	storage   plugin.Storage
	committer *Committer

	mu          sync.Mutex
	generations [seenGenerations]map[Digest]seenRow
	current     int64 // number of the newest generation since 1970
	max         int   // entries
	early       uint64
}

// NewSeenTable returns an empty table.
func NewSeenTable(storage plugin.Storage, committer *Committer) *SeenTable {
	return &SeenTable{storage: storage, committer: committer, max: maxSeen}
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
	for _, generation := range t.generations {
		if row, ok := generation[d]; ok {
			return row.seen(d), true
		}
	}
	return Seen{}, false
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

// Restore fills the table from disk: from the rows of its own, and from the
// records of messages that have ended.
func (t *SeenTable) Restore(ctx context.Context, now time.Time) error {
	err := scan(ctx, t.storage, tableSeen, nil, func(key, value []byte) error {
		s, err := decodeSeen(key, value)
		if err == nil {
			t.Remember(now, s)
		}
		return err
	})
	if err != nil {
		return err
	}
	oldest := firstID(now.Add(-SeenFor - seenGeneration))
	return scan(ctx, t.storage, tableHistory, oldest[:], func(key, value []byte) error {
		s, err := decodeSummary(key, value)
		if err == nil && s.Submission != (Digest{}) {
			t.Remember(now, s.seen())
		}
		return err
	})
}

// Sweep deletes up to n rows from disk that are no longer needed, and tells
// how many it found.
func (t *SeenTable) Sweep(ctx context.Context, now time.Time, n int) (int, error) {
	end := binary.BigEndian.AppendUint64(nil, uint64(now.Add(-SeenFor-seenGeneration).Unix()))
	rows, err := t.storage.Scan(ctx, tableSeen, nil, end, n)
	if err != nil {
		return 0, fmt.Errorf("sweep submissions: %w", err)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	return len(rows), t.committer.wait(ctx, deletions(rows))
}

// row orders submissions by time, so that those to delete come first.
func (s *Seen) row() plugin.Change {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 24), uint64(s.At.Unix()))
	w := &writer{b: make([]byte, 0, 48)}
	w.id(s.ID)
	w.string(s.PublicID)
	w.uint(uint64(s.State))
	w.string(string(s.Reason))
	return plugin.Change{Table: tableSeen, Key: append(key, s.Digest[:]...), Value: w.b}
}

func decodeSeen(key, value []byte) (Seen, error) {
	if len(key) != 24 {
		return Seen{}, errCorrupt
	}
	r := &reader{b: value}
	s := Seen{
		Digest: Digest(key[8:]), At: time.Unix(int64(binary.BigEndian.Uint64(key)), 0),
		ID: r.id(), PublicID: r.string(), State: plugin.OutcomeState(r.uint()), Reason: message.Reason(r.string()),
	}
	return s, r.done()
}

func newSeenRow(s Seen) seenRow {
	row := seenRow{state: s.State}
	base64.RawURLEncoding.Decode(row.public[:], []byte(s.PublicID))
	row.reason = uint8(slices.Index(message.Reasons[:], s.Reason) + 1)
	return row
}

func (r seenRow) seen(d Digest) Seen {
	s := Seen{Digest: d, PublicID: base64.RawURLEncoding.EncodeToString(r.public[:]), State: r.state}
	if r.reason > 0 {
		s.Reason = message.Reasons[r.reason-1]
	}
	return s
}

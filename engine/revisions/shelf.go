package revisions

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Technology is the namespace of the book's tables.
const Technology = "policy"

// The tables. All keys of the first begin with the kind of row.
const (
	tableRevisions = "revisions" // "active" → active, "revision/REVISION" → fact, "node/NODE" → note
	tableContents  = "contents"  // revision, number of the piece → octets

	keyActive = "active"
	factKind  = "revision/"
	noteKind  = "node/"
)

// Bounds of what is stored. No message lives for as long as a revision is kept
// that decided on it: plugin.MaxStore, and the wait for receipts.
const (
	maxPiece     = 512 << 10 // octets of a row
	piecesAtOnce = 2         // so that messages needn't wait long for the committer
	keptFor      = 32 * 24 * time.Hour
	maxKept      = 1000
	maxKeptBytes = 256 << 20
	maxNotes     = 1000
	rowsAtOnce   = 500
	readAtOnce   = 4 // pieces
)

// Sheets are the tables, for storages that must know of them. Nobody asks for them.
func Sheets() []plugin.Sheet {
	return []plugin.Sheet{{Table: Technology + "/" + tableRevisions}, {Table: Technology + "/" + tableContents}}
}

// active is the revision in force.
type active struct {
	Revision  string    `json:"revision"`
	Since     time.Time `json:"since"`
	Node      string    `json:"node"`      // which put it in force
	Confirmed time.Time `json:"confirmed"` // when it was last known to be what a source holds
}

// fact is what is known of a revision.
type fact struct {
	Since  time.Time `json:"since,omitzero"` // when it was last put in force; zero: it never was
	Until  time.Time `json:"until,omitzero"` // when another took its place, or it was written in vain
	Node   string    `json:"node"`
	Size   int       `json:"size"`
	Digest []byte    `json:"digest"` // SHA-256 of the content
}

// ended is since when it isn't needed for new messages.
func (f fact) ended() time.Time {
	if f.Until.Before(f.Since) {
		return f.Since
	}
	return f.Until
}

// size is Size, also of a row that is damaged.
func (f fact) size() int { return max(0, min(f.Size, plugin.MaxBundle)) }

// note is what the source of a node held.
type note struct {
	Revision string    `json:"revision"`
	At       time.Time `json:"at"`
}

// record is all that the table of revisions says. Its maps are never changed.
type record struct {
	active active
	facts  map[string]fact
	notes  map[string]note
}

func newRecord() *record { return &record{facts: map[string]fact{}, notes: map[string]note{}} }

// known tells whether a revision was in force before the active one.
func (r *record) known(revision string) bool {
	f, ok := r.facts[revision]
	return ok && !f.Since.IsZero()
}

// shelf is the book on the storage.
type shelf struct{ tables plugin.Tables }

// read reads the record.
func (s shelf) read(ctx context.Context) (*record, error) {
	r := newRecord()
	for from := []byte{}; ; {
		rows, err := s.tables.Scan(ctx, tableRevisions, from, nil, rowsAtOnce)
		if err != nil {
			return nil, fmt.Errorf("read the revisions of the policies: %w", err)
		}
		for _, row := range rows {
			if err := r.learn(string(row.Key), row.Value); err != nil {
				return nil, fmt.Errorf("read the revisions of the policies: row %q: %w", row.Key, err)
			}
		}
		if len(rows) < rowsAtOnce {
			return r, nil
		}
		from = append(rows[len(rows)-1].Key, 0)
	}
}

func (r *record) learn(key string, value []byte) (err error) {
	if key == keyActive {
		return json.Unmarshal(value, &r.active)
	}
	if revision, ok := strings.CutPrefix(key, factKind); ok {
		var f fact
		err = json.Unmarshal(value, &f)
		r.facts[revision] = f
	}
	if node, ok := strings.CutPrefix(key, noteKind); ok {
		var n note
		err = json.Unmarshal(value, &n)
		r.notes[node] = n
	}
	return err
}

// readActive reads which revision is in force; none: an empty one.
func (s shelf) readActive(ctx context.Context) (a active, err error) {
	rows, err := s.tables.Scan(ctx, tableRevisions, []byte(keyActive), []byte(keyActive+"\x00"), 1)
	if err == nil && len(rows) == 1 {
		err = json.Unmarshal(rows[0].Value, &a)
	}
	return a, err
}

// content reads a revision back.
func (s shelf) content(ctx context.Context, revision string, f fact) (plugin.Bundle, error) {
	b := plugin.Bundle{Revision: revision, Content: make([]byte, 0, f.size())}
	for from, to := pieceKey(revision, 0), pieceKey(revision, 1<<32-1); ; {
		rows, err := s.tables.Scan(ctx, tableContents, from, to, readAtOnce)
		if err != nil {
			return b, fmt.Errorf("read revision %s: %w", revision, err)
		}
		for _, row := range rows {
			b.Content = append(b.Content, row.Value...)
		}
		if len(rows) < readAtOnce || len(b.Content) > f.Size {
			break
		}
		from = append(rows[len(rows)-1].Key, 0)
	}
	if sum := sha256.Sum256(b.Content); !bytes.Equal(sum[:], f.Digest) {
		return b, fmt.Errorf("revision %s is damaged in storage: %d octets, and not the %d that were written", revision, len(b.Content), f.Size)
	}
	return b, nil
}

// put keeps a revision and notes that it is the active one. After an error it
// may be, or become so yet.
func (s shelf) put(ctx context.Context, r *record, b plugin.Bundle, a active, holders map[string]string, now time.Time) (*record, error) {
	sum := sha256.Sum256(b.Content)
	f := fact{Since: a.Since, Node: a.Node, Size: len(b.Content), Digest: sum[:]}
	if kept := r.facts[b.Revision]; !r.known(b.Revision) || !bytes.Equal(kept.Digest, f.Digest) {
		if err := s.keep(ctx, b, fact{Until: now, Node: a.Node, Size: f.Size, Digest: f.Digest}); err != nil {
			return nil, err
		}
	}
	next := &record{active: a, facts: maps.Clone(r.facts), notes: maps.Clone(r.notes)}
	changes := []plugin.Change{row(keyActive, a), row(factKind+b.Revision, f)}
	next.facts[b.Revision] = f
	if before, ok := next.facts[r.active.Revision]; ok && r.active.Revision != b.Revision {
		before.Until = now
		next.facts[r.active.Revision] = before
		changes = append(changes, row(factKind+r.active.Revision, before))
	}
	changes = append(changes, next.note(holders, now)...)
	return next, s.commit(ctx, changes)
}

// note notes what the sources of nodes hold, and returns the rows that change.
func (r *record) note(holders map[string]string, at time.Time) (changes []plugin.Change) {
	for _, node := range slices.Sorted(maps.Keys(holders)) {
		n := note{holders[node], at}
		if n.Revision == "" || r.notes[node].Revision == n.Revision {
			continue
		}
		r.notes[node] = n
		changes = append(changes, row(noteKind+node, n))
	}
	return changes
}

// keep writes a content, and before it what is needed to find it again should
// that break off.
func (s shelf) keep(ctx context.Context, b plugin.Bundle, f fact) error {
	changes := []plugin.Change{row(factKind+b.Revision, f)}
	pieces := uint32(0)
	for piece := range slices.Chunk(b.Content, maxPiece) {
		changes = append(changes, plugin.Change{Table: tableContents, Key: pieceKey(b.Revision, pieces), Value: piece})
		pieces++
		if pieces%piecesAtOnce == 0 {
			if err := s.commit(ctx, changes); err != nil {
				return err
			}
			changes = nil
		}
	}
	return s.commit(ctx, changes)
}

// commit writes and waits until it is on disk.
func (s shelf) commit(ctx context.Context, changes []plugin.Change) error {
	if len(changes) == 0 {
		return nil
	}
	return s.tables.Commit(changes).Wait(ctx)
}

// confirm notes that the active revision is what a source holds, and which.
func (r *record) confirm(now time.Time, holders map[string]string) (*record, []plugin.Change) {
	next := &record{active: r.active, facts: r.facts, notes: maps.Clone(r.notes)}
	next.active.Confirmed = now
	return next, append(next.note(holders, now), row(keyActive, next.active))
}

// sweep returns what is too old, or too much, to be kept.
func (r *record) sweep(now time.Time) (*record, []plugin.Change) {
	next := &record{active: r.active, facts: maps.Clone(r.facts), notes: maps.Clone(r.notes)}
	var changes []plugin.Change
	count, size := 0, 0
	for _, revision := range r.newestFirst() {
		f := r.facts[revision]
		count, size = count+1, size+f.Size
		if revision == r.active.Revision || now.Sub(f.ended()) <= keptFor && count <= maxKept && size <= maxKeptBytes {
			continue
		}
		delete(next.facts, revision)
		changes = append(changes, plugin.Change{Table: tableRevisions, Key: []byte(factKind + revision)})
		for n := range uint32((f.size() + maxPiece - 1) / maxPiece) {
			changes = append(changes, plugin.Change{Table: tableContents, Key: pieceKey(revision, n)})
		}
	}
	nodes := slices.SortedFunc(maps.Keys(r.notes), func(a, b string) int { return r.notes[b].At.Compare(r.notes[a].At) })
	for _, node := range nodes[min(len(nodes), maxNotes):] {
		delete(next.notes, node)
		changes = append(changes, plugin.Change{Table: tableRevisions, Key: []byte(noteKind + node)})
	}
	return next, changes
}

// newestFirst are the revisions: the active one, then those that were in force
// until lately.
func (r *record) newestFirst() []string {
	return slices.SortedFunc(maps.Keys(r.facts), func(a, b string) int {
		switch r.active.Revision {
		case a:
			return -1
		case b:
			return 1
		}
		return cmp.Or(r.facts[b].ended().Compare(r.facts[a].ended()), cmp.Compare(a, b))
	})
}

func pieceKey(revision string, n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(revision+"/"), n)
}

func row(key string, value any) plugin.Change {
	text, err := json.Marshal(value)
	if err != nil {
		text = []byte("{}") // a time beyond the year 9999
	}
	return plugin.Change{Table: tableRevisions, Key: []byte(key), Value: text}
}

var errRevision = errors.New("the source names its revision in a way that can't be stored")

// checkBundle holds a source to the limits of what is stored.
func checkBundle(b plugin.Bundle) error {
	switch {
	case b.Revision == "" || len(b.Revision) > plugin.MaxRevision || !isName(b.Revision):
		return fmt.Errorf("%w: %q", errRevision, b.Revision)
	case len(b.Content) > plugin.MaxBundle:
		return fmt.Errorf("the policies have %d octets, at most %d", len(b.Content), plugin.MaxBundle)
	}
	return nil
}

func isName(text string) bool {
	for _, c := range []byte(text) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

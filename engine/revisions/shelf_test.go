package revisions

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// put writes a revision as the active one.
func put(t *testing.T, d *disk, r *record, revision string, content []byte, at time.Time) *record {
	t.Helper()
	next, err := shelf{d}.put(t.Context(), r, plugin.Bundle{Revision: revision, Content: content},
		active{Revision: revision, Since: at, Node: "a", Confirmed: at}, map[string]string{"a": revision}, at)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// same checks that what is in memory is what a reader finds.
func same(t *testing.T, d *disk, r *record) {
	t.Helper()
	read, err := shelf{d}.read(t.Context())
	if err != nil || fmt.Sprint(read) != fmt.Sprint(r) {
		t.Errorf("stored is\n%v, known\n%v (%v)", read, r, err)
	}
}

func TestContent(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, size := range []int{0, 1, maxPiece - 1, maxPiece, maxPiece + 1, 9*maxPiece + 7} {
		d := newDisk()
		content := bytes.Repeat([]byte("policy "), size/7+1)[:size]
		r := put(t, d, newRecord(), "r1", content, now)
		r = put(t, d, r, "r10", []byte("another"), now) // whose name begins alike
		same(t, d, r)
		b, err := shelf{d}.content(t.Context(), "r1", r.facts["r1"])
		if err != nil || !bytes.Equal(b.Content, content) || b.Revision != "r1" {
			t.Errorf("%d octets: %d came back, %v", size, len(b.Content), err)
		}
		written := d.written
		r = put(t, d, r, "r1", content, now.Add(time.Minute)) // it is there
		if size > 1000 && d.written-written > 1000 {
			t.Errorf("%d octets were written again", d.written-written)
		}
		same(t, d, r)
		if r.facts["r10"].Until != now.Add(time.Minute) || !r.facts["r1"].Until.IsZero() {
			t.Errorf("%+v", r.facts)
		}
	}
}

func TestDamagedContent(t *testing.T) {
	d := newDisk()
	r := put(t, d, newRecord(), "r1", bytes.Repeat([]byte("x"), 3*maxPiece), time.Unix(1, 0))
	for name := range d.rows {
		if strings.HasPrefix(name, tableContents+"\x00") {
			delete(d.rows, name)
			break
		}
	}
	if _, err := (shelf{d}).content(t.Context(), "r1", r.facts["r1"]); err == nil || !strings.Contains(err.Error(), "revision r1 is damaged in storage") {
		t.Error(err)
	}
	if _, err := (shelf{d}).content(t.Context(), "r2", fact{}); err == nil {
		t.Error("a revision that isn't there was read")
	}
	d.rows[tableRevisions+"\x00"+keyActive] = []byte("{")
	if _, err := (shelf{d}).read(t.Context()); err == nil || !strings.Contains(err.Error(), `row "active"`) {
		t.Error(err)
	}
	if _, err := (shelf{d}).readActive(t.Context()); err == nil {
		t.Error("a row that can't be read was read")
	}
}

// What is old, or too much, is forgotten, the oldest first, and never what is in
// force.
func TestSweep(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	d := newDisk()
	r := newRecord()
	for i := range 40 {
		r = put(t, d, r, fmt.Sprint("r", i), []byte(strings.Repeat("x", maxPiece+1)), began.Add(time.Duration(i)*day))
	}
	sweep := func(now time.Time) int {
		next, changes := r.sweep(now)
		r = next
		if err := (shelf{d}).commit(t.Context(), changes); err != nil {
			t.Fatal(err)
		}
		same(t, d, r)
		if d.count(tableContents) != 2*len(r.facts) {
			t.Errorf("%d pieces of %d revisions", d.count(tableContents), len(r.facts))
		}
		return len(r.facts)
	}
	// r7 was superseded on day 8: 32 days before.
	if n := sweep(began.Add(40 * day)); n != 33 || r.known("r6") || !r.known("r7") {
		t.Errorf("%d are kept", n)
	}
	if n := sweep(began.Add(400 * day)); n != 1 || r.active.Revision != "r39" || !r.known("r39") {
		t.Errorf("%d are kept", n)
	}
	// One that was written in vain is swept as well.
	if err := (shelf{d}).keep(t.Context(), plugin.Bundle{Revision: "vain", Content: make([]byte, maxPiece+1)}, fact{Until: began, Size: maxPiece + 1}); err != nil {
		t.Fatal(err)
	}
	read, err := shelf{d}.read(t.Context())
	if err != nil || read.known("vain") || len(read.list()) != 1 {
		t.Errorf("%v %v", read, err)
	}
	r = read
	if n := sweep(began.Add(400 * day)); n != 1 {
		t.Errorf("%d are kept", n)
	}
}

func TestSweepOfTooMuch(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	many := func(n, size int) *record {
		r := newRecord()
		r.active.Revision = "r0"
		for i := range n {
			at := now.Add(-time.Duration(i) * time.Second)
			r.facts[fmt.Sprint("r", i)] = fact{Since: at, Until: at, Size: size}
			r.notes[fmt.Sprint("node", i)] = note{"r0", at}
		}
		return r
	}
	r, changes := many(maxKept+20, 0).sweep(now)
	if len(r.facts) != maxKept || len(r.notes) != maxNotes || len(changes) != 40 || !r.known("r0") || r.known(fmt.Sprint("r", maxKept)) {
		t.Errorf("%d revisions and %d notes are kept, after %d changes", len(r.facts), len(r.notes), len(changes))
	}
	if r, _ = many(10, plugin.MaxBundle).sweep(now); len(r.facts) != maxKeptBytes/plugin.MaxBundle {
		t.Errorf("%d are kept", len(r.facts))
	}
	if list := many(maxKept, 0).list(); len(list) != MaxListed || list[0].Revision != "r0" || list[1].Revision != "r1" {
		t.Errorf("%d are listed", len(list))
	}
}

func TestCheckBundle(t *testing.T) {
	for revision, good := range map[string]bool{"r1": true, "A-z_0.9": true, "": false, "a/b": false, "é": false, "a b": false, strings.Repeat("r", plugin.MaxRevision): true, strings.Repeat("r", plugin.MaxRevision+1): false} {
		if err := checkBundle(plugin.Bundle{Revision: revision}); (err == nil) != good {
			t.Errorf("%q: %v", revision, err)
		}
	}
	if err := checkBundle(plugin.Bundle{Revision: "r", Content: make([]byte, plugin.MaxBundle+1)}); err == nil {
		t.Error("too much is taken")
	}
}

// FuzzLearn: rows may be damaged, or of a later version.
func FuzzLearn(f *testing.F) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, seed := range []plugin.Change{
		row(keyActive, active{"r1", at, "a", at}), row(factKind+"r1", fact{Since: at, Size: 3, Digest: []byte("sum")}),
		row(noteKind+"a", note{"r1", at}), row(factKind+"r2", fact{Size: -1 << 40}), row("later", 1),
	} {
		f.Add(string(seed.Key), seed.Value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r := newRecord()
		if r.learn(key, value) != nil {
			return
		}
		r.list()
		r.sweep(at)
		r.confirm(at, map[string]string{"a": "r2"})
	})
}

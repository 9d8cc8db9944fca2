package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// journal is a disk with a committer before it: what is committed lands in
// order, but later, and a crash takes what has not landed.
type journal struct {
	disk  *plugintest.Tables
	queue [][]plugin.Change
}

func (j *journal) Commit(changes []plugin.Change) plugin.Commitment {
	j.queue = append(j.queue, changes)
	return landed{}
}

func (j *journal) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	return j.disk.Scan(ctx, table, from, to, n)
}

// land brings the first n commits to disk.
func (j *journal) land(n int) {
	for _, changes := range j.queue[:n] {
		if err := j.disk.Commit(changes).Wait(context.Background()); err != nil {
			panic(err)
		}
	}
	j.queue = j.queue[n:]
}

type landed struct{}

func (landed) Wait(context.Context) error { return nil }

// The tables of the engine, beside the ledger's: messages that wait for their
// fate, with what Authorize reserved, and the test's own list of credits.
const (
	engineMessages = "messages"
	engineCredits  = "credits"
)

// world is an engine with a ledger, and the bookkeeping to judge it by.
type world struct {
	t       *testing.T
	random  *rand.Rand
	now     time.Time
	keys    message.Generator
	journal *journal
	book    *book
	waiting map[message.ID]plugin.Record // authorised, not settled
	credits int
}

var payers = []string{"alice@a.example", "bob@a.example", "carol@a.example"}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0),
		journal: &journal{disk: plugintest.NewTables()}, waiting: map[message.ID]plugin.Record{},
	}
	w.open()
	for _, payer := range payers {
		addTo(t, w.book, entry{AOR: payer, Password: "x", Balance: "0.20"})
	}
	w.journal.land(len(w.journal.queue))
	return w
}

func (w *world) open() {
	var err error
	if w.book, err = openBook(w.t.Context(), w.journal, slog.New(slog.DiscardHandler), w.now); err != nil {
		w.t.Fatal(err)
	}
}

// authorize submits a message. Its row and the hold are one commit, unless the
// engine changes its mind and commits neither.
func (w *world) authorize() {
	r := plugin.Request{
		Key: w.keys.New(w.now), Payer: payers[w.random.IntN(len(payers))], Units: 1 + w.random.IntN(3),
		HoldUntil: w.now.Add(time.Duration(w.random.IntN(20)) * time.Second),
	}
	a, err := w.book.authorize(w.now, tariff{price, "EUR"}, r)
	if err != nil {
		if after := w.book.payer(r.Payer).available(); after >= price*plugin.Money(r.Units) {
			w.t.Errorf("refused %d units to who has %s", r.Units, after)
		}
		return
	}
	if w.random.IntN(10) == 0 {
		return
	}
	w.waiting[r.Key] = plugin.Record{Key: r.Key, Payer: r.Payer, Units: r.Units, Received: w.now, Reserved: a.Reserved}
	row := fmt.Appendf([]byte(r.Payer), " %d %s", r.Units, a.Reserved)
	w.journal.Commit(append(a.Changes, plugin.Change{Table: engineMessages, Key: r.Key[:], Value: row}))
}

// settle settles some messages, sometimes in several tries of which the last
// is committed.
func (w *world) settle() {
	var records []plugin.Record
	for _, key := range w.someWaiting() {
		r := w.waiting[key]
		r.Charged, r.Settled = w.random.IntN(3) > 0, w.now
		records = append(records, r)
		if w.random.IntN(8) == 0 {
			records = append(records, r)
		}
	}
	var changes []plugin.Change
	for range 1 + w.random.IntN(2) {
		var err error
		if changes, err = w.book.settle(w.t.Context(), w.now, records); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, r := range records {
		delete(w.waiting, r.Key)
		changes = append(changes, plugin.Change{Table: engineMessages, Key: r.Key[:]})
	}
	w.journal.Commit(changes)
}

func (w *world) someWaiting() []message.ID {
	var keys []message.ID
	for key := range w.waiting {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b message.ID) int { return slices.Compare(a[:], b[:]) })
	w.random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys[:min(len(keys), w.random.IntN(5))]
}

func (w *world) credit() {
	payer := payers[w.random.IntN(len(payers))]
	_, committed, err := w.book.commitCredit(payer, 2*price)
	if err != nil || committed == nil {
		w.t.Fatal(err)
	}
	// The credit and the note of it are one commit, so a crash takes both.
	w.credits++
	last := len(w.journal.queue) - 1
	w.journal.queue[last] = append(w.journal.queue[last],
		plugin.Change{Table: engineCredits, Key: fmt.Appendf(nil, "%s %d", payer, w.credits), Value: []byte{}})
}

// crash loses what has not landed and starts anew from the disk.
func (w *world) crash() {
	w.journal.land(w.random.IntN(len(w.journal.queue) + 1))
	w.journal.queue = nil
	w.open()
	clear(w.waiting)
	for _, row := range w.rows(engineMessages) {
		r := plugin.Record{Key: message.ID(row.Key)}
		n, err := fmt.Sscanf(string(row.Value), "%s %d", &r.Payer, &r.Units)
		if n != 2 || err != nil {
			w.t.Fatal(err)
		}
		r.Reserved = row.Value[len(fmt.Sprintf("%s %d ", r.Payer, r.Units)):]
		w.waiting[r.Key] = r
	}
}

func (w *world) rows(table string) []plugin.Change {
	rows, err := w.journal.disk.Scan(w.t.Context(), table, nil, nil, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	return rows
}

// check brings everything to disk and compares it with memory, and both with
// what has happened.
func (w *world) check() {
	w.journal.land(len(w.journal.queue))
	charged, credited, held := map[string]plugin.Money{}, map[string]plugin.Money{}, map[string]plugin.Money{}
	for _, row := range w.rows(tableCDRs) {
		c, err := readCDR(row)
		if err != nil {
			w.t.Fatal(err)
		}
		if c.Amount != price*plugin.Money(c.Units) {
			w.t.Errorf("a CDR has %s for %d units", c.Amount, c.Units)
		}
		charged[c.Payer] += c.Amount
	}
	for _, row := range w.rows(engineCredits) {
		var payer string
		fmt.Sscan(string(row.Key), &payer)
		credited[payer] += 2 * price
	}
	for _, h := range w.book.holds {
		held[h.payer.id] += h.amount
	}
	again := openTestBook(w.t, &journal{disk: w.journal.disk}, w.now)
	for _, payer := range payers {
		a, reopened := w.book.payer(payer), again.payer(payer)
		if want := 20*price + credited[payer] - charged[payer]; a.balance() != want || reopened.balance() != want {
			w.t.Errorf("%s: the balance is %s in memory and %s on disk, the CDRs say %s", payer, a.balance(), reopened.balance(), want)
		}
		if a.held != held[payer] {
			w.t.Errorf("%s: %s is held, its reservations are %s", payer, a.held, held[payer])
		}
	}
	if len(w.book.holds) != len(w.book.lapsing) {
		w.t.Errorf("%d reservations are open and %d wait to lapse", len(w.book.holds), len(w.book.lapsing))
	}
}

// However authorisations, settlements, credits, crashes and the clock
// interleave: the balance is what was credited less the CDRs, what is held is
// the open reservations, and nothing is charged twice.
func TestBooksAddUp(t *testing.T) {
	for seed := range uint64(150) {
		w := newWorld(t, seed)
		steps := []func(){w.authorize, w.authorize, w.authorize, w.settle, w.settle, w.credit, w.crash}
		for range 120 {
			w.now = w.now.Add(time.Duration(w.random.IntN(2000)) * time.Millisecond)
			steps[w.random.IntN(len(steps))]()
			if w.random.IntN(4) == 0 {
				w.journal.land(w.random.IntN(len(w.journal.queue) + 1))
			}
			if w.random.IntN(20) == 0 {
				w.check()
			}
		}
		w.check()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

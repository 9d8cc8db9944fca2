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
// fate, with what Authorize reserved, and the test's own notes, which are
// committed together with what they say: credits by account, and who is
// suspended.
const (
	engineMessages = "messages"
	noteCredits    = "notecredits"
	noteSuspended  = "notesuspended"
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
	serials map[message.ID]uint64        // of the account that authorised a message
	credits int
}

var payers = []string{"alice@a.example", "bob@a.example", "carol@a.example"}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0),
		journal: &journal{disk: plugintest.NewTables()}, waiting: map[message.ID]plugin.Record{},
		serials: map[message.ID]uint64{},
	}
	w.open()
	for range 4 * len(payers) {
		w.add()
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

func (w *world) payer() string { return payers[w.random.IntN(len(payers))] }

// add adds an account, perhaps once more, unless it exists.
func (w *world) add() {
	payer := w.payer()
	a, err := entry{AOR: payer, Password: "x", Balance: "0.20"}.account()
	if err != nil {
		w.t.Fatal(err)
	}
	exists := w.book.payer(payer) != nil
	_, err = w.book.commitAdd(w.t.Context(), w.now, a)
	if (err != nil) != exists {
		w.t.Errorf("add %s, which exists: %t: %v", payer, exists, err)
	}
}

// delete deletes an account, with or without force.
func (w *world) delete() {
	payer, force := w.payer(), w.random.IntN(2) == 0
	a := w.book.payer(payer)
	open := 0
	for _, h := range w.book.holds {
		if h.payer == a {
			open++
		}
	}
	refused := a == nil || !force && (a.balance() != 0 || open > 0)
	if _, _, err := w.book.commitDelete(payer, force); (err != nil) != refused {
		w.t.Errorf("delete %s, force=%t: %v, want it refused: %t", payer, force, err, refused)
	}
}

func (w *world) suspend() {
	payer, suspended := w.payer(), w.random.IntN(3) == 0
	a, _, err := w.book.commitSuspend(payer, suspended)
	if err == nil {
		w.note(noteSuspended, payer, fmt.Appendf(nil, "%d %t", a.serial, suspended))
	}
}

// note adds a note to the last commit, so a crash takes both.
func (w *world) note(table, key string, value []byte) {
	last := len(w.journal.queue) - 1
	w.journal.queue[last] = append(w.journal.queue[last], plugin.Change{Table: table, Key: []byte(key), Value: value})
}

// authorize submits a message. Its row and the hold are one commit, unless the
// engine changes its mind and commits neither.
func (w *world) authorize() {
	r := plugin.Request{
		Key: w.keys.New(w.now), Payer: w.payer(), Units: 1 + w.random.IntN(3),
		HoldUntil: w.now.Add(time.Duration(w.random.IntN(20)) * time.Second),
	}
	a, err := w.book.authorize(w.now, tariff{price, "EUR"}, r)
	payer := w.book.payer(r.Payer)
	if err != nil {
		if payer != nil && !payer.suspended.Load() && payer.available() >= price*plugin.Money(r.Units) {
			w.t.Errorf("refused %d units to who has %s: %v", r.Units, payer.available(), err)
		}
		return
	}
	if payer == nil || payer.suspended.Load() {
		w.t.Errorf("%s may send and is deleted or suspended", r.Payer)
		return
	}
	if w.random.IntN(10) == 0 {
		return
	}
	w.waiting[r.Key] = plugin.Record{Key: r.Key, Payer: r.Payer, Units: r.Units, Received: w.now, Reserved: a.Reserved}
	w.serials[r.Key] = payer.serial
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
	if w.random.IntN(4) == 0 { // while the settlement is on its way to the disk
		w.delete()
		w.add()
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
	c := credit{account: w.payer(), amount: 2 * price}
	if w.random.IntN(3) == 0 {
		c.amount = -price
	}
	a, _, committed, err := w.book.commitCredit(w.now, c, keyedCredit{})
	if committed == nil {
		if a = w.book.payer(c.account); a != nil && (c.amount > 0 || a.available() >= price) {
			w.t.Errorf("credit %s: %v", c.amount, err)
		}
		return
	}
	w.credits++
	w.note(noteCredits, fmt.Sprintf("%d %d", w.credits, a.serial), fmt.Append(nil, int64(c.amount)))
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
	again := openTestBook(w.t, &journal{disk: w.journal.disk}, w.now)
	charged, credited, held := w.charged(), w.credited(), map[uint64]plugin.Money{}
	for _, h := range w.book.holds {
		held[h.payer.serial] += h.amount
	}
	for _, payer := range payers {
		a, reopened := w.book.payer(payer), again.payer(payer)
		if a == nil || reopened == nil {
			if a != reopened {
				w.t.Errorf("%s is in memory: %t, on disk: %t", payer, a != nil, reopened != nil)
			}
			continue
		}
		if want := 20*price + credited[a.serial] - charged[a.serial]; a.balance() != want || reopened.balance() != want {
			w.t.Errorf("%s: the balance is %s in memory and %s on disk, the CDRs say %s", payer, a.balance(), reopened.balance(), want)
		}
		if a.held != held[a.serial] {
			w.t.Errorf("%s: %s is held, its reservations are %s", payer, a.held, held[a.serial])
		}
		if a.serial != reopened.serial || a.suspended.Load() != reopened.suspended.Load() || a.suspended.Load() != w.suspended(a) {
			w.t.Errorf("%s: suspended is %t in memory and %t on disk, should be %t", payer, a.suspended.Load(), reopened.suspended.Load(), w.suspended(a))
		}
	}
	if len(w.book.holds) != len(w.book.lapsing) || w.book.meters.reservations.Load() != int64(len(w.book.holds)) {
		w.t.Errorf("%d reservations are open, %d wait to lapse, %d are counted", len(w.book.holds), len(w.book.lapsing), w.book.meters.reservations.Load())
	}
}

// charged adds up the CDRs that were paid, by account. Nobody paid for an
// account that was deleted, and for no other.
func (w *world) charged() map[uint64]plugin.Money {
	exists := map[uint64]bool{}
	for _, payer := range payers {
		if a := w.book.payer(payer); a != nil {
			exists[a.serial] = true
		}
	}
	charged := map[uint64]plugin.Money{}
	for _, row := range w.rows(tableCDRs) {
		c, err := readCDR(row)
		if err != nil {
			w.t.Fatal(err)
		}
		if c.Amount != price*plugin.Money(c.Units) {
			w.t.Errorf("a CDR has %s for %d units", c.Amount, c.Units)
		}
		serial := w.serials[c.ID]
		if c.Unpaid && exists[serial] {
			w.t.Errorf("a CDR of %s is unpaid, and the account exists", c.Payer)
		}
		if !c.Unpaid {
			charged[serial] += c.Amount
		}
	}
	return charged
}

func (w *world) credited() map[uint64]plugin.Money {
	credited := map[uint64]plugin.Money{}
	for _, row := range w.rows(noteCredits) {
		var n, serial uint64
		var amount int64
		fmt.Sscan(string(row.Key), &n, &serial)
		fmt.Sscan(string(row.Value), &amount)
		credited[serial] += plugin.Money(amount)
	}
	return credited
}

// suspended tells what was last said of an account.
func (w *world) suspended(a *account) bool {
	for _, row := range w.rows(noteSuspended) {
		if string(row.Key) == a.id {
			return string(row.Value) == fmt.Sprintf("%d true", a.serial)
		}
	}
	return false
}

// However authorisations, settlements, credits, suspensions, deletions, crashes
// and the clock interleave: the balance is what was credited less the CDRs, what
// is held is the open reservations, nothing is charged twice, and nothing of a
// deleted account falls to the next one of its name.
func TestBooksAddUp(t *testing.T) {
	for seed := range uint64(150) {
		w := newWorld(t, seed)
		steps := []func(){w.authorize, w.authorize, w.authorize, w.settle, w.settle, w.credit, w.credit,
			w.suspend, w.suspend, w.delete, w.add, w.add, w.crash}
		for range 200 {
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

package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

var errNoAccount = errors.New("there is no such account")

// authorize reserves what a message costs.
func (b *book) authorize(now time.Time, t tariff, r plugin.Request) (plugin.Authorization, error) {
	cost, err := t.charge(r.Units)
	if err != nil {
		return plugin.Authorization{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	payer := b.payer(r.Payer)
	if payer == nil {
		return plugin.Authorization{}, message.Fail(message.Forbidden, "payer %q: %w", r.Payer, errNoAccount)
	}
	if payer.suspended.Load() {
		return plugin.Authorization{}, message.Fail(message.Forbidden, "payer %q: the account is suspended", r.Payer)
	}
	if available := payer.available(); cost.amount > 0 && cost.amount > available {
		return plugin.Authorization{}, message.Fail(message.InsufficientFunds,
			"%s has %s %s available, the message costs %s", r.Payer, available, cost.currency, cost.amount)
	}
	h := &hold{key: r.Key, payer: payer, amount: cost.amount, until: r.HoldUntil}
	b.hold(h)
	cost.serial = payer.serial
	return plugin.Authorization{Reserved: cost.reserved(), Changes: []plugin.Change{holdRow(h)}}, nil
}

// settle ends reservations. A key that is already settled gets the same changes
// again, in case the first ones were never committed, unless its CDR is on
// disk: then the rest is there too.
func (b *book) settle(ctx context.Context, now time.Time, records []plugin.Record) ([]plugin.Change, error) {
	onDisk, err := b.settledOnDisk(ctx, records)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	s := settlement{book: b, payers: map[*account]bool{}, changes: make([]plugin.Change, 0, 3*len(records))}
	for i := range records {
		s.end(&records[i], onDisk[records[i].Key])
	}
	return s.finish(), nil
}

// settledOnDisk finds the records whose CDR was committed. It asks the disk
// only about charged records that have no reservation and that memory doesn't
// know: those that come late, and those that come again after a crash. An open
// reservation proves that there is no CDR: its row is removed by the same
// commit that writes the CDR.
func (b *book) settledOnDisk(ctx context.Context, records []plugin.Record) (map[message.ID]bool, error) {
	var onDisk map[message.ID]bool
	for _, key := range b.unknown(records) {
		rows, err := b.tables.Scan(ctx, tableCDRs, key[:], after(key[:]), 1)
		if err != nil {
			return nil, message.FailForNow(message.ChargingFailed, "look for the CDR of %s: %w", key, err)
		}
		if onDisk == nil {
			onDisk = map[message.ID]bool{}
		}
		onDisk[key] = len(rows) > 0
	}
	return onDisk, nil
}

func (b *book) unknown(records []plugin.Record) []message.ID {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var keys []message.ID
	for i := range records {
		r := &records[i]
		if _, held := b.holds[r.Key]; held || !r.Charged {
			continue
		}
		if _, settled := b.settled.get(r.Key); !settled {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// settlement is one call of settle at work.
type settlement struct {
	book    *book
	changes []plugin.Change
	payers  map[*account]bool // those whose spent row changes
	unpaid  int               // records whose payer was deleted
}

// end settles one record.
func (s *settlement) end(r *plugin.Record, onDisk bool) {
	h, held := s.book.holds[r.Key]
	if held {
		s.book.release(h)
	}
	s.changes = append(s.changes, noHold(r.Key))
	if !r.Charged || onDisk {
		return
	}
	cost, err := readReserved(r.Reserved)
	if err != nil {
		s.book.log.Warn("not charged: the message was authorized by another charging plugin", "id", r.Key)
		return
	}
	s.pay(r, cost, !held)
}

// pay charges a record unless that was done before, and writes its rows.
func (s *settlement) pay(r *plugin.Record, cost charge, late bool) {
	payer := s.book.owner(r.Payer, cost.serial)
	m, again := s.book.settled.get(r.Key)
	if !again {
		m = newMark(late, payer == nil)
		s.spend(payer, cost.amount)
		s.book.settled.add(r.Key, m)
		s.book.meters.settled(late)
	}
	s.changes = append(s.changes, newCDR(r, cost, m).row())
	if payer != nil {
		s.payers[payer] = true
	}
}

// spend never fails: the event has happened. An account that has spent more
// than can be counted stays at the most that can be; one that was deleted has
// taken its money along.
func (s *settlement) spend(payer *account, amount plugin.Money) {
	if payer == nil {
		s.unpaid++
		return
	}
	if payer.spent > ceiling-amount {
		s.book.log.Error("an account has spent more than can be counted", "account", payer.id)
		amount = ceiling - payer.spent
	}
	payer.spent += amount
}

func (s *settlement) finish() []plugin.Change {
	if s.unpaid > 0 {
		s.book.log.Warn("nobody paid: the accounts were deleted while messages were under way; their CDRs say unpaid", "messages", s.unpaid)
	}
	for payer := range s.payers {
		s.changes = append(s.changes, spentRow(payer))
	}
	return s.changes
}

// mark is what a CDR says about how a message was settled.
type mark uint8

const (
	markLate   mark = 1 << iota // after its reservation had lapsed
	markUnpaid                  // after its payer's account had been deleted
)

func newMark(late, unpaid bool) (m mark) {
	if late {
		m |= markLate
	}
	if unpaid {
		m |= markUnpaid
	}
	return m
}

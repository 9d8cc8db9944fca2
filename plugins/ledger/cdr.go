package ledger

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// cdr is the record of one message that was paid for.
type cdr struct {
	ID          message.ID   `json:"id"`
	Payer       string       `json:"payer"`
	From        string       `json:"from"`
	Recipient   string       `json:"recipient"`
	Destination string       `json:"destination"`
	Units       int          `json:"units"`
	Amount      plugin.Money `json:"amount"`
	Currency    string       `json:"currency"`
	Service     string       `json:"service"`
	Transport   string       `json:"transport"`
	Received    instant      `json:"received"`
	Settled     instant      `json:"settled"`
	Late        bool         `json:"late"`   // after its reservation had lapsed
	Unpaid      bool         `json:"unpaid"` // after its payer's account had been deleted
}

// instant is a time as CDRs have it: milliseconds since 1970.
type instant int64

func (i instant) time() time.Time { return time.UnixMilli(int64(i)).UTC() }

// String is RFC 3339 in UTC, always with three decimals.
func (i instant) String() string { return i.time().Format("2006-01-02T15:04:05.000Z") }

// MarshalText makes an instant readable in JSON.
func (i instant) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

func newCDR(r *plugin.Record, cost charge, m mark) *cdr {
	return &cdr{
		ID: r.Key, Payer: r.Payer, From: r.From.String(), Recipient: r.Recipient.String(), Destination: r.Destination,
		Units: r.Units, Amount: cost.amount, Currency: cost.currency, Service: r.Service, Transport: r.Transport,
		Received: instant(r.Received.UnixMilli()), Settled: instant(r.Settled.UnixMilli()),
		Late: m&markLate != 0, Unpaid: m&markUnpaid != 0,
	}
}

// row is the CDR on disk. Its key is the message's ID, so CDRs lie in the order
// in which their messages were received.
func (c *cdr) row() plugin.Change {
	row := make([]byte, 0, 192)
	row = append(row, rowVersion)
	for _, text := range []string{c.Payer, c.From, c.Recipient, c.Destination, c.Currency, c.Service, c.Transport} {
		row = appendText(row, text)
	}
	row = binary.AppendUvarint(row, uint64(c.Units))
	row = appendAmount(row, c.Amount)
	row = binary.AppendVarint(row, int64(c.Received))
	row = binary.AppendVarint(row, int64(c.Settled))
	return plugin.Change{Table: tableCDRs, Key: c.ID[:], Value: append(row, byte(newMark(c.Late, c.Unpaid)))}
}

func readCDR(row plugin.Change) (*cdr, error) {
	r, c := readRow(row.Value), &cdr{}
	for _, text := range []*string{&c.Payer, &c.From, &c.Recipient, &c.Destination, &c.Currency, &c.Service, &c.Transport} {
		*text = r.text()
	}
	units := r.number()
	c.Units = int(min(units, math.MaxInt32))
	c.Amount = r.amount()
	c.Received, c.Settled = instant(r.signed()), instant(r.signed())
	m := mark(r.number())
	c.Late, c.Unpaid = m&markLate != 0, m&markUnpaid != 0
	if len(row.Key) != len(c.ID) {
		return nil, rowError(row, errBadRow)
	}
	c.ID = message.ID(row.Key)
	return c, rowError(row, r.end())
}

// cdrQuery selects CDRs: those of an account, those settled from <= t < to.
// Zero values don't restrict.
type cdrQuery struct {
	account  string
	from, to time.Time
}

func (q cdrQuery) wants(c *cdr) bool {
	return (q.account == "" || c.Payer == q.account) &&
		(q.from.IsZero() || int64(c.Settled) >= q.from.UnixMilli()) &&
		(q.to.IsZero() || int64(c.Settled) < q.to.UnixMilli())
}

// A message is settled after it was received, and no later than its life allows
// for. Keys tell when messages were received, so these margins bound what must
// be read to find what was settled within a time; they are generous, because
// clocks are set back at times, and because receipts may come late.
const (
	settledAfter  = 2 * plugin.MaxStore
	settledBefore = 24 * time.Hour
)

func (q cdrQuery) keys() (from, to []byte) {
	if !q.from.IsZero() {
		from = firstKey(q.from.Add(-settledAfter))
	}
	if !q.to.IsZero() {
		to = firstKey(q.to.Add(settledBefore))
	}
	return from, to
}

// firstKey is not greater than the ID of any message received at t or later:
// IDs begin with 48 bits of milliseconds (RFC 9562 §5.7).
func firstKey(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixMilli(), 0))<<16)
}

// cdrs writes the CDRs that a query selects, in the order in which their
// messages were received.
func (b *book) cdrs(ctx context.Context, q cdrQuery, w cdrWriter) error {
	from, to := q.keys()
	return b.scan(ctx, tableCDRs, from, to, func(row plugin.Change) error {
		c, err := readCDR(row)
		if err != nil || !q.wants(c) {
			return err
		}
		return w.write(c)
	})
}

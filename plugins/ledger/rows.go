package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// The tables. The package comment says what is in them.
const (
	tableAccounts = "accounts"
	tableImports  = "imports"
	tableSpent    = "spent"
	tableHolds    = "holds"
	tableCredits  = "credits"
	tableCDRs     = "cdrs"
)

// rowVersion is the first octet of every row, so that a later layout can be
// told from this one. Rows of version 1 know no serials and are still read.
const (
	rowVersion    = 2
	oldRowVersion = 1
)

var errBadRow = errors.New("not a row of this version")

// rowReader reads a row field by field. After the first field that isn't there
// it returns zeros; end tells.
type rowReader struct {
	rest []byte
	old  bool // of version 1
	bad  bool
}

func readRow(row []byte) *rowReader {
	if len(row) == 0 || row[0] != rowVersion && row[0] != oldRowVersion {
		return &rowReader{bad: true}
	}
	return &rowReader{rest: row[1:], old: row[0] == oldRowVersion}
}

// end returns an error unless all fields were there and nothing is left.
func (r *rowReader) end() error {
	if r.bad || len(r.rest) > 0 {
		return errBadRow
	}
	return nil
}

func (r *rowReader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *rowReader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(uint64(n))
	return v
}

func (r *rowReader) signed() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(uint64(n))
	return v
}

// serial reads the serial of an account; 0: the row is older than serials.
func (r *rowReader) serial() uint64 {
	if r.old {
		return 0
	}
	return r.number()
}

func (r *rowReader) text() string { return string(r.take(r.number())) }

func (r *rowReader) octets(into []byte) { copy(into, r.take(uint64(len(into)))) }

func (r *rowReader) time() time.Time { return time.UnixMilli(r.signed()).UTC() }

// amount refuses what no writer here writes.
func (r *rowReader) amount() plugin.Money {
	v := r.number()
	if v > uint64(ceiling) {
		r.bad = true
		return 0
	}
	return plugin.Money(v)
}

// address reads what message.Address.String writes.
func (r *rowReader) address() message.Address {
	var a message.Address
	if a.UnmarshalText(r.take(r.number())) != nil {
		r.bad = true
	}
	return a
}

func appendText(row []byte, s string) []byte {
	return append(binary.AppendUvarint(row, uint64(len(s))), s...)
}

func appendAddress(row []byte, a message.Address) []byte {
	if a.Host == "" {
		return appendText(row, a.User)
	}
	row = binary.AppendUvarint(row, uint64(len(a.User)+1+len(a.Host)))
	return append(append(append(row, a.User...), '@'), a.Host...)
}

func appendAmount(row []byte, m plugin.Money) []byte { return binary.AppendUvarint(row, uint64(m)) }

func appendTime(row []byte, t time.Time) []byte { return binary.AppendVarint(row, t.UnixMilli()) }

// What an account's row says with one bit each.
const (
	flagImported = 1 << iota // it counts once the import's own row is there
	flagSuspended
)

// accountRow is an account without what it spent. Its key is its
// address-of-record.
func accountRow(a *account) plugin.Change {
	row := make([]byte, 0, 192)
	row = append(row, rowVersion, a.flags())
	row = binary.AppendUvarint(row, a.serial)
	row = appendTime(row, a.created)
	row = appendAmount(row, a.credited)
	for _, h := range []*ha1{&a.secrets.user, &a.secrets.full} {
		row = append(append(row, h.md5[:]...), h.sha256[:]...)
	}
	further := a.identities[1:]
	row = binary.AppendUvarint(row, uint64(len(further)))
	for _, identity := range further {
		row = appendAddress(row, identity)
	}
	row = binary.AppendUvarint(row, uint64(len(a.attributes)))
	for _, name := range slices.Sorted(maps.Keys(a.attributes)) {
		row = appendText(appendText(row, name), a.attributes[name])
	}
	return plugin.Change{Table: tableAccounts, Key: []byte(a.id), Value: row}
}

func (a *account) flags() (flags byte) {
	if a.imported {
		flags |= flagImported
	}
	if a.suspended.Load() {
		flags |= flagSuspended
	}
	return flags
}

func readAccount(c plugin.Change) (*account, error) {
	own, err := message.ParseAddress(string(c.Key))
	if err != nil {
		return nil, rowError(c, err)
	}
	r := readRow(c.Value)
	a := &account{id: own.String()}
	r.head(a)
	for _, h := range []*ha1{&a.secrets.user, &a.secrets.full} {
		r.octets(h.md5[:])
		r.octets(h.sha256[:])
	}
	a.identities = r.identities(own)
	a.attributes = r.attributes()
	return a, rowError(c, r.end())
}

// head reads an account's row up to its secrets. In version 1 an import's
// number came first, and nothing but that and the money.
func (r *rowReader) head(a *account) {
	if r.old {
		a.serial = r.number()
		a.imported = a.serial != 0
		a.credited = r.amount()
		return
	}
	flags := r.number()
	a.imported = flags&flagImported != 0
	a.suspended.Store(flags&flagSuspended != 0)
	a.serial, a.created, a.credited = r.number(), r.time(), r.amount()
}

func (r *rowReader) identities(own message.Address) []message.Address {
	further := r.number()
	if further > maxIdentities {
		r.bad = true
		return nil
	}
	all := append(make([]message.Address, 0, 1+further), own)
	for range further {
		all = append(all, r.address())
	}
	return all
}

func (r *rowReader) attributes() map[string]string {
	if r.old || r.bad {
		return nil
	}
	n := r.number()
	if n > maxAttributes {
		r.bad = true
	}
	if n == 0 || r.bad {
		return nil
	}
	all := make(map[string]string, n)
	for range n {
		name := r.text()
		all[name] = r.text()
	}
	return all
}

func spentRow(a *account) plugin.Change {
	row := binary.AppendUvarint([]byte{rowVersion}, a.serial)
	return plugin.Change{Table: tableSpent, Key: []byte(a.id), Value: appendAmount(row, a.spent)}
}

func readSpent(c plugin.Change) (spent plugin.Money, serial uint64, err error) {
	r := readRow(c.Value)
	serial, spent = r.serial(), r.amount()
	return spent, serial, rowError(c, r.end())
}

func holdRow(h *hold) plugin.Change {
	row := make([]byte, 0, 36+len(h.payer.id))
	row = appendText(append(row, rowVersion), h.payer.id)
	row = binary.AppendUvarint(row, h.payer.serial)
	row = appendAmount(row, h.amount)
	return plugin.Change{Table: tableHolds, Key: h.key[:], Value: appendTime(row, h.until)}
}

func noHold(key message.ID) plugin.Change { return plugin.Change{Table: tableHolds, Key: key[:]} }

// storedHold is a hold before its payer has been looked up.
type storedHold struct {
	key    message.ID
	payer  string
	serial uint64
	amount plugin.Money
	until  time.Time
}

func readHold(c plugin.Change) (storedHold, error) {
	r := readRow(c.Value)
	h := storedHold{payer: r.text(), serial: r.serial(), amount: r.amount(), until: r.time()}
	if len(c.Key) != len(h.key) {
		return h, rowError(c, errBadRow)
	}
	h.key = message.ID(c.Key)
	return h, rowError(c, r.end())
}

// reserved is what Authorize hands out and Settle gets back.
func (c charge) reserved() []byte {
	row := make([]byte, 0, 28)
	row = appendText(appendAmount(append(row, rowVersion), c.amount), c.currency)
	return binary.AppendUvarint(row, c.serial)
}

func readReserved(reserved []byte) (charge, error) {
	r := readRow(reserved)
	c := charge{amount: r.amount(), currency: r.text(), serial: r.serial()}
	return c, r.end()
}

func rowError(c plugin.Change, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("table %s, row %q: %w", c.Table, c.Key, err)
}

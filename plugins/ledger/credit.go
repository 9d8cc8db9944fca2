package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

var (
	errTooMuch   = errors.New("the account would have more than can be counted")
	errTooLittle = errors.New("the account has less available than is to be taken back")
	errOtherUse  = errors.New("the key was used for another amount")
)

// credit is an amount that is added to what an account has, or taken back if it
// is below zero. Under the same key an account is credited once.
type credit struct {
	account string
	amount  plugin.Money
	key     string // empty: each time anew
}

// maxCreditKey is the longest key, in octets.
const maxCreditKey = 128

// creditMemory is how long keys are remembered.
const creditMemory = 7 * 24 * time.Hour

// keyedCredit is what is remembered of a credit with a key.
type keyedCredit struct {
	serial uint64 // the account's
	amount plugin.Money
	at     time.Time
}

// row is the table's key: addresses have no zero octet.
func (c credit) row() string { return c.account + "\x00" + c.key }

func (k keyedCredit) row(key string) plugin.Change {
	row := binary.AppendUvarint([]byte{rowVersion}, k.serial)
	row = binary.AppendVarint(row, int64(k.amount))
	return plugin.Change{Table: tableCredits, Key: []byte(key), Value: appendTime(row, k.at)}
}

func readKeyedCredit(row plugin.Change) (keyedCredit, error) {
	r := readRow(row.Value)
	k := keyedCredit{serial: r.number(), amount: plugin.Money(r.signed()), at: r.time()}
	return k, rowError(row, r.end())
}

// credit changes what an account has. It is on disk when credit returns nil.
// repeated: the key says that this was done before, and nothing was changed.
func (b *book) credit(ctx context.Context, now time.Time, c credit) (a *account, repeated bool, err error) {
	earlier, err := b.storedCredit(ctx, c)
	if err != nil {
		return nil, false, err
	}
	a, repeated, committed, err := b.commitCredit(now, c, earlier)
	if err != nil {
		return nil, false, err
	}
	return a, repeated, confirm(ctx, committed)
}

// storedCredit looks on disk for a key that memory doesn't know. Zero: it isn't
// there.
func (b *book) storedCredit(ctx context.Context, c credit) (keyedCredit, error) {
	if c.key == "" {
		return keyedCredit{}, nil
	}
	key := []byte(c.row())
	rows, err := b.tables.Scan(ctx, tableCredits, key, after(key), 1)
	if err != nil {
		return keyedCredit{}, fmt.Errorf("read table %s: %w", tableCredits, err)
	}
	if len(rows) == 0 {
		return keyedCredit{}, nil
	}
	return readKeyedCredit(rows[0])
}

// commitCredit gives the account its amount unless that was done before:
// earlier is what the disk knew before the book was locked, and what came after
// that memory knows.
func (b *book) commitCredit(now time.Time, c credit, earlier keyedCredit) (a *account, repeated bool, committed plugin.Commitment, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a = b.payer(c.account)
	if a == nil {
		return nil, false, nil, errNoAccount
	}
	if remembered, known := b.credits.get(c.row()); known && c.key != "" {
		earlier = remembered
	}
	if earlier.remembers(a, now) {
		return b.repeatCredit(a, c, earlier)
	}
	switch {
	case c.amount > ceiling-a.credited:
		return nil, false, nil, errTooMuch
	case c.amount < 0 && -c.amount > a.available():
		return nil, false, nil, errTooLittle
	}
	a.credited += c.amount
	changes := []plugin.Change{accountRow(a)}
	if c.key != "" {
		done := keyedCredit{serial: a.serial, amount: c.amount, at: now}
		b.credits.add(c.row(), done)
		changes = append(changes, done.row(c.row()))
	}
	return a, false, b.tables.Commit(changes), nil
}

// remembers tells whether this account got a credit under the key not too long
// ago.
func (k keyedCredit) remembers(a *account, now time.Time) bool {
	return !k.at.IsZero() && a.serial == k.serial && now.Sub(k.at) < creditMemory
}

// repeatCredit changes nothing. It writes the account once more to learn when
// what was done before is on disk.
func (b *book) repeatCredit(a *account, c credit, earlier keyedCredit) (*account, bool, plugin.Commitment, error) {
	if earlier.amount != c.amount {
		return nil, false, nil, fmt.Errorf("%w: %s", errOtherUse, earlier.amount)
	}
	return a, true, b.tables.Commit([]plugin.Change{accountRow(a)}), nil
}

// expireCredits removes the keys that need no longer be remembered.
func (b *book) expireCredits(ctx context.Context, now time.Time) error {
	return b.expire(ctx, tableCredits, nil, func(row plugin.Change) (bool, error) {
		k, err := readKeyedCredit(row)
		return err == nil && now.Sub(k.at) >= creditMemory, err
	})
}

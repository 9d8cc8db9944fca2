package ledger

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// account is a subscriber with its money. The money changes under the book's
// lock, and so does whether it is suspended; all else stays as it was made.
type account struct {
	id         string            // the address-of-record
	identities []message.Address // its own first
	attributes map[string]string // for policies; may be nil
	secrets    secrets
	created    time.Time // zero: before that was kept

	// serial tells the account from earlier and later ones of the same address.
	// Those of one import share it: it is the import's number. 0: made before
	// there were serials.
	serial   uint64
	imported bool

	suspended atomic.Bool

	credited plugin.Money
	spent    plugin.Money // only ever grows
	held     plugin.Money // sum of its open holds
	open     int          // how many they are

	namesake *account // the next one with the same user part; guarded by the book's lock
}

func (a *account) public() plugin.Account {
	return plugin.Account{ID: a.id, Identities: a.identities, Attributes: a.attributes}
}

// is tells whether this is the account that had a serial.
func (a *account) is(serial uint64) bool { return serial == 0 || serial == a.serial }

// balance is below zero if late settlements took more than there was.
func (a *account) balance() plugin.Money { return a.credited - a.spent }

// available is what may still be reserved.
func (a *account) available() plugin.Money { return a.balance() - a.held }

// book is everything in memory: the disk is read when it is opened and to find
// keys that memory has forgotten. What account operations change is committed
// and changed in memory under one lock, so both have one order.
type book struct {
	tables  plugin.Tables
	log     *slog.Logger
	decoy   ha1 // compared where there is no account
	meters  meters
	loading chan struct{} // held while an import is read: one at a time takes the memory

	// changing is held by whoever adds accounts, from looking whether their
	// names are free until they are in memory.
	changing chan struct{}

	mu      sync.RWMutex
	names   map[message.Address]*account // by each identity
	users   map[string]*account          // by user part of the own address: the first of its namesakes
	holds   map[message.ID]*hold
	lapsing lapsing
	settled recent[message.ID, mark]
	credits recent[string, keyedCredit]
}

// openBook reads the tables. Rows of imports that never came to their end, rows
// of accounts that were deleted, and reservations that lapsed, are removed.
func openBook(ctx context.Context, tables plugin.Tables, log *slog.Logger, now time.Time) (*book, error) {
	b := &book{
		tables: tables, log: log,
		decoy:    newHA1(decoyAddress.User, decoyAddress.Host, rand.Text()),
		loading:  make(chan struct{}, 1),
		changing: make(chan struct{}, 1),
		names:    map[message.Address]*account{},
		users:    map[string]*account{},
		holds:    map[message.ID]*hold{},
		settled:  newRecent[message.ID, mark](),
		credits:  newRecent[string, keyedCredit](),
	}
	b.meters.charge(nil)
	for _, load := range []func(context.Context) error{b.loadAccounts, b.loadSpent, b.loadHolds} {
		if err := load(ctx); err != nil {
			return nil, err
		}
	}
	b.sweep(now)
	return b, nil
}

// pageSize is how many rows are read at once.
const pageSize = 1000

// scan calls each for every row of a table with from <= key < to.
func (b *book) scan(ctx context.Context, table string, from, to []byte, each func(plugin.Change) error) error {
	for {
		rows, err := b.tables.Scan(ctx, table, from, to, pageSize)
		if err != nil {
			return fmt.Errorf("read table %s: %w", table, err)
		}
		for _, row := range rows {
			if err := each(row); err != nil {
				return err
			}
		}
		if len(rows) < pageSize {
			return nil
		}
		from = after(rows[len(rows)-1].Key)
	}
}

// after is the first key that follows key.
func after(key []byte) []byte { return append(key[:len(key):len(key)], 0) }

// load calls each for every row of a table; those that it doesn't want to keep
// are removed, without waiting for it: what a crash leaves is removed the next
// time.
func (b *book) load(ctx context.Context, table string, each func(plugin.Change) (keep bool, err error)) error {
	var removed chunk
	err := b.scan(ctx, table, nil, nil, func(row plugin.Change) error {
		keep, err := each(row)
		if err == nil && !keep {
			removed.add(b.tables, plugin.Change{Table: table, Key: row.Key})
		}
		return err
	})
	removed.commit(b.tables)
	return err
}

func (b *book) loadAccounts(ctx context.Context) error {
	complete := map[uint64]bool{}
	err := b.scan(ctx, tableImports, nil, nil, func(row plugin.Change) error {
		if len(row.Key) != 8 {
			return rowError(row, errBadRow)
		}
		complete[binary.BigEndian.Uint64(row.Key)] = true
		return nil
	})
	if err != nil {
		return err
	}
	return b.load(ctx, tableAccounts, func(row plugin.Change) (bool, error) {
		a, err := readAccount(row)
		if err != nil {
			return false, err
		}
		if a.imported && !complete[a.serial] {
			return false, nil
		}
		b.insert(a)
		return true, nil
	})
}

// loadSpent skips what accounts have spent that were deleted: a settlement that
// was under way at that moment writes the row again.
func (b *book) loadSpent(ctx context.Context) error {
	return b.load(ctx, tableSpent, func(row plugin.Change) (bool, error) {
		spent, serial, err := readSpent(row)
		if err != nil {
			return false, err
		}
		a := b.owner(string(row.Key), serial)
		if a != nil {
			a.spent = spent
		}
		return a != nil, nil
	})
}

// loadHolds skips the reservations of accounts that were deleted.
func (b *book) loadHolds(ctx context.Context) error {
	return b.load(ctx, tableHolds, func(row plugin.Change) (bool, error) {
		stored, err := readHold(row)
		if err != nil {
			return false, err
		}
		payer := b.owner(stored.payer, stored.serial)
		if payer != nil {
			b.hold(&hold{key: stored.key, payer: payer, amount: stored.amount, until: stored.until})
		}
		return payer != nil, nil
	})
}

// insert makes an account known by all its names. The caller has seen to it
// that they are free, and holds the lock.
func (b *book) insert(a *account) {
	for _, identity := range a.identities {
		b.names[identity] = a
	}
	user := a.identities[0].User
	a.namesake, b.users[user] = b.users[user], a
	b.meters.accounts.Add(1)
}

// remove is the inverse of insert. Reservations of the account stay open, for
// nobody, until they are settled or lapse.
func (b *book) remove(a *account) {
	for _, identity := range a.identities {
		delete(b.names, identity)
	}
	b.removeUser(a)
	b.meters.accounts.Add(-1)
}

func (b *book) removeUser(a *account) {
	user := a.identities[0].User
	if first := b.users[user]; first != a {
		for first.namesake != a {
			first = first.namesake
		}
		first.namesake = a.namesake
		return
	}
	if a.namesake == nil {
		delete(b.users, user)
		return
	}
	b.users[user] = a.namesake
}

// find returns who owns an address, or nil.
func (b *book) find(address message.Address) *account {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.names[address]
}

// findNumber returns whose telephone number this is, with or without the "+" of an
// international one, or nil.
func (b *book) findNumber(number string) *account {
	if !isNumber(number) {
		return nil
	}
	digits := strings.TrimPrefix(number, "+")
	if a := b.find(message.Address{User: "+" + digits}); a != nil {
		return a
	}
	return b.find(message.Address{User: digits})
}

// findOwn returns whose own address this is, or nil.
func (b *book) findOwn(address message.Address) *account {
	if a := b.find(address); a != nil && a.identities[0] == address {
		return a
	}
	return nil
}

func (b *book) findSystemID(systemID string) *account {
	if strings.Contains(systemID, "@") {
		address, err := message.ParseAddress(systemID)
		if err != nil {
			return nil
		}
		return b.findOwn(address)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if a := b.names[message.Address{User: systemID}]; a != nil {
		return a
	}
	if a := b.users[systemID]; a != nil && a.namesake == nil {
		return a
	}
	return nil
}

// payer returns the account with this ID, or nil. The caller holds the lock.
func (b *book) payer(id string) *account {
	user, host, _ := strings.Cut(id, "@")
	if a := b.names[message.Address{User: user, Host: host}]; a != nil && a.id == id {
		return a
	}
	return nil
}

// owner returns the account with this ID and serial, or nil: it was deleted. The
// caller holds the lock.
func (b *book) owner(id string, serial uint64) *account {
	if a := b.payer(id); a != nil && a.is(serial) {
		return a
	}
	return nil
}

package ledger

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// account is a subscriber with its money. Only the money changes, under the
// book's lock.
type account struct {
	id         string            // the address-of-record
	identities []message.Address // its own first
	secrets    secrets
	batch      uint64 // the import that it came with; 0: it came alone

	credited plugin.Money // only ever grows, and so does spent
	spent    plugin.Money
	held     plugin.Money // sum of its open holds
}

func (a *account) public() plugin.Account {
	return plugin.Account{ID: a.id, Identities: a.identities}
}

// balance is below zero if late settlements took more than there was.
func (a *account) balance() plugin.Money { return a.credited - a.spent }

// available is what may still be reserved.
func (a *account) available() plugin.Money { return a.balance() - a.held }

// book is everything in memory: the disk is read when it is opened and to find
// settled keys that memory has forgotten. What account operations change is
// committed and changed in memory under one lock, so both have one order.
type book struct {
	tables plugin.Tables
	log    *slog.Logger
	decoy  ha1 // compared where there is no account

	// changing is held by whoever adds accounts, from looking whether their
	// names are free until they are in memory.
	changing chan struct{}

	mu      sync.RWMutex
	names   map[message.Address]*account // by each identity
	users   map[string]*account          // by user part of the own address; nil: several have it
	holds   map[message.ID]*hold
	lapsing lapsing
	settled recent
}

// openBook reads the tables. Rows of imports that never came to their end, and
// reservations that lapsed, are removed.
func openBook(ctx context.Context, tables plugin.Tables, log *slog.Logger, now time.Time) (*book, error) {
	b := &book{
		tables: tables, log: log,
		decoy:    newHA1(decoyAddress.User, decoyAddress.Host, rand.Text()),
		changing: make(chan struct{}, 1),
		names:    map[message.Address]*account{},
		users:    map[string]*account{},
		holds:    map[message.ID]*hold{},
		settled:  newRecent(),
	}
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

func (b *book) loadAccounts(ctx context.Context) error {
	complete := map[uint64]bool{0: true}
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
	var abandoned chunk
	err = b.scan(ctx, tableAccounts, nil, nil, func(row plugin.Change) error {
		a, err := readAccount(row)
		if err != nil {
			return err
		}
		if !complete[a.batch] {
			abandoned.add(b.tables, plugin.Change{Table: tableAccounts, Key: row.Key})
			return nil
		}
		b.insert(a)
		return nil
	})
	abandoned.commit(b.tables)
	return err
}

func (b *book) loadSpent(ctx context.Context) error {
	return b.scan(ctx, tableSpent, nil, nil, func(row plugin.Change) error {
		spent, err := readSpent(row)
		if err != nil {
			return err
		}
		a := b.payer(string(row.Key))
		if a == nil {
			return rowError(row, errNoAccount)
		}
		a.spent = spent
		return nil
	})
}

func (b *book) loadHolds(ctx context.Context) error {
	return b.scan(ctx, tableHolds, nil, nil, func(row plugin.Change) error {
		stored, err := readHold(row)
		if err != nil {
			return err
		}
		payer := b.payer(stored.payer)
		if payer == nil {
			return rowError(row, errNoAccount)
		}
		b.hold(&hold{key: stored.key, payer: payer, amount: stored.amount, until: stored.until})
		return nil
	})
}

// insert makes an account known by all its names. The caller has seen to it
// that they are free, and holds the lock.
func (b *book) insert(a *account) {
	for _, identity := range a.identities {
		b.names[identity] = a
	}
	user := a.identities[0].User
	if _, taken := b.users[user]; taken {
		a = nil
	}
	b.users[user] = a
}

// find returns who owns an address, or nil.
func (b *book) find(address message.Address) *account {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.names[address]
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
	return b.users[systemID]
}

// payer returns the account with this ID, or nil. The caller holds the lock.
func (b *book) payer(id string) *account {
	user, host, _ := strings.Cut(id, "@")
	if a := b.names[message.Address{User: user, Host: host}]; a != nil && a.id == id {
		return a
	}
	return nil
}

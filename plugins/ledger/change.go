package ledger

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// inUseError says that an account can't be deleted without force.
type inUseError struct{ text string }

func (e *inUseError) Error() string { return e.text }

// takenError says that an account can't be added because its names aren't free.
type takenError struct{ text string }

func (e *takenError) Error() string { return e.text }

// add adds one account. It is on disk when add returns nil.
func (b *book) add(ctx context.Context, now time.Time, a *account) error {
	committed, err := b.commitAdd(ctx, now, a)
	if err != nil {
		return err
	}
	return confirm(ctx, committed)
}

func (b *book) commitAdd(ctx context.Context, now time.Time, a *account) (plugin.Commitment, error) {
	free, err := b.lockChanges(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	if owner, name := b.taken(a.identities); owner != nil {
		return nil, &takenError{taken(a.identities, owner, name)}
	}
	a.serial, a.created = newSerial(), now
	return b.publish([]*account{a}, accountRow(a)), nil
}

func newSerial() uint64 {
	var b [8]byte
	rand.Read(b[:])                          // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) | 1 // never 0
}

// publish commits the row that makes accounts count and makes them known. From
// then on they will be on disk unless this node stops being the active one, so
// memory doesn't wait. Traffic stands still meanwhile: about half a second for
// a million accounts.
func (b *book) publish(accounts []*account, row plugin.Change) plugin.Commitment {
	b.mu.Lock()
	defer b.mu.Unlock()
	committed := b.tables.Commit([]plugin.Change{row})
	for _, a := range accounts {
		b.insert(a)
	}
	return committed
}

// suspend suspends an account, or resumes it. It is on disk when suspend
// returns nil.
func (b *book) suspend(ctx context.Context, id string, suspended bool) (*account, error) {
	a, committed, err := b.commitSuspend(id, suspended)
	if err != nil {
		return nil, err
	}
	return a, confirm(ctx, committed)
}

func (b *book) commitSuspend(id string, suspended bool) (*account, plugin.Commitment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.payer(id)
	if a == nil {
		return nil, nil, errNoAccount
	}
	a.suspended.Store(suspended)
	return a, b.tables.Commit([]plugin.Change{accountRow(a)}), nil
}

// delete removes an account and frees its names. With force it does so also if
// there is money left or reservations are open: the money goes with the account,
// and messages under way are delivered and paid by nobody. It returns what the
// account was, and is on disk when it returns no error.
func (b *book) delete(ctx context.Context, id string, force bool) (accountView, error) {
	last, committed, err := b.commitDelete(id, force)
	if err != nil {
		return accountView{}, err
	}
	return last, confirm(ctx, committed)
}

func (b *book) commitDelete(id string, force bool) (accountView, plugin.Commitment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.payer(id)
	if a == nil {
		return accountView{}, nil, errNoAccount
	}
	if reason := a.inUse(); reason != nil && !force {
		return accountView{}, nil, reason
	}
	b.remove(a)
	return a.view(), b.tables.Commit([]plugin.Change{
		{Table: tableAccounts, Key: []byte(a.id)},
		{Table: tableSpent, Key: []byte(a.id)},
	}), nil
}

// inUse says why an account shouldn't be deleted, or nil.
func (a *account) inUse() error {
	switch {
	case a.open > 0:
		return &inUseError{fmt.Sprintf("the account has %d open reservations: wait for them to be settled, or force it (--force)", a.open)}
	case a.balance() != 0:
		return &inUseError{fmt.Sprintf("the account has a balance of %s: take it to 0.00 first, or force it (--force)", a.balance())}
	}
	return nil
}

var errImporting = errors.New("another import is at work: try again when it is done")

// lockChanges waits for its turn to add accounts.
func (b *book) lockChanges(ctx context.Context) (free func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, waitWithin)
	defer cancel()
	select {
	case b.changing <- struct{}{}:
		return func() { <-b.changing }, nil
	case <-ctx.Done():
		return nil, errImporting
	}
}

// confirm waits until what has been done in memory is on disk too.
func confirm(ctx context.Context, committed plugin.Commitment) error {
	if err := wait(ctx, committed); err != nil {
		return fmt.Errorf("done, but not known whether it is on disk: %w", err)
	}
	return nil
}

// waitWithin bounds the wait for one commit.
const waitWithin = 30 * time.Second

// wait waits for a commit, if there is one.
func wait(ctx context.Context, committed plugin.Commitment) error {
	if committed == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, waitWithin)
	defer cancel()
	return committed.Wait(ctx)
}

// taken returns who has one of these names already, and which.
func (b *book) taken(names []message.Address) (*account, message.Address) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, name := range names {
		if owner := b.names[name]; owner != nil {
			return owner, name
		}
	}
	return nil, message.Address{}
}

// taken says in words that one of an account's names isn't free. The first is
// the account's own address.
func taken(names []message.Address, owner *account, name message.Address) string {
	if name == names[0] && name == owner.identities[0] {
		return fmt.Sprintf("the account %s exists already", name)
	}
	return fmt.Sprintf("%s belongs to the account %s", name, owner.id)
}

package ledger

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

var errTooMuch = errors.New("the account would have more than can be counted")

// takenError says that accounts can't be added because their names aren't free.
type takenError struct{ faults faults }

func (e *takenError) Error() string { return e.faults.String() }

// add adds one account. It is on disk when add returns nil.
func (b *book) add(ctx context.Context, a *account) error {
	committed, err := b.commitAdd(ctx, a)
	if err != nil {
		return err
	}
	return confirm(ctx, committed)
}

func (b *book) commitAdd(ctx context.Context, a *account) (plugin.Commitment, error) {
	free, err := b.lockChanges(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	if owner, name := b.taken(a); owner != nil {
		return nil, &takenError{faults{{text: taken(a, owner, name)}}}
	}
	return b.publish([]*account{a}, accountRow(a)), nil
}

// importAll adds all accounts or none. They are more than fit into one commit
// (plugin.MaxApply), so their rows carry the number of the import and don't
// count until the row is there that says that this import is complete. That row
// is written last, and at that moment all accounts appear in memory. What an
// import that broke off has left is removed when the book is opened.
//
// Each chunk is waited for, so that a long import takes little memory in the
// committer and lets others' changes pass.
func (b *book) importAll(ctx context.Context, rows []importRow) error {
	free, err := b.lockChanges(ctx)
	if err != nil {
		return err
	}
	defer free()
	if conflicts := b.conflicts(rows); len(conflicts) > 0 {
		return &takenError{conflicts}
	}
	batch := newBatch()
	accounts, err := b.commitBatch(ctx, batch, rows)
	if err != nil {
		return fmt.Errorf("nothing was imported: %w", err)
	}
	return confirm(ctx, b.publish(accounts, completeRow(batch, len(rows))))
}

// commitBatch brings the accounts of an import to disk, where they don't count
// yet.
func (b *book) commitBatch(ctx context.Context, batch uint64, rows []importRow) ([]*account, error) {
	accounts := make([]*account, len(rows))
	var pending chunk
	for i, row := range rows {
		row.account.batch = batch
		accounts[i] = row.account
		if err := wait(ctx, pending.add(b.tables, accountRow(row.account))); err != nil {
			return nil, err
		}
	}
	return accounts, wait(ctx, pending.commit(b.tables))
}

func newBatch() uint64 {
	var b [8]byte
	rand.Read(b[:])                          // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) | 1 // 0 is for accounts that came alone
}

func completeRow(batch uint64, accounts int) plugin.Change {
	value := binary.AppendUvarint([]byte{rowVersion}, uint64(accounts))
	return plugin.Change{Table: tableImports, Key: binary.BigEndian.AppendUint64(nil, batch), Value: value}
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

// credit adds to what an account has. It is on disk when credit returns nil.
func (b *book) credit(ctx context.Context, id string, amount plugin.Money) (*account, error) {
	a, committed, err := b.commitCredit(id, amount)
	if err != nil {
		return nil, err
	}
	return a, confirm(ctx, committed)
}

func (b *book) commitCredit(id string, amount plugin.Money) (*account, plugin.Commitment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.payer(id)
	if a == nil {
		return nil, nil, errNoAccount
	}
	if a.credited > ceiling-amount {
		return nil, nil, errTooMuch
	}
	a.credited += amount
	return a, b.tables.Commit([]plugin.Change{accountRow(a)}), nil
}

// lockChanges waits for its turn to add accounts.
func (b *book) lockChanges(ctx context.Context) (free func(), err error) {
	select {
	case b.changing <- struct{}{}:
		return func() { <-b.changing }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("another import is at work: %w", ctx.Err())
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

// taken returns who has one of an account's names already, and which.
func (b *book) taken(a *account) (*account, message.Address) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, identity := range a.identities {
		if owner := b.names[identity]; owner != nil {
			return owner, identity
		}
	}
	return nil, message.Address{}
}

// conflicts finds the rows whose names are taken, in the book or by an earlier
// row.
func (b *book) conflicts(rows []importRow) faults {
	var found faults
	earlier := make(map[message.Address]int, len(rows)) // name: line
	for _, row := range rows {
		if owner, name := b.taken(row.account); owner != nil {
			found.add(row.line, taken(row.account, owner, name))
			continue
		}
		for _, identity := range row.account.identities {
			if line, ok := earlier[identity]; ok {
				found.add(row.line, fmt.Sprintf("%s is on line %d already", identity, line))
				break
			}
			earlier[identity] = row.line
		}
	}
	return found
}

func taken(a, owner *account, name message.Address) string {
	if name == a.identities[0] && name == owner.identities[0] {
		return fmt.Sprintf("the account %s exists already", name)
	}
	return fmt.Sprintf("%s belongs to the account %s", name, owner.id)
}

// faults are what is wrong with an import, line by line.
type faults []fault

type fault struct {
	line int // 0: there are no lines
	text string
}

// maxFaults is how many faults are named; the others are counted.
const maxFaults = 20

func (f *faults) add(line int, text string) { *f = append(*f, fault{line, text}) }

// String names the first faults and counts the rest.
func (f faults) String() string {
	var text strings.Builder
	for i, one := range f[:min(len(f), maxFaults)] {
		if i > 0 {
			text.WriteByte('\n')
		}
		if one.line > 0 {
			fmt.Fprintf(&text, "line %d: ", one.line)
		}
		text.WriteString(one.text)
	}
	if more := len(f) - maxFaults; more > 0 {
		fmt.Fprintf(&text, "\nand %d more", more)
	}
	return text.String()
}

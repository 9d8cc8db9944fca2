package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// invalidImport says what is wrong with the rows of a file.
type invalidImport struct {
	wrong    faults
	conflict bool // nothing but names that others have
}

func (e *invalidImport) Error() string { return e.wrong.text("") }

// importAll adds all accounts or none. They are more than fit into one commit
// (plugin.MaxApply), so their rows carry the number of the import and don't
// count until the row is there that says that this import is complete. That row
// is written last, and at that moment all accounts appear in memory. What an
// import that broke off has left is removed at once, or when the book is opened.
//
// Each chunk is waited for, so that a long import takes little memory in the
// committer and lets others' changes pass.
func (b *book) importAll(ctx context.Context, now time.Time, f *importFile) error {
	free, err := b.lockChanges(ctx)
	if err != nil {
		return err
	}
	defer free()
	invalid := &invalidImport{wrong: f.wrong, conflict: !f.wrong.any()}
	invalid.wrong.merge(b.conflicts(f.rows))
	if invalid.wrong.any() {
		return invalid
	}
	batch := newSerial()
	accounts, err := b.commitBatch(ctx, now, batch, f.rows)
	if err != nil {
		return fmt.Errorf("nothing was imported: %w", errors.Join(err, b.removeBatch(ctx, accounts)))
	}
	return confirm(ctx, b.publish(accounts, completeRow(batch, len(accounts))))
}

// commitBatch brings the accounts of an import to disk, where they don't count
// yet. With an error it returns those of which there may be rows.
func (b *book) commitBatch(ctx context.Context, now time.Time, batch uint64, rows []importRow) ([]*account, error) {
	accounts := make([]*account, 0, len(rows))
	var pending chunk
	for _, row := range rows {
		a := row.account
		a.serial, a.imported, a.created = batch, true, now
		accounts = append(accounts, a)
		if err := wait(ctx, pending.add(b.tables, accountRow(a))); err != nil {
			return accounts, err
		}
	}
	return accounts, wait(ctx, pending.commit(b.tables))
}

// removeBatch removes what an import that broke off has left, also if whoever
// wanted it has gone. The caller still keeps others from adding accounts of the
// same names.
func (b *book) removeBatch(ctx context.Context, accounts []*account) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), importWithin)
	defer cancel()
	var pending chunk
	for _, a := range accounts {
		if err := wait(ctx, pending.add(b.tables, plugin.Change{Table: tableAccounts, Key: []byte(a.id)})); err != nil {
			return err
		}
	}
	return wait(ctx, pending.commit(b.tables))
}

func completeRow(batch uint64, accounts int) plugin.Change {
	value := binary.AppendUvarint([]byte{rowVersion}, uint64(accounts))
	return plugin.Change{Table: tableImports, Key: binary.BigEndian.AppendUint64(nil, batch), Value: value}
}

// conflicts finds the rows whose names the book knows already.
func (b *book) conflicts(rows []importRow) faults {
	var found faults
	for _, row := range rows {
		if owner, name := b.taken(row.names); owner != nil {
			found.add(row.line, taken(row.names, owner, name))
		}
	}
	return found
}

// importFrom reads a file and adds its accounts, all or none. It returns how
// many they are.
func (b *book) importFrom(ctx context.Context, file io.Reader) (int, error) {
	select {
	case b.loading <- struct{}{}:
		defer func() { <-b.loading }()
	default:
		return 0, errImporting
	}
	f, err := readImport(file)
	if err != nil {
		return 0, err
	}
	if err := b.importAll(ctx, time.Now(), f); err != nil {
		return 0, err
	}
	return len(f.rows), nil
}

// answer gives the error its status, and the file its name.
func (e *invalidImport) answer(file string) error {
	status := http.StatusBadRequest
	if e.conflict {
		status = http.StatusConflict
	}
	return &httpError{status, errors.New(e.wrong.text(file))}
}

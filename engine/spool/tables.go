package spool

import (
	"context"

	"github.com/imgate/imgate/engine/plugin"
)

// Tables gives a technology a namespace of its own in the engine's storage.
type Tables struct {
	technology string
	storage    plugin.Storage
	committer  *Committer
}

// NewTables returns the tables of a technology, named as its plugin is.
func NewTables(technology string, storage plugin.Storage, committer *Committer) *Tables {
	return &Tables{technology: technology, storage: storage, committer: committer}
}

// Commit is plugin.Tables.
func (t *Tables) Commit(changes []plugin.Change) plugin.Commitment {
	done := make(commitment, 1)
	t.committer.Move(t.Own(changes), func(err error) { done <- err })
	return done
}

// Scan is plugin.Tables.
func (t *Tables) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	rows, err := t.storage.Scan(ctx, t.name(table), from, to, n)
	for i := range rows {
		rows[i].Table = table
	}
	return rows, err
}

// Own puts changes that a plugin returned into its namespace.
func (t *Tables) Own(changes []plugin.Change) []plugin.Change {
	own := make([]plugin.Change, len(changes))
	for i, c := range changes {
		own[i] = plugin.Change{Table: t.name(c.Table), Key: c.Key, Value: c.Value}
	}
	return own
}

func (t *Tables) name(table string) string { return t.technology + "/" + table }

// commitment receives the committer's one answer.
type commitment chan error

// Wait is plugin.Commitment.
func (c commitment) Wait(ctx context.Context) error {
	select {
	case err := <-c:
		c <- err // for whoever asks again
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

package spool

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/imgate/imgate/engine/plugin"
)

// Secret reads the secret of the installation, and makes it the first time. It
// is on disk when Secret returns.
func Secret(ctx context.Context, storage plugin.Storage, committer *Committer) (secret [32]byte, err error) {
	key := []byte("installation")
	rows, err := storage.Scan(ctx, tableSecrets, key, append(key, 0), 1)
	if err != nil {
		return secret, fmt.Errorf("read the secret of the installation: %w", err)
	}
	if len(rows) == 1 && len(rows[0].Value) == len(secret) {
		return [32]byte(rows[0].Value), nil
	}
	rand.Read(secret[:]) // never fails (crypto/rand)
	err = committer.wait(ctx, []plugin.Change{{Table: tableSecrets, Key: key, Value: secret[:]}})
	if err != nil {
		return secret, fmt.Errorf("keep the secret of the installation: %w", err)
	}
	return secret, nil
}

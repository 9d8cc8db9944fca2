package sip

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// openSecret reads the key with which an instance makes its nonces, and makes
// it the first time. It outlives the process so that a request that was under
// way when the node died, and is repeated to the next one, is known as a
// repeat: with a new challenge it would come with a new CSeq, as a new message.
// Without a directory the key lasts as long as the process.
func openSecret(dir, instance string) ([]byte, error) {
	if dir == "" {
		return newSecret(), nil
	}
	name := filepath.Join(dir, "sip", instance+".secret")
	secret, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createSecret(name)
	case err != nil:
		return nil, fmt.Errorf("read the secret of nonces: %w", err)
	case len(secret) != sha256.Size:
		return nil, fmt.Errorf("%s isn't a secret of %d octets: remove it, and clients will authenticate anew", name, sha256.Size)
	}
	return secret, nil
}

func newSecret() []byte {
	secret := make([]byte, sha256.Size)
	rand.Read(secret) // never fails (crypto/rand)
	return secret
}

// createSecret writes a new key, whole or not at all.
func createSecret(name string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("keep the secret of nonces: %w", err)
	}
	secret := newSecret()
	if err := os.WriteFile(name+".new", secret, 0o600); err != nil {
		return nil, fmt.Errorf("keep the secret of nonces: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return nil, fmt.Errorf("keep the secret of nonces: %w", err)
	}
	return secret, nil
}

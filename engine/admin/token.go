package admin

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	tokenBytes = 32  // random octets of a token
	minToken   = 32  // characters
	maxToken   = 512 // characters
)

// openToken reads the token, or makes one where there is none.
func openToken(path string) (string, error) {
	token, err := readToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	return createToken(path)
}

func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	defer file.Close()
	if err := checkPrivate(file); err != nil {
		return "", err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxToken+2))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if len(token) < minToken || len(token) > maxToken || strings.ContainsFunc(token, notInToken) {
		return "", fmt.Errorf("token file %s: expected %d to %d printable characters; remove the file, and a new token is made", path, minToken, maxToken)
	}
	return token, nil
}

func notInToken(r rune) bool { return r <= ' ' || r > '~' }

// checkPrivate looks at the open file, so that nobody can exchange it between.
func checkPrivate(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("token file %s: expected a regular file", file.Name())
	}
	if others := info.Mode().Perm() & 0o077; others != 0 {
		return fmt.Errorf("token file %s: mode %#o lets others read or change it; expected 0600: chmod 600 it, or remove it, and a new token is made", file.Name(), info.Mode().Perm())
	}
	return nil
}

// createToken writes the file whole or not at all.
func createToken(path string) (string, error) {
	directory := filepath.Dir(path)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	var secret [tokenBytes]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	token := base64.RawURLEncoding.EncodeToString(secret[:])

	file, err := os.CreateTemp(directory, ".admin-token-*") // of mode 0600
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	_, err = file.WriteString(token + "\n")
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("token file: %w", err), os.Remove(file.Name()))
	}
	return token, nil
}

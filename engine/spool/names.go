package spool

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Names makes the names by which peers know messages: nobody can guess one, and
// it leads to its message without being written down anywhere. It may be used
// from several goroutines.
type Names struct {
	block  cipher.Block
	blocks sync.Pool // of *message.ID: what a cipher.Block works on would be allocated each time
}

// NewNames returns the names under a key, which is the same for all time.
func NewNames(key [32]byte) *Names {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // a key of 32 octets makes one
	}
	return &Names{block: block, blocks: sync.Pool{New: func() any { return new(message.ID) }}}
}

// nameText is how the 16 octets of a name are written: in 22 characters that are
// valid in a SIP Call-ID and in an SMPP message_id.
var nameText = base64.RawURLEncoding.Strict()

// Of returns a message's name. An id is one block, and no two are alike.
func (n *Names) Of(id message.ID) string { return string(n.Append(make([]byte, 0, maxName), id)) }

// Append appends a message's name.
func (n *Names) Append(text []byte, id message.ID) []byte {
	block := n.blocks.Get().(*message.ID)
	defer n.blocks.Put(block)
	*block = id
	n.block.Encrypt(block[:], block[:])
	return nameText.AppendEncode(text, block[:])
}

// ID returns the message to which a name leads, which needn't exist; false: it
// isn't one that Of makes.
func (n *Names) ID(name string) (id message.ID, ok bool) {
	octets, err := nameText.DecodeString(name)
	if err != nil || len(octets) != len(id) {
		return id, false
	}
	n.block.Decrypt(id[:], octets)
	return id, true
}

// How many characters names have: those that Of makes, and short ones (SMPP 3.3
// §6.2.3).
const maxName, shortName = 22, 8

// NewShortName returns a name of eight hexadecimal digits. Whether it is free is
// for the caller to find out.
func NewShortName() string {
	var b [shortName / 2]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// IsShortName tells a name of eight characters.
func IsShortName(name string) bool { return len(name) == shortName }

// NameRow makes a name of an account's lead to a message: a short one, or one
// that another message had before. It stays for as long as the message's record.
func NameRow(account, name string, id message.ID) plugin.Change {
	return plugin.Change{Table: tableNames, Key: nameKey(account, name), Value: id[:]}
}

func nameKey(account, name string) []byte {
	digest := DigestKey(account)
	return append(digest[:], name...)
}

// Named returns the message to which a row leads; zero: there is no such row.
func (s *Spool) Named(ctx context.Context, account, name string) (id message.ID, err error) {
	if len(name) > maxName {
		return id, nil
	}
	key := nameKey(account, name)
	rows, err := s.storage.Scan(ctx, tableNames, key, append(key[:len(key):len(key)], 0), 1)
	switch {
	case err != nil:
		return id, fmt.Errorf("read a name: %w", err)
	case len(rows) == 0:
		return id, nil
	case len(rows[0].Value) != len(id):
		return id, fmt.Errorf("name %q: %w", name, errCorrupt)
	}
	return message.ID(rows[0].Value), nil
}

// unnamed returns the deletion of the row that leads to a message whose record is
// forgotten, if there is one: most names lead to theirs without.
func (s *Spool) unnamed(ctx context.Context, names *Names, record plugin.Change) ([]plugin.Change, error) {
	m, err := decodeSummary(record.Key, record.Value)
	if err != nil || m.Account == "" || m.PublicID == names.Of(m.ID) {
		return nil, nil // a record that can't be read is forgotten all the same
	}
	id, err := s.Named(ctx, m.Account, m.PublicID)
	if err != nil || id != m.ID {
		return nil, err
	}
	return []plugin.Change{{Table: tableNames, Key: nameKey(m.Account, m.PublicID)}}, nil
}

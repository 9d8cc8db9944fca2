package message

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"sync"
	"time"
)

// ID names a message inside one installation. Its layout is that of a UUID of
// version 7 (RFC 9562 §5.7), so that IDs of one Generator sort in the order in
// which they were made. Because it can be guessed it is never shown to a peer:
// that is what PublicID is for.
type ID [16]byte

// ErrBadID is what ParseID returns for anything that is not a UUID.
var ErrBadID = errors.New("not a message id: expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")

// String returns the usual form with dashes, 36 characters.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// MarshalText makes an ID readable in JSON and in logs.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// IsZero tells whether the ID was never assigned.
func (id ID) IsZero() bool { return id == ID{} }

// Time is the moment, to a millisecond, at which the ID was made.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// ParseID reads the form that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, ErrBadID
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return ID{}, ErrBadID
	}
	return id, nil
}

// Generator makes IDs that only ever grow, even when the clock steps back.
// The zero value is ready; it may be used from several goroutines.
type Generator struct {
	mu   sync.Mutex
	last uint64 // milliseconds since 1970, shifted left by the 12 bits of rand_a that count within one
}

// New returns the next ID for a message received at now.
func (g *Generator) New(now time.Time) ID {
	var id ID
	rand.Read(id[8:]) // never fails (crypto/rand)

	tick := g.tick(uint64(now.UnixMilli()) << 12)
	binary.BigEndian.PutUint64(id[:8], tick>>12<<16|tick&0xfff)
	id[6] = id[6]&0x0f | 0x70 // version 7
	id[8] = id[8]&0x3f | 0x80 // variant
	return id
}

// Seen makes every later ID greater than id: a node that takes over calls it
// with what it finds on disk, so that a clock that runs behind can't reorder.
func (g *Generator) Seen(id ID) {
	high := binary.BigEndian.Uint64(id[:8])
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, high>>16<<12|high&0xfff)
}

func (g *Generator) tick(now uint64) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(now, g.last+1)
	return g.last
}

// NewPublicID returns an identifier of 128 random bits that nobody can guess,
// 22 characters that are valid in a SIP Call-ID and in an SMPP message_id.
func NewPublicID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

package sip

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"sync"
	"time"
)

// Why a nonce, or a use of it, isn't good.
var (
	errStaleNonce = errors.New("nonce is not ours or too old")
	errReplay     = errors.New("nonce count was used before")
	errTooMany    = errors.New("too many nonces in use")
)

// maxWindows is how many nonces may be in use: some 20 MB of windows.
const maxWindows = 256 << 10

const nonceShards = 16

// nonceID is what makes a nonce unique: the second in which it was made (four
// octets), the process that made it (four), and random octets.
type nonceID [16]byte

// inheritedFor is how long a nonce is good that an earlier process made. Which
// of its counts were used is forgotten, so it is good only where a replay does
// no harm: for messages, whose repeats the gate knows for longer than this.
const inheritedFor = 5 * time.Minute

func (id nonceID) made() time.Time {
	return time.Unix(int64(binary.BigEndian.Uint32(id[:4])), 0)
}

// nonces makes and checks nonces. A nonce is an HMAC over when it was made, so
// that a challenge costs no memory; only one that somebody has proved to be
// entitled to has state: the window of the nonce counts seen (RFC 7616 §3.4).
type nonces struct {
	lifetime time.Duration
	process  [4]byte   // random: tells our nonces from those of an earlier process
	macs     sync.Pool // of hash.Hash, keyed with the instance's secret
	shards   [nonceShards]nonceShard
}

type nonceShard struct {
	mu      sync.Mutex
	windows map[nonceID]window
	swept   time.Time
}

func newNonces(lifetime time.Duration, secret []byte) *nonces {
	n := &nonces{lifetime: lifetime}
	rand.Read(n.process[:]) // never fails (crypto/rand)
	n.macs.New = func() any { return hmac.New(sha256.New, secret) }
	for i := range n.shards {
		n.shards[i].windows = map[nonceID]window{}
	}
	return n
}

// make returns a new nonce for a realm: 43 characters.
func (n *nonces) make(realm string, now time.Time) string {
	var id nonceID
	binary.BigEndian.PutUint32(id[:], uint32(now.Unix()))
	copy(id[4:], n.process[:])
	rand.Read(id[8:]) // never fails (crypto/rand)
	mac := n.mac(id, realm)
	return base64.RawURLEncoding.EncodeToString(append(id[:], mac[:]...))
}

func (n *nonces) mac(id nonceID, realm string) (mac [16]byte) {
	h := n.macs.Get().(hash.Hash)
	defer n.macs.Put(h)
	h.Reset()
	var text [sha256.Size + 256]byte
	h.Write(append(append(text[:0], id[:]...), realm...))
	var sum [sha256.Size]byte
	copy(mac[:], h.Sum(sum[:0]))
	return mac
}

// check tells whether a nonce is ours and fresh: errStaleNonce if not.
func (n *nonces) check(nonce, realm string, now time.Time) (nonceID, error) {
	var id nonceID
	var b [33]byte
	if len(nonce) != base64.RawURLEncoding.EncodedLen(32) {
		return id, errStaleNonce
	}
	if _, err := base64.RawURLEncoding.Decode(b[:], []byte(nonce)); err != nil {
		return id, errStaleNonce
	}
	copy(id[:], b[:16])
	mac := n.mac(id, realm)
	age := now.Sub(id.made())
	if !hmac.Equal(mac[:], b[16:32]) || age > n.lifetime || age < -time.Minute {
		return id, errStaleNonce
	}
	return id, nil
}

// inherited tells whether an earlier process made a nonce, and if so whether it
// is still good for what may be repeated without harm.
func (n *nonces) inherited(id nonceID, now time.Time) (inherited, good bool) {
	return [4]byte(id[4:]) != n.process, now.Sub(id.made()) <= inheritedFor
}

// use notes a nonce count, once for each. Counts may come out of order, up to
// 128 apart. Called only for a request that was authenticated. A count of zero
// stands for a client of RFC 2069 that doesn't count: it may use a nonce once.
func (n *nonces) use(id nonceID, count uint32, now time.Time) error {
	s := &n.shards[id[15]%nonceShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	w, found := s.windows[id]
	if !found && !s.hasRoom(n.lifetime, now) {
		return errTooMany
	}
	if count == 0 && found || !w.add(max(count, 1)) {
		return errReplay
	}
	s.windows[id] = w
	return nil
}

// hasRoom makes room by forgetting nonces that are too old to be used. It looks
// through all of them at most once a second.
func (s *nonceShard) hasRoom(lifetime time.Duration, now time.Time) bool {
	full := len(s.windows) >= maxWindows/nonceShards
	if since := now.Sub(s.swept); since < time.Second || since < lifetime && !full {
		return !full
	}
	s.swept = now
	for id := range s.windows {
		if now.Sub(id.made()) > lifetime {
			delete(s.windows, id)
		}
	}
	return len(s.windows) < maxWindows/nonceShards
}

// window remembers which of the last 128 nonce counts were seen: bit i of seen
// stands for highest-i.
type window struct {
	highest uint32
	seen    [2]uint64
}

// add notes a count. It returns false if that was seen, or is too old to tell.
func (w *window) add(count uint32) bool {
	if count > w.highest {
		w.shift(count - w.highest)
		w.highest = count
	}
	behind := w.highest - count
	if behind >= 128 {
		return false
	}
	word, bit := &w.seen[behind/64], uint64(1)<<(behind%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (w *window) shift(n uint32) {
	switch {
	case n >= 128:
		w.seen = [2]uint64{}
	case n >= 64:
		w.seen = [2]uint64{0, w.seen[0] << (n - 64)}
	default:
		w.seen = [2]uint64{w.seen[0] << n, w.seen[1]<<n | w.seen[0]>>(64-n)}
	}
}

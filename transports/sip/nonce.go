package sip

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Why a nonce, or a use of it, isn't good.
var (
	errForeignNonce = errors.New("nonce is not ours")
	errStaleNonce   = errors.New("nonce is too old")
	errReplay       = errors.New("nonce count was used before")
)

const (
	nonceShards = 16
	// maxWindows is how many nonces may be in use: some 25 MB of windows. One
	// account has its share, so that it crowds out nobody but itself.
	maxWindows    = 256 << 10
	maxPerAccount = 4096
	// inheritedFor is how long a node takes nonces of who was active before it:
	// as long as a request that was under way is repeated, Timer F of RFC 3261
	// §17.1.2.2 and some.
	inheritedFor = 40 * time.Second
	sweepEvery   = 10 * time.Second
)

// nonceID is what makes a nonce unique: when it was made in microseconds (eight
// octets, no two alike), under which tenure (four), for which address and port
// (four), and for which source as the guard takes it (four).
type nonceID [20]byte

// nonceOctets is how long a nonce is before it is written in base64: its ID and
// 16 octets of a MAC over that and the realm.
const nonceOctets = len(nonceID{}) + 16

func (id nonceID) micros() int64   { return int64(binary.BigEndian.Uint64(id[:8])) }
func (id nonceID) made() time.Time { return time.UnixMicro(id.micros()) }

// tenures has the nonces of the tenure under which this node works. It keeps
// none of an earlier one: who was active meanwhile took nonces that aren't in
// its windows.
type tenures struct {
	lifetime time.Duration
	opened   time.Time // when the door was: its windows know of nothing before
	begin    sync.Mutex
	current  atomic.Pointer[nonces]
}

// under returns the nonces of a tenure. Those of a newer one stay what they are:
// a request that has asked for its tenure just before has come too late for it.
func (t *tenures) under(tenure plugin.Tenure) *nonces {
	if n := t.current.Load(); n != nil && n.fence >= tenure.Fence {
		return n
	}
	t.begin.Lock()
	defer t.begin.Unlock()
	if n := t.current.Load(); n != nil && n.fence >= tenure.Fence {
		return n
	}
	n := newNonces(t.lifetime, tenure, t.opened)
	t.current.Store(n)
	return n
}

// nonces makes and checks the nonces of one tenure. A nonce is an HMAC over when
// it was made, so that a challenge costs no memory; only one that somebody has
// proved to be entitled to has state: the window of the nonce counts seen (RFC
// 7616 §3.4).
type nonces struct {
	lifetime time.Duration
	fence    plugin.Fence
	began    time.Time // when this node, and this door, began to take traffic
	// mark is random: it tells the nonces of this tenure, and of this door, from
	// those of which the windows know nothing.
	mark   [4]byte
	last   atomic.Int64
	macs   sync.Pool // of *keyed, with the installation's secret
	shards [nonceShards]nonceShard
	seed   maphash.Seed

	pardons pardons
}

// nonceShard has the windows of some of the accounts.
type nonceShard struct {
	mu       sync.Mutex
	windows  map[nonceID]window
	accounts map[string]*share
	swept    time.Time
}

// share is what an account has in use.
type share struct {
	order []nonceID // that have a window, the one used first in front
	// spent is when the newest nonce was made whose window was given up. Older
	// ones without a window are stale: they may have been used.
	spent int64
}

// newNonces begins without windows. opened is when the door was: within one
// tenure a reload may open it anew.
func newNonces(lifetime time.Duration, tenure plugin.Tenure, opened time.Time) *nonces {
	n := &nonces{lifetime: lifetime, fence: tenure.Fence, began: tenure.Since, seed: maphash.MakeSeed()}
	if opened.After(n.began) {
		n.began = opened
	}
	rand.Read(n.mark[:]) // never fails (crypto/rand)
	n.macs.New = func() any { return &keyed{Hash: hmac.New(sha256.New, tenure.Key[:])} }
	for i := range n.shards {
		n.shards[i].windows = map[nonceID]window{}
		n.shards[i].accounts = map[string]*share{}
	}
	return n
}

// make returns a new nonce for a realm, for who sends from an address and port
// that belong to a source: 48 characters.
func (n *nonces) make(realm, address, source string, now time.Time) string {
	var id nonceID
	binary.BigEndian.PutUint64(id[:], uint64(n.tick(now.UnixMicro())))
	copy(id[8:], n.mark[:])
	tag := n.mac(nonceID{}, address)
	copy(id[12:16], tag[:])
	tag = n.mac(nonceID{}, source)
	copy(id[16:], tag[:])
	mac := n.mac(id, realm)
	return base64.RawURLEncoding.EncodeToString(append(id[:], mac[:]...))
}

// tick returns a time that was never returned before.
func (n *nonces) tick(now int64) int64 {
	for {
		last := n.last.Load()
		next := max(now, last+1)
		if n.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

// keyed is a hash with a key, and room to work in.
type keyed struct {
	hash.Hash
	text, sum []byte
}

func (n *nonces) mac(id nonceID, text string) (mac [16]byte) {
	k := n.macs.Get().(*keyed)
	defer n.macs.Put(k)
	k.Reset()
	k.text = append(append(k.text[:0], id[:]...), text...)
	k.Write(k.text)
	k.sum = k.Sum(k.sum[:0])
	copy(mac[:], k.sum)
	return mac
}

// check tells whether a nonce is ours and fresh: errForeignNonce or
// errStaleNonce if not.
func (n *nonces) check(nonce, realm string, now time.Time) (nonceID, error) {
	var id nonceID
	var b [nonceOctets + 1]byte
	if len(nonce) != base64.RawURLEncoding.EncodedLen(nonceOctets) {
		return id, errForeignNonce
	}
	if _, err := base64.RawURLEncoding.Decode(b[:], []byte(nonce)); err != nil {
		return id, errForeignNonce
	}
	copy(id[:], b[:])
	mac := n.mac(id, realm)
	if !hmac.Equal(mac[:], b[len(id):nonceOctets]) {
		return id, errForeignNonce
	}
	if age := now.Sub(id.made()); age > n.lifetime || age < -time.Minute {
		return id, errStaleNonce
	}
	return id, nil
}

// isOf tells whether a nonce, which is ours, was made for a source.
func (n *nonces) isOf(id nonceID, source string) bool {
	tag := n.mac(nonceID{}, source)
	return hmac.Equal(tag[:4], id[16:])
}

// checkFrom is check for a request from somewhere. Over UDP errForeignNonce is
// also a nonce that didn't go to where the request comes from: who writes
// somebody else's address gets nothing that he could answer, so he can neither
// guess in the other's name nor have him locked out.
//
// Whoever gets errForeignNonce is to be challenged with stale=true, so that his
// client tries again without asking him. RFC 7616 §3.3 would have us look at the
// response first; but then whatever somebody makes up for a nonce would do to
// test a password.
func (n *nonces) checkFrom(o *origin, digest *plugin.Digest, now time.Time) (nonceID, error) {
	id, err := n.check(digest.Nonce, digest.Realm, now)
	if source := o.sourceOctets(); err != errForeignNonce && o.mayBeForged && !n.isOf(id, string(source[:])) {
		return id, errForeignNonce
	}
	return id, err
}

// inherited tells whether a nonce was made by who was active before, on this
// node or another, and if so whether it is still good. Which of its counts were
// used isn't known, and a digest doesn't cover the body. So it is good only for
// as long as a request may be repeated that was under way at the change, and
// only from the address and port that it was made for.
func (n *nonces) inherited(id nonceID, address string, now time.Time) (inherited, good bool) {
	if [4]byte(id[8:12]) == n.mark {
		return false, true
	}
	tag := n.mac(nonceID{}, address)
	return true, now.Sub(n.began) <= inheritedFor && hmac.Equal(tag[:4], id[12:16])
}

// use notes a nonce count, once for each. Counts may come out of order, up to
// 128 apart. Called only for a request that was authenticated. A count of zero
// stands for a client of RFC 2069 that doesn't count: it may use a nonce once.
// An account that uses too many nonces at once loses its oldest: errStaleNonce.
func (n *nonces) use(account string, id nonceID, count uint32, now time.Time) error {
	s := &n.shards[maphash.String(n.seed, account)%nonceShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(n.lifetime, now)
	w, found := s.windows[id]
	if !found {
		return s.open(account, id, count)
	}
	if count == 0 || !w.add(count) {
		return errReplay
	}
	s.windows[id] = w
	return nil
}

// open makes the window of a nonce that is used for the first time.
func (s *nonceShard) open(account string, id nonceID, count uint32) error {
	own := s.accounts[account]
	if own == nil {
		own = &share{}
		s.accounts[account] = own
	}
	if id.micros() <= own.spent {
		return errStaleNonce
	}
	switch {
	case len(own.order) >= maxPerAccount:
		s.giveUp(own)
	case len(s.windows) >= maxWindows/nonceShards:
		s.giveUp(s.anybody())
	}
	var w window
	w.add(max(count, 1))
	s.windows[id] = w
	own.order = append(own.order, id)
	return nil
}

// anybody returns an account that has a window, at random.
func (s *nonceShard) anybody() *share {
	for _, account := range s.accounts {
		if len(account.order) > 0 {
			return account
		}
	}
	return nil // can't be: somebody has the windows
}

// giveUp ends an account's oldest window before its time. Its nonce, and those
// of the account that are older, are spent.
func (s *nonceShard) giveUp(account *share) {
	account.spent = max(account.spent, account.order[0].micros())
	s.forget(account)
}

func (s *nonceShard) forget(account *share) {
	delete(s.windows, account.order[0])
	account.order = account.order[1:]
}

// sweep removes windows whose nonces are too old to be used, and accounts that
// have nothing left to remember. It looks through all of them now and then.
func (s *nonceShard) sweep(lifetime time.Duration, now time.Time) {
	if now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept = now
	before := now.Add(-lifetime).UnixMicro()
	for name, account := range s.accounts {
		for len(account.order) > 0 && account.order[0].micros() < before {
			s.forget(account)
		}
		if len(account.order) == 0 && account.spent < before {
			delete(s.accounts, name)
		}
	}
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

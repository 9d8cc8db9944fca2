package sip

import (
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// What wrong passwords cost. Each name is locked out by itself and only where
// the wrong ones came from, so that nobody can silence a subscriber who is
// elsewhere, nor others who share his address. Whoever has proved an account on
// a flow is never locked out of it there.
const (
	// freeTries are the wrong answers in a row for one name from one source that
	// cost nothing: a phone asks its user again, or has a typing error.
	freeTries = 4
	// underAttack is after how many wrong ones for one name, from wherever, each
	// source that hasn't proved it has one try only.
	underAttack = 100

	backOffMin = 2 * time.Second
	backOffMax = 5 * time.Minute
	// forgetAfter is how long a wrong answer counts after the last one.
	forgetAfter = 30 * time.Minute

	// A source may try nameBurst names that it hasn't proved, and then one every
	// namePause. Behind a NAT there are many phones; few of them have a wrong
	// password that wasn't there before.
	nameBurst = 50
	namePause = 2 * time.Second

	// knownFor is how long a source is known as that of an account.
	knownFor = 30 * 24 * time.Hour

	// Places in the tables: some 24 MB if all are used.
	maxProofs   = 256 << 10 // of flows, and as many of sources
	maxSuspects = 64 << 10  // names from a source, and as many names
)

// guard makes guessing passwords slow. It has no list of accounts: a name that
// nobody has is guarded like any other, so that it tells nothing about who
// exists.
type guard struct {
	seed     maphash.Seed
	proofFor time.Duration    // how long a flow is known as that of an account
	flows    *table[struct{}] // by name and flow: which has proved it
	known    *table[struct{}] // by name and source: likewise
	suspects *table[suspect]  // by name and source
	names    *table[suspect]  // by name: wrong answers from wherever
	sources  *table[bucket]   // by source: names that it tried
	lockouts *plugin.Counter  // of a name from a source
	slowed   *plugin.Counter  // tries of a source with too many names
	log      *notices
}

// suspect is what wrong answers came for.
type suspect struct {
	wrong int   // in a row
	until int64 // locked out, in Unix nanoseconds
}

// newGuard remembers flows for as long as a registration lasts: each client
// proves itself anew before that is over.
func newGuard(proofFor time.Duration, m *plugin.Metrics, log *slog.Logger) *guard {
	counter := func(by string) *plugin.Counter {
		return m.Counter("sip_lockouts_total", "Lockouts of a name from the source of wrong passwords (account), and requests of a source that tries too many names (names).",
			plugin.Label{Name: "by", Value: by})
	}
	return &guard{
		seed:     maphash.MakeSeed(),
		proofFor: proofFor,
		flows:    newTable[struct{}](maxProofs),
		known:    newTable[struct{}](maxProofs),
		suspects: newTable[suspect](maxSuspects),
		names:    newTable[suspect](maxSuspects),
		sources:  newTable[bucket](maxSources),
		lockouts: counter("account"),
		slowed:   counter("names"),
		log:      &notices{log: log},
	}
}

// try is an attempt to prove an account.
type try struct {
	name   string // of the account, as far as it is known before it is proved
	origin *origin

	flow, pair, everywhere, source uint64 // keys
}

// try returns the keys of an attempt. A name with and without the realm behind
// it is the same.
func (g *guard) try(d *plugin.Digest, o *origin) try {
	name := d.Username
	if user, domain, found := strings.Cut(name, "@"); found && strings.EqualFold(domain, d.Realm) {
		name = user
	}
	source := o.sourceOctets()
	t := try{name: name, origin: o}
	var h maphash.Hash
	h.SetSeed(g.seed)
	writeField(&h, name)
	writeField(&h, d.Realm)
	t.everywhere = keyOf(h.Sum64())
	h.Write(source[:])
	t.pair = keyOf(h.Sum64())
	address, port := o.address.Addr().As16(), o.address.Port()
	h.Write(address[:])
	h.WriteByte(byte(port >> 8))
	h.WriteByte(byte(port))
	h.WriteString(o.flow)
	t.flow = keyOf(h.Sum64())
	t.source = keyOf(maphash.Bytes(g.seed, source[:]))
	return t
}

func writeField(h *maphash.Hash, s string) {
	h.WriteString(s)
	h.WriteByte(0)
}

// wait returns how long an attempt isn't even to be looked at; 0: it is.
func (g *guard) wait(t *try, now time.Time) time.Duration {
	if g.hasProved(t, now) {
		return 0
	}
	s, places := g.suspects.lock(t.pair)
	p := find(places, t.pair)
	isSuspect := p != nil && p.age(now) <= forgetAfter
	var left time.Duration
	if isSuspect {
		left = min(time.Duration(p.value.until-now.UnixNano()), backOffMax) // clocks are put back
	}
	s.mu.Unlock()
	if left > 0 {
		return left
	}
	if isSuspect || isFresh(g.known, t.pair, knownFor, now) {
		return 0
	}
	return g.waitForNames(t, now)
}

// waitForNames returns how long a source must wait before it tries another name;
// 0: it needn't. Peers bring many.
func (g *guard) waitForNames(t *try, now time.Time) time.Duration {
	if t.origin.isPeer() {
		return 0
	}
	s, places := g.sources.lock(t.source)
	defer s.mu.Unlock()
	p := find(places, t.source)
	if p == nil {
		return 0
	}
	wait := p.value.wait(now, namePause, nameBurst)
	if wait > 0 {
		g.slowed.Inc()
	}
	return wait
}

// wrong notes a wrong answer. It returns how long the source must wait before it
// tries another name; 0: it needn't. As long as it must, a wrong answer is to be
// told like one that isn't looked at: or it would learn which names have proved
// themselves from there.
func (g *guard) wrong(t *try, now time.Time) time.Duration {
	if g.hasProved(t, now) {
		return 0
	}
	free := freeTries
	if g.count(g.names, t.everywhere, now) > underAttack && !isFresh(g.known, t.pair, knownFor, now) {
		free = 0
	}
	s, places := g.suspects.lock(t.pair)
	p := openedSuspect(places, t.pair, now)
	p.wrong++
	wrong, locked := p.wrong, time.Duration(0)
	if wrong > free {
		locked = backOff(wrong - free - 1)
		p.until = now.Add(locked).UnixNano()
	}
	s.mu.Unlock()
	if locked > 0 {
		g.lockouts.Inc()
		g.log.lockout(t, wrong, locked, now)
	}
	if wrong == 1 {
		g.countName(t, now)
	}
	return g.waitForNames(t, now)
}

// countName takes a name from what a source may try.
func (g *guard) countName(t *try, now time.Time) {
	s, places := g.sources.lock(t.source)
	defer s.mu.Unlock()
	opened(places, t.source, now).value.take(now, namePause, nameBurst)
}

func (g *guard) count(in *table[suspect], key uint64, now time.Time) int {
	s, places := in.lock(key)
	defer s.mu.Unlock()
	p := openedSuspect(places, key, now)
	p.wrong++
	return p.wrong
}

// openedSuspect returns what is known under a key, unless it is forgotten.
func openedSuspect(places []place[suspect], key uint64, now time.Time) *suspect {
	if p := find(places, key); p != nil && p.age(now) > forgetAfter {
		p.value = suspect{}
	}
	return &opened(places, key, now).value
}

// right notes a right answer: what was wrong before was a slip.
func (g *guard) right(t *try, now time.Time) {
	if t.origin.isClients {
		note(g.flows, t.flow, now)
	}
	note(g.known, t.pair, now)
	s, places := g.suspects.lock(t.pair)
	defer s.mu.Unlock()
	if p := find(places, t.pair); p != nil {
		*p = place[suspect]{}
	}
}

// hasProved tells whether an account was proved on the flow of an attempt.
func (g *guard) hasProved(t *try, now time.Time) bool {
	return t.origin.isClients && isFresh(g.flows, t.flow, g.proofFor, now)
}

func note(in *table[struct{}], key uint64, now time.Time) {
	s, places := in.lock(key)
	defer s.mu.Unlock()
	opened(places, key, now)
}

func isFresh(in *table[struct{}], key uint64, lifetime time.Duration, now time.Time) bool {
	s, places := in.lock(key)
	defer s.mu.Unlock()
	p := find(places, key)
	return p != nil && p.age(now) <= lifetime
}

// backOff is the time after so many wrong answers beyond the first that isn't
// free.
func backOff(more int) time.Duration {
	const doublings = 8 // 2 s becomes more than 5 minutes
	return min(backOffMin<<min(more, doublings), backOffMax)
}

// Limits of what the log says about lockouts.
const (
	noticeBurst = 20
	noticePause = 3 * time.Second
	maxShown    = 64 // octets of a name
)

// notices has one line for each lockout in the log, and a bound for those of a
// whole army: it must not become a flood of its own.
type notices struct {
	log    *slog.Logger
	mu     sync.Mutex
	lines  bucket
	unsaid int
}

func (n *notices) lockout(t *try, wrong int, locked time.Duration, now time.Time) {
	n.mu.Lock()
	wait := n.lines.take(now, noticePause, noticeBurst)
	unsaid := n.unsaid
	n.unsaid++
	if wait == 0 {
		n.unsaid = 0
	}
	n.mu.Unlock()
	if wait == 0 {
		n.log.Warn("account locked out from a source: too many wrong passwords", "account", t.name[:min(len(t.name), maxShown)],
			"source", t.origin.source, "wrong", wrong, "for", locked, "lockouts_not_shown", unsaid)
	}
}

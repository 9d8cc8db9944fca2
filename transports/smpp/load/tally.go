package load

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// tally knows of each message whether it was acknowledged and whether it
// arrived. All connections write into one.
//
// Losses, duplicates and order are counted from the first message on; what is
// measured - answers, rates, latencies - begins with begin.
type tally struct {
	origin  time.Time // times of messages are counted from here
	foreign bool      // somebody else sends: what arrives is the first we hear of it

	mu    sync.Mutex
	pairs []pairTally

	began       time.Time // zero: still warming up
	sent        uint64
	statuses    map[pdu.Status]uint64
	timeouts    uint64
	answers     latencies
	lastAnswer  time.Time // of those that count and say ESME_ROK
	taken       uint64    // by the gateway, of those that are measured
	arrivals    latencies
	counted     uint64 // arrivals since began
	lastArrival time.Time

	acked      uint64 // from the first message on, as all below
	owed       uint64 // acknowledged and not yet arrived
	arrived    uint64
	duplicates uint64
	disordered uint64
	damaged    uint64
	strays     uint64 // messages of somebody else
}

// pairTally is what is known of the messages of one sender to one recipient.
type pairTally struct {
	fates   []fate // by sequence number
	highest int    // the greatest sequence number that arrived, plus one
}

// fate is what became of one message.
type fate struct {
	sent     time.Duration // after origin; 0: it isn't one of those that are measured
	acked    bool
	answered bool
	arrived  bool
}

func newTally(foreign bool, now time.Time) *tally {
	return &tally{foreign: foreign, origin: now.Add(-time.Nanosecond), statuses: map[pdu.Status]uint64{}}
}

// begin ends the warming up.
func (t *tally) begin(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began = now
}

// maxAhead is how far the messages of a pair may have come out of order, so that
// nobody makes us remember more.
const maxAhead = 100_000

// isWrongLocked tells whether a message can't have been sent.
func (t *tally) isWrongLocked(pair, sequence int) bool {
	known := 0
	if pair < len(t.pairs) {
		known = len(t.pairs[pair].fates)
	}
	if t.foreign {
		return sequence > known+maxAhead
	}
	return sequence >= known
}

// fateLocked finds a message, or makes room for it.
func (t *tally) fateLocked(pair, sequence int) (*pairTally, *fate) {
	t.pairs = grow(t.pairs, pair+1)
	p := &t.pairs[pair]
	p.fates = grow(p.fates, sequence+1)
	return p, &p.fates[sequence]
}

func grow[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	return slices.Grow(s, n-len(s))[:n]
}

// send notes that a message goes out, and tells whether it is one of those that
// are measured.
func (t *tally) send(pair, sequence int, now time.Time) (measured bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, f := t.fateLocked(pair, sequence)
	if t.began.IsZero() {
		return false
	}
	f.sent = now.Sub(t.origin)
	t.sent++
	return true
}

// answer takes a response; false: it isn't the first one to that message.
func (t *tally) answer(pair, sequence int, status pdu.Status, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, f := t.fateLocked(pair, sequence)
	if f.answered {
		return false
	}
	f.answered = true
	if status == wire.ROK {
		t.acknowledgeLocked(f)
	}
	if f.sent == 0 {
		return true
	}
	t.statuses[status]++
	if status == wire.ROK {
		t.answers.add(now.Sub(t.origin) - f.sent)
		t.taken++
		t.lastAnswer = now
	}
	return true
}

func (t *tally) acknowledgeLocked(f *fate) {
	f.acked = true
	t.acked++
	if !f.arrived {
		t.owed++
	}
}

// silent takes requests that had no response in time.
func (t *tally) silent(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timeouts += uint64(n)
}

// arrive takes a message at the SMSC.
func (t *tally) arrive(pair, sequence int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastArrival = now
	if t.isWrongLocked(pair, sequence) {
		t.damaged++
		return
	}
	p, f := t.fateLocked(pair, sequence)
	if f.arrived {
		t.duplicates++
		return
	}
	f.arrived = true
	t.arrived++
	if f.acked {
		t.owed--
	}
	if sequence < p.highest {
		t.disordered++
	}
	p.highest = max(p.highest, sequence+1)
	if !t.began.IsZero() {
		t.counted++
	}
	if f.sent > 0 {
		t.arrivals.add(now.Sub(t.origin) - f.sent)
	}
}

// refuse counts what arrives at the SMSC and isn't a whole message of this run.
func (t *tally) refuse(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if why == errDamaged {
		t.damaged++
		return
	}
	t.strays++
}

// settled tells whether everything that was acknowledged has arrived, or
// nothing has for so long, since at least since, that the rest is lost.
func (t *tally) settled(since, now time.Time, patience time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owed == 0 {
		return true
	}
	if t.lastArrival.After(since) {
		since = t.lastArrival
	}
	return now.Sub(since) >= patience
}

// quiet tells whether something has arrived, and then nothing for so long.
func (t *tally) quiet(now time.Time, patience time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.arrived > 0 && now.Sub(t.lastArrival) >= patience
}

// total is how many messages have arrived.
func (t *tally) total() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.arrived
}

// latencies are times in microseconds, each of them.
type latencies struct{ micros []uint32 }

func (l *latencies) add(d time.Duration) {
	l.micros = append(l.micros, uint32(min(max(d.Microseconds(), 0), math.MaxUint32)))
}

// summary sorts them; zeros if there are none.
func (l *latencies) summary() quantiles {
	if len(l.micros) == 0 {
		return quantiles{}
	}
	slices.Sort(l.micros)
	at := func(q float64) float64 {
		rank := int(math.Ceil(q*float64(len(l.micros)))) - 1
		return float64(l.micros[max(rank, 0)]) / 1000
	}
	return quantiles{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

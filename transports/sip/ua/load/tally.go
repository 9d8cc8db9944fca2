package load

import (
	"sync"
	"time"
)

// tally knows of each message whether it was acknowledged and whether it
// arrived. All sockets write into one: a call takes about 50 ns.
//
// Losses, duplicates and order are counted from the first message on; what is
// measured - answers, rates, latencies - begins with begin.
type tally struct {
	mu    sync.Mutex
	pairs []pairTally

	began      time.Time // zero: still warming up
	sent       uint64
	finals     map[int]uint64
	timeouts   uint64
	latencies  histogram
	successes  uint64
	lastFinal  time.Time // of the successes that count
	acked      uint64    // from the first message on, as all below
	owed       uint64    // acknowledged and not yet arrived
	arrived    uint64
	duplicates uint64
	disordered uint64
	wrong      uint64 // at another contact, or with another body
	strays     uint64 // messages of somebody else

	// The longest times without a success, and without an arrival, between two.
	lastSuccess           time.Time
	answerGap, arrivalGap time.Duration

	counting    time.Time // since when arrivals are counted for their rate
	counted     uint64
	lastArrival time.Time
}

// pairTally is what is known of the messages of one sender to one recipient.
type pairTally struct {
	fates   []fate // by sequence number
	highest int    // the greatest sequence number that arrived, plus one
}

// fate is what became of one message.
type fate struct {
	transaction uint32 // under which it arrived first; 0: it didn't
	acked       bool
}

func newTally(pairs int) *tally {
	return &tally{pairs: make([]pairTally, pairs), finals: map[int]uint64{}}
}

// begin ends the warming up.
func (t *tally) begin(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began = now
}

// send gives out a pair's next sequence number, and tells whether the message
// is one of those that are measured.
func (t *tally) send(pair int) (sequence int, measured bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.pairs[pair]
	p.fates = append(p.fates, fate{})
	measured = !t.began.IsZero()
	if measured {
		t.sent++
	}
	return len(p.fates) - 1, measured
}

// final takes a final response that came after some time.
func (t *tally) final(pair, sequence, code int, measured bool, latency time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if success(code) {
		t.acknowledge(&t.pairs[pair].fates[sequence])
		t.answerGap = longer(t.answerGap, t.lastSuccess, now)
		t.lastSuccess = now
	}
	if !measured {
		return
	}
	t.finals[code]++
	t.latencies.add(latency)
	if success(code) {
		t.successes++
		t.lastFinal = now
	}
}

func success(code int) bool { return code/100 == 2 }

func (t *tally) acknowledge(f *fate) {
	f.acked = true
	t.acked++
	if f.transaction == 0 {
		t.owed++
	}
}

// timeout takes a message that had no final response in time.
func (t *tally) timeout(measured bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if measured {
		t.timeouts++
	}
}

// arrive takes a message at its recipient. The same one again is a
// retransmission if it is of the same transaction, and else a duplicate.
func (t *tally) arrive(pair, sequence int, transaction uint32, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pair >= len(t.pairs) || sequence >= len(t.pairs[pair].fates) {
		t.wrong++
		return
	}
	p := &t.pairs[pair]
	f := &p.fates[sequence]
	transaction = max(transaction, 1)
	if f.transaction != 0 {
		if f.transaction != transaction {
			t.duplicates++
		}
		return
	}
	f.transaction = transaction
	t.arrived++
	if f.acked {
		t.owed--
	}
	if sequence < p.highest {
		t.disordered++
	}
	p.highest = max(p.highest, sequence+1)
	t.arrivalGap = longer(t.arrivalGap, t.lastArrival, now)
	t.lastArrival = now
	if !t.counting.IsZero() {
		t.counted++
	}
}

// longer is the longest gap once there is another one, since something happened
// last.
func longer(longest time.Duration, last, now time.Time) time.Duration {
	if last.IsZero() {
		return longest
	}
	return max(longest, now.Sub(last))
}

// misdelivered counts a message at the wrong contact or with another body.
func (t *tally) misdelivered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong++
}

func (t *tally) stray() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.strays++
}

// countArrivals begins to count arrivals for their rate.
func (t *tally) countArrivals(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counting, t.lastArrival = now, now
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

// missing is how many were acknowledged and have not arrived.
func (t *tally) missing() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.owed
}

// perSecond is how many a second that is; 0 if no time passed.
func perSecond(n uint64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

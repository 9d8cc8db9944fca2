package client

import (
	"context"
	"math"
	"sync"
	"time"
)

const (
	// burst is how far PDUs may run ahead of the rate: the SMSCs count them by
	// the second.
	burst = 100 * time.Millisecond
	// A lowered rate grows by recovery in a second until it is what it was before,
	// and then by probing: the SMSC may take more than it did.
	recovery = 1.1
	probing  = 2
	// slowest is the lowest rate, in PDUs a second, unless less is configured. Who
	// wants less still than that gets it by the pauses.
	slowest = 5
	// boundless is a rate, in PDUs a second, from which on none is kept.
	boundless = 100_000

	firstPause = 250 * time.Millisecond
	lastPause  = 4 * time.Second
	maxStrikes = 4 // after which the pause is lastPause
)

// pace is how fast PDUs go to an SMSC: at the configured rate, and slower when
// it complains: the rate is halved, and comes back by and by. It is one for all
// binds of an instance, since an SMSC counts what a system_id sends.
type pace struct {
	limit float64 // PDUs a second as configured; +Inf: none

	mu      sync.Mutex
	rate    float64   // at the time of slowed; it has grown since
	former  float64   // the rate that was too much
	slowed  time.Time // when the SMSC last complained and the rate was lowered
	strikes int       // how often that was since it last took something
	until   time.Time // nothing goes before
	next    time.Time // when a PDU would go if all went evenly

	// What the SMSC took in the running second and in the one before: so much it
	// can take when it complains for the first time.
	second  time.Time
	current int
	before  int
}

// newPace returns the pace of so many PDUs a second; 0: as fast as they come.
func newPace(rate float64) *pace {
	if rate == 0 {
		rate = math.Inf(1)
	}
	return &pace{limit: rate, rate: rate}
}

// wait waits until a PDU may go. If that took longer than ctx lasts, less what is
// left for the answer, the PDU has no turn: it returns false and how long it would
// have been.
func (p *pace) wait(ctx context.Context, left time.Duration) (turn time.Duration, ok bool) {
	now := time.Now()
	latest := now.Add(time.Hour)
	if deadline, ok := ctx.Deadline(); ok {
		latest = deadline.Add(-left)
	}
	at, ok := p.reserve(now, latest)
	turn = at.Sub(now)
	return turn, ok && pause(ctx, turn)
}

// pause waits, and returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reserve returns when the next PDU may go, and makes that its turn, unless it is
// too late.
func (p *pace) reserve(now, latest time.Time) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := now
	if at.Before(p.until) {
		at = p.until
	}
	rate := p.now(now)
	if math.IsInf(rate, 1) {
		return at, isInTime(at, now, latest)
	}
	next := p.next
	if next.Before(at) {
		next = at
	}
	if turn := next.Add(-burst); at.Before(turn) {
		at = turn
	}
	if !isInTime(at, now, latest) {
		return at, false
	}
	p.next = next.Add(time.Duration(float64(time.Second) / rate))
	return at, true
}

// isInTime: what needn't wait goes, however late it is.
func isInTime(at, now, latest time.Time) bool { return !at.After(now) || !at.After(latest) }

// now is the rate at a time.
func (p *pace) now(now time.Time) float64 {
	if p.rate == p.limit {
		return p.rate
	}
	grown := p.rate * math.Pow(recovery, now.Sub(p.slowed).Seconds())
	if grown > p.former {
		since := now.Sub(p.slowed).Seconds() - math.Log(p.former/p.rate)/math.Log(recovery)
		grown = p.former * math.Pow(probing, since)
	}
	if grown >= p.limit || grown >= boundless {
		p.rate = p.limit
		return p.limit
	}
	return grown
}

// taken notes that the SMSC has taken a PDU.
func (p *pace) taken(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turnSecond(now)
	p.current++
	if now.After(p.until) {
		p.strikes = 0
	}
}

func (p *pace) turnSecond(now time.Time) {
	switch passed := now.Sub(p.second); {
	case passed < time.Second:
		return
	case passed < 2*time.Second:
		p.before, p.second = p.current, p.second.Add(time.Second)
	default:
		p.before, p.second = 0, now
	}
	p.current = 0
}

// throttled notes that the SMSC has refused a PDU that was sent at a time because
// it comes too fast. What was under way when it complained before says nothing
// new.
func (p *pace) throttled(sent, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent.Before(p.until) {
		return
	}
	p.turnSecond(now)
	taken := float64(max(p.current, p.before))
	rate := p.now(now)
	if math.IsInf(rate, 1) || taken > 0 && taken < rate {
		rate = taken
	}
	least := min(slowest, p.limit)
	p.former = max(rate, least)
	p.rate, p.slowed = max(rate/2, least), now
	p.until = now.Add(min(firstPause<<p.strikes, lastPause))
	p.next = p.until
	p.strikes = min(p.strikes+1, maxStrikes)
}

// perSecond is the rate for whoever looks at the metrics; 0: there is none.
func (p *pace) perSecond() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rate := p.now(time.Now()); !math.IsInf(rate, 1) {
		return rate
	}
	return 0
}

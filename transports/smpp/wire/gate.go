package wire

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// How far a rate may be caught up with after a pause: ours as much as timers are
// late, the peer's as much as one who counts by seconds sends at once.
const (
	outBurst = 10 * time.Millisecond
	inBurst  = time.Second
)

// pace is a rate. Its zero value is none.
type pace struct {
	interval time.Duration // 0: unlimited
	burst    time.Duration
	next     time.Time // before which nothing goes
}

// limit sets how much may go a second; 0: any number.
func (p *pace) limit(rate float64, burst time.Duration) {
	p.interval, p.burst = 0, burst
	if rate > 0 {
		p.interval = time.Duration(float64(time.Second) / rate)
	}
}

// wait is how long the next has to wait; nothing if it may go.
func (p *pace) wait(now time.Time) time.Duration { return max(0, p.next.Sub(now)) }

// take notes that one went.
func (p *pace) take(now time.Time) {
	if p.interval == 0 {
		return
	}
	if earliest := now.Add(-p.burst); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(p.interval)
}

// pause lets nothing go for d; a longer pause stays.
func (p *pace) pause(now time.Time, d time.Duration) {
	if until := now.Add(d); p.next.Before(until) {
		p.next = until
	}
}

// gate lets our requests out: as many as the window has room for, and as fast
// as the rate allows, in the order in which they came.
type gate struct {
	window  int
	inUse   int
	pace    pace
	waiting []*waiter
	timer   *time.Timer // when the pace lets the first of them go; nil: never needed yet
}

// waiter is a request that waits for its turn.
type waiter struct {
	body  Body
	tlvs  TLVs
	paced bool
	turn  chan started // has room for what comes once
}

// started is a request that was sent, or why it wasn't. Both nil: nothing
// answers it.
type started struct {
	call *call
	err  error
}

// wait is how long the next request has to wait for its pace, if there is room
// for it in the window.
func (g *gate) wait(paced bool, now time.Time) (d time.Duration, room bool) {
	if paced {
		d = g.pace.wait(now)
	}
	return d, g.inUse < g.window
}

// Slow lets no submit_sm, submit_multi, deliver_sm or data_sm out for d, from
// now: the peer has said ESME_RTHROTTLED. A longer pause that is in force stays.
func (s *Session) Slow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate.pace.pause(time.Now(), d)
}

// start sends a request when its turn has come.
func (s *Session) start(ctx context.Context, b Body, t TLVs) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	c, w, err := s.enter(b, t)
	if w == nil {
		return c, err
	}
	select {
	case begun := <-w.turn:
		return begun.call, begun.err
	case <-ctx.Done():
		return s.withdraw(w, ctx.Err())
	}
}

// enter sends a request, or returns a waiter if it isn't its turn.
func (s *Session) enter(b Body, t TLVs) (*call, *waiter, error) {
	paced := isPaced(b.id())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving {
		return nil, nil, s.unsentLocked()
	}
	if len(s.gate.waiting) == 0 {
		now := time.Now()
		if d, room := s.gate.wait(paced, now); room && d == 0 {
			c, err := s.sendLocked(b, t, paced, now)
			return c, nil, err
		}
	}
	w := &waiter{body: b, tlvs: t, paced: paced, turn: make(chan started, 1)}
	s.gate.waiting = append(s.gate.waiting, w)
	s.advanceLocked()
	return nil, w, nil
}

// unsentLocked is the error of a request that can't go any more.
func (s *Session) unsentLocked() error {
	why := s.why
	if why == nil {
		why = ErrUnbound
	}
	return fmt.Errorf("%w: %w", ErrUnsent, why)
}

// withdraw gives up waiting. If the turn has come in the meantime, the request
// is sent.
func (s *Session) withdraw(w *waiter, why error) (*call, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.gate.waiting, w)
	if i < 0 {
		begun := <-w.turn
		return begun.call, begun.err
	}
	s.gate.waiting = slices.Delete(s.gate.waiting, i, i+1)
	s.advanceLocked()
	return nil, fmt.Errorf("%w: %w", ErrUnsent, why)
}

// releaseLocked gives the place of a request in the window to the next.
func (s *Session) releaseLocked() {
	s.gate.inUse--
	s.advanceLocked()
}

// advanceLocked sends those whose turn has come: itself, so that nobody
// overtakes them while they wake up.
func (s *Session) advanceLocked() {
	g := &s.gate
	for len(g.waiting) > 0 {
		now, first := time.Now(), g.waiting[0]
		d, room := g.wait(first.paced, now)
		if !room {
			return
		}
		if d > 0 {
			s.wakeGateLocked(d)
			return
		}
		g.waiting = slices.Delete(g.waiting, 0, 1)
		c, err := s.sendLocked(first.body, first.tlvs, first.paced, now)
		first.turn <- started{c, err}
	}
}

// wakeGateLocked advances again in a while.
func (s *Session) wakeGateLocked(d time.Duration) {
	if s.gate.timer == nil {
		s.gate.timer = time.AfterFunc(d, s.advance)
		return
	}
	s.gate.timer.Reset(d)
}

func (s *Session) advance() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanceLocked()
}

// dismissLocked sends all who wait away.
func (s *Session) dismissLocked() {
	if s.gate.timer != nil {
		s.gate.timer.Stop()
	}
	err := s.unsentLocked()
	for _, w := range s.gate.waiting {
		w.turn <- started{err: err}
	}
	s.gate.waiting = nil
}

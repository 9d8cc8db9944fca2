package wire

import (
	"context"
	"fmt"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// probe is our enquire_link that waits for its response. Sequence 0: none does.
type probe struct {
	sequence uint32
	sent     time.Time
}

// Alive asks the peer at once whether it is there, and returns true at the next
// sign of it, whatever that is. If none comes before ctx ends, it ends the session,
// and returns when Run is over.
func (s *Session) Alive(ctx context.Context) bool {
	heard := s.listen(time.Now())
	select {
	case <-heard:
		return true
	case <-ctx.Done():
		s.end(ErrSilent)
	case <-s.over:
	}
	<-s.finished
	return false
}

// listen asks the peer whether it is there, and returns what is closed when it
// says anything.
func (s *Session) listen(now time.Time) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hearing == nil {
		s.hearing = make(chan struct{})
	}
	if s.bound && !s.leaving && s.probe.sequence == 0 {
		s.askLocked(now)
	}
	return s.hearing
}

// askLocked asks the peer whether it is there.
func (s *Session) askLocked(now time.Time) {
	s.probe = probe{s.nextSequenceLocked(), now}
	_ = s.queueLocked(&Packet{ID: pdu.EnquireLinkID, Sequence: s.probe.sequence}) // has nothing that could fail
}

// hearLocked notes a sign of the peer.
func (s *Session) hearLocked(now time.Time) {
	s.heard = now
	if s.hearing != nil {
		close(s.hearing)
		s.hearing = nil
	}
}

// Ticks are an eighth of the shortest time that is watched, within these: so no
// request needs a timer of its own.
const (
	minTick = 5 * time.Millisecond
	maxTick = time.Second
)

func (c *Config) tick() time.Duration {
	shortest := min(c.EnquireLink, c.Response, c.Bind, c.Drain)
	if c.Idle > 0 {
		shortest = min(shortest, c.Idle)
	}
	return min(max(shortest/8, minTick), maxTick)
}

// watch watches the clock until the session ends.
func (s *Session) watch() {
	ticker := time.NewTicker(s.config.tick())
	defer ticker.Stop()
	for {
		select {
		case <-s.over:
			return
		case now := <-ticker.C:
			s.check(now)
		}
	}
}

func (s *Session) check(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	s.checkCallsLocked(now)
	s.checkPartingLocked(now)
	if s.ending {
		return
	}
	if !s.bound {
		s.checkBindLocked(now)
		return
	}
	s.checkProbeLocked(now)
	s.checkIdleLocked(now)
}

// checkCallsLocked gives up requests whose responses are overdue.
func (s *Session) checkCallsLocked(now time.Time) {
	for _, c := range s.calls {
		if now.Before(c.due) {
			continue
		}
		s.counters.Timeouts.Add(1)
		s.completeLocked(c, outcome{err: fmt.Errorf("%w in %s", ErrNoAnswer, s.config.Response)})
	}
	s.settleLocked(false)
}

func (s *Session) checkBindLocked(now time.Time) {
	if now.Sub(s.opened) >= s.config.Bind {
		s.endLocked(ErrNoBind)
	}
}

// checkProbeLocked asks a silent peer whether it is there, and ends the session
// of one who says nothing at all. Who says anything is there: even one that is
// too busy to answer enquire_link.
func (s *Session) checkProbeLocked(now time.Time) {
	waits := s.probe.sequence != 0
	switch {
	case waits && !s.heard.Before(s.probe.sent):
		s.probe = probe{}
	case waits && now.Sub(s.probe.sent) >= s.config.Response:
		s.endLocked(ErrSilent)
	case !waits && now.Sub(s.heard) >= s.config.EnquireLink:
		s.askLocked(now)
	}
}

func (s *Session) checkIdleLocked(now time.Time) {
	isQuiet := s.underWay == 0 && len(s.calls) == 0
	if s.config.Idle > 0 && isQuiet && now.Sub(s.used) >= s.config.Idle {
		s.partLocked(ErrIdle)
	}
}

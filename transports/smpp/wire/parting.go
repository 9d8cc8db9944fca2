package wire

import (
	"context"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// parting is how a session is left in an orderly way (SMPP 3.4 §4.2): what is
// under way gets its answers, then unbind or its response is sent.
type parting struct {
	isAsked bool   // the peer has sent unbind
	asked   uint32 // with this sequence number
	wanted  error  // we want to unbind, and why; nil: we don't
	unbind  uint32 // the sequence number of our unbind; 0: not sent
	due     time.Time
}

// Unbind ends the session in an orderly way: no new Do begins, the peer's new
// requests get ESME_RTHROTTLED, and when what is under way has its answers, for
// at most Config.Drain, unbind is sent, its response awaited for at most
// Config.Response, and the session ended. When ctx is done it is ended at once,
// and the error says so. Unbind returns when Run is over.
func (s *Session) Unbind(ctx context.Context) error {
	s.part(ErrUnbound)
	select {
	case <-s.finished:
		return nil
	case <-ctx.Done():
		s.Close()
		<-s.finished
		return ctx.Err()
	}
}

// part begins to unbind.
func (s *Session) part(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partLocked(why)
}

func (s *Session) partLocked(why error) {
	if !s.bound {
		s.finishLocked(why) // nobody is bound who could unbind
		return
	}
	if s.parting.wanted != nil || s.parting.isAsked {
		return
	}
	s.parting.wanted = why
	s.parting.due = time.Now().Add(s.config.Drain)
	s.leaveLocked()
	s.settleLocked(false)
}

// takeUnbind begins to let the peer go.
func (s *Session) takeUnbind(p *Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	if s.parting.isAsked {
		s.respondLocked(p, RInvBndSts, nil, nil)
		return
	}
	s.parting.isAsked, s.parting.asked = true, p.Sequence
	s.parting.due = time.Now().Add(s.config.Drain)
	s.leaveLocked()
	s.settleLocked(false)
}

// settleLocked goes on with leaving when nothing is under way any more, or
// nobody wants to wait any longer.
func (s *Session) settleLocked(overdue bool) {
	isQuiet := s.underWay == 0 && len(s.calls) == 0
	if s.ending || !isQuiet && !overdue {
		return
	}
	switch {
	case s.parting.isAsked:
		s.respondLocked(&Packet{ID: pdu.UnbindID, Sequence: s.parting.asked}, ROK, nil, nil)
		s.finishLocked(ErrUnbound)
	case s.parting.wanted != nil && s.parting.unbind == 0:
		s.sendUnbindLocked()
	}
}

func (s *Session) sendUnbindLocked() {
	s.parting.unbind = s.nextSequenceLocked()
	s.parting.due = time.Now().Add(s.config.Response)
	_ = s.queueLocked(&Packet{ID: pdu.UnbindID, Sequence: s.parting.unbind}) // has nothing that could fail
}

// checkPartingLocked ends the patience of a session that is being left.
func (s *Session) checkPartingLocked(now time.Time) {
	isParting := s.parting.isAsked || s.parting.wanted != nil
	switch {
	case !isParting || now.Before(s.parting.due):
	case s.parting.unbind != 0 && !s.parting.isAsked:
		s.endLocked(s.parting.wanted) // no response; we have said good-bye
	default:
		s.settleLocked(true)
	}
}

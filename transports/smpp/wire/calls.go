package wire

import (
	"context"
	"fmt"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// maxSequence is the largest sequence number (SMPP 3.4 §5.1.4).
const maxSequence = 0x7FFFFFFF

// call is a request of ours that waits for its response.
type call struct {
	id       pdu.ID
	sequence uint32
	end      int64 // where it ends in all that was ever queued, in octets
	due      time.Time
	outcome  chan outcome // has room for the one that comes
}

type outcome struct {
	response Packet
	err      error
}

// Do sends a request and waits for its response; a generic_nack counts as one,
// and always has a Status that isn't ESME_ROK. Requests go out in the order in
// which they were begun: Do waits while the window is full, the rate is used up,
// or Slow is in force. Config.Response is counted from then on.
//
// ErrUnsent, ErrNoAnswer: there is no response, and these say what that means.
// An *Error alone: b and t can't be written as a PDU. outbind and
// alert_notification have no response: Do returns when they are queued.
func (s *Session) Do(ctx context.Context, b Body, t TLVs) (Packet, error) {
	c, err := s.start(ctx, b, t)
	if c == nil {
		return Packet{}, err
	}
	var o outcome
	select {
	case o = <-c.outcome:
	case <-ctx.Done():
		o = s.forget(c, ctx.Err())
	}
	s.recycle(c)
	return o.response, o.err
}

// newCallLocked takes one that was used before, if there is one.
func (s *Session) newCallLocked() *call {
	last := len(s.idle) - 1
	if last < 0 {
		return &call{outcome: make(chan outcome, 1)}
	}
	c := s.idle[last]
	s.idle = s.idle[:last]
	return c
}

// recycle keeps a call, whose outcome was taken, for later.
func (s *Session) recycle(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) < s.gate.window {
		s.idle = append(s.idle, c)
	}
}

// sendLocked queues a request, and takes its place in the window. nil without an
// error: nothing answers it.
func (s *Session) sendLocked(b Body, t TLVs, paced bool, now time.Time) (*call, error) {
	p := Packet{ID: b.id(), Sequence: s.nextSequenceLocked(), Body: b, TLVs: t}
	if p.IsResponse() {
		return nil, &Error{RInvCmdID, "a response is not a request"}
	}
	if err := s.queueLocked(&p); err != nil {
		return nil, err
	}
	s.used = now
	if paced {
		s.gate.pace.take(now)
	}
	if isAnswerless(p.ID) {
		return nil, nil
	}
	s.gate.inUse++
	c := s.newCallLocked()
	c.id, c.sequence, c.end, c.due = p.ID, p.Sequence, s.out.queued, now.Add(s.config.Response)
	s.calls[p.Sequence] = c
	return c, nil
}

// nextSequenceLocked goes on to a number that no request has that waits.
func (s *Session) nextSequenceLocked() uint32 {
	for {
		s.last = s.last%maxSequence + 1
		if _, waits := s.calls[s.last]; !waits && s.last != s.probe.sequence {
			return s.last
		}
	}
}

// forget gives a request up, unless its outcome has come in the meantime.
func (s *Session) forget(c *call, why error) outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[c.sequence] == c {
		s.completeLocked(c, outcome{err: fmt.Errorf("%w: %w", ErrNoAnswer, why)})
		s.settleLocked(false)
	}
	return <-c.outcome
}

func (s *Session) completeLocked(c *call, o outcome) {
	delete(s.calls, c.sequence)
	c.outcome <- o
	s.releaseLocked()
}

// takeResponse gives a response to who waits for it.
func (s *Session) takeResponse(p Packet) {
	if p.ID == pdu.GenericNACKID {
		s.counters.Nacks.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOwnLocked(&p) {
		return
	}
	c := s.calls[p.Sequence]
	if c == nil || p.ID != ResponseTo(c.id) && p.ID != pdu.GenericNACKID {
		s.noteStrayLocked(p.Sequence)
		return
	}
	s.completeLocked(c, s.outcomeLocked(c, p))
	s.settleLocked(false)
}

func (s *Session) outcomeLocked(c *call, p Packet) outcome {
	switch {
	case p.ID == pdu.GenericNACKID && p.Status == ROK:
		p.Status = RUnknownErr // whatever the peer meant, it was no
	case isBind(c.id) && p.Status == ROK:
		s.bound, s.used = true, time.Now()
	}
	return outcome{response: p}
}

// isOwnLocked takes the responses to what the session itself has asked.
func (s *Session) isOwnLocked(p *Packet) bool {
	switch {
	case p.Sequence == 0:
		return false
	case p.Sequence == s.parting.unbind && (p.ID == pdu.UnbindRespID || p.ID == pdu.GenericNACKID):
		s.finishLocked(s.parting.wanted)
		return true
	case p.Sequence == s.probe.sequence && (p.ID == pdu.EnquireLinkRespID || p.ID == pdu.GenericNACKID):
		s.probe = probe{} // even who doesn't know enquire_link is there
		return true
	}
	return false
}

// noteStrayLocked counts a response that nobody waits for.
func (s *Session) noteStrayLocked(sequence uint32) {
	if sequence > 0 && sequence <= s.last {
		s.counters.Late.Add(1)
		return
	}
	s.counters.Unsolicited.Add(1)
}

// abandon gives every request that still waits its outcome, and returns why the
// session ended. Nobody reads or writes any more.
func (s *Session) abandon() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		err := ErrNoAnswer
		if c.end > s.out.written {
			err = ErrUnsent
		}
		s.completeLocked(c, outcome{err: fmt.Errorf("%w: %w", err, s.why)})
	}
	return s.why
}

package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

const (
	// readBuffer is how much is read at once, in octets.
	readBuffer = 8 << 10
	// maxSkipped is how long a PDU may be at all, in octets: one that claims more
	// isn't believed. What is too long for us but not for this is passed over.
	maxSkipped = 1 << 20
)

// maxNonsense is how many PDUs may come one after the other that make no sense:
// who sends more speaks another language, or wants to keep us busy. What has a
// wrong parameter isn't meant: that concerns one message.
const maxNonsense = 100

var errTooLong = errors.New("PDU too long")

// framer cuts a stream into PDUs.
type framer struct {
	stream *bufio.Reader
	most   int // octets a PDU may have
	header [pdu.HeaderLen]byte
}

// next reads a PDU, into memory of its own. errTooLong: it was passed over, and
// header is what is left of it; ErrFraming: nobody knows where the next begins;
// others are those of the stream.
func (f *framer) next() ([]byte, error) {
	if _, err := io.ReadFull(f.stream, f.header[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(f.header[:])
	switch {
	case length < pdu.HeaderLen || length > maxSkipped:
		return nil, ErrFraming
	case int(length) <= f.most:
		return f.rest(int(length))
	case kindOf(decodeHeader(f.header[:]).ID) == unknownKind:
		return nil, ErrFraming
	}
	if _, err := f.stream.Discard(int(length) - pdu.HeaderLen); err != nil {
		return nil, err
	}
	return nil, errTooLong
}

// rest reads what follows the header. Memory grows only with what really comes.
func (f *framer) rest(length int) ([]byte, error) {
	frame := append(make([]byte, 0, min(length, readBuffer)), f.header[:]...)
	for len(frame) < length {
		frame = slices.Grow(frame, min(length-len(frame), len(frame)))
		have := len(frame)
		frame = frame[:min(length, cap(frame))]
		if _, err := io.ReadFull(f.stream, frame[have:]); err != nil {
			return nil, err
		}
	}
	return frame, nil
}

// read reads until the session ends, and returns why if it is the peer's doing.
func (s *Session) read() error {
	in := framer{stream: bufio.NewReaderSize(s.conn, readBuffer), most: s.config.MaxPDU}
	for {
		frame, err := in.next()
		if !s.proceed() {
			_, _ = io.Copy(io.Discard, s.conn) // until hangUp's deadline
			return ErrClosed
		}
		switch {
		case err == nil:
			s.take(frame)
		case errors.Is(err, errTooLong):
			s.takeTooLong(in.header[:])
		case errors.Is(err, ErrFraming):
			s.takeBroken(in.header[:])
		default:
			return fmt.Errorf("%w: %w", ErrPeer, err)
		}
	}
}

// proceed tells whether what came is still to be handled, as soon as there is
// room for what answers it.
func (s *Session) proceed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hearLocked(time.Now())
	s.awaitRoomLocked()
	return !s.ending
}

// take handles one PDU.
func (s *Session) take(frame []byte) {
	p, err := Decode(frame)
	s.counters.in[kindOf(p.ID)].Add(1)
	s.trace(false, p.ID, frame)
	switch {
	case err != nil:
		s.takeMalformed(p, err)
	case p.IsResponse():
		s.takeResponse(p)
	case p.ID == pdu.EnquireLinkID:
		s.answer(&p, ROK)
	case p.ID == pdu.UnbindID:
		s.takeUnbind(&p)
	case isAnswerless(p.ID):
		s.handler.Request(s, p)
	default:
		s.takeRequest(p)
	}
}

// answer answers a request that the handler never sees.
func (s *Session) answer(p *Packet, status pdu.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ending {
		s.respondLocked(p, status, nil, nil)
	}
}

// nack says that a PDU makes no sense (SMPP 3.4 §4.3).
func (s *Session) nack(sequence uint32, status pdu.Status) {
	s.answer(&Packet{ID: pdu.GenericNACKID, Sequence: sequence}, status)
}

// takeRequest gives a request to the handler, or refuses it.
func (s *Session) takeRequest(p Packet) {
	if status := s.admit(p.ID); status != ROK {
		s.answer(&p, status)
		return
	}
	s.handler.Request(s, p)
}

// admit counts a request among those under way, or says what refuses it.
func (s *Session) admit(id pdu.ID) pdu.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.parting.isAsked:
		return RInvBndSts
	case !isBind(id) && s.isTooMuchLocked(id):
		s.counters.Throttled.Add(1)
		return RThrottled
	}
	s.underWay++
	s.nonsense = 0
	s.used = s.heard
	return ROK
}

// isTooMuchLocked tells whether a request is over a limit; if not, it counts.
func (s *Session) isTooMuchLocked(id pdu.ID) bool {
	if s.leaving || s.underWay >= s.inWindow {
		return true
	}
	if s.inPace.interval == 0 || !isPaced(id) {
		return false
	}
	now := time.Now()
	if s.inPace.wait(now) > 0 {
		return true
	}
	s.inPace.take(now)
	return false
}

// takeMalformed answers what can't be read. A response that is too long is still
// one, and says in its header what there is to know.
func (s *Session) takeMalformed(p Packet, err error) {
	status := RSysErr
	var e *Error
	if errors.As(err, &e) {
		status = e.Status
	}
	s.config.Log.Debug("malformed PDU", "pdu", Name(p.ID), "sequence", p.Sequence, "error", err)
	if status == RInvCmdID {
		s.counters.Unknown.Add(1)
	} else {
		s.counters.Malformed.Add(1)
	}
	switch {
	case p.IsResponse():
		s.takeResponse(p)
	case isAnswerless(p.ID): // nobody waits
	case status == RInvCmdID || status == RInvCmdLen:
		s.takeNonsense(p.Sequence, status)
	default:
		s.answer(&p, status)
	}
}

// takeNonsense answers a PDU that makes no sense. Of too many, the last ends the
// session.
func (s *Session) takeNonsense(sequence uint32, status pdu.Status) {
	s.nack(sequence, status)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nonsense++; s.nonsense >= maxNonsense {
		s.finishLocked(ErrFraming)
	}
}

// takeTooLong answers a PDU that was passed over.
func (s *Session) takeTooLong(header []byte) {
	p := decodeHeader(header)
	s.takeMalformed(p, &Error{RInvCmdLen, "the PDU is too long"})
}

// takeBroken says that we can't follow any more, and ends the session.
func (s *Session) takeBroken(header []byte) {
	s.counters.Malformed.Add(1)
	s.config.Log.Debug("not a PDU", "command_length", binary.BigEndian.Uint32(header))
	s.nack(0, RInvCmdLen)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishLocked(ErrFraming)
}

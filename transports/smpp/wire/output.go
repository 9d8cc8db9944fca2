package wire

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

const (
	// maxAnswers is how many octets of answers may wait to be written before the
	// reader stops taking more to be answered. Beyond that there are at most the
	// answers to what is under way, and our requests, which the window bounds and
	// which must not stop the reader: two sides that both did that would wait for
	// each other.
	maxAnswers = 256 << 10
	// maxKept is how large a buffer is kept for later.
	maxKept = 64 << 10
	// linger is how long a peer may take to see why we hang up.
	linger = time.Second
)

// output is what waits to be written.
type output struct {
	buffer  []byte
	spare   []byte     // for when the writer has taken the buffer
	queued  int64      // octets, all that ever were
	written int64      // of those, what the connection took
	answers int        // octets of answers in the buffer
	leaving int        // octets of answers in the writer's hand
	more    *sync.Cond // there is more to write, or nothing ever again
	room    *sync.Cond // there is less to write, or nothing ever again
}

func (o *output) init(mu *sync.Mutex) { o.more, o.room = sync.NewCond(mu), sync.NewCond(mu) }

func (o *output) wakeAll() {
	o.more.Broadcast()
	o.room.Broadcast()
}

// queueLocked has the writer send a PDU behind all others. An error is an
// *Error: it can't be written.
func (s *Session) queueLocked(p *Packet) error {
	start := len(s.out.buffer)
	b, err := Encode(s.out.buffer, p)
	if err != nil {
		return err
	}
	size := len(b) - start
	switch {
	case p.IsResponse():
		s.out.answers += size
	case size > s.config.MaxPDU:
		return &Error{RInvCmdLen, fmt.Sprintf("the PDU has %d octets, which is too long", size)}
	}
	if start == 0 {
		s.out.more.Signal()
	}
	s.out.buffer = b
	s.out.queued += int64(size)
	s.counters.out[kindOf(p.ID)].Add(1)
	s.trace(true, p.ID, b[start:])
	return nil
}

// trace shows a PDU to who watches.
func (s *Session) trace(sent bool, id pdu.ID, frame []byte) {
	if s.config.Trace == nil {
		return
	}
	if isBind(id) || id == pdu.OutbindID {
		frame = blot(frame)
	}
	s.config.Trace(sent, frame)
}

// blot copies a bind or an outbind with its password, which is its second
// string, made unreadable.
func blot(frame []byte) []byte {
	frame = append([]byte(nil), frame...)
	field := 0
	for i := pdu.HeaderLen; i < len(frame) && field < 2; i++ {
		switch {
		case frame[i] == 0:
			field++
		case field == 1:
			frame[i] = '*'
		}
	}
	return frame
}

// write writes until the session ends.
func (s *Session) write() {
	for batch := s.batch(); batch != nil; batch = s.batch() {
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.config.Write)) // fails only when it is closed
		n, err := s.conn.Write(batch)
		if s.wrote(batch, n, err); err != nil {
			return
		}
	}
	s.hangUp()
}

func causeOfWrite(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrUnread
	}
	return fmt.Errorf("%w: %w", ErrPeer, err)
}

// batch takes all that is queued; it waits for something to be. nil: nothing
// ever will be.
func (s *Session) batch() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	for len(o.buffer) == 0 && !s.ending {
		o.more.Wait()
		s.gatherLocked()
	}
	if len(o.buffer) == 0 || s.closed {
		return nil
	}
	batch := o.buffer
	o.buffer, o.spare = o.spare[:0], nil
	o.answers, o.leaving = 0, o.answers
	return batch
}

// gatherLocked lets those who are about to queue something do so: one write of
// ten PDUs costs hardly more than one of one.
func (s *Session) gatherLocked() {
	s.mu.Unlock()
	runtime.Gosched()
	s.mu.Lock()
}

// wrote notes that the connection took the first n octets of a batch, and ends
// the session if those aren't all.
func (s *Session) wrote(batch []byte, n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.written += int64(n)
	if err != nil {
		s.endLocked(causeOfWrite(err))
		return
	}
	s.out.leaving = 0
	if cap(batch) <= maxKept {
		s.out.spare = batch
	}
	s.out.room.Broadcast()
}

// hangUp tells the peer that no more comes, and has the reader wait a while for
// it to see that: if the connection were closed with something unread, the
// system would throw away what we said last.
func (s *Session) hangUp() {
	half, ok := s.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		s.end(ErrClosed)
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(linger)) // fails only when it is closed
}

// awaitRoomLocked waits until fewer answers wait, or the session ends: a peer
// who doesn't read isn't read either.
func (s *Session) awaitRoomLocked() {
	for s.out.answers+s.out.leaving > maxAnswers && !s.ending {
		s.out.room.Wait()
	}
}

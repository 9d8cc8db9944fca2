package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

const (
	dialWithin   = 10 * time.Second
	bindWithin   = 10 * time.Second
	answerWithin = 35 * time.Second // longer than a gateway may wait for its disk
	unbindWithin = 5 * time.Second
	version34    = 0x34

	// How long an ESME that gets nothing waits until it looks up.
	closedTick = 100 * time.Millisecond
	openTick   = time.Millisecond
)

// Sequence numbers of an ESME: those of messages follow.
const (
	bindSequence   = 1
	unbindSequence = 2
	firstSequence  = 3
)

// esme is one bind that submits, and the one goroutine that does everything for
// it. Its messages go to all recipients in turn.
type esme struct {
	*stream
	template template
	tally    *tally
	index    int
	pace     pace

	recipients  int
	quota       int // measured messages that are still to be sent
	end         time.Time
	started     int
	outstanding int
	heard       time.Time // when something was answered, or sent after a pause
}

// pace says how fast to submit: in a closed loop with window requests
// outstanding, or in an open loop at rate a second, whatever the answers.
type pace struct {
	window int
	rate   float64 // 0: closed loop
	began  time.Time
}

func (p pace) allowance(now time.Time, started, outstanding int) int {
	free := p.window - outstanding
	if p.rate == 0 {
		return free
	}
	due := int(math.Max(0, now.Sub(p.began).Seconds()*p.rate))
	return min(free, due-started)
}

func (p pace) tick() time.Duration {
	if p.rate > 0 {
		return openTick
	}
	return closedTick
}

// dial binds to the gateway as a transceiver.
func dial(ctx context.Context, server string, as login) (*stream, error) {
	conn, err := (&net.Dialer{Timeout: dialWithin}).DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, fmt.Errorf("reach the gateway: %w", err)
	}
	s := newStream(conn)
	if err := s.bind(as); err != nil {
		_ = conn.Close() // nothing is lost with it
		return nil, err
	}
	return s, nil
}

func (s *stream) bind(as login) error {
	s.queue(&wire.Packet{ID: pdu.BindTransceiverID, Sequence: bindSequence, Body: &wire.Bind{
		Mode: pdu.BindTransceiverID, SystemID: as.systemID, Password: as.password, InterfaceVersion: version34,
	}})
	if err := s.flush(); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(bindWithin)) // fails only when it is closed, and then so does next
	frame, err := s.next()
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if status := statusOf(frame); idOf(frame) != pdu.BindTransceiverRespID || status != wire.ROK {
		return fmt.Errorf("bind: the gateway answers %s with %s", wire.Name(idOf(frame)), wire.StatusName(status))
	}
	return nil
}

// submit submits until the quota or the end is reached and everything has its
// answer, calls sent, and stays bound until done is closed.
func (e *esme) submit(done <-chan struct{}, sent func()) error {
	defer func() {
		if sent != nil {
			sent()
		}
	}()
	for {
		now := time.Now()
		if !e.finished(now) {
			e.submitAll(now)
		}
		if sent != nil && e.finished(now) && e.idle(now) {
			sent()
			sent = nil
		}
		if isClosed(done) {
			return e.part()
		}
		if err := e.exchange(now); err != nil {
			return err
		}
	}
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (e *esme) finished(now time.Time) bool { return e.quota <= 0 || !now.Before(e.end) }

// idle tells whether no answer is to be waited for any more.
func (e *esme) idle(now time.Time) bool {
	if e.outstanding > 0 && now.Sub(e.heard) >= answerWithin {
		e.tally.silent(e.outstanding)
		e.outstanding = 0
	}
	return e.outstanding == 0
}

func (e *esme) submitAll(now time.Time) {
	for range e.pace.allowance(now, e.started, e.outstanding) {
		if e.quota <= 0 {
			return
		}
		if e.outstanding == 0 {
			e.heard = now
		}
		pair, number := e.numbered(e.started)
		e.out = e.template.append(e.out, uint32(firstSequence+e.started), e.started%e.recipients, pair, number)
		if e.tally.send(pair, number, now) {
			e.quota--
		}
		e.started++
		e.outstanding++
	}
}

// numbered names the n-th message: no other bind has its pairs.
func (e *esme) numbered(n int) (pair, number int) {
	return e.index*e.recipients + n%e.recipients, n / e.recipients
}

// exchange writes what is queued, and reads what comes.
func (e *esme) exchange(now time.Time) error {
	if err := e.flush(); err != nil {
		return lost(err)
	}
	_ = e.conn.SetReadDeadline(now.Add(e.pace.tick())) // fails only when it is closed, and then so does next
	for {
		frame, err := e.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return lost(err)
		}
		if err := e.take(frame); err != nil {
			return err
		}
		if !e.more() {
			return nil
		}
	}
}

func lost(err error) error { return fmt.Errorf("the gateway's bind of an ESME broke: %w", err) }

var errUnbound = errors.New("the gateway has unbound an ESME")

// take handles a PDU of the gateway.
func (e *esme) take(frame []byte) error {
	switch id := idOf(frame); id {
	case pdu.SubmitSMRespID, pdu.GenericNACKID:
		e.answered(int(sequenceOf(frame))-firstSequence, statusOf(frame))
	case pdu.EnquireLinkID:
		e.respond(frame, wire.ROK, nil)
	case pdu.DeliverSMID: // nobody has asked for receipts, and nobody writes to us
		e.tally.refuse(errStray)
		e.respond(frame, wire.ROK, &wire.ShortResp{Of: pdu.DeliverSMRespID})
	case pdu.UnbindID:
		e.respond(frame, wire.ROK, nil)
		return errors.Join(errUnbound, e.flush())
	}
	return nil
}

func (e *esme) answered(n int, status pdu.Status) {
	if n < 0 || n >= e.started {
		return // of no request of ours
	}
	pair, number := e.numbered(n)
	now := time.Now()
	if e.tally.answer(pair, number, status, now) {
		e.outstanding = max(0, e.outstanding-1)
		e.heard = now
	}
}

// part ends the session in order: what the gateway says to that doesn't matter.
func (e *esme) part() error {
	e.queue(&wire.Packet{ID: pdu.UnbindID, Sequence: unbindSequence})
	if err := e.flush(); err != nil {
		return lost(err)
	}
	_ = e.conn.SetReadDeadline(time.Now().Add(unbindWithin)) // fails only when it is closed, and then so does next
	for {
		frame, err := e.next()
		if err != nil || idOf(frame) == pdu.UnbindRespID {
			return nil
		}
	}
}

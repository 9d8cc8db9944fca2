package hep

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// How the sender waits.
const (
	dialWithin  = 5 * time.Second
	writeWithin = 5 * time.Second
	closeWithin = time.Second
	minPause    = time.Second // before it turns to a server again that failed
	maxPause    = 30 * time.Second
	complainAt  = time.Minute // failures are logged so often
)

// sender takes packets from a queue to the server, one after the other.
type sender struct {
	network, address string
	queue            *queue
	log              *slog.Logger
	sent, dropped    *plugin.Counter

	ctx    context.Context // ends when nothing is to be waited for any more
	cancel context.CancelFunc
	done   chan struct{}

	conn       net.Conn // nil: none
	pause      time.Duration
	complained time.Time
}

func newSender(network, address string, q *queue, env plugin.Env) *sender {
	// The context of New ends with New: the sender's own ends with Close.
	ctx, cancel := context.WithCancel(context.Background())
	return &sender{
		network: network, address: address, queue: q, log: env.Log,
		sent:    env.Metrics.Counter("hep_sent_total", "Packets that were sent to the Homer server."),
		dropped: env.Metrics.Counter("hep_dropped_total", "Packets that were not sent: too many waited, or the server could not be reached."),
		ctx:     ctx, cancel: cancel, done: make(chan struct{}),
		pause: minPause,
	}
}

// run sends until the queue has ended and is empty.
func (s *sender) run() {
	defer close(s.done)
	defer s.hangUp()
	for {
		encoded, ok := s.queue.take()
		if !ok {
			return
		}
		s.send(encoded)
	}
}

// close sends what waits, for closeWithin at most.
func (s *sender) close() {
	s.queue.end()
	defer time.AfterFunc(closeWithin, s.cancel).Stop()
	<-s.done
	s.cancel()
}

// send tries a packet until it is out. Over UDP once is enough: a packet that
// was refused tells of the one before.
func (s *sender) send(encoded []byte) {
	for s.ctx.Err() == nil {
		err := s.try(encoded)
		if err == nil {
			s.pause = minPause
			s.sent.Inc()
			return
		}
		s.complain(err)
		s.hangUp()
		s.rest()
		if s.network == "udp" {
			break
		}
	}
	s.dropped.Inc()
}

func (s *sender) try(encoded []byte) error {
	if s.conn == nil {
		dialer := net.Dialer{Timeout: dialWithin}
		conn, err := dialer.DialContext(s.ctx, s.network, s.address)
		if err != nil {
			return err
		}
		s.conn = conn
	}
	conn := s.conn
	if err := conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	// Close ends a write that waits for the server.
	stop := context.AfterFunc(s.ctx, func() { _ = conn.SetWriteDeadline(time.Now()) })
	defer stop()
	_, err := conn.Write(encoded)
	return err
}

// rest leaves a server that failed alone for a while, each time longer.
func (s *sender) rest() {
	timer := time.NewTimer(s.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
	s.pause = min(2*s.pause, maxPause)
}

func (s *sender) hangUp() {
	if s.conn == nil {
		return
	}
	if err := s.conn.Close(); err != nil {
		s.complain(err)
	}
	s.conn = nil
}

func (s *sender) complain(err error) {
	if now := time.Now(); now.Sub(s.complained) >= complainAt {
		s.complained = now
		s.log.Warn("the Homer server can't be reached", "peer", s.network+"://"+s.address, "reason", err)
	}
}

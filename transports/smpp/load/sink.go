package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// sink is the SMSC that messages arrive at: it lets everybody bind, takes each
// submit_sm and remembers which message it was.
type sink struct {
	listener net.Listener
	tally    *tally
	bound    chan struct{} // closed with the first bind
	serving  sync.WaitGroup

	mu    sync.Mutex
	run   string // whose messages are counted; empty: those of the first that comes
	conns map[net.Conn]bool
	ended bool
	binds int // that there have been
	names int
}

// maxConns is how many connections a sink has at once.
const maxConns = 256

func openSink(ctx context.Context, address, run string, t *tally) (*sink, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("be an SMSC: %w", err)
	}
	k := &sink{listener: listener, tally: t, run: run, bound: make(chan struct{}), conns: map[net.Conn]bool{}}
	k.serving.Go(k.accept)
	return k, nil
}

func (k *sink) address() string { return k.listener.Addr().String() }

// accept ends with the listener.
func (k *sink) accept() {
	for {
		conn, err := k.listener.Accept()
		if err != nil {
			return
		}
		if !k.enter(conn) {
			_ = conn.Close() // nothing was said on it
			continue
		}
		k.serving.Go(func() { k.serve(conn) })
	}
}

func (k *sink) enter(conn net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended || len(k.conns) >= maxConns {
		return false
	}
	k.conns[conn] = true
	return true
}

// close ends all connections and waits until nothing of the sink is left.
func (k *sink) close() {
	_ = k.listener.Close() // it is only read from
	k.mu.Lock()
	k.ended = true
	for conn := range k.conns {
		_ = conn.Close() // everything that counts was answered
	}
	k.mu.Unlock()
	k.serving.Wait()
}

// serve does everything for one connection.
func (k *sink) serve(conn net.Conn) {
	s := newStream(conn)
	for {
		frame, err := s.next()
		if err != nil || !k.take(s, frame) {
			break
		}
		if s.more() {
			continue
		}
		if s.flush() != nil {
			break
		}
	}
	_ = s.flush() // the answer to an unbind, if the other one still reads
	_ = conn.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, conn)
}

// take handles a PDU; false: it was the last one.
func (k *sink) take(s *stream, frame []byte) bool {
	switch id := idOf(frame); id {
	case pdu.BindTransceiverID, pdu.BindTransmitterID, pdu.BindReceiverID:
		s.respond(frame, wire.ROK, &wire.BindResp{Mode: wire.ResponseTo(id), SystemID: "imgate-bench"})
		k.noteBind()
	case pdu.SubmitSMID, pdu.DataSMID:
		k.message(frame)
		s.respond(frame, wire.ROK, &wire.ShortResp{Of: wire.ResponseTo(id), MessageID: k.name()})
	case pdu.EnquireLinkID:
		s.respond(frame, wire.ROK, nil)
	case pdu.UnbindID:
		s.respond(frame, wire.ROK, nil)
		return false
	}
	return true
}

func (k *sink) noteBind() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.binds == 0 {
		close(k.bound)
	}
	k.binds++
}

func (k *sink) name() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names++
	return strconv.FormatInt(int64(k.names), 16)
}

// message notes what arrived, all of which is answered as taken.
func (k *sink) message(frame []byte) {
	pair, sequence, err := k.read(frame)
	if err != nil {
		k.tally.refuse(err)
		return
	}
	k.tally.arrive(pair, sequence, time.Now())
}

func (k *sink) read(frame []byte) (pair, sequence int, err error) {
	p, err := wire.Decode(frame)
	short, ok := p.Body.(*wire.Short)
	if err != nil || !ok {
		return 0, 0, errDamaged
	}
	run, pair, sequence, err := readText(short.Text)
	if err != nil {
		return 0, 0, err
	}
	if !k.isOurs(run) {
		return 0, 0, errStray
	}
	return pair, sequence, nil
}

// isOurs tells whether a message belongs to the run that is counted.
func (k *sink) isOurs(run []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.run == "" {
		k.run = string(run)
	}
	return k.run == string(run)
}

var errNoBind = errors.New("the gateway doesn't bind: does its configuration connect here?")

// awaitBind waits until the gateway has bound.
func (k *sink) awaitBind(ctx context.Context, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-k.bound:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return fmt.Errorf("%s: %w", k.address(), errNoBind)
	}
}

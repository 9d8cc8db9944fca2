package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// soon is how long something may take that takes milliseconds by design.
const soon = 10 * time.Second

// peer is an ESME that does no more than it is told: it reads, hands requests to
// hear, and responses to who waits for them.
type peer struct {
	conn net.Conn
	hear func(wire.Packet) // requests of the server

	mu      sync.Mutex
	waiting map[uint32]chan wire.Packet
	last    uint32
	gone    chan struct{} // closed when the connection has ended
}

// connect makes a peer of a connection. Without hear it says yes to unbind and
// enquire_link, and nothing to the rest.
func connect(conn net.Conn, hear func(*peer, wire.Packet)) *peer {
	p := &peer{conn: conn, waiting: map[uint32]chan wire.Packet{}, gone: make(chan struct{})}
	p.hear = func(q wire.Packet) {
		switch {
		case hear != nil:
			hear(p, q)
		case q.ID == pdu.UnbindID || q.ID == pdu.EnquireLinkID:
			p.answer(q, wire.ROK)
		}
	}
	go p.read()
	return p
}

func (p *peer) read() {
	defer close(p.gone)
	defer p.conn.Close()
	r := bufio.NewReader(p.conn)
	for {
		head, err := r.Peek(4)
		if err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		q, err := wire.Decode(frame)
		if err != nil {
			return
		}
		if !q.IsResponse() {
			p.hear(q)
			continue
		}
		p.mu.Lock()
		if c := p.waiting[q.Sequence]; c != nil {
			delete(p.waiting, q.Sequence)
			c <- q
		}
		p.mu.Unlock()
	}
}

// say sends a request, under a number of its own if it has none.
func (p *peer) say(q wire.Packet) (<-chan wire.Packet, error) {
	answer := make(chan wire.Packet, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.Sequence == 0 {
		p.last++
		q.Sequence = p.last
	}
	p.last = max(p.last, q.Sequence)
	p.waiting[q.Sequence] = answer
	return answer, p.writeLocked(&q)
}

// answer answers a request of the server.
func (p *peer) answer(q wire.Packet, status pdu.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.writeLocked(&wire.Packet{ID: wire.ResponseTo(q.ID), Status: status, Sequence: q.Sequence, Body: emptyAnswer(q.ID)})
}

// emptyAnswer is the body of a response that needs one.
func emptyAnswer(id pdu.ID) wire.Body {
	if id == pdu.DeliverSMID {
		return &wire.ShortResp{Of: pdu.DeliverSMRespID}
	}
	return nil
}

func (p *peer) writeLocked(q *wire.Packet) error {
	frame, err := wire.Encode(nil, q)
	if err != nil {
		return err
	}
	_, err = p.conn.Write(frame)
	return err
}

var errGonePeer = errors.New("the server has hung up")

// ask sends a request and waits for its answer.
func (p *peer) ask(ctx context.Context, q wire.Packet) (wire.Packet, error) {
	answer, err := p.say(q)
	if err != nil {
		return wire.Packet{}, err
	}
	return p.await(ctx, answer)
}

func (p *peer) await(ctx context.Context, answer <-chan wire.Packet) (wire.Packet, error) {
	select {
	case a := <-answer:
		return a, nil
	default:
	}
	select {
	case a := <-answer:
		return a, nil
	case <-p.gone:
	case <-ctx.Done():
		return wire.Packet{}, ctx.Err()
	}
	select {
	case a := <-answer: // the last words
		return a, nil
	default:
		return wire.Packet{}, errGonePeer
	}
}

// esme is a peer in a test.
type esme struct {
	*peer
	t     testing.TB
	heard chan wire.Packet // requests of the server, but for enquire_link, which is answered
}

// dial connects an ESME to a door.
func dial(t testing.TB, d *Door) *esme {
	t.Helper()
	conn, err := net.Dial("tcp", d.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	return newESME(t, conn)
}

func newESME(t testing.TB, conn net.Conn) *esme {
	e := &esme{t: t, heard: make(chan wire.Packet, 1000)}
	e.peer = connect(conn, func(p *peer, q wire.Packet) {
		if q.ID == pdu.EnquireLinkID || q.ID == pdu.UnbindID {
			p.answer(q, wire.ROK)
			if q.ID == pdu.EnquireLinkID {
				return
			}
		}
		e.heard <- q
	})
	t.Cleanup(func() {
		conn.Close()
		<-e.gone
	})
	return e
}

// gets sends a request and returns its answer.
func (e *esme) gets(q wire.Packet) wire.Packet {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), soon)
	defer cancel()
	a, err := e.ask(ctx, q)
	if err != nil {
		e.t.Fatalf("%s isn't answered: %v", wire.Name(q.ID), err)
	}
	return a
}

// want sends a request and wants a status.
func (e *esme) want(q wire.Packet, want pdu.Status) wire.Packet {
	e.t.Helper()
	a := e.gets(q)
	if a.Status != want {
		e.t.Errorf("%s is answered with %s, want %s", wire.Name(q.ID), wire.StatusName(a.Status), wire.StatusName(want))
	}
	if want == wire.ROK && a.ID != wire.ResponseTo(q.ID) {
		e.t.Errorf("%s is answered with %s", wire.Name(q.ID), wire.Name(a.ID))
	}
	return a
}

// next waits for a request of the server.
func (e *esme) next() wire.Packet {
	e.t.Helper()
	select {
	case q := <-e.heard:
		return q
	case <-time.After(soon):
		e.t.Fatal("the ESME hears nothing")
	case <-e.gone:
		select {
		case q := <-e.heard:
			return q
		default:
			e.t.Fatal("the server has hung up")
		}
	}
	return wire.Packet{}
}

// ends waits until the server hangs up.
func (e *esme) ends() {
	e.t.Helper()
	select {
	case <-e.gone:
	case <-time.After(soon):
		e.t.Fatal("the server doesn't hang up")
	}
}

// Requests.

func bindAs(mode pdu.ID, systemID, password string) wire.Packet {
	return wire.Packet{ID: mode, Body: &wire.Bind{Mode: mode, SystemID: systemID, Password: password, InterfaceVersion: 0x34}}
}

func shortOf(id pdu.ID, from, to, words string) wire.Packet {
	return wire.Packet{ID: id, Body: &wire.Short{
		Of: id, Source: numbered(from), Destination: numbered(to), Text: []byte(words),
	}}
}

func numbered(digits string) wire.Address {
	if digits == "" {
		return wire.Address{}
	}
	return wire.Address{TON: 1, NPI: 1, Number: digits}
}

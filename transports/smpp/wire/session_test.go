package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// user is a handler that notes what it is told and answers when the test says.
type user struct {
	answer   func(*Session, Packet) // nil: nothing answers
	requests chan Packet
	closed   chan error // as often as Closed was called
}

func newUser(answer func(*Session, Packet)) *user {
	return &user{answer: answer, requests: make(chan Packet, 1000), closed: make(chan error, 2)}
}

func (u *user) Request(s *Session, p Packet) {
	u.requests <- p
	if u.answer != nil {
		u.answer(s, p)
	}
}

func (u *user) Closed(_ *Session, why error) { u.closed <- why }

// accept answers every request with ESME_ROK.
func accept(s *Session, p Packet) {
	switch p.ID {
	case pdu.BindTransceiverID:
		s.Respond(p, ROK, &BindResp{Mode: ResponseTo(p.ID), SystemID: "imgate"}, nil)
	case pdu.SubmitSMID, pdu.DeliverSMID:
		s.Respond(p, ROK, &ShortResp{Of: ResponseTo(p.ID), MessageID: "abc"}, nil)
	default:
		s.Respond(p, ROK, nil, nil)
	}
}

// stage is a session in a bubble, and its peer, whom the test plays.
type stage struct {
	*Session
	t    *testing.T
	user *user
	peer *peer
	stop context.CancelFunc
	over chan struct{} // closed when Run has returned
}

// onStage runs a test with a session that runs, in a bubble of its own.
func onStage(t *testing.T, c Config, answer func(*Session, Packet), test func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := &stage{t: t, user: newUser(answer), peer: newPeer(t, theirs), over: make(chan struct{})}
		s.Session = NewSession(ours, c, s.user)
		ctx, cancel := context.WithCancel(t.Context())
		s.stop = cancel
		go func() {
			defer close(s.over)
			s.Run(ctx)
		}()
		defer func() {
			cancel()
			theirs.Close()
			<-s.over
			if n := len(s.user.closed); n != 1 {
				t.Errorf("Closed was called %d times", n)
			}
		}()
		test(t, s)
	})
}

// bind has the peer bind.
func (s *stage) bind() {
	s.t.Helper()
	s.peer.send(Packet{ID: pdu.BindTransceiverID, Sequence: 1, Body: &Bind{Mode: pdu.BindTransceiverID}})
	s.peer.expect(pdu.BindTransceiverRespID, ROK, 1)
	<-s.user.requests
}

// ends waits for the end and checks why it came.
func (s *stage) ends(want error) {
	s.t.Helper()
	<-s.over
	why := <-s.user.closed
	s.user.closed <- why // for the check of onStage
	if !errors.Is(why, want) {
		s.t.Errorf("it ended because of %v, want %v", why, want)
	}
}

// result is how a Do ended.
type result struct {
	packet Packet
	err    error
}

// do begins a request.
func (s *stage) do(b Body) chan result { return s.doWith(s.t.Context(), b) }

func (s *stage) doWith(ctx context.Context, b Body) chan result {
	done := make(chan result, 1)
	go func() {
		p, err := s.Do(ctx, b, nil)
		done <- result{p, err}
	}()
	return done
}

// peer is the other side of a connection. It reads all the time.
type peer struct {
	net.Conn
	t       *testing.T
	packets chan Packet
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	p := &peer{Conn: conn, t: t, packets: make(chan Packet, 10000)}
	go p.read()
	return p
}

func (p *peer) read() {
	defer close(p.packets)
	for {
		frame, err := readFrame(p.Conn)
		if err != nil {
			return
		}
		packet, err := Decode(frame)
		if err != nil {
			p.t.Errorf("what we write can't be read: %v", err)
		}
		p.packets <- packet
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	frame := make([]byte, 4)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame)-4)...)
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}

func (p *peer) send(packets ...Packet) {
	p.t.Helper()
	var b []byte
	for _, packet := range packets {
		b = append(b, encoded(p.t, packet)...)
	}
	p.sendRaw(b)
}

func (p *peer) sendRaw(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Errorf("%x: %v", b, err)
	}
}

// next is what comes next.
func (p *peer) next() Packet {
	p.t.Helper()
	packet, ok := <-p.packets
	if !ok {
		p.t.Fatal("the connection ended")
	}
	return packet
}

func (p *peer) expect(id pdu.ID, status pdu.Status, sequence uint32) Packet {
	p.t.Helper()
	packet := p.next()
	if packet.ID != id || packet.Status != status || packet.Sequence != sequence {
		p.t.Fatalf("%s, %s, %d came; want %s, %s, %d", Name(packet.ID), StatusName(packet.Status), packet.Sequence,
			Name(id), StatusName(status), sequence)
	}
	return packet
}

// expectNothing checks that all that can happen without time passing has, and
// nothing came.
func (p *peer) expectNothing() {
	p.t.Helper()
	synctest.Wait()
	select {
	case packet, ok := <-p.packets:
		p.t.Fatalf("%s came (%t)", Name(packet.ID), ok)
	default:
	}
}

func submit(text string) *Short {
	return &Short{Of: pdu.SubmitSMID, Source: Address{1, 1, "447700900001"}, Destination: Address{1, 1, "447700900002"}, Text: []byte(text)}
}

func submitted(sequence uint32) Packet {
	return Packet{ID: pdu.SubmitSMID, Sequence: sequence, Body: submit("hello")}
}

func submitResp(sequence uint32) Packet {
	return Packet{ID: pdu.SubmitSMRespID, Sequence: sequence, Body: &ShortResp{Of: pdu.SubmitSMRespID, MessageID: "abc"}}
}

func TestRequestAndResponse(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		s.bind()
		s.peer.send(submitted(0), submitted(0xFFFFFFFF), submitted(9), submitted(9))
		for _, sequence := range []uint32{0, 0xFFFFFFFF, 9, 9} {
			s.peer.expect(pdu.SubmitSMRespID, ROK, sequence)
		}
		done := s.do(submit("ours"))
		p := s.peer.expect(pdu.SubmitSMID, ROK, 1)
		if b, ok := p.Body.(*Short); !ok || string(b.Text) != "ours" {
			t.Errorf("%+v", p.Body)
		}
		s.peer.send(submitResp(1))
		r := <-done
		if b, ok := r.packet.Body.(*ShortResp); r.err != nil || !ok || b.MessageID != "abc" {
			t.Errorf("%+v", r)
		}
		if n := s.counters.In(pdu.SubmitSMID); n != 4 {
			t.Errorf("%d submit_sm were counted", n)
		}
		if n := s.counters.Out(pdu.SubmitSMRespID); n != 4 {
			t.Errorf("%d submit_sm_resp were counted", n)
		}
		s.Close()
		s.ends(ErrClosed)
	})
}

// TestSameNumberBothWays: a request of the peer with the number of ours is not
// our response.
func TestSameNumberBothWays(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		done := s.do(submit("ours"))
		s.peer.expect(pdu.SubmitSMID, ROK, 1)
		s.peer.send(submitted(1))
		s.peer.expect(pdu.SubmitSMRespID, ROK, 1)
		s.peer.send(Packet{ID: pdu.DeliverSMRespID, Sequence: 1}) // not ours either
		synctest.Wait()
		select {
		case r := <-done:
			t.Fatalf("%+v", r)
		default:
		}
		s.peer.send(submitResp(1))
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
		if s.counters.Late.Load() != 1 {
			t.Error("the wrong response wasn't counted")
		}
	})
}

func TestResponses(t *testing.T) {
	for name, c := range map[string]struct {
		response []byte
		status   pdu.Status
	}{
		"refused":                  {frameOf(Packet{ID: pdu.SubmitSMRespID, Status: RThrottled, Sequence: 1}), RThrottled},
		"generic_nack":             {frameOf(Packet{ID: pdu.GenericNACKID, Status: RInvCmdID, Sequence: 1}), RInvCmdID},
		"generic_nack without why": {frameOf(Packet{ID: pdu.GenericNACKID, Sequence: 1}), RUnknownErr},
		"unreadable":               {frameOf(Packet{ID: pdu.SubmitSMRespID, Sequence: 1}, bytes.Repeat([]byte("x"), 70)...), ROK},
		"too long":                 {frameOf(Packet{ID: pdu.SubmitSMRespID, Sequence: 1}, make([]byte, 80<<10)...), ROK},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, Config{Limits: Limits{Window: 1}}, accept, func(t *testing.T, s *stage) {
				done := s.do(submit("ours"))
				s.peer.next()
				s.peer.sendRaw(c.response)
				if r := <-done; r.err != nil || r.packet.Status != c.status {
					t.Errorf("%+v", r)
				}
				next := s.do(submit("the place in the window is free"))
				s.peer.expect(pdu.SubmitSMID, ROK, 2)
				s.peer.send(submitResp(2))
				<-next
			})
		})
	}
}

// frameOf encodes a packet and appends what makes it wrong.
func frameOf(p Packet, rest ...byte) []byte {
	b, err := Encode(nil, &p)
	if err != nil {
		panic(err)
	}
	b = append(b, rest...)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func TestStrayResponses(t *testing.T) {
	onStage(t, Config{Response: time.Second}, accept, func(t *testing.T, s *stage) {
		s.peer.send(submitResp(1), submitResp(0), Packet{ID: pdu.GenericNACKID, Status: RInvCmdLen},
			Packet{ID: pdu.EnquireLinkRespID, Sequence: 3}, Packet{ID: pdu.UnbindRespID, Sequence: 3})
		s.peer.sendRaw(frame(0x80000042, 0, "")) // no nack of a response
		s.peer.expectNothing()
		c := s.counters
		if c.Unsolicited.Load() != 6 || c.Late.Load() != 0 || c.Nacks.Load() != 1 || c.Unknown.Load() != 1 {
			t.Errorf("%d unsolicited, %d late, %d nacks, %d unknown", c.Unsolicited.Load(), c.Late.Load(), c.Nacks.Load(), c.Unknown.Load())
		}
		r := <-s.do(submit("never answered"))
		if !errors.Is(r.err, ErrNoAnswer) || c.Timeouts.Load() != 1 {
			t.Errorf("%+v", r)
		}
		s.peer.next()
		s.peer.send(submitResp(1))
		synctest.Wait()
		if c.Late.Load() != 1 {
			t.Error("the late response wasn't counted")
		}
	})
}

func TestResponseTimes(t *testing.T) {
	onStage(t, Config{Response: 8 * time.Second}, accept, func(t *testing.T, s *stage) {
		began := time.Now()
		r := <-s.do(submit("never answered"))
		if took := time.Since(began); !errors.Is(r.err, ErrNoAnswer) || took < 8*time.Second || took > 9*time.Second {
			t.Errorf("%v after %s", r.err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r = <-s.doWith(ctx, submit("given up"))
		if !errors.Is(r.err, ErrNoAnswer) || !errors.Is(r.err, context.DeadlineExceeded) {
			t.Error(r.err)
		}
	})
}

func TestMistakesOfOurs(t *testing.T) {
	onStage(t, Config{MaxPDU: 200}, func(s *Session, p Packet) {
		s.Respond(p, ROK, submit("not a response"), nil)
	}, func(t *testing.T, s *stage) {
		for _, b := range []Body{
			&Short{Of: pdu.SubmitSMID, ServiceType: "too long"},
			&ShortResp{Of: pdu.SubmitSMRespID},
			submit(string(make([]byte, 254))),
		} {
			var e *Error
			if r := <-s.do(b); !errors.As(r.err, &e) || errors.Is(r.err, ErrUnsent) || errors.Is(r.err, ErrNoAnswer) {
				t.Errorf("%+v: %v", b, r.err)
			}
		}
		s.peer.send(submitted(4))
		s.peer.expect(pdu.SubmitSMRespID, RSysErr, 4)
		if s.gate.inUse != 0 || s.underWay != 0 {
			t.Errorf("%d, %d under way", s.gate.inUse, s.underWay)
		}
	})
}

func TestMalformedRequests(t *testing.T) {
	onStage(t, Config{MaxPDU: 100}, accept, func(t *testing.T, s *stage) {
		for _, c := range []struct {
			frame  []byte
			id     pdu.ID
			status pdu.Status
		}{
			{frame(0x42, 0, "abc"), pdu.GenericNACKID, RInvCmdID},
			{frame(pdu.SubmitSMID, 0, "abc"), pdu.GenericNACKID, RInvCmdLen},
			{frame(pdu.SubmitSMID, 0, "too long"), pdu.SubmitSMRespID, RInvSerTyp},
			{frame(pdu.EnquireLinkID, 0, "x"), pdu.EnquireLinkRespID, RInvOptParStream},
			{frame(pdu.SubmitSMID, 0, string(make([]byte, 100))), pdu.GenericNACKID, RInvCmdLen},
			{frame(pdu.EnquireLinkID, 0, ""), pdu.EnquireLinkRespID, ROK},
		} {
			s.peer.sendRaw(c.frame)
			s.peer.expect(c.id, c.status, 5)
		}
		s.peer.sendRaw(frame(pdu.OutbindID, 0, "x"))
		s.peer.sendRaw(frame(pdu.SubmitSMRespID, 0, string(make([]byte, 100))))
		s.peer.expectNothing()
		if s.counters.Malformed.Load() != 6 || s.counters.Unknown.Load() != 1 || len(s.user.requests) != 0 {
			t.Errorf("%d malformed, %d unknown, %d requests", s.counters.Malformed.Load(), s.counters.Unknown.Load(), len(s.user.requests))
		}
	})
}

func TestNotSMPP(t *testing.T) {
	for name, raw := range map[string][]byte{
		"another protocol":    []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
		"a short length":      {0, 0, 0, 15, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1},
		"no length":           make([]byte, 16),
		"a long unknown PDU":  append([]byte{0, 2, 0, 0, 0, 0, 0, 0x42}, make([]byte, 8)...),
		"a length beyond all": append([]byte{0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 4}, make([]byte, 8)...),
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
				s.peer.sendRaw(raw[:16])
				s.peer.expect(pdu.GenericNACKID, RInvCmdLen, 0)
				s.ends(ErrFraming)
			})
		})
	}
}

func TestAnswerless(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		s.peer.send(samples["alert_notification"], samples["outbind"])
		s.peer.expectNothing()
		if len(s.user.requests) != 2 || s.underWay != 0 {
			t.Errorf("%d requests, %d under way", len(s.user.requests), s.underWay)
		}
	})
}

func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	c := Config{Trace: func(sent bool, raw []byte) {
		mu.Lock()
		defer mu.Unlock()
		direction := "<"
		if sent {
			direction = ">"
		}
		seen = append(seen, direction+string(raw[16:]))
	}}
	onStage(t, c, accept, func(t *testing.T, s *stage) {
		s.peer.send(samples["bind_transceiver"], samples["outbind"])
		s.peer.next()
		synctest.Wait()
		<-s.do(&Outbind{SystemID: "us", Password: "ours"})
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []string{"<fifteen-octets!\x00********\x00\x00\x50\x00\x00\x00", ">imgate\x00", "<smsc\x00******\x00", ">us\x00****\x00"}
		if len(seen) != len(want) {
			t.Fatalf("%q", seen)
		}
		for i := range want {
			if seen[i] != want[i] {
				t.Errorf("%q, want %q", seen[i], want[i])
			}
		}
	})
}

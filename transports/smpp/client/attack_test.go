package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// villain is an SMSC that answers a bind and enquire_link, and otherwise does what a
// test wants.
type villain struct {
	net.Conn
	t      *testing.T
	sawAll func(v *villain, p wire.Packet)
	mu     sync.Mutex
	last   uint32
}

// against opens an instance that is bound to a villain.
func against(t *testing.T, saw func(v *villain, p wire.Packet), change func(*Config)) (*bench, *villain) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	first := make(chan *villain, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			v := &villain{Conn: conn, t: t, sawAll: saw}
			go v.serve()
			select {
			case first <- v:
			default:
			}
		}
	}()
	b := &bench{T: t, gate: newGate(), pdus: make(chan struct{}, 1)}
	b.open(plugin.Env{Instance: "vendor"}, func(c *Config) {
		c.Connect, c.Window, c.Dialect.Receipts = []string{listener.Addr().String()}, 50, "final"
		if change != nil {
			change(c)
		}
	})
	v := <-first
	b.until("the bind is up", func() bool { return b.client.binds.count(true) == 1 })
	return b, v
}

func (v *villain) serve() {
	defer v.Close()
	in := bufio.NewReader(v)
	for {
		p, err := readFrom(in)
		if err != nil {
			return
		}
		switch p.ID {
		case pdu.BindTransceiverID:
			v.say(wire.Packet{ID: pdu.BindTransceiverRespID, Sequence: p.Sequence, Body: &wire.BindResp{Mode: pdu.BindTransceiverRespID, SystemID: "villain"}})
		case pdu.EnquireLinkID, pdu.UnbindID:
			v.say(wire.Packet{ID: wire.ResponseTo(p.ID), Sequence: p.Sequence})
		default:
			v.sawAll(v, p)
		}
	}
}

func readFrom(in *bufio.Reader) (wire.Packet, error) { return readPDU(reading{Reader: in}) }

// reading is a connection of which only Read is used.
type reading struct {
	net.Conn
	*bufio.Reader
}

func (r reading) Read(b []byte) (int, error) { return r.Reader.Read(b) }

func (v *villain) say(p wire.Packet) {
	frame, err := wire.Encode(nil, &p)
	if err != nil {
		v.t.Error(err)
	}
	v.raw(frame)
}

func (v *villain) raw(frame []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, _ = v.Write(frame) // the instance may have gone
}

// takes answers a message.
func (v *villain) takes(sequence uint32, id string) {
	v.say(wire.Packet{ID: pdu.SubmitSMRespID, Sequence: sequence, Body: &wire.ShortResp{Of: pdu.SubmitSMRespID, MessageID: id}})
}

// odd answers a message with a message_id that can't be.
func (v *villain) odd(sequence uint32, rest string) {
	frame, err := wire.Encode(nil, &wire.Packet{ID: pdu.SubmitSMRespID, Sequence: sequence})
	if err != nil {
		v.t.Error(err)
	}
	frame = append(frame, rest...)
	frame[3] = byte(len(frame))
	v.raw(frame)
}

// delivers sends a deliver_sm.
func (v *villain) delivers(s wire.Short, t wire.TLVs) {
	v.mu.Lock()
	v.last++
	sequence := v.last
	v.mu.Unlock()
	s.Of = pdu.DeliverSMID
	v.say(wire.Packet{ID: pdu.DeliverSMID, Sequence: sequence, Body: &s, TLVs: t})
}

// sends sends so many messages at once, and returns the failures, nil for none, and
// the names that the peer gave.
func (b *bench) sends(n int) (failures []*message.Failure, names []string) {
	failures, all := make([]*message.Failure, n), make([][]string, n)
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	var sending sync.WaitGroup
	for i := range n {
		sending.Go(func() {
			receipt, err := b.client.Send(ctx, sms(fmt.Sprint("message ", i)), routeTo())
			if err != nil {
				failures[i] = message.AsFailure(err)
			}
			if err := receipt.Validate(err != nil); err != nil {
				b.Errorf("a receipt that the engine refuses: %v", err)
			}
			all[i] = receipt.PeerIDs
		})
	}
	sending.Wait()
	return failures, slices.Concat(all...)
}

// TestAnswersOfAVillain: whatever names an SMSC gives, however often and in which order
// it answers, what it has taken is taken, once.
func TestAnswersOfAVillain(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(v *villain, sequence uint32)
		names  int // of 20
	}{
		"twice": {func(v *villain, n uint32) {
			v.takes(n, fmt.Sprint(n))
			v.takes(n, fmt.Sprint(n+1000))
		}, 20},
		"also what was never asked": {func(v *villain, n uint32) {
			v.takes(n+1_000_000, "no")
			v.takes(0, "no")
			v.takes(n, fmt.Sprint(n))
		}, 20},
		"names of spaces":           {func(v *villain, n uint32) { v.takes(n, "   ") }, 0},
		"no names":                  {func(v *villain, n uint32) { v.takes(n, "") }, 0},
		"no body":                   {func(v *villain, n uint32) { v.say(wire.Packet{ID: pdu.SubmitSMRespID, Sequence: n}) }, 0},
		"names of 64 octets":        {func(v *villain, n uint32) { v.takes(n, strings.Repeat("9", 64)) }, 20},
		"names of 65 octets":        {func(v *villain, n uint32) { v.odd(n, strings.Repeat("9", 65)+"\x00") }, 0},
		"names without an end":      {func(v *villain, n uint32) { v.odd(n, "abc") }, 20},
		"names with something more": {func(v *villain, n uint32) { v.odd(n, "abc\x00\x00\x00def") }, 20},
		"control characters":        {func(v *villain, n uint32) { v.takes(n, "\r\n\x01\xff") }, 20},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := against(t, func(v *villain, p wire.Packet) {
				if p.ID == pdu.SubmitSMID {
					c.answer(v, p.Sequence)
				}
			}, nil)
			failures, names := b.sends(20)
			for _, failure := range failures {
				if failure != nil {
					t.Fatal(failure)
				}
			}
			if len(names) != c.names {
				t.Errorf("there are %d names: %q", len(names), names)
			}
		})
	}
}

// TestClosesInAWindow: of what was sent and not answered when the connection breaks
// nobody knows what became; the rest has its answers.
func TestClosesInAWindow(t *testing.T) {
	const answered, window = 10, 50
	var mu sync.Mutex
	var got []uint32
	closed := make(chan struct{})
	b, _ := against(t, func(v *villain, p wire.Packet) {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, p.Sequence); len(got) == window {
			for _, sequence := range got[:answered] {
				v.takes(sequence, fmt.Sprint(sequence))
			}
			_ = v.Conn.(*net.TCPConn).CloseWrite() // so that what was said arrives
			close(closed)
		}
	}, func(c *Config) { c.Reconnect = Reconnect{Min: time.Minute, Max: time.Minute} })
	failures, names := b.sends(window)
	<-closed
	unknown := 0
	for _, failure := range failures {
		switch {
		case failure == nil:
		case failure.Reason == message.NoAnswer && failure.Temporary:
			unknown++
		default:
			t.Error(failure)
		}
	}
	if unknown != window-answered || len(names) != answered {
		t.Errorf("%d are unknown and %d named", unknown, len(names))
	}
}

// TestFloodOfReceipts: receipts that are about nobody's message keep neither messages
// nor other receipts waiting, though the SMSC has a small window.
func TestFloodOfReceipts(t *testing.T) {
	window := make(chan struct{}, 10)
	b, v := against(t, func(_ *villain, p wire.Packet) {
		if p.ID == pdu.DeliverSMRespID {
			<-window
		}
	}, nil)
	b.gate.note(func() {
		b.gate.report = func(id string, _ int) error {
			if id != "abc" {
				return message.FailForNow(message.Unavailable, "attempts are under way")
			}
			return nil
		}
	})
	from := wire.Address{TON: 1, NPI: 1, Number: "436641234567"}
	delivers := func(s wire.Short, t wire.TLVs) {
		window <- struct{}{}
		s.Source, s.Destination = from, from
		v.delivers(s, t)
	}
	receipt := func(id string) wire.TLVs {
		return wire.TLVs{wire.Text(pdutlv.TagReceiptedMessageID, id), wire.Uint8(pdutlv.TagMessageStateOption, wire.StateDelivered)}
	}
	began := time.Now()
	for i := range 1_000 {
		delivers(wire.Short{ESMClass: 4}, receipt(fmt.Sprintf("%x", 1_000_000+i)))
		if i%100 == 0 {
			delivers(wire.Short{ESMClass: 4}, receipt("abc"))
			delivers(wire.Short{Text: []byte("hello")}, nil)
		}
	}
	b.gate.await(t, "what is ours comes through", func() bool { return len(b.gate.reports) == 10 && len(b.gate.arrivals) == 10 })
	if took, most := time.Since(began), 2*reportWithin; took > most {
		t.Errorf("it took %s", took)
	}
}

func TestPatience(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var p patience
	takes := func() (n int) {
		for n <= maxEarly && p.take(now) {
			n++
		}
		return n
	}
	if n := takes(); n != maxEarly {
		t.Errorf("%d may wait", n)
	}
	p.rewarded()
	if n := takes(); n != 1 {
		t.Errorf("%d more may wait after one that didn't in vain", n)
	}
	now = now.Add(3 * forgiveEvery)
	if n := takes(); n != 3 {
		t.Errorf("%d more may wait after a while", n)
	}
	now = now.Add(time.Hour)
	if n := takes(); n != maxEarly {
		t.Errorf("%d may wait after a long time", n)
	}
}

// TestPanicStaysWithItsRequest: a PDU that breaks us doesn't take the node with it.
func TestPanicStaysWithItsRequest(t *testing.T) {
	answers := make(chan wire.Packet, 10)
	b, v := against(t, func(_ *villain, p wire.Packet) { answers <- p }, nil)
	b.gate.note(func() { b.gate.report = func(string, int) error { panic(errors.New("in Report")) } })
	from := wire.Address{TON: 1, NPI: 1, Number: "436641234567"}
	v.delivers(wire.Short{Source: from, Destination: from, ESMClass: 4, Text: []byte("id:1 stat:DELIVRD")}, nil)
	if p := <-answers; p.Status != wire.RxPAppn {
		t.Error(wire.StatusName(p.Status))
	}
	v.delivers(wire.Short{Source: from, Destination: from, Text: []byte("hello")}, nil)
	if p := <-answers; p.Status != wire.ROK {
		t.Error(wire.StatusName(p.Status))
	}
}

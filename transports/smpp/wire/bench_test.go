package wire

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

// usual is a submit_sm as an ESME sends it.
func usual() Packet {
	body := submit(strings.Repeat("hello ", 20))
	body.RegisteredDelivery, body.ValidityPeriod = 1, "000001000000000R"
	return Packet{ID: pdu.SubmitSMID, Sequence: 1, Body: body, TLVs: TLVs{Uint16(pdutlv.TagUserMessageReference, 7)}}
}

func BenchmarkDecode(b *testing.B) {
	frame := encoded(b, usual())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	p := usual()
	buffer := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buffer, err = Encode(buffer[:0], &p); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFewAllocations(t *testing.T) {
	p := usual()
	frame := encoded(t, p)
	buffer := make([]byte, 0, 1024)
	for name, c := range map[string]struct {
		run  func()
		most float64
	}{
		"decode": {func() { _, _ = Decode(frame) }, 5}, // the body, three strings and the TLVs
		"encode": {func() { buffer, _ = Encode(buffer[:0], &p) }, 0},
	} {
		if n := testing.AllocsPerRun(100, c.run); n > c.most {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}

// BenchmarkSession is submit_sm and its response between two sessions over
// loopback, with a window of 50: what both sides cost.
func BenchmarkSession(b *testing.B) {
	conn, err := net.Dial("tcp", serving(b, Config{}, answering{}))
	if err != nil {
		b.Fatal(err)
	}
	s := NewSession(conn, Config{Limits: Limits{Window: 50}}, answering{})
	var run sync.WaitGroup
	run.Go(func() { s.Run(b.Context()) })
	body, tlvs := usual().Body, usual().TLVs
	requests := make(chan struct{}, 100)
	var senders sync.WaitGroup
	b.ReportAllocs()
	for range 50 {
		senders.Go(func() {
			for range requests {
				if _, err := s.Do(b.Context(), body, tlvs); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for b.Loop() {
		requests <- struct{}{}
	}
	close(requests)
	senders.Wait()
	s.Close()
	run.Wait()
}

// answering answers at once.
type answering struct{}

func (answering) Request(s *Session, p Packet) {
	s.Respond(p, ROK, &ShortResp{Of: ResponseTo(p.ID), MessageID: "0123456789abcdefghijkl"}, nil)
}

func (answering) Closed(*Session, error) {}

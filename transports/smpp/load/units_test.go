package load

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

func TestTemplate(t *testing.T) {
	form, err := newTemplate("ABCDEFGH", strconv.Itoa(firstRecipient), 100)
	if err != nil {
		t.Fatal(err)
	}
	frame := form.append(nil, 77, 42, 12345, 678)
	p, err := wire.Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	short := p.Body.(*wire.Short)
	if p.ID != pdu.SubmitSMID || p.Sequence != 77 || short.Source.Number != "447700900000" || short.Destination.Number != "447700900042" {
		t.Errorf("it makes %+v %+v", p, short)
	}
	run, pair, number, err := readText(short.Text)
	if string(run) != "ABCDEFGH" || pair != 12345 || number != 678 || err != nil || len(short.Text) != 100 {
		t.Errorf("its text %q is read as %q %d %d %v", short.Text, run, pair, number, err)
	}
	if allocs := testing.AllocsPerRun(100, func() { frame = form.append(frame[:0], 78, 43, 1, 2) }); allocs > 0 {
		t.Errorf("a message costs %v allocations", allocs)
	}
}

func TestReadText(t *testing.T) {
	for _, c := range []struct {
		text string
		want error
	}{
		{"bench ABC 1 2 ...", nil},
		{"bench ABC 1 2 ", nil},
		{"hello", errStray},
		{"bench ABC 1 2", errDamaged},
		{"bench ABC 1 x ...", errDamaged},
		{"bench ABC -1 2 ...", errDamaged},
		{"bench ABC 1 2 ..,..", errDamaged},
		{"bench ABC 99999999999999999999 2 ...", errDamaged},
		{"bench ABC 1000001 2 ...", errDamaged},
	} {
		if _, _, _, err := readText([]byte(c.text)); err != c.want {
			t.Errorf("%q: %v, want %v", c.text, err, c.want)
		}
	}
}

func FuzzReadText(f *testing.F) {
	f.Add([]byte("bench ABC 1 2 ..."))
	f.Add([]byte("bench  0 0 "))
	f.Fuzz(func(t *testing.T, text []byte) {
		run, pair, number, err := readText(text)
		if err != nil {
			return
		}
		again, pair2, number2, err := readText(appendText(nil, string(run), pair, number, len(text)))
		if string(again) != string(run) || pair != pair2 || number != number2 || err != nil {
			t.Errorf("%q is read as %q %d %d, and that as %q %d %d %v", text, run, pair, number, again, pair2, number2, err)
		}
	})
}

func TestStream(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	s := newStream(near)
	enquire, err := wire.Encode(nil, &wire.Packet{ID: pdu.EnquireLinkID, Sequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if _, err := far.Write(b); err != nil {
			t.Error(err)
		}
	}
	go func() {
		write(append(append([]byte(nil), enquire...), enquire[:7]...))
	}()
	if frame, err := s.next(); err != nil || idOf(frame) != pdu.EnquireLinkID || sequenceOf(frame) != 1 {
		t.Fatalf("the first PDU is %x, %v", frame, err)
	}
	if s.more() {
		t.Error("half a PDU counts as one")
	}
	if err := near.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("half a PDU: %v", err)
	}
	if err := near.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { write(append(enquire[7:], enquire...)) }()
	if frame, err := s.next(); err != nil || idOf(frame) != pdu.EnquireLinkID {
		t.Fatalf("the second PDU, after a pause in its middle, is %x, %v", frame, err)
	}
	if !s.more() {
		t.Error("a whole PDU doesn't count")
	}
	if _, err := s.next(); err != nil {
		t.Fatal(err)
	}
	go func() { write([]byte{0, 0, 0, 1}) }()
	if _, err := s.next(); !errors.Is(err, errFraming) {
		t.Errorf("a command_length of 1: %v", err)
	}
}

func TestTally(t *testing.T) {
	began := time.Now()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	tally := newTally(false, began)
	tally.send(0, 0, at(0)) // warming up
	tally.begin(at(1))
	tally.send(0, 1, at(2))
	tally.send(0, 2, at(2))
	tally.arrive(0, 2, at(3)) // before its answer, and before an earlier one
	tally.answer(0, 2, wire.ROK, at(4))
	tally.arrive(0, 1, at(5))
	tally.arrive(0, 1, at(6))
	tally.arrive(0, 3, at(7)) // never sent
	tally.arrive(1, 0, at(7))
	tally.answer(0, 0, wire.ROK, at(8))
	if tally.answer(0, 0, wire.ROK, at(9)) {
		t.Error("a second answer to a message counts")
	}
	if tally.sent != 2 || tally.acked != 2 || tally.owed != 1 || tally.arrived != 2 || tally.duplicates != 1 || tally.disordered != 1 || tally.damaged != 2 {
		t.Errorf("it counts %+v", tally)
	}
	if got := tally.answers.summary(); got != (quantiles{2, 2, 2}) {
		t.Errorf("answers took %+v", got)
	}
	if got := tally.arrivals.summary(); got != (quantiles{1, 3, 3}) {
		t.Errorf("arrivals took %+v", got)
	}
	if tally.settled(at(0), at(8), 10*time.Millisecond) {
		t.Error("it is settled while one is missing")
	}
	if !tally.settled(at(0), at(17), 10*time.Millisecond) {
		t.Error("it isn't settled when nothing has arrived for long")
	}
	tally.arrive(0, 0, at(18))
	if !tally.settled(at(0), at(18), time.Hour) {
		t.Error("it isn't settled when all is there")
	}
}

func TestUsageOfAProcess(t *testing.T) {
	own, err := usageOf(self)
	if err != nil {
		t.Skip(err) // not Linux
	}
	if own.resident < 1<<20 {
		t.Errorf("this process has %d octets of memory", own.resident)
	}
	if _, err := usageOf("0"); err == nil || !strings.Contains(err.Error(), "process 0") {
		t.Errorf("of a process that isn't there it says %v", err)
	}
	p := spent(&usage{cpu: time.Second}, &usage{cpu: 2 * time.Second, resident: 5}, 10_000)
	if *p != (process{MicrosPerMessage: 100, Resident: 5}) {
		t.Errorf("a second for 10,000 messages is %+v", p)
	}
}

package smsc

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// soon is how long something may take that takes milliseconds.
const soon = 10 * time.Second

// serve opens an SMSC for the time of the test.
func serve(t *testing.T, c Config) *SMSC {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	s, err := Listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(ctx) })
	t.Cleanup(func() {
		stop()
		serving.Wait()
	})
	return s
}

// esme is a client as simple as can be.
type esme struct {
	session *wire.Session
	status  pdu.Status // with which it answers
	came    chan wire.Packet
}

func (e *esme) Request(s *wire.Session, p wire.Packet) {
	e.came <- p
	s.Respond(p, e.status, &wire.ShortResp{Of: wire.ResponseTo(p.ID)}, nil)
}

func (e *esme) Closed(*wire.Session, error) {}

// connect connects an ESME.
func connect(t *testing.T, s *SMSC) *esme {
	t.Helper()
	return dial(t, s.Addr().String())
}

func dial(t *testing.T, address string) *esme {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	e := &esme{came: make(chan wire.Packet, 100)}
	e.session = wire.NewSession(conn, wire.Config{}, e)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { e.session.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return e
}

func (e *esme) do(t *testing.T, b wire.Body) wire.Packet {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	response, err := e.session.Do(ctx, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func (e *esme) bind(t *testing.T, mode pdu.ID, systemID, password string) pdu.Status {
	t.Helper()
	return e.do(t, &wire.Bind{Mode: mode, SystemID: systemID, Password: password, InterfaceVersion: 0x34}).Status
}

// bound is an ESME that has bound as a transceiver.
func bound(t *testing.T, s *SMSC) *esme {
	t.Helper()
	e := connect(t, s)
	if status := e.bind(t, pdu.BindTransceiverID, "esme", ""); status != wire.ROK {
		t.Fatalf("bind: %s", wire.StatusName(status))
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := s.AwaitBind(ctx, 1); err != nil { // it is known a moment after its answer
		t.Fatal(err)
	}
	return e
}

func submit(text string) *wire.Short {
	return &wire.Short{
		Of: pdu.SubmitSMID, Source: wire.Address{TON: 1, NPI: 1, Number: "447700900001"},
		Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900002"}, Text: []byte(text),
	}
}

func TestWhoMayBind(t *testing.T) {
	s := serve(t, Config{SystemID: "esme", Password: "secret"})
	for _, c := range []struct {
		systemID, password string
		want               pdu.Status
	}{{"other", "secret", wire.RInvSysID}, {"esme", "other", wire.RInvPaswd}, {"esme", "secret", wire.ROK}} {
		if got := connect(t, s).bind(t, pdu.BindReceiverID, c.systemID, c.password); got != c.want {
			t.Errorf("%s with %s gets %s", c.systemID, c.password, wire.StatusName(got))
		}
	}
}

func TestMisuse(t *testing.T) {
	s := serve(t, Config{})
	e := connect(t, s)
	if got := e.do(t, submit("hello")).Status; got != wire.RInvBndSts {
		t.Errorf("without a bind a message gets %s", wire.StatusName(got))
	}
	if got := e.bind(t, pdu.BindReceiverID, "esme", ""); got != wire.ROK {
		t.Fatal(wire.StatusName(got))
	}
	if got := e.bind(t, pdu.BindReceiverID, "esme", ""); got != wire.RAlyBnd {
		t.Errorf("a second bind gets %s", wire.StatusName(got))
	}
	if got := e.do(t, submit("hello")).Status; got != wire.RInvBndSts {
		t.Errorf("from a receiver a message gets %s", wire.StatusName(got))
	}
	if got := e.do(t, &wire.Query{MessageID: "1"}).Status; got != wire.RInvCmdID {
		t.Errorf("query_sm gets %s", wire.StatusName(got))
	}
}

func TestMessagesAreJoined(t *testing.T) {
	took := make(chan Message, 10)
	s := serve(t, Config{Took: func(m Message) { took <- m }, Receipts: -1})
	e := bound(t, s)
	part := func(data string) *wire.Short {
		p := submit(data)
		p.ESMClass, p.DataCoding = 0x40, 8
		return p
	}
	// The halves of a surrogate pair, in two parts, the second one first.
	e.do(t, part("\x05\x00\x03\x07\x02\x02\xdc\x4b\x00!"))
	e.do(t, part("\x05\x00\x03\x07\x02\x01\x00h\xd8\x3d"))
	e.do(t, submit("whole"))
	want := []Message{
		{From: "+447700900001", To: "+447700900002", ContentType: "text/plain;charset=utf-8", Body: []byte("h\U0001f44b!"), Parts: 2},
		{From: "+447700900001", To: "+447700900002", ContentType: "text/plain;charset=utf-8", Body: []byte("whole"), Parts: 1},
	}
	for _, w := range want {
		got := <-took
		if got.From != w.From || got.To != w.To || got.ContentType != w.ContentType || string(got.Body) != string(w.Body) || got.Parts != w.Parts {
			t.Errorf("the message is %+v %q, want %+v %q", got, got.Body, w, w.Body)
		}
	}
}

func TestJoinerForgets(t *testing.T) {
	var j joiner
	now := time.Now()
	for i := range 2*maxJoining + 1 {
		j.add(joinKey{reference: uint16(i), total: 2}, 1, []byte("x"), now)
	}
	if n := len(j.joining); n > maxJoining {
		t.Errorf("%d messages wait to be joined", n)
	}
	j.add(joinKey{total: 3}, 1, []byte("x"), now.Add(joinWithin+time.Second))
	if n := len(j.joining); n != 1 {
		t.Errorf("after a long time %d messages wait to be joined", n)
	}
}

func TestMend(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", "\xed\xa0\xbd\xed\xb1\x8b": "\U0001f44b",
		"a\xed\xa0\xbd": "a\xed\xa0\xbd", "\xed\xb1\x8b": "\xed\xb1\x8b", "\xed\x95\x9c": "한", "\xed": "\xed",
	} {
		if got := mend(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzMend(f *testing.F) {
	f.Add("\xed\xa0\xbd\xed\xb1\x8b")
	f.Add("plain \xed")
	f.Fuzz(func(t *testing.T, s string) {
		mended := mend(s)
		if utf8.ValidString(s) && mended != s {
			t.Errorf("%q becomes %q", s, mended)
		}
		if len(mended) > len(s) {
			t.Errorf("%q grows to %q", s, mended)
		}
	})
}

func TestReceipts(t *testing.T) {
	for state, want := range map[translate.State]string{translate.Delivered: "stat:DELIVRD", translate.Undeliverable: "stat:UNDELIV"} {
		s := serve(t, Config{Outcome: state})
		e := bound(t, s)
		m := submit("hello")
		m.RegisteredDelivery = 1
		id := e.do(t, m).Body.(*wire.ShortResp).MessageID
		e.do(t, submit("no receipt"))
		p := <-e.came
		short := p.Body.(*wire.Short)
		if !strings.Contains(string(short.Text), "id:"+id+" ") || !strings.Contains(string(short.Text), want) || short.ESMClass != 4 {
			t.Errorf("the receipt of %s is %q", id, short.Text)
		}
		if short.Source != m.Destination || short.Destination != m.Source {
			t.Errorf("it goes from %+v to %+v", short.Source, short.Destination)
		}
		dialect := translate.Defaults()
		in, err := dialect.Incoming(p, time.Now())
		if err != nil || in.Receipt == nil || in.Receipt.MessageID != id || in.Receipt.State != state {
			t.Errorf("it is read as %+v, %v", in.Receipt, err)
		}
		if len(e.came) != 0 {
			t.Error("there is another one")
		}
	}
}

func TestReceiptsOfFailuresOnly(t *testing.T) {
	s := serve(t, Config{})
	e := bound(t, s)
	m := submit("hello")
	m.RegisteredDelivery = 2
	e.do(t, m)
	m.RegisteredDelivery = 1
	second := e.do(t, m).Body.(*wire.ShortResp).MessageID
	if short := (<-e.came).Body.(*wire.Short); !strings.Contains(string(short.Text), "id:"+second+" ") {
		t.Errorf("what was delivered is reported: %q", short.Text)
	}
}

func TestReceiptIsSaidAgain(t *testing.T) {
	s := serve(t, Config{})
	e := connect(t, s)
	e.status = wire.RxTAppn
	if status := e.bind(t, pdu.BindTransceiverID, "esme", ""); status != wire.ROK {
		t.Fatal(wire.StatusName(status))
	}
	m := submit("hello")
	m.RegisteredDelivery = 1
	e.do(t, m)
	first, second := <-e.came, <-e.came
	if first.Sequence == second.Sequence || string(first.Body.(*wire.Short).Text) != string(second.Body.(*wire.Short).Text) {
		t.Errorf("it was said as %+v and as %+v", first, second)
	}
}

func TestOriginate(t *testing.T) {
	s := serve(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := s.Originate(ctx, "+447700900002", "+447700900001", "hello"); err == nil {
		t.Error("it was taken, and nobody is there")
	}
	e := bound(t, s)
	if err := s.Originate(ctx, "+447700900002", "+447700900001", "hello"); err != nil {
		t.Fatal(err)
	}
	if short := (<-e.came).Body.(*wire.Short); string(short.Text) != "hello" || short.Source.Number != "447700900002" || short.Of != pdu.DeliverSMID {
		t.Errorf("the ESME gets %+v", short)
	}
}

func TestEndIsTold(t *testing.T) {
	s, err := Listen(t.Context(), Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx)
	}()
	ended := make(chan error, 1)
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	session := wire.NewSession(conn, wire.Config{}, closing{ended})
	go session.Run(t.Context())
	if _, err := session.Do(t.Context(), &wire.Bind{Mode: pdu.BindTransceiverID, SystemID: "esme", InterfaceVersion: 0x34}, nil); err != nil {
		t.Fatal(err)
	}
	stop()
	<-done
	if err := <-ended; err == nil || !strings.Contains(err.Error(), wire.ErrUnbound.Error()) {
		t.Errorf("the session ended with %v", err)
	}
}

// closing tells how a session ended.
type closing struct{ ended chan error }

func (closing) Request(*wire.Session, wire.Packet)     {}
func (c closing) Closed(_ *wire.Session, reason error) { c.ended <- reason }

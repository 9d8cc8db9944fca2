package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

func outgoing(words string) *message.Message {
	return &message.Message{
		From: message.Address{User: "+" + number2}, Recipient: message.Address{User: "+" + number1},
		ContentType: "text/plain;charset=utf-8", Body: []byte(words), Received: time.Now(),
	}
}

func toAcme() plugin.Route {
	return plugin.Route{Transport: "esmes", Reference: message.NewPublicID(), Binding: &plugin.Binding{Account: "acc-acme", Device: "acme"}}
}

// listening returns an ESME that is bound for certain numbers, and answers.
func listening(t testing.TB, d *Door, mode pdu.ID, reach string, version uint8) *esme {
	t.Helper()
	e := dial(t, d)
	q := bindAs(mode, "acme", "acme")
	body := q.Body.(*wire.Bind)
	body.AddressRange.Number, body.InterfaceVersion = reach, version
	before := d.greeted()
	e.want(q, wire.ROK)
	waitFor(t, "the bind", func() bool { return d.greeted() > before })
	return e
}

// greeted returns how many sessions may get messages.
func (d *Door) greeted() (n int) {
	for _, s := range d.table.all() {
		if s.greeted.Load() {
			n++
		}
	}
	return n
}

type sent struct {
	receipt plugin.Receipt
	err     error
}

func sendLater(ctx context.Context, d *Door, m *message.Message, route plugin.Route) <-chan sent {
	done := make(chan sent, 1)
	go func() {
		receipt, err := d.Send(ctx, m, route)
		done <- sent{receipt, err}
	}()
	return done
}

func TestDeliver(t *testing.T) {
	d := serve(t, newGate(), nil)
	for _, mode := range []pdu.ID{pdu.BindReceiverID, pdu.BindTransceiverID} {
		e := listening(t, d, mode, "", 0x34)
		done := sendLater(t.Context(), d, outgoing("hello"), toAcme())
		q := e.next()
		short, ok := q.Body.(*wire.Short)
		if !ok || q.ID != pdu.DeliverSMID || short.Source != numbered(number2) || short.Destination != numbered(number1) || string(short.Text) != "hello" {
			t.Errorf("%+v", q.Body)
		}
		if _, ok := q.TLVs.Uint(pdutlv.TagUserMessageReference); !ok {
			t.Error("nothing to know a repeat by")
		}
		e.answer(q, wire.ROK)
		if got := <-done; got.err != nil || !got.receipt.Final {
			t.Errorf("%+v", got)
		}
		e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
		e.ends()
		waitFor(t, "the end", func() bool { return d.table.count() == 0 })
	}
}

// TestDeliverUnwrapped: an ESME gets the text alone, and who notifies the sender
// knows it.
func TestDeliverUnwrapped(t *testing.T) {
	d := serve(t, newGate(), nil)
	e := listening(t, d, pdu.BindReceiverID, "", 0x34)
	m := outgoing("")
	m.ContentType, m.Body = "message/cpim", []byte("From: <im:a@example.com>\r\n\r\nContent-Type: text/plain\r\n\r\nhello")
	done := sendLater(t.Context(), d, m, toAcme())
	q := e.next()
	if short, ok := q.Body.(*wire.Short); !ok || string(short.Text) != "hello" {
		t.Errorf("%+v", q.Body)
	}
	e.answer(q, wire.ROK)
	if got := <-done; got.err != nil || !got.receipt.Final || !got.receipt.Unwrapped {
		t.Errorf("%+v", got)
	}
}

// TestNobodyThere: a transmitter gets nothing, nor does who serves other numbers.
func TestNobodyThere(t *testing.T) {
	d := serve(t, newGate(), nil)
	boundAs(t, d, pdu.BindTransmitterID)
	listening(t, d, pdu.BindReceiverID, "^1555", 0x34)
	_, err := d.Send(t.Context(), outgoing("hello"), toAcme())
	if f := message.AsFailure(err); f.Reason != message.Unavailable || !f.Temporary {
		t.Errorf("%v", err)
	}
	_, err = d.Send(t.Context(), outgoing("hello"), plugin.Route{})
	if f := message.AsFailure(err); f.Reason != message.Unbuildable || f.Temporary {
		t.Errorf("%v", err)
	}
	fresh, err := New(t.Context(), plugin.Env{}, Defaults)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fresh.Send(t.Context(), outgoing("hello"), toAcme())
	if f := message.AsFailure(err); f.Reason != message.Unavailable || !f.Temporary {
		t.Errorf("before the door is served: %v", err)
	}
}

func TestAddressRange(t *testing.T) {
	d := serve(t, newGate(), nil)
	one := listening(t, d, pdu.BindReceiverID, number1+","+number2, 0x34)
	two := listening(t, d, pdu.BindTransceiverID, "^1555", 0x34)
	for number, e := range map[string]*esme{"+" + number1: one, "+15550001": two, number2: one} {
		m := outgoing("hello")
		m.Recipient.User = number
		done := sendLater(t.Context(), d, m, toAcme())
		e.answer(e.next(), wire.ROK)
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
	}
}

func TestReach(t *testing.T) {
	for _, test := range []struct {
		reach, number string
		want          bool
	}{
		{"", "1", true},
		{"123", "123", true},
		{"123", "+123", true},
		{"+123", "123", true},
		{"123", "1234", false},
		{"123, 456;789", "+789", true},
		{"^123", "1234", true},
		{"^123", "+1234", true},
		{"^123$", "1234", false},
		{"5678$", "12345678", true},
		{"[13579]$", "12", false},
		{".*", "12", true},
	} {
		r, err := parseReach(test.reach)
		if err != nil || r.covers(test.number) != test.want {
			t.Errorf("%q covers %q: %t, %v", test.reach, test.number, !test.want, err)
		}
	}
	for _, bad := range []string{"(", ",", strings.Repeat("1", maxRange+1), "a{2000}"} {
		if _, err := parseReach(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// TestStatuses: what an ESME's answer means (SMPP 3.4 §5.1.3).
func TestStatuses(t *testing.T) {
	d := serve(t, newGate(), nil)
	e := listening(t, d, pdu.BindReceiverID, "", 0x34)
	for status, want := range map[pdu.Status]message.Failure{
		wire.RxTAppn:    {Reason: message.Undelivered, Temporary: true},
		wire.RxPAppn:    {Reason: message.Undelivered},
		wire.RxRAppn:    {Reason: message.Declined},
		wire.RMsgQFul:   {Reason: message.Overloaded, Temporary: true},
		wire.RInvDstAdr: {Reason: message.UnknownRecipient},
	} {
		done := sendLater(t.Context(), d, outgoing("hello"), toAcme())
		e.answer(e.next(), status)
		got := <-done
		if f := message.AsFailure(got.err); got.err == nil || f.Reason != want.Reason || f.Temporary != want.Temporary {
			t.Errorf("%s: %v", wire.StatusName(status), got.err)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	d := serve(t, newGate(), func(c *Config) { c.Response = time.Second })
	e := listening(t, d, pdu.BindReceiverID, "", 0x34)
	silent, lost := sendLater(t.Context(), d, outgoing("hello"), toAcme()), (<-chan sent)(nil)
	e.next()
	if f := message.AsFailure((<-silent).err); f.Reason != message.NoAnswer || !f.Temporary {
		t.Errorf("no answer in time: %v", f)
	}
	lost = sendLater(t.Context(), d, outgoing("hello"), toAcme())
	e.next()
	e.conn.Close()
	if f := message.AsFailure((<-lost).err); f.Reason != message.NoAnswer || !f.Temporary {
		t.Errorf("the connection is lost: %v", f)
	}
}

// TestSlowConsumer: one who doesn't read holds up neither others nor more than its
// share.
func TestSlowConsumer(t *testing.T) {
	g := newGate()
	g.attribute(attributeWindow, "2")
	g.accounts["other"] = plugin.Account{ID: "acc-other", Identities: []message.Address{{User: "+" + number2}}}
	d := serve(t, g, nil)
	slow := listening(t, d, pdu.BindReceiverID, "", 0x34)
	var sends []<-chan sent
	const most = 2 * (1 + queueWindows)
	for range most {
		sends = append(sends, sendLater(t.Context(), d, outgoing("hello"), toAcme()))
	}
	first, second := slow.next(), slow.next()
	waitFor(t, "the queue to fill", func() bool { return d.table.all()[0].sending.Load() == most })
	_, err := d.Send(t.Context(), outgoing("one too many"), toAcme())
	if f := message.AsFailure(err); f.Reason != message.Overloaded || !f.Temporary {
		t.Errorf("%v", err)
	}
	select {
	case q := <-slow.heard:
		t.Errorf("beyond the window came %+v", q.Body)
	default:
	}

	other := dial(t, d)
	other.want(bindAs(pdu.BindReceiverID, "other", "other"), wire.ROK)
	waitFor(t, "the bind", func() bool { return d.takes("acc-other", number1) })
	route := toAcme()
	route.Binding.Account = "acc-other"
	done := sendLater(t.Context(), d, outgoing("hello"), route)
	other.answer(other.next(), wire.ROK)
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}

	another := listening(t, d, pdu.BindReceiverID, "", 0x34) // of the same account: it gets the next
	done = sendLater(t.Context(), d, outgoing("hello"), toAcme())
	another.answer(another.next(), wire.ROK)
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
	slow.answer(first, wire.ROK)
	slow.answer(second, wire.ROK)
	for range most - 2 {
		slow.answer(slow.next(), wire.ROK)
	}
	for _, s := range sends {
		if got := <-s; got.err != nil {
			t.Error(got.err)
		}
	}
}

// TestTurns: sessions of an account take turns.
func TestTurns(t *testing.T) {
	d := serve(t, newGate(), nil)
	one, two := listening(t, d, pdu.BindReceiverID, "", 0x34), listening(t, d, pdu.BindTransceiverID, "", 0x34)
	counts := map[*esme]int{}
	for range 6 {
		done := sendLater(t.Context(), d, outgoing("hello"), toAcme())
		select {
		case q := <-one.heard:
			one.answer(q, wire.ROK)
			counts[one]++
		case q := <-two.heard:
			two.answer(q, wire.ROK)
			counts[two]++
		}
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
	}
	if counts[one] != 3 || counts[two] != 3 {
		t.Errorf("%d and %d", counts[one], counts[two])
	}
}

// TestLeavingSession: what has not been sent when a session ends goes over another
// one.
func TestLeavingSession(t *testing.T) {
	g := newGate()
	g.attribute(attributeWindow, "1")
	d := serve(t, g, nil)
	one := listening(t, d, pdu.BindReceiverID, "", 0x34)
	first := sendLater(t.Context(), d, outgoing("first"), toAcme())
	one.next()
	second := sendLater(t.Context(), d, outgoing("second"), toAcme())
	waitFor(t, "the second to wait", func() bool { return d.table.all()[0].sending.Load() == 2 })
	two := listening(t, d, pdu.BindReceiverID, "", 0x34)
	one.conn.Close()
	if f := message.AsFailure((<-first).err); f.Reason != message.NoAnswer {
		t.Errorf("%v", f)
	}
	two.answer(two.next(), wire.ROK)
	if got := <-second; got.err != nil {
		t.Error(got.err)
	}
}

// TestLeavingInTheMiddle: the parts that an ESME has when its session ends aren't
// sent again over the next.
func TestLeavingInTheMiddle(t *testing.T) {
	d := serve(t, newGate(), nil)
	one := listening(t, d, pdu.BindReceiverID, "", 0x33)
	m := outgoing(strings.Repeat("0123456789", 40))
	done := sendLater(t.Context(), d, m, toAcme())
	q := one.next()
	unbound, err := one.say(wire.Packet{ID: pdu.UnbindID})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the session to end", func() bool { return !d.takes("acc-acme", number1) })
	two := listening(t, d, pdu.BindReceiverID, "", 0x33)
	one.answer(q, wire.ROK)
	if a, err := one.await(t.Context(), unbound); err != nil || a.Status != wire.ROK {
		t.Errorf("%+v, %v", a, err)
	}
	for i := range 2 {
		q := two.next()
		if got := q.Body.(*wire.Short).Text[5]; int(got) != i+2 {
			t.Errorf("part %d comes in place of %d", got, i+2)
		}
		two.answer(q, wire.ROK)
	}
	if got := <-done; got.err != nil || !got.receipt.Final {
		t.Errorf("%+v", got)
	}
}

// TestProgressStays: also when nothing can be sent.
func TestProgressStays(t *testing.T) {
	d := serve(t, newGate(), nil)
	route := toAcme()
	route.Progress = []byte{3, 1}
	receipt, err := d.Send(t.Context(), outgoing("hello"), route)
	if err == nil || string(receipt.Progress) != "\x03\x01" {
		t.Errorf("%+v, %v", receipt, err)
	}
}

// TestProgress: what an ESME has of a long message isn't sent again.
func TestProgress(t *testing.T) {
	d := serve(t, newGate(), nil)
	e := listening(t, d, pdu.BindReceiverID, "", 0x33) // no message_payload: in parts
	m, route := outgoing(strings.Repeat("0123456789", 40)), toAcme()
	done := sendLater(t.Context(), d, m, route)
	for i, status := range []pdu.Status{wire.ROK, wire.RxTAppn} {
		q := e.next()
		if got := q.Body.(*wire.Short).Text[5]; int(got) != i+1 {
			t.Errorf("part %d comes as number %d", got, i+1)
		}
		if len(q.TLVs) > 0 {
			t.Error("a peer of 3.3 gets TLVs")
		}
		e.answer(q, status)
	}
	got := <-done
	if got.err == nil || got.receipt.Final || len(got.receipt.Progress) == 0 {
		t.Fatalf("%+v", got)
	}
	route.Progress = got.receipt.Progress
	done = sendLater(t.Context(), d, m, route)
	for i := range 2 {
		q := e.next()
		if got := q.Body.(*wire.Short).Text[5]; int(got) != i+2 {
			t.Errorf("part %d comes in place of %d", got, i+2)
		}
		e.answer(q, wire.ROK)
	}
	if got := <-done; got.err != nil || !got.receipt.Final {
		t.Errorf("%+v", got)
	}
}

func TestProgressOfAnotherCut(t *testing.T) {
	p := readProgress(nil, 3)
	p.add(1)
	if again := readProgress(p, 3); !again.has(1) || again.has(0) || again.has(2) {
		t.Errorf("%v", again)
	}
	if other := readProgress(p, 4); other.has(1) {
		t.Error("a part of another cut counts")
	}
	if junk := readProgress([]byte("junk"), 20); junk.has(0) {
		t.Error("junk counts")
	}
	whole := readProgress(nil, 255)
	for i := range 255 {
		whole.add(i)
	}
	if len(whole) > 256 {
		t.Errorf("%d octets", len(whole))
	}
}

func TestUnsendable(t *testing.T) {
	d := serve(t, newGate(), nil)
	listening(t, d, pdu.BindReceiverID, "", 0x34)
	m := outgoing("<p>")
	m.ContentType = "text/html"
	_, err := d.Send(t.Context(), m, toAcme())
	if f := message.AsFailure(err); f.Reason != message.UnsupportedType || f.Temporary {
		t.Errorf("%v", err)
	}
}

// TestSendEnds: with its context, also while it waits for its turn.
func TestSendEnds(t *testing.T) {
	g := newGate()
	g.attribute(attributeWindow, "1")
	d := serve(t, g, nil)
	e := listening(t, d, pdu.BindReceiverID, "", 0x34)
	sendLater(t.Context(), d, outgoing("hello"), toAcme())
	e.next()
	ctx, cancel := context.WithCancel(t.Context())
	waiting := sendLater(ctx, d, outgoing("hello"), toAcme())
	waitFor(t, "it to wait", func() bool { return d.table.all()[0].sending.Load() == 2 })
	cancel()
	if f := message.AsFailure((<-waiting).err); !f.Temporary || f.Reason == message.NoAnswer {
		t.Errorf("what was never sent: %v", f)
	}
}

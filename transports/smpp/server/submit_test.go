package server

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

var (
	fromAcme = message.Address{User: "+" + number1, Host: "sms.example.com"}
	toNumber = message.Address{User: "+" + number2}
)

func TestSubmit(t *testing.T) {
	g := newGate()
	g.ticket = func(n int) plugin.Ticket { return ticket{name: fmt.Sprint("id", n)} }
	d := serve(t, g, nil)
	e := boundAs(t, d, pdu.BindTransmitterID)
	payload := shortOf(pdu.DataSMID, number1, number2, "")
	payload.TLVs = wire.TLVs{{Tag: pdutlv.TagMessagePayload, Value: []byte("hello")}}
	for i, q := range []wire.Packet{shortOf(pdu.SubmitSMID, number1, number2, "hello"), payload} {
		a := e.want(q, wire.ROK)
		if body, ok := a.Body.(*wire.ShortResp); !ok || body.MessageID != fmt.Sprint("id", i+1) {
			t.Errorf("answered %+v", a.Body)
		}
		arrival := g.arrived()[i]
		m := arrival.Message
		if m.From != fromAcme || m.Recipient != toNumber || string(m.Body) != "hello" {
			t.Errorf("%+v", m)
		}
		if m.Transport != "esmes" || m.Peer != "acme" || m.Hops != 70 || time.Since(m.Received) > time.Minute {
			t.Errorf("%+v", m)
		}
		if arrival.Account.ID != "acc-acme" || !arrival.Account.Owns(fromAcme) || arrival.ShortName || arrival.Call == "" {
			t.Errorf("%+v", arrival)
		}
	}
	if n := len(acme().Identities); n != 2 || len(g.accounts["acme"].Identities) != n {
		t.Error("the account that the engine gave has changed")
	}
}

// TestSource: who may say what it is.
func TestSource(t *testing.T) {
	g := newGate()
	g.accounts["sip"] = plugin.Account{ID: "sip", Identities: []message.Address{{User: "alice", Host: "sms.example.com"}}}
	g.accounts["any"] = plugin.Account{ID: "any", Identities: []message.Address{{User: "77"}}, Attributes: map[string]string{attributeSenders: `\+4477.*|Shop`}}
	d := serve(t, g, nil)
	number := func(ton uint8, s string) wire.Address { return wire.Address{TON: ton, NPI: 1, Number: s} }
	for _, test := range []struct {
		as     string
		source wire.Address
		want   pdu.Status
		from   string
	}{
		{"acme", number(1, number1), wire.ROK, "+" + number1},
		{"acme", number(0, "+"+number1), wire.ROK, "+" + number1},
		{"acme", number(5, "ACME"), wire.ROK, "ACME"},
		{"acme", number(0, ""), wire.ROK, "+" + number1},
		{"acme", number(1, number2), wire.RInvSrcAdr, ""},
		{"acme", number(5, "acme"), wire.RInvSrcAdr, ""},
		{"acme", number(5, "Shop"), wire.RInvSrcAdr, ""},
		{"sip", number(5, "alice"), wire.ROK, "alice"},
		{"sip", number(0, ""), wire.ROK, "alice"},
		{"any", number(1, number2), wire.ROK, "+" + number2},
		{"any", number(5, "Shop"), wire.ROK, "Shop"},
		{"any", number(5, "Shopping"), wire.RInvSrcAdr, ""},
		{"any", number(0, ""), wire.ROK, "77"},
	} {
		t.Run(test.as+" "+test.source.Number, func(t *testing.T) {
			e := dial(t, d)
			e.want(bindAs(pdu.BindTransceiverID, test.as, test.as), wire.ROK)
			q := shortOf(pdu.SubmitSMID, "", number2, "x")
			q.Body.(*wire.Short).Source = test.source
			before := len(g.arrived())
			e.want(q, test.want)
			arrivals := g.arrived()[before:]
			if test.want != wire.ROK {
				if len(arrivals) != 0 {
					t.Errorf("%d came in", len(arrivals))
				}
				return
			}
			want := message.Address{User: test.from, Host: "sms.example.com"}
			if a := arrivals[0]; a.Message.From != want || !a.Account.Owns(want) {
				t.Errorf("from %s by %v", a.Message.From, a.Account.Identities)
			}
		})
	}
}

func TestRecipient(t *testing.T) {
	e := boundAs(t, serve(t, newGate(), nil), pdu.BindTransmitterID)
	for number, want := range map[string]pdu.Status{"": wire.RInvDstAdr, "bob": wire.RInvDstAdr, "12": wire.RInvDstAdr, "112": wire.ROK} {
		q := shortOf(pdu.SubmitSMID, number1, "", "x")
		q.Body.(*wire.Short).Destination = wire.Address{Number: number}
		e.want(q, want)
	}
}

// TestKey: the same PDU under the same number on the same connection is a repeat.
func TestKey(t *testing.T) {
	g := newGate()
	d := serve(t, g, nil)
	one, two := boundAs(t, d, pdu.BindTransmitterID), boundAs(t, d, pdu.BindTransmitterID)
	numbered := func(sequence uint32, words string) wire.Packet {
		q := shortOf(pdu.SubmitSMID, number1, number2, words)
		q.Sequence = sequence
		return q
	}
	one.want(numbered(7, "x"), wire.ROK)
	one.want(numbered(7, "x"), wire.ROK)
	one.want(numbered(8, "x"), wire.ROK)
	one.want(numbered(7, "y"), wire.ROK)
	two.want(numbered(7, "x"), wire.ROK)
	keys := map[string]int{}
	for _, a := range g.arrived() {
		keys[a.Key]++
	}
	if len(keys) != 4 || keys[g.arrived()[0].Key] != 2 || keys[""] != 0 {
		t.Errorf("%v", keys)
	}
}

// TestShortNames: a peer of 3.3 has room for eight characters.
func TestShortNames(t *testing.T) {
	g := newGate()
	e := dial(t, serve(t, g, nil))
	q := bindAs(pdu.BindTransmitterID, "acme", "acme")
	q.Body.(*wire.Bind).InterfaceVersion = 0x33
	e.want(q, wire.ROK)
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK)
	if !g.arrived()[0].ShortName {
		t.Error("the name isn't to be short")
	}
}

func TestParts(t *testing.T) {
	g := newGate()
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	q := shortOf(pdu.SubmitSMID, number1, number2, "\x05\x00\x03\x2a\x02\x01hello")
	q.Body.(*wire.Short).ESMClass = 0x40
	e.want(q, wire.ROK)
	want := plugin.Part{Reference: 0x2a, Total: 2, Number: 1, Wait: Defaults.Dialect.PartsWait}
	if a := g.arrived()[0]; a.Part == nil || *a.Part != want || string(a.Message.Body) != "hello" {
		t.Errorf("%+v %+v", a.Part, a.Message)
	}
}

// TestReceiptFromESME: only an SMSC says what became of a message.
func TestReceiptFromESME(t *testing.T) {
	g := newGate()
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	q := shortOf(pdu.SubmitSMID, number1, number2, "id:1 sub:001 dlvrd:001 submit date:2601020304 done date:2601020305 stat:DELIVRD err:000 text:x")
	q.Body.(*wire.Short).ESMClass = 0x04
	if a := e.gets(q); a.Status == wire.ROK || len(g.arrived()) != 0 {
		t.Errorf("%s, %d came in", wire.StatusName(a.Status), len(g.arrived()))
	}
}

// TestRefusals: each failure has the status that ESMEs understand.
func TestRefusals(t *testing.T) {
	g := newGate()
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	for _, reason := range message.Reasons {
		for _, temporary := range []bool{false, true} {
			f := message.Fail(reason, "no")
			f.Temporary = temporary
			g.set(func() { g.ticket = func(int) plugin.Ticket { return ticket{refused: f} } })
			a := e.gets(shortOf(pdu.SubmitSMID, number1, number2, "x"))
			passes := slices.Contains([]pdu.Status{wire.RMsgQFul, wire.RThrottled, wire.RSysErr}, a.Status)
			switch {
			case temporary && !passes:
				t.Errorf("%s for now is answered with %s", reason, wire.StatusName(a.Status))
			case temporary && !reason.OfNode() && a.Status != wire.RMsgQFul:
				t.Errorf("%s, which is about one message, is answered with %s", reason, wire.StatusName(a.Status))
			case !temporary && !reason.OfNode() && passes:
				t.Errorf("%s for good is answered with %s", reason, wire.StatusName(a.Status))
			}
		}
	}
}

// TestLateAnswer: what takes its time doesn't hold up the answers to the rest, and
// is answered in the end.
func TestLateAnswer(t *testing.T) {
	g := newGate()
	hold := make(chan struct{})
	g.ticket = func(n int) plugin.Ticket {
		if n == 1 {
			return ticket{hold: hold, name: "late"}
		}
		return ticket{name: "at once"}
	}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	late, err := e.say(shortOf(pdu.SubmitSMID, number1, number2, "x"))
	if err != nil {
		t.Fatal(err)
	}
	if a := e.want(shortOf(pdu.SubmitSMID, number1, number2, "y"), wire.ROK); a.Body.(*wire.ShortResp).MessageID != "at once" {
		t.Errorf("%+v", a)
	}
	close(hold)
	a, err := e.await(t.Context(), late)
	if err != nil || a.Body.(*wire.ShortResp).MessageID != "late" {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestUnknownIsNotAnswered, and takes no room in the window.
func TestUnknownIsNotAnswered(t *testing.T) {
	g := newGate()
	g.ticket = func(n int) plugin.Ticket {
		if n <= 3 {
			return ticket{refused: message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown)}
		}
		return ticket{}
	}
	e := boundAs(t, serve(t, g, func(c *Config) { c.InWindow = 2 }), pdu.BindTransmitterID)
	var lost []<-chan wire.Packet
	for i := range 3 {
		answer, err := e.say(shortOf(pdu.SubmitSMID, number1, number2, "x"))
		if err != nil {
			t.Fatal(err)
		}
		lost = append(lost, answer)
		waitFor(t, "the message", func() bool { return len(g.arrived()) == i+1 })
	}
	q := shortOf(pdu.SubmitSMID, number1, number2, "y")
	waitFor(t, "room in the window", func() bool { return e.gets(q).Status == wire.ROK })
	for _, answer := range lost {
		select {
		case a := <-answer:
			t.Errorf("answered with %s", wire.StatusName(a.Status))
		default:
		}
	}
}

// TestInWindow: what is too much at once is throttled, while enquire_link is
// answered.
func TestInWindow(t *testing.T) {
	g := newGate()
	hold := make(chan struct{})
	g.ticket = func(int) plugin.Ticket { return ticket{hold: hold} }
	e := boundAs(t, serve(t, g, func(c *Config) { c.InWindow = 5 }), pdu.BindTransmitterID)
	var answers []<-chan wire.Packet
	for range 5 {
		answer, err := e.say(shortOf(pdu.SubmitSMID, number1, number2, "x"))
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, answer)
	}
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.RThrottled)
	e.want(wire.Packet{ID: pdu.EnquireLinkID}, wire.ROK)
	close(hold)
	for _, answer := range answers {
		if a, err := e.await(t.Context(), answer); err != nil || a.Status != wire.ROK {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

// TestRate: it is the account's, over all of its sessions.
func TestRate(t *testing.T) {
	g := newGate()
	g.attribute(attributeRate, "3")
	d := serve(t, g, nil)
	one, two := boundAs(t, d, pdu.BindTransmitterID), boundAs(t, d, pdu.BindTransmitterID)
	var got []pdu.Status
	for range 4 {
		got = append(got, one.gets(shortOf(pdu.SubmitSMID, number1, number2, "x")).Status, two.gets(shortOf(pdu.SubmitSMID, number1, number2, "x")).Status)
	}
	if slices.Index(got, wire.RThrottled) != 3 {
		t.Errorf("%v", got)
	}
}

func TestBucket(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var b bucket
	take := func(n int, perSecond float64, want bool) {
		t.Helper()
		if got := b.take(n, perSecond, now); got != want {
			t.Errorf("take %d of %v a second: %t", n, perSecond, got)
		}
	}
	take(1000, 0, true)
	take(1, 2, true)
	take(1, 2, true)
	take(1, 2, false)
	now = now.Add(500 * time.Millisecond)
	take(1, 2, true)
	take(1, 2, false)
	now = now.Add(time.Hour)
	take(5, 2, true) // overdrawn by three
	now = now.Add(time.Second)
	take(1, 2, false)
	now = now.Add(time.Second)
	take(1, 2, true)
	now = now.Add(-time.Hour) // the clock steps back
	take(1, 2, false)
}

func multiTo(numbers ...string) wire.Packet {
	body := &wire.Multi{Short: wire.Short{Source: numbered(number1), Text: []byte("to all")}}
	for _, number := range numbers {
		body.Destinations = append(body.Destinations, wire.Address{TON: 1, NPI: 1, Number: number})
	}
	return wire.Packet{ID: pdu.SubmitMultiID, Body: body}
}

// TestSubmitMulti: one message for each recipient, and the name of the first that
// is ours.
func TestSubmitMulti(t *testing.T) {
	g := newGate()
	g.ticket = func(n int) plugin.Ticket {
		if n == 1 {
			return ticket{refused: message.Fail(message.UnknownRecipient, "no")}
		}
		return ticket{name: fmt.Sprint("id", n)}
	}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	a := e.want(multiTo("15550001", "15550002", "nobody", "15550003"), wire.ROK)
	want := &wire.MultiResp{MessageID: "id2", Failed: []wire.Failed{
		{Address: wire.Address{TON: 1, NPI: 1, Number: "nobody"}, Status: wire.RInvDstAdr},
		{Address: wire.Address{TON: 1, NPI: 1, Number: "15550001"}, Status: wire.RInvDstAdr},
	}}
	if !reflect.DeepEqual(a.Body, want) {
		t.Errorf("%+v", a.Body)
	}
	var to []string
	keys := map[string]bool{}
	for _, arrival := range g.arrived() {
		to = append(to, arrival.Message.Recipient.User)
		keys[arrival.Key] = true
	}
	if !slices.Equal(to, []string{"+15550001", "+15550002", "+15550003"}) || len(keys) != 3 {
		t.Errorf("to %v with keys %v", to, keys)
	}
}

func TestSubmitMultiToNobody(t *testing.T) {
	g := newGate()
	g.ticket = func(int) plugin.Ticket { return ticket{refused: message.Fail(message.InsufficientFunds, "no")} }
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	e.want(multiTo("15550001", "15550002"), wire.RxRAppn)
	e.want(multiTo("nobody"), wire.RInvDstAdr)
	lists := multiTo("15550001")
	lists.Body.(*wire.Multi).Lists = []string{"friends"}
	e.want(lists, wire.RCntSubDL)
	strange := multiTo("15550001")
	strange.Body.(*wire.Multi).Source = numbered(number2)
	e.want(strange, wire.RInvSrcAdr)
}

func TestSubmitMultiUnknown(t *testing.T) {
	g := newGate()
	g.ticket = func(n int) plugin.Ticket {
		if n == 2 {
			return ticket{refused: message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown)}
		}
		return ticket{}
	}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	answer, err := e.say(multiTo("15550001", "15550002"))
	if err != nil {
		t.Fatal(err)
	}
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK) // answers come in order
	select {
	case a := <-answer:
		t.Errorf("%+v", a)
	default:
	}
}

func TestSubmitMultiCountsEach(t *testing.T) {
	g := newGate()
	g.attribute(attributeRate, "2")
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	e.want(multiTo("15550001", "15550002", "15550003"), wire.ROK)
	e.want(multiTo("15550001"), wire.RThrottled)
}

// TestPanic: a request whose handling panics is answered, and those behind it are
// handled.
func TestPanic(t *testing.T) {
	g := newGate()
	g.ticket = func(n int) plugin.Ticket {
		switch n {
		case 1:
			return panicking{}
		case 2:
			panic("in Submit")
		}
		return ticket{}
	}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	for _, want := range []pdu.Status{wire.RSysErr, wire.RSysErr, wire.ROK} {
		e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), want)
	}
}

type panicking struct{ plugin.Ticket }

func (panicking) Accepted(context.Context) (plugin.Answer, error) { panic(errors.New("in Accepted")) }

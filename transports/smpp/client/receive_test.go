package client

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/smsc"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// originate makes a phone send an SMS, and returns what we answered.
func (b *bench) originate(text string) error {
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	return b.center.Originate(ctx, "+447700900002", "+447700900001", text)
}

func TestArrival(t *testing.T) {
	b := work(t, smsc.Config{}, func(c *Config) { c.Account = "phones" })
	if err := b.originate("hello"); err != nil {
		t.Fatal(err)
	}
	a := b.gate.arrivals[0]
	from := message.Address{User: "+447700900002", Host: "sms.example.com"}
	m := a.Message
	if m.From != from || m.Recipient != (message.Address{User: "+447700900001"}) || string(m.Body) != "hello" {
		t.Errorf("it is from %s to %s: %q", m.From, m.Recipient, m.Body)
	}
	if m.ContentType != "text/plain;charset=utf-8" || m.Transport != "vendor" || m.Peer != "127.0.0.1" || m.Received.IsZero() {
		t.Errorf("it is %+v", m)
	}
	if a.Account.ID != "phones" || !slices.Equal(a.Account.Identities, []message.Address{from}) {
		t.Errorf("its account is %+v", a.Account)
	}
	if a.Part != nil || a.Key == "" || a.Call == "" {
		t.Errorf("the arrival is %+v", a)
	}
}

func TestDataSM(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	response, err := b.center.Sessions()[0].Do(t.Context(), &wire.Short{
		Of: pdu.DataSMID, Source: wire.Address{TON: 1, NPI: 1, Number: "447700900002"},
		Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900001"}, RegisteredDelivery: 1,
	}, wire.TLVs{{Tag: pdutlv.TagMessagePayload, Value: []byte("hello")}})
	if err != nil || response.Status != wire.ROK || response.ID != pdu.DataSMRespID {
		t.Fatalf("data_sm is answered with %+v, %v", response, err)
	}
	if m := b.gate.arrivals[0].Message; string(m.Body) != "hello" || m.Report != message.ReportNothing {
		t.Errorf("it is %+v", m)
	}
}

func TestAccountIsTheInstanceByDefault(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	if err := b.originate("hello"); err != nil {
		t.Fatal(err)
	}
	if got := b.gate.arrivals[0].Account.ID; got != "vendor" {
		t.Errorf("the account is %q", got)
	}
}

func TestPartsArriveAsSuch(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	session := b.center.Sessions()[0]
	for i, data := range []string{"\x05\x00\x03\x07\x02\x01one ", "\x05\x00\x03\x07\x02\x02two"} {
		response, err := session.Do(t.Context(), &wire.Short{
			Of: pdu.DeliverSMID, Source: wire.Address{TON: 1, NPI: 1, Number: "447700900002"},
			Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900001"}, ESMClass: 0x40, Text: []byte(data),
		}, nil)
		if err != nil || response.Status != wire.ROK {
			t.Fatalf("part %d: %s, %v", i+1, wire.StatusName(response.Status), err)
		}
	}
	for i, want := range []string{"one ", "two"} {
		a := b.gate.arrivals[i]
		if a.Part == nil || a.Part.Number != uint8(i+1) || a.Part.Total != 2 || a.Part.Reference != 7 || string(a.Message.Body) != want {
			t.Errorf("part %d is %+v of %q", i+1, a.Part, a.Message.Body)
		}
	}
	if b.gate.arrivals[0].Key == b.gate.arrivals[1].Key {
		t.Error("two parts have the same key")
	}
}

func TestRefusalsOfArrivals(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	for i, c := range []struct {
		why  error
		want pdu.Status
	}{
		{message.Fail(message.UnknownRecipient, "nobody"), wire.RInvDstAdr},
		{message.Fail(message.Rejected, "no"), translate.StatusOf(message.Fail(message.Rejected, "no"))},
		{message.FailForNow(message.StorageDown, "later"), wire.RxTAppn},
		{message.FailForNow(message.Overloaded, "later"), wire.RxTAppn},
		{message.FailForNow(message.PolicyFailed, "later"), translate.StatusOf(message.FailForNow(message.PolicyFailed, "later"))},
	} {
		b.gate.note(func() { b.gate.refused = c.why })
		if err := b.originate("hello"); err == nil {
			t.Errorf("%v: it was taken", c.why)
		}
		if got := b.answers(pdu.DeliverSMRespID, i+1)[i]; got != c.want {
			t.Errorf("%v: answered with %s, want %s", c.why, wire.StatusName(got), wire.StatusName(c.want))
		}
	}
}

func TestUnknownIsNotAnswered(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	b.gate.note(func() { b.gate.refused = message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.center.Originate(ctx, "+447700900002", "+447700900001", "hello") }()
	b.gate.await(t, "it arrives", func() bool { return len(b.gate.arrivals) == 1 })
	b.gate.note(func() { b.gate.refused = nil })
	if err := b.originate("next"); err != nil { // answered behind it
		t.Fatal(err)
	}
	if got := b.answers(pdu.DeliverSMRespID, 1); len(got) != 1 {
		t.Errorf("of two messages, one of which nobody knows about, %d were answered", len(got))
	}
	cancel()
	<-done
}

// receipt is a deliver_sm with what became of a message.
func receipt(id, stat string, state translate.State) *wire.Short {
	return &wire.Short{
		Of: pdu.DeliverSMID, Source: wire.Address{TON: 1, NPI: 1, Number: "447700900002"},
		Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900001"}, ESMClass: 0x04,
		Text: []byte("id:" + id + " sub:001 dlvrd:000 submit date:2601011200 done date:2601011200 stat:" + stat + " err:000 text:"),
	}
}

func (b *bench) sayReceipt(short *wire.Short) pdu.Status {
	b.Helper()
	response, err := b.center.Sessions()[0].Do(b.Context(), short, nil)
	if err != nil {
		b.Fatal(err)
	}
	return response.Status
}

func TestReports(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	for _, c := range []struct{ id, stat string }{{"1", "DELIVRD"}, {"2", "UNDELIV"}, {"3", "ENROUTE"}, {"4", "REJECTD"}} {
		if got := b.sayReceipt(receipt(c.id, c.stat, 0)); got != wire.ROK {
			t.Errorf("%s: answered with %s", c.stat, wire.StatusName(got))
		}
	}
	var got []string
	for _, r := range b.gate.reports {
		got = append(got, r.id)
		if r.status.Delivered != (r.id == "1") {
			t.Errorf("reported was %+v", r)
		}
	}
	if strings.Join(got, " ") != "1 2 4" {
		t.Errorf("reported were %q: what is on its way has no end", got)
	}
}

// TestReceiptBeforeItsResponse: the engine doesn't know yet what it is about.
func TestReceiptBeforeItsResponse(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	b.gate.report = func(_ string, try int) error {
		if try < 3 {
			return message.FailForNow(message.Unavailable, "nobody waits for it")
		}
		return nil
	}
	if got := b.sayReceipt(receipt("1", "DELIVRD", 0)); got != wire.ROK {
		t.Errorf("answered with %s", wire.StatusName(got))
	}
	if len(b.gate.reports) != 1 || b.gate.tries["1"] != 3 {
		t.Errorf("reported %d times, %d tries", len(b.gate.reports), b.gate.tries["1"])
	}
}

func TestReceiptThatNobodyCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.report = func(string, int) error { return message.FailForNow(message.StorageDown, "no disk") }
		b := &bind{client: &Client{gate: g}}
		early := message.FailForNow(message.Unavailable, "not yet")
		began := time.Now()
		err := b.reportAgain(t.Context(), &translate.Receipt{MessageID: "1", Final: true}, early)
		if got := time.Since(began); got < reportWithin/2 || got > reportWithin {
			t.Errorf("it is tried for %s", got)
		}
		if got := refusalOfReport(err); got != wire.RxTAppn {
			t.Errorf("answered with %s", wire.StatusName(got))
		}
		g.becomes(message.FailForNow(message.Standby, "another node"))
		began = time.Now()
		_ = b.reportAgain(t.Context(), &translate.Receipt{MessageID: "1", Final: true}, early)
		if got := time.Since(began); got > firstReport {
			t.Errorf("on a standby it is tried for %s", got)
		}
	})
}

func TestInactiveTakesNothing(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	session := b.center.Sessions()[0]
	b.gate.becomes(message.FailForNow(message.Standby, "another node"))
	response, err := session.Do(t.Context(), receipt("1", "DELIVRD", 0), nil)
	if err == nil && response.Status != wire.RxTAppn && response.Status != wire.RThrottled { // the latter once it unbinds
		t.Errorf("answered with %s", wire.StatusName(response.Status))
	}
	if len(b.gate.reports)+len(b.gate.arrivals) != 0 {
		t.Error("something came in")
	}
}

func TestWhatIsNotForAnESME(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	short := receipt("1", "DELIVRD", 0)
	short.Of = pdu.SubmitSMID
	if got := b.sayReceipt(short); got != wire.RInvBndSts {
		t.Errorf("submit_sm is answered with %s", wire.StatusName(got))
	}
	if err := b.originate("hello"); err != nil {
		t.Error(err)
	}
}

func TestUnreadable(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	short := receipt("", "", 0)
	short.ESMClass, short.Text = 0x40, []byte{9, 9} // a user data header that isn't there
	if got := b.sayReceipt(short); got == wire.ROK {
		t.Error("it was taken")
	}
	if n := b.client.metrics.refused.Value(); n != 1 {
		t.Errorf("%d were refused", n)
	}
}

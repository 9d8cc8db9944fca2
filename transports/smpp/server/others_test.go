package server

import (
	"testing"
	"time"

	"github.com/linxGnu/gosmpp"
	"github.com/linxGnu/gosmpp/data"
	gopdu "github.com/linxGnu/gosmpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
)

// TestGosmpp is a client of another make: it binds, submits text that takes UCS-2,
// gets a message, and unbinds.
func TestGosmpp(t *testing.T) {
	g := newGate()
	g.ticket = func(int) plugin.Ticket { return ticket{name: "AbCdEfGhIjKlMnOpQrStUv"} }
	d := serve(t, g, nil)
	answers, messages := make(chan *gopdu.SubmitSMResp, 1), make(chan *gopdu.DeliverSM, 1)
	session, err := gosmpp.NewSession(
		gosmpp.TRXConnector(gosmpp.NonTLSDialer, gosmpp.Auth{SMSC: d.Addrs()[0].String(), SystemID: "acme", Password: "acme"}),
		gosmpp.Settings{
			EnquireLink: time.Minute, ReadTimeout: 2 * time.Minute,
			OnAllPDU: func(p gopdu.PDU) (gopdu.PDU, bool) {
				switch p := p.(type) {
				case *gopdu.SubmitSMResp:
					answers <- p
				case *gopdu.DeliverSM:
					messages <- p
					return p.GetResponse(), false
				}
				return nil, false
			},
		}, -1)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the bind", func() bool { return d.takes("acc-acme", number1) })

	const words = "Grüße, שלום, 你好 👋"
	submit := gopdu.NewSubmitSM().(*gopdu.SubmitSM)
	submit.SourceAddr, submit.DestAddr = goAddress(t, number1), goAddress(t, number2)
	if err := submit.Message.SetMessageWithEncoding(words, data.UCS2); err != nil {
		t.Fatal(err)
	}
	if err := session.Transceiver().Submit(submit); err != nil {
		t.Fatal(err)
	}
	if a := within(t, answers); !a.IsOk() || a.MessageID != "AbCdEfGhIjKlMnOpQrStUv" {
		t.Errorf("%+v", a)
	}
	if m := g.arrived()[0].Message; m.From != fromAcme || m.Recipient != toNumber || string(m.Body) != words {
		t.Errorf("%+v", m)
	}

	done := sendLater(t.Context(), d, outgoing(words), toAcme())
	got := within(t, messages)
	if text, err := got.Message.GetMessage(); err != nil || text != words || got.SourceAddr.Address() != number2 || got.DestAddr.Address() != number1 {
		t.Errorf("%q from %s, %v", text, got.SourceAddr.Address(), err)
	}
	if s := within(t, done); s.err != nil || !s.receipt.Final {
		t.Errorf("%+v", s)
	}
	_ = session.Close() // it says unbind, and may find that we have hung up before it does
	waitFor(t, "the end of the session", func() bool { return d.table.count() == 0 })
}

func goAddress(t *testing.T, number string) gopdu.Address {
	t.Helper()
	a, err := gopdu.NewAddressWithTonNpiAddr(1, 1, number)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// within waits for something that takes milliseconds by design.
func within[V any](t *testing.T, c <-chan V) V {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(soon):
		t.Fatal("it doesn't come")
	}
	panic("unreachable")
}

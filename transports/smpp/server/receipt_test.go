package server

import (
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// TestReportAsked: what registered_delivery asks for. Acknowledgements of phones
// and intermediate notifications aren't given (SMPP 3.4 §5.2.17).
func TestReportAsked(t *testing.T) {
	g := newGate()
	d := serve(t, g, nil)
	e := boundAs(t, d, pdu.BindTransceiverID)
	for registered, want := range map[uint8]message.Report{
		0: message.ReportNothing, 1: message.ReportEnd, 2: message.ReportFailure, 3: message.ReportDelivery,
		0x10: message.ReportNothing, 0x1c: message.ReportNothing, 0x11: message.ReportEnd,
	} {
		submit, data := shortOf(pdu.SubmitSMID, number1, number2, "hello"), shortOf(pdu.DataSMID, number1, number2, "")
		data.TLVs = wire.TLVs{{Tag: pdutlv.TagMessagePayload, Value: []byte("hello")}}
		for _, q := range []wire.Packet{submit, data} {
			q.Body.(*wire.Short).RegisteredDelivery = registered
			e.want(q, wire.ROK)
		}
		common := *submit.Body.(*wire.Short)
		common.Of, common.Destination = pdu.SubmitMultiID, wire.Address{}
		e.want(wire.Packet{ID: pdu.SubmitMultiID, Body: &wire.Multi{
			Short: common, Destinations: []wire.Address{numbered(number2), numbered("447700900003")},
		}}, wire.ROK)
		arrived := g.arrived()
		for _, a := range arrived[len(arrived)-4:] {
			if a.Message.Report != want {
				t.Errorf("registered_delivery %#x asks for %d, want %d", registered, a.Message.Report, want)
			}
		}
	}
}

// TestReplaceChangesReport: replace_sm says it anew (SMPP 3.4 §4.10).
func TestReplaceChangesReport(t *testing.T) {
	g := newGate()
	g.submitted["id1"] = plugin.Submitted{From: fromAcme, Recipient: toNumber, State: plugin.SubmittedWaiting}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	for i, want := range []message.Report{message.ReportNothing, message.ReportEnd} {
		e.want(wire.Packet{ID: pdu.ReplaceSMID, Body: &wire.Replace{MessageID: "id1", RegisteredDelivery: uint8(i), Text: []byte("x")}}, wire.ROK)
		g.mu.Lock()
		by := g.replaced[i]
		g.mu.Unlock()
		if by.Report == nil || *by.Report != want {
			t.Errorf("%+v, want %d", by, want)
		}
	}
}

func receiptFor(from message.Address, state message.ReceiptState, why message.Reason) *message.Message {
	submitted := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	return &message.Message{
		From: toNumber, Recipient: from, ContentType: message.TypeReceipt, Received: submitted.Add(time.Minute),
		Receipt: &message.Receipt{PublicID: "b9yXk2Jc0dQe4LrS8mTzVw", State: state, Reason: why, Submitted: submitted, Done: submitted.Add(time.Minute)},
	}
}

func TestReceipt(t *testing.T) {
	d := serve(t, newGate(), nil)
	const head = "id:b9yXk2Jc0dQe4LrS8mTzVw sub:001 dlvrd:00"
	const dates = " submit date:2601311200 done date:2601311201 stat:"
	for _, version := range []uint8{0x33, 0x34, 0x50} {
		e := listening(t, d, pdu.BindReceiverID, "", version)
		for _, test := range []struct {
			from  message.Address
			to    wire.Address
			state message.ReceiptState
			why   message.Reason
			text  string
			code  uint8
		}{
			{fromAcme, numbered(number1), message.ReceiptDelivered, "", "1" + dates + "DELIVRD err:000 text:", wire.StateDelivered},
			{fromAcme, numbered(number1), message.ReceiptFailed, message.Expired, "0" + dates + "EXPIRED err:000 text:", wire.StateExpired},
			{fromAcme, numbered(number1), message.ReceiptFailed, message.Cancelled, "0" + dates + "DELETED err:000 text:", wire.StateDeleted},
			{fromAcme, numbered(number1), message.ReceiptFailed, message.Gone, "0" + dates + "UNDELIV err:000 text:", wire.StateUndeliverable},
			{fromAcme, numbered(number1), message.ReceiptFailed, message.Declined, "0" + dates + "REJECTD err:000 text:", wire.StateRejected},
			{fromAcme, numbered(number1), message.ReceiptUnknown, "", "0" + dates + "UNKNOWN err:000 text:", wire.StateUnknown},
			{message.Address{User: "ACME", Host: "sms.example.com"}, wire.Address{TON: 5, Number: "ACME"}, message.ReceiptDelivered, "", "1" + dates + "DELIVRD err:000 text:", wire.StateDelivered},
			{message.Address{User: "70007", Host: "sms.example.com"}, wire.Address{NPI: 1, Number: "70007"}, message.ReceiptDelivered, "", "1" + dates + "DELIVRD err:000 text:", wire.StateDelivered},
		} {
			done := sendLater(t.Context(), d, receiptFor(test.from, test.state, test.why), toAcme())
			q := e.next()
			short, ok := q.Body.(*wire.Short)
			if !ok || q.ID != pdu.DeliverSMID || short.Source != numbered(number2) || short.Destination != test.to || short.ESMClass != 4 || string(short.Text) != head+test.text {
				t.Errorf("%#x: %+v", version, q.Body)
			}
			id, hasID := q.TLVs.Text(pdutlv.TagReceiptedMessageID)
			code, hasCode := q.TLVs.Uint(pdutlv.TagMessageStateOption)
			if version == 0x33 && len(q.TLVs) > 0 || version != 0x33 && (!hasID || !hasCode || id != "b9yXk2Jc0dQe4LrS8mTzVw" || code != uint32(test.code) || len(q.TLVs) != 2) {
				t.Errorf("%#x: %+v", version, q.TLVs)
			}
			e.answer(q, wire.ROK)
			if got := <-done; got.err != nil || !got.receipt.Final {
				t.Errorf("%+v", got)
			}
		}
		e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
		e.ends()
		waitFor(t, "the end", func() bool { return d.table.count() == 0 })
	}
}

// TestReceiptGoesWhereItCan: a session that serves the sender's number comes first,
// but another one does; a transmitter doesn't.
func TestReceiptGoesWhereItCan(t *testing.T) {
	d := serve(t, newGate(), nil)
	boundAs(t, d, pdu.BindTransmitterID)
	_, err := d.Send(t.Context(), receiptFor(fromAcme, message.ReceiptDelivered, ""), toAcme())
	if f := message.AsFailure(err); f.Reason != message.Unavailable || !f.Temporary {
		t.Errorf("%v", err)
	}
	goesTo := func(e *esme) {
		t.Helper()
		done := sendLater(t.Context(), d, receiptFor(fromAcme, message.ReceiptDelivered, ""), toAcme())
		e.answer(e.next(), wire.ROK)
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
	}
	goesTo(listening(t, d, pdu.BindReceiverID, "^1555", 0x34))
	serving := listening(t, d, pdu.BindReceiverID, "^4477", 0x34)
	for range 3 {
		goesTo(serving)
	}
}

// TestReceiptIsRepeated while the ESME can't take it, and isn't if it won't.
func TestReceiptIsRepeated(t *testing.T) {
	d := serve(t, newGate(), nil)
	e := listening(t, d, pdu.BindReceiverID, "", 0x34)
	for status, temporary := range map[pdu.Status]bool{wire.RMsgQFul: true, wire.RxTAppn: true, wire.RxPAppn: false} {
		done := sendLater(t.Context(), d, receiptFor(fromAcme, message.ReceiptDelivered, ""), toAcme())
		e.answer(e.next(), status)
		if f := message.AsFailure((<-done).err); f.Temporary != temporary {
			t.Errorf("%s: %v", wire.StatusName(status), f)
		}
	}
}

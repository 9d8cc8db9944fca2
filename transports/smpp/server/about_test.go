package server

import (
	"reflect"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

func TestQuery(t *testing.T) {
	g := newGate()
	ended := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	g.submitted["m1"] = plugin.Submitted{From: fromAcme, Recipient: toNumber, State: plugin.SubmittedDelivered, Ended: ended}
	g.submitted["m2"] = plugin.Submitted{From: fromAcme, Recipient: toNumber, State: plugin.SubmittedWaiting}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	query := func(name, source string) wire.Packet {
		return wire.Packet{ID: pdu.QuerySMID, Body: &wire.Query{MessageID: name, Source: numbered(source)}}
	}
	for name, want := range map[string]*wire.QueryResp{
		"m1": {MessageID: "m1", State: wire.StateDelivered, FinalDate: "260102030405000+"},
		"m2": {MessageID: "m2", State: wire.StateEnroute},
	} {
		if a := e.want(query(name, number1), wire.ROK); !reflect.DeepEqual(a.Body, want) {
			t.Errorf("%+v", a.Body)
		}
	}
	e.want(query("m1", ""), wire.ROK)
	e.want(query("m1", number2), wire.RQueryFail)
	e.want(query("m3", number1), wire.RInvMsgID)
	e.want(query("", number1), wire.RInvMsgID)
	g.set(func() { g.inactive = message.FailForNow(message.Draining, "") })
	e.want(query("m1", number1), wire.RSysErr)
}

// TestStates is the table of SMPP 3.4 §5.2.28.
func TestStates(t *testing.T) {
	for _, test := range []struct {
		state   plugin.SubmittedState
		reason  message.Reason
		version uint8
		want    uint8
	}{
		{plugin.SubmittedScheduled, "", translate.Version34, wire.StateEnroute},
		{plugin.SubmittedScheduled, "", translate.Version50, wire.StateScheduled},
		{plugin.SubmittedWaiting, "", translate.Version34, wire.StateEnroute},
		{plugin.SubmittedUnknown, "", translate.Version34, wire.StateEnroute},
		{plugin.SubmittedHanded, "", translate.Version34, wire.StateEnroute},
		{plugin.SubmittedDelivered, "", translate.Version34, wire.StateDelivered},
		{plugin.SubmittedDiscarded, "", translate.Version34, wire.StateDeleted},
		{plugin.SubmittedFailed, message.Expired, translate.Version34, wire.StateExpired},
		{plugin.SubmittedFailed, message.Cancelled, translate.Version34, wire.StateDeleted},
		{plugin.SubmittedFailed, message.Rejected, translate.Version34, wire.StateRejected},
		{plugin.SubmittedFailed, message.Declined, translate.Version34, wire.StateRejected},
		{plugin.SubmittedFailed, message.Gone, translate.Version34, wire.StateUndeliverable},
		{plugin.SubmittedFailed, message.Undelivered, translate.Version34, wire.StateUndeliverable},
	} {
		if got := stateOf(plugin.Submitted{State: test.state, Reason: test.reason}, test.version); got != test.want {
			t.Errorf("%s %s for %#x is %d, want %d", test.state, test.reason, test.version, got, test.want)
		}
	}
}

func TestCancel(t *testing.T) {
	g := newGate()
	g.submitted["m1"] = plugin.Submitted{From: fromAcme, Recipient: toNumber, State: plugin.SubmittedWaiting}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	cancel := func(name, source, destination string) wire.Packet {
		return wire.Packet{ID: pdu.CancelSMID, Body: &wire.Cancel{ServiceType: "CMT", MessageID: name, Source: numbered(source), Destination: numbered(destination)}}
	}
	e.want(cancel("m1", number1, number2), wire.ROK)
	e.want(cancel("m1", "", ""), wire.ROK)
	e.want(cancel("", number1, number2), wire.ROK)
	e.want(cancel("", "", number2), wire.ROK)
	all := plugin.Which{From: fromAcme, Recipient: toNumber}
	if want := []plugin.Which{{PublicID: "m1"}, {PublicID: "m1"}, all, all}; !reflect.DeepEqual(g.cancelled, want) {
		t.Errorf("%+v", g.cancelled)
	}
	e.want(cancel("m1", number2, ""), wire.RCancelFail) // another one's
	e.want(cancel("m2", number1, ""), wire.RInvMsgID)
	e.want(cancel("", number1, ""), wire.RInvDstAdr)
	g.set(func() { g.conflict = message.Fail(message.Conflict, "sent") })
	e.want(cancel("m1", number1, number2), wire.RCancelFail)
	g.set(func() { g.conflict = message.Fail(message.UnknownMessage, "none") })
	e.want(cancel("", number1, number2), wire.RCancelFail)
	g.set(func() { g.conflict = message.FailForNow(message.StorageDown, "down") })
	if a := e.gets(cancel("m1", number1, number2)); a.Status == wire.ROK {
		t.Error("cancelled without a disk")
	}
}

func TestReplace(t *testing.T) {
	g := newGate()
	g.submitted["m1"] = plugin.Submitted{From: fromAcme, Recipient: toNumber, State: plugin.SubmittedWaiting}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	replace := func(r wire.Replace) wire.Packet { return wire.Packet{ID: pdu.ReplaceSMID, Body: &r} }
	e.want(replace(wire.Replace{MessageID: "m1", Source: numbered(number1), Text: []byte("new"), ValidityPeriod: "000000010000000R"}), wire.ROK)
	e.want(replace(wire.Replace{MessageID: "m1", ScheduleTime: "000000020000000R"}), wire.ROK)
	one, two := g.replaced[0], g.replaced[1]
	if one.From != fromAcme || string(one.Body) != "new" || one.ContentType != "text/plain;charset=utf-8" || one.Expires == nil || *one.Expires != time.Hour || one.NotBefore != nil {
		t.Errorf("%+v", one)
	}
	if account := one.Account; account.ID != acme().ID || !account.Owns(fromAcme) {
		t.Errorf("nobody vouches for the sender: %+v", account)
	}
	if two.Body != nil || two.ContentType != "" || two.Expires != nil || two.NotBefore == nil || time.Until(*two.NotBefore) < time.Hour {
		t.Errorf("%+v", two)
	}
	g.submitted["m3"] = plugin.Submitted{From: message.Address{User: "+" + number2, Host: "sms.example.com"}, State: plugin.SubmittedWaiting}
	e.want(replace(wire.Replace{MessageID: "m3", Text: []byte("new")}), wire.RInvSrcAdr) // it owned the number then
	e.want(replace(wire.Replace{MessageID: "m1", Source: numbered(number2), Text: []byte("new")}), wire.RReplaceFail)
	e.want(replace(wire.Replace{MessageID: "m2", Text: []byte("new")}), wire.RInvMsgID)
	e.want(replace(wire.Replace{MessageID: "m1", ValidityPeriod: "999999999999999R", Text: []byte("new")}), wire.RInvExpiry)
	g.set(func() { g.conflict = message.Fail(message.Conflict, "sent") })
	e.want(replace(wire.Replace{MessageID: "m1", Text: []byte("new")}), wire.RReplaceFail)
	g.set(func() { g.conflict = message.Fail(message.InsufficientFunds, "no money") })
	e.want(replace(wire.Replace{MessageID: "m1", Text: []byte("new")}), wire.RxRAppn)
}

// TestNamesWithoutUnderscores: receipts have names in a text in which there is no
// "_", so no ESME gets or gives one.
func TestNamesWithoutUnderscores(t *testing.T) {
	g := newGate()
	g.ticket = func(int) plugin.Ticket { return ticket{name: "Ab_d-f"} }
	g.submitted["Ab_d-f"] = plugin.Submitted{From: fromAcme, Recipient: toNumber, State: plugin.SubmittedWaiting}
	e := boundAs(t, serve(t, g, nil), pdu.BindTransmitterID)
	submit := &wire.Short{Of: pdu.SubmitSMID, Source: numbered(number1), Destination: numbered(number2), Text: []byte("x")}
	response, ok := e.gets(wire.Packet{ID: pdu.SubmitSMID, Body: submit}).Body.(*wire.ShortResp)
	if !ok || response.MessageID != "Ab.d-f" {
		t.Fatalf("%+v", response)
	}
	e.want(wire.Packet{ID: pdu.QuerySMID, Body: &wire.Query{MessageID: "Ab.d-f"}}, wire.ROK)
	e.want(wire.Packet{ID: pdu.ReplaceSMID, Body: &wire.Replace{MessageID: "Ab.d-f", Text: []byte("y")}}, wire.ROK)
	e.want(wire.Packet{ID: pdu.CancelSMID, Body: &wire.Cancel{MessageID: "Ab.d-f"}}, wire.ROK)
	if want := (plugin.Which{PublicID: "Ab_d-f"}); g.cancelled[0] != want {
		t.Errorf("%+v", g.cancelled)
	}
}

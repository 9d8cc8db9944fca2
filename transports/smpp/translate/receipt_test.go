package translate

import (
	"strings"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/wire"
)

func TestReceipts(t *testing.T) {
	const usual = "id:0123456789 sub:001 dlvrd:001 submit date:2601311200 done date:2601311201 stat:DELIVRD err:000 text:Hello"
	id := func(s string) wire.TLV { return wire.Text(pdutlv.TagReceiptedMessageID, s) }
	state := func(s State) wire.TLV { return wire.Uint8(pdutlv.TagMessageStateOption, uint8(s)) }
	for name, c := range map[string]struct {
		text  string
		class uint8
		tlvs  wire.TLVs
		id    string
		state State
		final bool
	}{
		"the usual":                {usual, 4, nil, "123456789", Delivered, true},
		"in capitals":              {strings.ToUpper(usual), 4, nil, "123456789", Delivered, true},
		"in small letters":         {strings.ToLower(usual), 4, nil, "123456789", Delivered, true},
		"words in full":            {"ID:7 STAT:Undeliverable ERR:1", 4, nil, "7", Undeliverable, true},
		"delivered in full":        {"id:7 stat:DELIVERED", 4, nil, "7", Delivered, true},
		"failed":                   {"id:7 stat:FAILED", 4, nil, "7", Undeliverable, true},
		"quoted":                   {`id:"a b" stat:EXPIRED`, 4, nil, "a b", Expired, true},
		"single quotes":            {`id:'7' stat:'DELETED'`, 4, nil, "7", Deleted, true},
		"spaces":                   {" id: 7  stat : REJECTD ", 4, nil, "7", Rejected, true},
		"lines":                    {"id:7\r\nstat:UNKNOWN\r\n", 4, nil, "7", Unknown, true},
		"commas":                   {"id:7, sub:001, stat:DELIVRD, err:000", 4, nil, "7", Delivered, true},
		"another order":            {"stat:DELIVRD submit date:2601311200 id:7", 4, nil, "7", Delivered, true},
		"no id but in its text":    {"stat:DELIVRD text:id:7", 4, nil, "", 0, false},
		"a state in its text":      {"id:7 text:stat:DELIVRD", 4, nil, "7", Enroute, false},
		"an empty id":              {"id: sub:001 stat:DELIVRD", 4, nil, "", 0, false},
		"an id of white space":     {"id:\v stat:DELIVRD", 4, wire.TLVs{id(" ")}, "", 0, false},
		"an id that is too long":   {"", 4, wire.TLVs{id(strings.Repeat("1", 65)), state(Delivered)}, "", 0, false},
		"an id within a word":      {"msgid:8 id:7 stat:DELIVRD", 4, nil, "7", Delivered, true},
		"accepted":                 {"id:7 stat:ACCEPTD", 4, nil, "7", Accepted, false},
		"on its way":               {"id:7 stat:ENROUTE", 4, nil, "7", Enroute, false},
		"a state that isn't":       {"id:7 stat:MAYBE", 4, nil, "7", Enroute, false},
		"no state":                 {"id:7", 4, nil, "7", Enroute, false},
		"TLVs":                     {"", 4, wire.TLVs{id("7"), state(Expired)}, "7", Expired, true},
		"TLVs first":               {usual, 4, wire.TLVs{id("8"), state(Undeliverable)}, "8", Undeliverable, true},
		"the state by TLV":         {"id:7 stat:ENROUTE", 4, wire.TLVs{state(Delivered)}, "7", Delivered, true},
		"the id by TLV":            {"stat:DELIVRD", 4, wire.TLVs{id("7")}, "7", Delivered, true},
		"a TLV that isn't a state": {usual, 4, wire.TLVs{state(77)}, "123456789", Delivered, true},
		"skipped":                  {"", 4, wire.TLVs{id("7"), state(Skipped)}, "7", Skipped, true},
		"scheduled":                {"", 4, wire.TLVs{id("7"), state(Scheduled)}, "7", Scheduled, false},
		"without esm_class":        {usual, 0, wire.TLVs{id("7"), state(Delivered)}, "7", Delivered, true},
		"an intermediate notice":   {usual, 0x20, nil, "123456789", Delivered, false},
		"in message_payload":       {"", 4, wire.TLVs{{Tag: pdutlv.TagMessagePayload, Value: []byte(usual)}}, "123456789", Delivered, true},
		"hexadecimal":              {"id:00AbC stat:DELIVRD", 4, nil, "abc", Delivered, true},
		"no number":                {"id:0a-BC stat:DELIVRD", 4, nil, "0a-BC", Delivered, true},
		"nothing":                  {"", 4, nil, "", 0, false},
		"something else":           {"Hello", 4, nil, "", 0, false},
		"longer than is looked at": {strings.Repeat(" ", maxReceipt) + usual, 4, nil, "", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := incoming(dialect(nil), submit(func(s *wire.Short) {
				s.Of, s.ESMClass, s.Text, s.Source = pdu.DeliverSMID, c.class, []byte(c.text), wire.Address{}
			}), c.tlvs...)
			if c.id == "" {
				expectStatus(t, err, wire.RInvMsgID)
				return
			}
			if err != nil || in.Receipt == nil || in.Message != nil {
				t.Fatalf("%+v, %v", in, err)
			}
			if r := in.Receipt; r.MessageID != c.id || r.State != c.state || r.Final != c.final {
				t.Errorf("%+v", r)
			}
			checkStatus(t, in.Receipt)
		})
	}
}

func checkStatus(t *testing.T, r *Receipt) {
	t.Helper()
	delivered := r.Final && r.State == Delivered
	if r.Status.Delivered != delivered || (r.Status.Reason != "") != (r.Final && !delivered) {
		t.Errorf("%+v", r)
	}
}

// TestReasonsOfReceipts: each is one that the engine has.
func TestReasonsOfReceipts(t *testing.T) {
	known := map[message.Reason]bool{}
	for _, reason := range message.Reasons {
		known[reason] = true
	}
	for state, reason := range reasons {
		if !known[reason] || reason.OfNode() {
			t.Errorf("%s: %s", state, reason)
		}
	}
}

// TestReceiptIDs: the names of a response and of its receipt are the same,
// however they are written.
func TestReceiptIDs(t *testing.T) {
	for name, c := range map[string]struct {
		ids               string
		response, receipt string
		want              string // empty: they differ
	}{
		"the same":             {ReceiptIDsSame, "a1-B", "a1-B", "a1-B"},
		"leading zeros":        {ReceiptIDsSame, "0000123", "123", "123"},
		"case":                 {ReceiptIDsSame, "00ABCDEF", "abcdef", "abcdef"},
		"case of a word":       {ReceiptIDsSame, "xY1", "xy1", ""},
		"decimal receipts":     {ReceiptIDsDecimal, "499602D2", "1234567890", "499602d2"},
		"decimal, zeros":       {ReceiptIDsDecimal, "499602D2", "0001234567890", "499602d2"},
		"hexadecimal receipts": {ReceiptIDsHex, "1234567890", "499602D2", "499602d2"},
		"long":                 {ReceiptIDsDecimal, "FFFFFFFFFFFFFFFFFF", "4722366482869645213695", "ffffffffffffffffff"},
		"zero":                 {ReceiptIDsSame, "0", "00", "0"},
		"no number at all":     {ReceiptIDsDecimal, "m-17", "m-17", "m-17"},
		"a sign":               {ReceiptIDsHex, "+12", "12", ""},
		"spaces":               {ReceiptIDsSame, " 12 ", "12", "12"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dialect(func(d *Dialect) { d.ReceiptIDs = c.ids })
			response, receipt := d.NormalID(c.response), d.receiptID(c.receipt)
			if (response == receipt) != (c.want != "") || c.want != "" && response != c.want {
				t.Errorf("%q and %q", response, receipt)
			}
		})
	}
}

// TestReport: what we say of a message can be read.
func TestReport(t *testing.T) {
	r := Report{
		MessageID: "b9yXk2Jc0dQe4LrS8mTzVw",
		Source:    wire.Address{TON: 5, Number: "ACME"}, Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900002"},
		State: Undeliverable, Error: 27, Submitted: now, Done: now.Add(90 * time.Second), Text: "Hello Bob, are you coming at nine?",
	}
	const want = "id:b9yXk2Jc0dQe4LrS8mTzVw sub:001 dlvrd:000 submit date:2601311200 done date:2601311201 stat:UNDELIV err:027 text:Hello Bob, are you c"
	if got := string(AppendReceipt(nil, r)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	for _, version := range []uint8{Version33, Version34, Version50} {
		d := dialect(func(d *Dialect) { d.Version = version })
		o := d.Report(r)
		if o.Short.Source != r.Destination || o.Short.Destination != r.Source || o.Short.ESMClass != 4 || (o.TLVs == nil) != (version == Version33) {
			t.Errorf("%#x: %+v", version, o)
		}
		in, err := d.Incoming(onWire(t, o), now)
		if err != nil || in.Receipt == nil || in.Receipt.MessageID != r.MessageID || in.Receipt.State != Undeliverable || !in.Receipt.Final {
			t.Errorf("%#x: %+v, %v", version, in.Receipt, err)
		}
		if network, ok := o.TLVs.Get(pdutlv.TagNetworkErrorCode); version != Version33 && (!ok || string(network) != "\x03\x00\x1b") {
			t.Errorf("%#x: network_error_code %x", version, network)
		}
	}
}

// TestOutgoingReceipt: only an ESME gets one, and only between numbers or names.
func TestOutgoingReceipt(t *testing.T) {
	m := hello(func(m *message.Message) {
		m.Receipt = &message.Receipt{PublicID: "b9yXk2Jc0dQe4LrS8mTzVw", Submitted: now, Done: now}
	})
	parts, err := dialect(nil).outgoing(m, route, pdu.DeliverSMID, now)
	if err != nil || len(parts) != 1 || parts[0].Short.ESMClass != 4 || parts[0].Short.RegisteredDelivery != 0 {
		t.Errorf("%+v, %v", parts, err)
	}
	for _, of := range []pdu.ID{pdu.SubmitSMID, pdu.DataSMID} {
		if _, err := dialect(nil).outgoing(m, route, of, now); message.AsFailure(err).Reason != message.Unbuildable {
			t.Errorf("%v", err)
		}
	}
	m.Recipient.User = "a name that is too long"
	if _, err := dialect(nil).outgoing(m, route, pdu.DeliverSMID, now); message.AsFailure(err).Reason != message.UnknownRecipient {
		t.Errorf("%v", err)
	}
}

// TestStates: each end has one that an ESME takes for an end.
func TestStates(t *testing.T) {
	if StateOf(message.ReceiptDelivered, "") != Delivered || StateOf(message.ReceiptUnknown, "") != Unknown {
		t.Error("delivered, or unknown")
	}
	for _, why := range message.Reasons {
		if _, failed := reasons[StateOf(message.ReceiptFailed, why)]; !failed {
			t.Errorf("%s is %s", why, FailedState(why))
		}
	}
}

func TestReportOfEachState(t *testing.T) {
	for state := Scheduled; state <= Skipped; state++ {
		o := dialect(nil).Report(Report{MessageID: "7", State: state, Source: wire.Address{Number: "1"}, Destination: wire.Address{Number: "2"}})
		in, err := dialect(nil).Incoming(onWire(t, o), now)
		if err != nil || in.Receipt == nil || in.Receipt.State != state {
			t.Fatalf("%s: %+v, %v", state, in.Receipt, err)
		}
		if _, failed := reasons[state]; in.Receipt.Final != (failed || state == Delivered) {
			t.Errorf("%s: %+v", state, in.Receipt)
		}
		if got := stateOf(string(o.Short.Text), nil); got != state {
			t.Errorf("%s reads as %s", state, got)
		}
	}
	if State(77).String() != "UNKNOWN" {
		t.Error(State(77))
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add("id:0123456789 sub:001 dlvrd:001 submit date:2601311200 done date:2601311201 stat:DELIVRD err:000 text:Hello", "same")
	f.Add(`ID : "7" STAT: 'x`, "hex")
	f.Add("id:ſ text", "decimal")
	f.Fuzz(func(t *testing.T, said, ids string) {
		d := dialect(func(d *Dialect) { d.ReceiptIDs = ids })
		r, err := d.receipt(&wire.Short{Of: pdu.DeliverSMID, ESMClass: 4, Text: []byte(said)}, nil)
		if err != nil {
			expectStatus(t, err, wire.RInvMsgID)
			return
		}
		if r.MessageID == "" {
			t.Errorf("%q names no message", said)
		}
		checkStatus(t, r)
	})
}

package translate

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// dialect returns the defaults, changed.
func dialect(change func(*Dialect)) *Dialect {
	d := Defaults()
	if change != nil {
		change(&d)
	}
	return &d
}

// hello returns a message from SIP, changed.
func hello(change func(*message.Message)) *message.Message {
	m := &message.Message{
		From:        message.Address{User: "alice", Host: "sip.example.com"},
		Number:      "+447700900001",
		Recipient:   message.Address{User: "+447700900002", Host: "sms.example.com"},
		ContentType: "text/plain", Body: []byte("hello"),
	}
	if change != nil {
		change(m)
	}
	return m
}

var route = plugin.Route{Reference: "1234567890abcdef", Until: now.Add(time.Hour)}

func TestOutgoing(t *testing.T) {
	parts, err := dialect(nil).outgoing(hello(nil), route, pdu.SubmitSMID, now)
	if err != nil || len(parts) != 1 {
		t.Fatal(parts, err)
	}
	want := wire.Short{
		Of:     pdu.SubmitSMID,
		Source: wire.Address{TON: 1, NPI: 1, Number: "447700900001"}, Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900002"},
		RegisteredDelivery: 1, ValidityPeriod: "000000010000000R", Text: []byte("hello"),
	}
	if got := parts[0].Short; !equal(got, want) || parts[0].TLVs != nil {
		t.Errorf("%+v\nwant %+v", parts[0], want)
	}
}

func equal(a, b wire.Short) bool {
	if !bytes.Equal(a.Text, b.Text) {
		return false
	}
	a.Text, b.Text = nil, nil
	return a.Of == b.Of && a.ServiceType == b.ServiceType && a.Source == b.Source && a.Destination == b.Destination &&
		a.ESMClass == b.ESMClass && a.RegisteredDelivery == b.RegisteredDelivery && a.DataCoding == b.DataCoding &&
		a.ScheduleTime == b.ScheduleTime && a.ValidityPeriod == b.ValidityPeriod
}

func TestSource(t *testing.T) {
	for name, c := range map[string]struct {
		from   message.Address
		number string
		of     pdu.ID
		change func(*Dialect)
		want   wire.Address
		ok     bool
	}{
		"a number":                  {message.Address{User: "+447700900003"}, "+1", pdu.SubmitSMID, nil, wire.Address{TON: 1, NPI: 1, Number: "447700900003"}, true},
		"a short code":              {message.Address{User: "12345"}, "", pdu.SubmitSMID, nil, wire.Address{TON: 0, NPI: 1, Number: "12345"}, true},
		"a national number":         {message.Address{User: "07700900003"}, "", pdu.SubmitSMID, nil, wire.Address{TON: 0, NPI: 1, Number: "07700900003"}, true},
		"a word":                    {message.Address{User: "ACME Ltd"}, "", pdu.SubmitSMID, nil, wire.Address{TON: 5, NPI: 0, Number: "ACME Ltd"}, true},
		"a long word":               {message.Address{User: "ACME Limited"}, "", pdu.SubmitSMID, nil, wire.Address{}, false},
		"two digits are a word":     {message.Address{User: "12"}, "", pdu.SubmitSMID, nil, wire.Address{TON: 5, NPI: 0, Number: "12"}, true},
		"not ASCII":                 {message.Address{User: "ÄCME"}, "", pdu.SubmitSMID, nil, wire.Address{}, false},
		"SIP, with a number":        {message.Address{User: "alice", Host: "sip.example.com"}, "+447700900001", pdu.SubmitSMID, nil, wire.Address{TON: 1, NPI: 1, Number: "447700900001"}, true},
		"SIP, without":              {message.Address{User: "alice", Host: "sip.example.com"}, "", pdu.SubmitSMID, nil, wire.Address{}, false},
		"SIP, without, to an ESME":  {message.Address{User: "alice", Host: "sip.example.com"}, "", pdu.DeliverSMID, nil, wire.Address{TON: 5, NPI: 0, Number: "alice"}, true},
		"SIP, too long for an ESME": {message.Address{User: "alice.in.wonderland", Host: "sip.example.com"}, "", pdu.DeliverSMID, nil, wire.Address{}, false},
		"SMS":                       {message.Address{User: "+447700900003", Host: "sms.example.com"}, "+447700900001", pdu.SubmitSMID, nil, wire.Address{TON: 1, NPI: 1, Number: "447700900003"}, true},
		"SMS, to an ESME":           {message.Address{User: "+447700900003", Host: "sms.example.com"}, "+447700900001", pdu.DeliverSMID, nil, wire.Address{TON: 1, NPI: 1, Number: "447700900003"}, true},
		"the bind's": {message.Address{User: "alice", Host: "sip.example.com"}, "", pdu.SubmitSMID,
			func(d *Dialect) { d.DefaultSender = "IMGate" }, wire.Address{TON: 5, NPI: 0, Number: "IMGate"}, true},
		"not the bind's for what has none": {message.Address{User: "ACME Limited"}, "", pdu.SubmitSMID,
			func(d *Dialect) { d.DefaultSender = "IMGate" }, wire.Address{}, false},
		"TON and NPI are set": {message.Address{User: "+447700900003"}, "", pdu.SubmitSMID,
			func(d *Dialect) { d.Source = Numbering{2, 8} }, wire.Address{TON: 2, NPI: 8, Number: "447700900003"}, true},
		"not those of a word": {message.Address{User: "ACME"}, "", pdu.SubmitSMID,
			func(d *Dialect) { d.Source = Numbering{2, 8} }, wire.Address{TON: 5, NPI: 0, Number: "ACME"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := hello(func(m *message.Message) { m.From, m.Number = c.from, c.number })
			parts, err := dialect(c.change).outgoing(m, route, c.of, now)
			if !c.ok {
				expectFailure(t, err, message.Forbidden)
				return
			}
			if err != nil || parts[0].Short.Source != c.want {
				t.Errorf("%+v, %v", parts, err)
			}
		})
	}
}

func expectFailure(t *testing.T, err error, want message.Reason) {
	t.Helper()
	f, ok := errors.AsType[*message.Failure](err)
	if !ok || f.Reason != want || f.Temporary {
		t.Errorf("%v, want %s for good", err, want)
	}
}

func TestDestination(t *testing.T) {
	for user, want := range map[string]wire.Address{
		"+447700900002":        {TON: 1, NPI: 1, Number: "447700900002"},
		"447700900002":         {TON: 0, NPI: 1, Number: "447700900002"},
		"12345":                {TON: 0, NPI: 1, Number: "12345"},
		"123":                  {TON: 0, NPI: 1, Number: "123"},
		"12345678901234567890": {TON: 0, NPI: 1, Number: "12345678901234567890"},
	} {
		m := hello(func(m *message.Message) { m.Recipient.User = user })
		if parts, err := dialect(nil).outgoing(m, route, pdu.SubmitSMID, now); err != nil || parts[0].Short.Destination != want {
			t.Errorf("%s: %+v, %v", user, parts, err)
		}
	}
	for _, user := range []string{"", "+", "12", "bob", "+44 7700", "123456789012345678901", "12a45", "++447700900002", "٣٤٥"} {
		m := hello(func(m *message.Message) { m.Recipient.User = user })
		_, err := dialect(nil).outgoing(m, route, pdu.SubmitSMID, now)
		expectFailure(t, err, message.UnknownRecipient)
	}
	acme := hello(func(m *message.Message) { m.Recipient.User = "ACME" })
	if parts, err := dialect(nil).outgoing(acme, route, pdu.DeliverSMID, now); err != nil || parts[0].Short.Destination != (wire.Address{TON: 5, Number: "ACME"}) {
		t.Errorf("an ESME: %+v, %v", parts, err)
	}
	d := dialect(func(d *Dialect) { d.Destination = Numbering{-1, 9} })
	if parts, _ := d.outgoing(hello(nil), route, pdu.SubmitSMID, now); parts[0].Short.Destination.NPI != 9 || parts[0].Short.Destination.TON != 1 {
		t.Errorf("%+v", parts)
	}
}

const cpim = "From: <im:a@example.com>\r\n\r\nContent-Type: text/plain;charset=utf-8\r\n\r\n"

func TestContent(t *testing.T) {
	for name, c := range map[string]struct {
		contentType, body string
		headers           []message.Header
		want              message.Reason // empty: it goes
		data              string
		coding            uint8
	}{
		"plain":           {"text/plain;charset=utf-8", "héllo", nil, "", "h\x05llo", 0},
		"Latin 1":         {"text/plain;charset=iso-8859-1", "h\xe9llo", nil, "", "h\x05llo", 0},
		"cpim":            {"message/cpim", cpim + "hello", nil, "", "hello", 0},
		"Cyrillic":        {"text/plain", "я", nil, "", "\x04\x4f", 8},
		"nothing":         {"text/plain", "", nil, "", "", 0},
		"html":            {"text/html", "x", nil, message.UnsupportedType, "", 0},
		"is typing":       {"application/im-iscomposing+xml", "<x/>", nil, message.UnsupportedType, "", 0},
		"Acrobits":        {"application/x-acro-filetransfer+json", "{}", nil, message.UnsupportedType, "", 0},
		"not UTF-8":       {"text/plain", "\xff", nil, message.UnsupportedType, "", 0},
		"octets":          {"application/octet-stream", "x", nil, message.UnsupportedType, "", 0},
		"octets of SMPP":  {"application/octet-stream", "\x00\xff", []message.Header{{Name: "SMPP-Data-Coding", Value: "245"}}, "", "\x00\xff", 245},
		"with ports":      {"application/octet-stream", "\xff", []message.Header{{Name: "SMPP-Data-Coding", Value: "4"}, {Name: "SMPP-UDH", Value: "05040b8423f0"}}, "", "\x06\x05\x04\x0b\x84\x23\xf0\xff", 4},
		"octets of text":  {"application/octet-stream", "x", []message.Header{{Name: "SMPP-Data-Coding", Value: "8"}}, message.UnsupportedType, "", 0},
		"no coding":       {"application/octet-stream", "x", []message.Header{{Name: "SMPP-Data-Coding", Value: "x"}}, message.UnsupportedType, "", 0},
		"no header":       {"text/plain", "x", []message.Header{{Name: "SMPP-UDH", Value: "05"}}, message.Unbuildable, "", 0},
		"not hexadecimal": {"text/plain", "x", []message.Header{{Name: "SMPP-UDH", Value: "x"}}, message.Unbuildable, "", 0},
		"a part's header": {"text/plain", "x", []message.Header{{Name: "SMPP-UDH", Value: "0003010201"}}, message.Unbuildable, "", 0},
		"too long":        {"text/plain", strings.Repeat("a", 153*255+1), nil, message.TooLarge, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := hello(func(m *message.Message) { m.ContentType, m.Body, m.Headers = c.contentType, []byte(c.body), c.headers })
			parts, err := dialect(nil).outgoing(m, route, pdu.SubmitSMID, now)
			if c.want != "" {
				expectFailure(t, err, c.want)
				return
			}
			if err != nil || string(parts[0].Short.Text) != c.data || parts[0].Short.DataCoding != c.coding {
				t.Fatalf("%+v, %v", parts, err)
			}
			if udhi := parts[0].Short.ESMClass == esmUDHI; udhi != (name == "with ports") {
				t.Errorf("esm_class %#x", parts[0].Short.ESMClass)
			}
		})
	}
}

// TestAccept: who sends what doesn't go is told what does.
func TestAccept(t *testing.T) {
	_, err := dialect(nil).Outgoing(hello(func(m *message.Message) { m.ContentType = "text/html" }), route, pdu.SubmitSMID)
	if f := message.AsFailure(err); !slices.Equal(f.Accept, []string{"text/plain", "message/cpim"}) {
		t.Errorf("%q", f.Accept)
	}
}

// TestPlanText: what the plan says of the text comes before what the bind says.
func TestPlanText(t *testing.T) {
	for name, c := range map[string]struct {
		words  string
		plan   plugin.PlanText
		bind   bool // transliterates
		coding uint8
		data   string
		ok     bool
	}{
		"the bind's":            {"č", plugin.PlanText{Transliterate: plugin.TransliterateConfigured}, false, 8, "\x01\x0d", true},
		"the bind's, which may": {"č", plugin.PlanText{Transliterate: plugin.TransliterateConfigured}, true, 0, "c", true},
		"nothing said":          {"č", plugin.PlanText{}, true, 0, "c", true},
		"always":                {"č", plugin.PlanText{Transliterate: plugin.TransliterateAlways}, false, 0, "c", true},
		"never":                 {"č", plugin.PlanText{Transliterate: plugin.TransliterateNever}, true, 8, "\x01\x0d", true},
		"UCS-2":                 {"c", plugin.PlanText{Alphabets: []plugin.Alphabet{plugin.UCS2}}, false, 8, "\x00c", true},
		"Latin 1":               {"ç", plugin.PlanText{Alphabets: []plugin.Alphabet{plugin.Latin1}}, false, 3, "\xe7", true},
		"none":                  {"č", plugin.PlanText{Alphabets: []plugin.Alphabet{plugin.GSM7}}, false, 0, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := route
			r.Text = c.plan
			d := dialect(func(d *Dialect) { d.Text.Transliterate = c.bind })
			parts, err := d.outgoing(hello(func(m *message.Message) { m.Body = []byte(c.words) }), r, pdu.SubmitSMID, now)
			if !c.ok {
				expectFailure(t, err, message.UnsupportedType)
				return
			}
			if err != nil || parts[0].Short.DataCoding != c.coding || string(parts[0].Short.Text) != c.data {
				t.Errorf("%+v, %v", parts, err)
			}
		})
	}
}

func TestLong(t *testing.T) {
	m := hello(func(m *message.Message) { m.Body = bytes.Repeat([]byte("a"), 300) })
	write := func(change func(*Dialect), of pdu.ID) []Outgoing {
		t.Helper()
		parts, err := dialect(change).outgoing(m, route, of, now)
		if err != nil {
			t.Fatal(err)
		}
		return parts
	}
	whole := write(nil, pdu.SubmitSMID)
	if payload, ok := whole[0].TLVs.Get(pdutlv.TagMessagePayload); len(whole) != 1 || !ok || !bytes.Equal(payload, m.Body) || whole[0].Short.Text != nil {
		t.Errorf("payload: %+v", whole)
	}
	for long, octets := range map[string]int{text.LongUDH: 6 + 153, text.LongUDH16: 7 + 152} {
		parts := write(func(d *Dialect) { d.Text.Long = long }, pdu.SubmitSMID)
		if len(parts) != 2 || len(parts[0].Short.Text) != octets || parts[0].Short.ESMClass != esmUDHI || parts[0].TLVs != nil || parts[1].Short.RegisteredDelivery != 1 {
			t.Errorf("%s: %+v", long, parts)
		}
	}
	sar := write(func(d *Dialect) { d.Text.Long = text.LongSAR }, pdu.SubmitSMID)
	reference, _ := sar[1].TLVs.Uint(pdutlv.TagSarMsgRefNum)
	total, _ := sar[1].TLVs.Uint(pdutlv.TagSarTotalSegments)
	number, _ := sar[1].TLVs.Uint(pdutlv.TagSarSegmentSeqnum)
	if len(sar) != 2 || len(sar[0].Short.Text) != 153 || sar[0].Short.ESMClass != 0 || reference != uint32(referenceOf(route.Reference)) || total != 2 || number != 2 {
		t.Errorf("sar: %+v", sar)
	}
	for _, long := range []string{text.LongPayload, text.LongSAR} {
		old := write(func(d *Dialect) { d.Version, d.Text.Long, d.Receipts = Version33, long, ReceiptsFailure }, pdu.SubmitSMID)
		if len(old) != 2 || old[0].TLVs != nil || old[0].Short.ESMClass != esmUDHI || old[0].Short.RegisteredDelivery != 1 {
			t.Errorf("3.3, %s: %+v", long, old)
		}
	}
	again := write(func(d *Dialect) { d.Text.Long = text.LongSAR }, pdu.SubmitSMID)
	if !slices.EqualFunc(sar[0].TLVs, again[0].TLVs, func(a, b wire.TLV) bool { return a.Tag == b.Tag && bytes.Equal(a.Value, b.Value) }) {
		t.Error("a repeat has another reference")
	}
}

func TestRequests(t *testing.T) {
	data, err := dialect(nil).outgoing(hello(nil), route, pdu.DataSMID, now)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := data[0].TLVs.Get(pdutlv.TagMessagePayload)
	life, _ := data[0].TLVs.Uint(pdutlv.TagQosTimeToLive)
	if s := data[0].Short; string(payload) != "hello" || s.Text != nil || life != 3600 || s.ValidityPeriod != "" || s.RegisteredDelivery != 1 {
		t.Errorf("data_sm: %+v", data)
	}
	deliver, err := dialect(nil).outgoing(hello(nil), route, pdu.DeliverSMID, now)
	if err != nil {
		t.Fatal(err)
	}
	if s := deliver[0].Short; s.ValidityPeriod != "" || s.RegisteredDelivery != 0 || string(s.Text) != "hello" || s.ESMClass != 0 {
		t.Errorf("deliver_sm: %+v", deliver)
	}
}

func TestValidity(t *testing.T) {
	for name, c := range map[string]struct {
		how   string
		until time.Time
		want  string
	}{
		"relative":           {ValidityRelative, now.Add(90 * time.Minute), "000000013000000R"},
		"absolute":           {ValidityAbsolute, now.Add(90 * time.Minute), "260131133000000+"},
		"none":               {ValidityNone, now.Add(90 * time.Minute), ""},
		"at once":            {ValidityRelative, time.Time{}, "000000000100000R"},
		"at once, absolute":  {ValidityAbsolute, time.Time{}, "260131120100000+"},
		"it has just ended":  {ValidityRelative, now.Add(-time.Minute), "000000000001000R"},
		"as long as we keep": {ValidityRelative, now.Add(plugin.MaxStore), "000030000000000R"},
	} {
		t.Run(name, func(t *testing.T) {
			r := route
			r.Until = c.until
			parts, err := dialect(func(d *Dialect) { d.Validity = c.how }).outgoing(hello(nil), r, pdu.SubmitSMID, now)
			if err != nil || parts[0].Short.ValidityPeriod != c.want {
				t.Errorf("%+v, %v", parts, err)
			}
		})
	}
}

// TestRegisteredDelivery: the operator's word counts, but that a sender who wants to
// be told of a delivery has it asked for where failures are anyway.
func TestRegisteredDelivery(t *testing.T) {
	for receipts, want := range map[string][4]uint8{
		ReceiptsNone: {}, ReceiptsFinal: {1, 1, 1, 1},
		ReceiptsFailure: {message.ReportNothing: 2, message.ReportDelivery: 1, message.ReportFailure: 2, message.ReportEnd: 1},
	} {
		for report, want := range want {
			m := hello(func(m *message.Message) { m.Report = message.Report(report) })
			parts, _ := dialect(func(d *Dialect) { d.Receipts = receipts }).outgoing(m, route, pdu.SubmitSMID, now)
			if got := parts[0].Short.RegisteredDelivery; got != want {
				t.Errorf("%s, report %d: %d, want %d", receipts, report, got, want)
			}
		}
	}
}

func BenchmarkOutgoing(b *testing.B) {
	d, m := dialect(nil), hello(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Outgoing(m, route, pdu.SubmitSMID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIncoming(b *testing.B) {
	d := dialect(nil)
	p := wire.Packet{ID: pdu.SubmitSMID, Body: submit(nil)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Incoming(p, now); err != nil {
			b.Fatal(err)
		}
	}
}

package translate

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// submit returns a submit_sm, changed.
func submit(change func(*wire.Short)) *wire.Short {
	s := &wire.Short{
		Of:     pdu.SubmitSMID,
		Source: wire.Address{TON: 1, NPI: 1, Number: "447700900001"}, Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900002"},
		Text: []byte("hello"),
	}
	if change != nil {
		change(s)
	}
	return s
}

func incoming(d *Dialect, s *wire.Short, t ...wire.TLV) (Incoming, error) {
	return d.Incoming(wire.Packet{ID: s.Of, Body: s, TLVs: t}, now)
}

// expectStatus wants an error for the peer; wire.ROK: none.
func expectStatus(t *testing.T, err error, want pdu.Status) {
	t.Helper()
	e, ok := errors.AsType[*wire.Error](err)
	switch {
	case want == wire.ROK && err != nil, want != wire.ROK && !ok:
		t.Errorf("%v, want %s", err, wire.StatusName(want))
	case ok && e.Status != want:
		t.Errorf("%v, want %s", err, wire.StatusName(want))
	}
}

func TestIncoming(t *testing.T) {
	in, err := incoming(dialect(nil), submit(nil))
	if err != nil || in.Part != nil || in.Receipt != nil {
		t.Fatal(in, err)
	}
	m := in.Message
	if m.From != (message.Address{User: "+447700900001", Host: "sms.example.com"}) || m.Recipient != (message.Address{User: "+447700900002"}) ||
		m.ContentType != "text/plain;charset=utf-8" || string(m.Body) != "hello" || m.Headers != nil || m.Expires != nil || !m.NotBefore.IsZero() {
		t.Errorf("%+v", m)
	}
}

func TestIncomingRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*wire.Short)
		tlvs   wire.TLVs
		want   pdu.Status
	}{
		"a predefined message":      {func(s *wire.Short) { s.DefaultMessageID = 1 }, nil, wire.RInvDftMsgID},
		"a receipt from an ESME":    {func(s *wire.Short) { s.ESMClass = 4 }, nil, wire.RInvEsmClass},
		"receipt TLVs of an ESME":   {nil, wire.TLVs{wire.Text(pdutlv.TagReceiptedMessageID, "1"), wire.Uint8(pdutlv.TagMessageStateOption, 2)}, wire.ROK},
		"an abort from an ESME":     {func(s *wire.Short) { s.ESMClass = 0x18 }, nil, wire.RInvEsmClass},
		"an acknowledgement":        {func(s *wire.Short) { s.ESMClass = 0x10 }, nil, wire.ROK},
		"store and forward":         {func(s *wire.Short) { s.ESMClass = 3 }, nil, wire.ROK},
		"source TON":                {func(s *wire.Short) { s.Source.TON = 7 }, nil, wire.RInvSrcTON},
		"source NPI":                {func(s *wire.Short) { s.Source.NPI = 19 }, nil, wire.RInvSrcNPI},
		"destination TON":           {func(s *wire.Short) { s.Destination.TON = 7 }, nil, wire.RInvDstTON},
		"destination NPI":           {func(s *wire.Short) { s.Destination.NPI = 19 }, nil, wire.RInvDstNPI},
		"no source":                 {func(s *wire.Short) { s.Source = wire.Address{} }, nil, wire.RInvSrcAdr},
		"a source with an @":        {func(s *wire.Short) { s.Source = wire.Address{TON: 5, Number: "a@b"} }, nil, wire.RInvSrcAdr},
		"a source with a control":   {func(s *wire.Short) { s.Source = wire.Address{TON: 5, Number: "a\nb"} }, nil, wire.RInvSrcAdr},
		"no destination":            {func(s *wire.Short) { s.Destination = wire.Address{} }, nil, wire.RInvDstAdr},
		"a word as destination":     {func(s *wire.Short) { s.Destination = wire.Address{TON: 5, Number: "ACME"} }, nil, wire.RInvDstAdr},
		"letters as destination":    {func(s *wire.Short) { s.Destination.Number = "44770090000x" }, nil, wire.RInvDstAdr},
		"two texts":                 {nil, wire.TLVs{{Tag: pdutlv.TagMessagePayload, Value: []byte("x")}}, wire.RInvMsgLen},
		"unknown coding":            {func(s *wire.Short) { s.DataCoding = 9 }, nil, wire.RInvDCS},
		"not of the alphabet":       {func(s *wire.Short) { s.Text = []byte("\xff") }, nil, wire.RInvDCS},
		"half a unit":               {func(s *wire.Short) { s.DataCoding = 8 }, nil, wire.RInvDCS},
		"no header":                 {func(s *wire.Short) { s.ESMClass = esmUDHI }, nil, wire.RInvEsmClass},
		"half a part":               {func(s *wire.Short) { s.ESMClass, s.Text = esmUDHI, []byte("\x03\x00\x03\x01") }, nil, wire.RInvEsmClass},
		"part 0 by TLVs":            {nil, sar(1, 2, 0), wire.RInvOptParamVal},
		"part 3 of 2 by TLVs":       {nil, sar(1, 2, 3), wire.RInvOptParamVal},
		"part 1 of 0 by TLVs":       {nil, sar(1, 0, 1), wire.RInvOptParamVal},
		"257 of 258 by TLVs":        {nil, wire.TLVs{wire.Uint16(pdutlv.TagSarMsgRefNum, 1), wire.Uint16(pdutlv.TagSarTotalSegments, 258), wire.Uint16(pdutlv.TagSarSegmentSeqnum, 257)}, wire.RInvOptParamVal},
		"no time":                   {func(s *wire.Short) { s.ValidityPeriod = "tomorrow" }, nil, wire.RInvExpiry},
		"a time that was":           {func(s *wire.Short) { s.ValidityPeriod = "260131115959000+" }, nil, wire.RInvExpiry},
		"no schedule":               {func(s *wire.Short) { s.ScheduleTime = "tomorrow" }, nil, wire.RInvSched},
		"a schedule that was":       {func(s *wire.Short) { s.ScheduleTime = "260131115959000+" }, nil, wire.RInvSched},
		"over before it begins":     {func(s *wire.Short) { s.ScheduleTime, s.ValidityPeriod = "000000020000000R", "000000010000000R" }, nil, wire.RInvExpiry},
		"deliver_sm: times are not": {func(s *wire.Short) { s.Of, s.ScheduleTime, s.ValidityPeriod = pdu.DeliverSMID, "x", "x" }, nil, wire.ROK},
		"deliver_sm: an abort":      {func(s *wire.Short) { s.Of, s.ESMClass = pdu.DeliverSMID, 0x18 }, nil, wire.ROK},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := incoming(dialect(nil), submit(c.change), c.tlvs...)
			expectStatus(t, err, c.want)
			if (err == nil) != (in.Message != nil) {
				t.Errorf("%+v, %v", in, err)
			}
		})
	}
	_, err := dialect(nil).Incoming(wire.Packet{ID: pdu.QuerySMID, Body: &wire.Query{}}, now)
	expectStatus(t, err, wire.RInvCmdID)
}

func sar(reference uint16, total, number uint8) wire.TLVs {
	return wire.TLVs{
		wire.Uint16(pdutlv.TagSarMsgRefNum, reference),
		wire.Uint8(pdutlv.TagSarTotalSegments, total), wire.Uint8(pdutlv.TagSarSegmentSeqnum, number),
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		a    wire.Address
		plus bool
		want string
	}{
		{wire.Address{TON: 1, NPI: 1, Number: "447700900001"}, false, "+447700900001"},
		{wire.Address{TON: 1, NPI: 1, Number: "+447700900001"}, false, "+447700900001"},
		{wire.Address{TON: 1, NPI: 1, Number: "123"}, false, "+123"},
		{wire.Address{TON: 0, NPI: 1, Number: "447700900001"}, true, "+447700900001"},
		{wire.Address{TON: 0, NPI: 0, Number: "447700900001"}, true, "+447700900001"},
		{wire.Address{TON: 0, NPI: 1, Number: "447700900001"}, false, "447700900001"},
		{wire.Address{TON: 0, NPI: 1, Number: "07700900001"}, true, "07700900001"},
		{wire.Address{TON: 0, NPI: 1, Number: "12345678"}, true, "12345678"},
		{wire.Address{TON: 0, NPI: 1, Number: "123456789"}, true, "+123456789"},
		{wire.Address{TON: 0, NPI: 1, Number: "123456789012345"}, true, "+123456789012345"},
		{wire.Address{TON: 0, NPI: 1, Number: "1234567890123456"}, true, "1234567890123456"},
		{wire.Address{TON: 0, NPI: 8, Number: "447700900001"}, true, "447700900001"},
		{wire.Address{TON: 2, NPI: 1, Number: "7700900001"}, true, "7700900001"},
		{wire.Address{TON: 5, NPI: 0, Number: "ACME"}, true, "ACME"},
		{wire.Address{TON: 5, NPI: 0, Number: "447700900001"}, true, "447700900001"},
		{wire.Address{TON: 0, NPI: 0, Number: "ACME"}, true, "ACME"},
	} {
		d := dialect(func(d *Dialect) { d.Plus = c.plus })
		in, err := incoming(d, submit(func(s *wire.Short) { s.Source = c.a }))
		if err != nil || in.Message.From != (message.Address{User: c.want, Host: d.Domain}) {
			t.Errorf("%+v: %+v, %v", c.a, in.Message, err)
		}
	}
}

func TestTimes(t *testing.T) {
	hour, zero := time.Hour, time.Duration(0)
	for name, c := range map[string]struct {
		change    func(*wire.Short)
		tlvs      wire.TLVs
		expires   *time.Duration
		notBefore time.Time
	}{
		"none":            {nil, nil, nil, time.Time{}},
		"relative":        {func(s *wire.Short) { s.ValidityPeriod = "000000010000000R" }, nil, &hour, time.Time{}},
		"absolute":        {func(s *wire.Short) { s.ValidityPeriod = "260131130000000+" }, nil, &hour, time.Time{}},
		"at once":         {func(s *wire.Short) { s.ValidityPeriod = "000000000000000R" }, nil, &zero, time.Time{}},
		"data_sm":         {func(s *wire.Short) { s.Of = pdu.DataSMID }, wire.TLVs{wire.Uint32(pdutlv.TagQosTimeToLive, 3600)}, &hour, time.Time{}},
		"scheduled":       {func(s *wire.Short) { s.ScheduleTime = "000000003000000R" }, nil, nil, now.Add(30 * time.Minute)},
		"with a validity": {func(s *wire.Short) { s.ScheduleTime, s.ValidityPeriod = "260131123000000+", "000000010000000R" }, nil, &hour, now.Add(30 * time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := incoming(dialect(nil), submit(c.change), c.tlvs...)
			if err != nil {
				t.Fatal(err)
			}
			m := in.Message
			if (m.Expires == nil) != (c.expires == nil) || m.Expires != nil && *m.Expires != *c.expires || !m.NotBefore.Equal(c.notBefore) {
				t.Errorf("%v, %v", m.Expires, m.NotBefore)
			}
		})
	}
}

func TestParts(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		tlvs   wire.TLVs
		want   *plugin.Part
	}{
		"whole":           {"", nil, nil},
		"8 bits":          {"050003010302", nil, &plugin.Part{Reference: 1, Total: 3, Number: 2}},
		"16 bits":         {"060804cafe0302", nil, &plugin.Part{Reference: 0xcafe, Total: 3, Number: 2}},
		"TLVs":            {"", sar(0xcafe, 3, 2), &plugin.Part{Reference: 0xcafe, Total: 3, Number: 2}},
		"both":            {"050003010302", sar(0xcafe, 9, 9), &plugin.Part{Reference: 1, Total: 3, Number: 2}},
		"TLVs not all":    {"", sar(0xcafe, 3, 2)[:2], nil},
		"TLVs of one":     {"", sar(0xcafe, 1, 1), nil},
		"header of one":   {"050003010101", nil, nil},
		"header of ports": {"0605040b8423f0", sar(7, 2, 1), &plugin.Part{Reference: 7, Total: 2, Number: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := incoming(dialect(nil), submit(func(s *wire.Short) {
				header, _ := hex.DecodeString(c.header)
				s.Text = append(header, "hello"...)
				if len(header) > 0 {
					s.ESMClass = esmUDHI
				}
			}), c.tlvs...)
			if err != nil || string(in.Message.Body) != "hello" || (in.Part == nil) != (c.want == nil) {
				t.Fatalf("%+v, %v", in, err)
			}
			if c.want == nil {
				return
			}
			c.want.Wait = 10 * time.Minute
			if *in.Part != *c.want {
				t.Errorf("%+v", in.Part)
			}
		})
	}
}

// TestHalves: half of a character stays what it is in a part alone.
func TestHalves(t *testing.T) {
	half := func(s *wire.Short) { s.DataCoding, s.Text = 8, []byte("\x00a\xd8\x3d") }
	whole, err := incoming(dialect(nil), submit(half))
	if err != nil || string(whole.Message.Body) != "a\ufffd" {
		t.Errorf("%q, %v", whole.Message.Body, err)
	}
	part, err := incoming(dialect(nil), submit(half), sar(1, 2, 1)...)
	if err != nil || string(part.Message.Body) != "a\xed\xa0\xbd" {
		t.Errorf("%q, %v", part.Message.Body, err)
	}
}

func TestIncomingMulti(t *testing.T) {
	good := wire.Address{TON: 1, NPI: 1, Number: "447700900002"}
	bad := wire.Address{TON: 5, Number: "ACME"}
	other := wire.Address{TON: 0, NPI: 1, Number: "12345"}
	multi := &wire.Multi{Short: *submit(nil), Destinations: []wire.Address{good, bad, other}}
	multi.Of = pdu.SubmitMultiID
	all, failed, err := dialect(nil).IncomingMulti(wire.Packet{ID: pdu.SubmitMultiID, Body: multi, TLVs: sar(1, 2, 1)}, now)
	if err != nil || len(all) != 2 || len(failed) != 1 || failed[0] != (wire.Failed{Address: bad, Status: wire.RInvDstAdr}) {
		t.Fatalf("%+v, %+v, %v", all, failed, err)
	}
	if all[0].Message.Recipient.User != "+447700900002" || all[1].Message.Recipient.User != "12345" || all[0].Part == nil || string(all[1].Message.Body) != "hello" {
		t.Errorf("%+v", all)
	}
	multi.DataCoding = 9
	_, _, err = dialect(nil).IncomingMulti(wire.Packet{Body: multi}, now)
	expectStatus(t, err, wire.RInvDCS)
	_, _, err = dialect(nil).IncomingMulti(wire.Packet{Body: submit(nil)}, now)
	expectStatus(t, err, wire.RInvCmdID)
}

// TestThereAndBack: what a message says arrives as it was, through every way of
// writing it.
func TestThereAndBack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	characters := map[plugin.Alphabet][]rune{
		plugin.GSM7:   []rune("abc @£$€[]^\nÄöñ"),
		plugin.Latin1: []rune("abc@ç`þ\u00a0ÿ"),
		plugin.UCS2:   []rune("aя語😀e\u0301\r\n\x00"),
	}
	for _, long := range []string{text.LongPayload, text.LongUDH, text.LongUDH16, text.LongSAR} {
		for alphabet, from := range characters {
			for _, of := range []pdu.ID{pdu.SubmitSMID, pdu.DataSMID, pdu.DeliverSMID} {
				for _, version := range []uint8{Version33, Version34, Version50} {
					d := dialect(func(d *Dialect) {
						d.Text.Long, d.Version, d.Text.Alphabets = long, version, []plugin.Alphabet{alphabet}
					})
					var words strings.Builder
					for range random.IntN(500) {
						words.WriteRune(from[random.IntN(len(from))])
					}
					t.Run(fmt.Sprint(long, alphabet, of, version), func(t *testing.T) { thereAndBack(t, d, of, words.String()) })
				}
			}
		}
	}
}

func thereAndBack(t *testing.T, d *Dialect, of pdu.ID, words string) {
	t.Helper()
	m := hello(func(m *message.Message) {
		m.ContentType, m.Body = content.TypePlain, []byte(words)
		m.From = message.Address{User: "+447700900001", Host: d.Domain}
		m.Headers = []message.Header{{Name: headerUDH, Value: "05040b8423f0"}, {Name: headerESMClass, Value: "128"}}
	})
	parts, err := d.outgoing(m, route, of, now)
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	for i, part := range parts {
		in, err := d.Incoming(onWire(t, part), now)
		if err != nil {
			t.Fatal(err)
		}
		got := in.Message
		if got.From != m.From || got.Recipient.User != m.Recipient.User || !slices.Equal(got.Headers, m.Headers) {
			t.Errorf("%+v", got)
		}
		if of != pdu.DeliverSMID && (got.Expires == nil || *got.Expires != time.Hour) {
			t.Errorf("expires %v", got.Expires)
		}
		if (in.Part != nil) != (len(parts) > 1) || in.Part != nil && (int(in.Part.Total) != len(parts) || int(in.Part.Number) != i+1) {
			t.Errorf("part %d of %d is %+v", i+1, len(parts), in.Part)
		}
		body = append(body, got.Body...)
	}
	if string(body) != words {
		t.Errorf("%q, want %q", body, words)
	}
}

// onWire writes and reads a PDU.
func onWire(t *testing.T, o Outgoing) wire.Packet {
	t.Helper()
	p, err := wire.Decode(encode(t, &o))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBinaryThereAndBack: so does what isn't text.
func TestBinaryThereAndBack(t *testing.T) {
	octets := bytes.Repeat([]byte("\x00\xff\x1b"), 100)
	for _, long := range []string{text.LongPayload, text.LongUDH, text.LongUDH16, text.LongSAR} {
		d := dialect(func(d *Dialect) { d.Text.Long = long })
		m := hello(func(m *message.Message) {
			m.ContentType, m.Body = typeBinary, octets
			m.Headers = []message.Header{{Name: headerDataCoding, Value: "245"}, {Name: headerUDH, Value: "05040b8423f0"}}
		})
		parts, err := d.outgoing(m, route, pdu.SubmitSMID, now)
		if err != nil {
			t.Fatal(err)
		}
		var body []byte
		for _, part := range parts {
			in, err := d.Incoming(onWire(t, part), now)
			if err != nil || in.Message.ContentType != typeBinary || !slices.Equal(in.Message.Headers, m.Headers) {
				t.Fatalf("%+v, %v", in.Message, err)
			}
			body = append(body, in.Message.Body...)
		}
		if !bytes.Equal(body, octets) {
			t.Errorf("%s: %x", long, body)
		}
	}
}

// FuzzIncoming: what comes in is a message that a door may hand in, or has a
// status; what of it goes out again says the same.
func FuzzIncoming(f *testing.F) {
	f.Add("447700900001", uint8(1), uint8(1), "447700900002", uint8(0), uint8(0), []byte("hello"), "", "", []byte(nil))
	f.Add("ACME", uint8(5), uint8(0), "12345", uint8(0x40), uint8(8), []byte("\x05\x00\x03\x01\x02\x01\x00a"), "000000010000000R", "260201000000000+", []byte("\x02\x0c\x00\x02\x00\x01"))
	f.Add("1", uint8(0), uint8(0), "123", uint8(4), uint8(0), []byte("id:1 stat:DELIVRD"), "", "", []byte("\x00\x1e\x00\x02\x31\x00\x04\x27\x00\x01\x02"))
	f.Fuzz(func(t *testing.T, source string, ton, npi uint8, destination string, class, coding uint8, data []byte, validity, schedule string, rest []byte) {
		for _, of := range []pdu.ID{pdu.SubmitSMID, pdu.DeliverSMID, pdu.DataSMID} {
			s := &wire.Short{
				Of: of, Source: wire.Address{TON: ton, NPI: npi, Number: source}, Destination: wire.Address{TON: 1, NPI: 1, Number: destination},
				ESMClass: class, DataCoding: coding, Text: data, ValidityPeriod: validity, ScheduleTime: schedule,
			}
			tlvs := wire.TLVs{{Tag: pdutlv.TagReceiptedMessageID, Value: rest}, {Tag: pdutlv.TagMessagePayload, Value: rest}}
			for _, t2 := range []wire.TLVs{nil, tlvs[:1], tlvs[1:], tlvs} {
				in, err := incoming(dialect(nil), s, t2...)
				if err != nil {
					if _, ok := errors.AsType[*wire.Error](err); !ok {
						t.Fatal(err)
					}
					continue
				}
				checkIncoming(t, in)
			}
		}
	})
}

func checkIncoming(t *testing.T, in Incoming) {
	t.Helper()
	if in.Receipt != nil {
		if in.Receipt.MessageID == "" || in.Receipt.Final && !in.Receipt.Status.Delivered && in.Receipt.Status.Reason == "" {
			t.Errorf("%+v", in.Receipt)
		}
		return
	}
	m := in.Message
	if m.From.Validate() != nil || m.Recipient.Validate() != nil || m.Expires != nil && *m.Expires < 0 {
		t.Errorf("%+v", m)
	}
	if p := in.Part; p != nil && (p.Total < 2 || p.Number < 1 || p.Number > p.Total) {
		t.Errorf("%+v", p)
	}
	if in.Part != nil {
		return
	}
	parts, err := dialect(nil).outgoing(m, route, pdu.SubmitSMID, now)
	if err != nil {
		return // the sender's word may be too long, the text too
	}
	again, err := dialect(nil).Incoming(onWire(t, parts[0]), now)
	if err != nil || len(parts) == 1 && !bytes.Equal(again.Message.Body, m.Body) {
		t.Errorf("%q goes out as %q, %v", m.Body, parts[0].Short.Text, err)
	}
}

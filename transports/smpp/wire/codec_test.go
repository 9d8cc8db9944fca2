package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

var update = flag.Bool("update", false, "write the golden files")

// samples are one PDU of each kind, by the name of its golden file.
var samples = map[string]Packet{
	"generic_nack": {ID: pdu.GenericNACKID, Status: RInvCmdID, Sequence: 7},
	"bind_receiver": {ID: pdu.BindReceiverID, Sequence: 1, Body: &Bind{
		Mode: pdu.BindReceiverID, SystemID: "esme", Password: "secret", SystemType: "VMS",
		InterfaceVersion: 0x34, AddressRange: Address{1, 1, "^4479"},
	}},
	"bind_receiver_resp":    {ID: pdu.BindReceiverRespID, Sequence: 1, Body: &BindResp{Mode: pdu.BindReceiverRespID, SystemID: "imgate"}},
	"bind_transmitter":      {ID: pdu.BindTransmitterID, Sequence: 1, Body: &Bind{Mode: pdu.BindTransmitterID, SystemID: "esme", InterfaceVersion: 0x33}},
	"bind_transmitter_resp": {ID: pdu.BindTransmitterRespID, Status: RInvPaswd, Sequence: 1},
	"bind_transceiver": {ID: pdu.BindTransceiverID, Sequence: 1, Body: &Bind{
		Mode: pdu.BindTransceiverID, SystemID: "fifteen-octets!", Password: "8-octets", InterfaceVersion: 0x50,
	}},
	"bind_transceiver_resp": {
		ID: pdu.BindTransceiverRespID, Sequence: 1, Body: &BindResp{Mode: pdu.BindTransceiverRespID, SystemID: "imgate"},
		TLVs: TLVs{Uint8(TagScInterfaceVersion, 0x34)},
	},
	"outbind":     {ID: pdu.OutbindID, Sequence: 1, Body: &Outbind{SystemID: "smsc", Password: "secret"}},
	"unbind":      {ID: pdu.UnbindID, Sequence: 2},
	"unbind_resp": {ID: pdu.UnbindRespID, Sequence: 2},
	"submit_sm": {ID: pdu.SubmitSMID, Sequence: 3, Body: &Short{
		Of: pdu.SubmitSMID, ServiceType: "CMT", Source: Address{5, 0, "ACME"}, Destination: Address{1, 1, "447700900001"},
		ESMClass: 3, ProtocolID: 1, Priority: 2, ScheduleTime: "261123120000004+", ValidityPeriod: "000001000000000R",
		RegisteredDelivery: 1, ReplaceIfPresent: 1, DataCoding: 8, DefaultMessageID: 9, Text: []byte{0x04, 0x1F, 0x04, 0x40},
	}},
	"submit_sm_payload": {
		ID: pdu.SubmitSMID, Sequence: 4,
		Body: &Short{Of: pdu.SubmitSMID, Source: Address{0, 1, "12345"}, Destination: Address{1, 1, "447700900001"}},
		TLVs: TLVs{{pdutlv.TagMessagePayload, bytes.Repeat([]byte("long "), 60)}, Uint16(pdutlv.TagUserMessageReference, 0x1234)},
	},
	"submit_sm_resp":      {ID: pdu.SubmitSMRespID, Sequence: 3, Body: &ShortResp{Of: pdu.SubmitSMRespID, MessageID: "0123456789abcdefghijkl"}},
	"submit_sm_resp_bare": {ID: pdu.SubmitSMRespID, Status: RThrottled, Sequence: 3},
	"submit_multi": {ID: pdu.SubmitMultiID, Sequence: 5, Body: &Multi{
		Short:        Short{Source: Address{1, 1, "447700900002"}, Text: []byte("hello")},
		Destinations: []Address{{1, 1, "447700900001"}, {1, 1, "447700900003"}},
		Lists:        []string{"friends"},
	}},
	"submit_multi_resp": {ID: pdu.SubmitMultiRespID, Sequence: 5, Body: &MultiResp{
		MessageID: "abc", Failed: []Failed{{Address{1, 1, "447700900003"}, RInvDstAdr}},
	}},
	"deliver_sm": {
		ID: pdu.DeliverSMID, Sequence: 6,
		Body: &Short{
			Of: pdu.DeliverSMID, Source: Address{1, 1, "447700900001"}, Destination: Address{0, 1, "12345"}, ESMClass: 4,
			Text: []byte("id:abc sub:001 dlvrd:001 submit date:2611231200 done date:2611231201 stat:DELIVRD err:000 text:hello"),
		},
		TLVs: TLVs{Text(pdutlv.TagReceiptedMessageID, "abc"), Uint8(pdutlv.TagMessageStateOption, StateDelivered)},
	},
	"deliver_sm_resp": {ID: pdu.DeliverSMRespID, Sequence: 6, Body: &ShortResp{Of: pdu.DeliverSMRespID}},
	"data_sm": {
		ID: pdu.DataSMID, Sequence: 8,
		Body: &Short{
			Of: pdu.DataSMID, ServiceType: "WAP", Source: Address{1, 1, strings.Repeat("4", 64)}, Destination: Address{1, 1, "447700900001"},
			ESMClass: 3, RegisteredDelivery: 1, DataCoding: 4,
		},
		TLVs: TLVs{{pdutlv.TagMessagePayload, []byte{1, 2, 3}}},
	},
	"data_sm_resp": {ID: pdu.DataSMRespID, Sequence: 8, Body: &ShortResp{Of: pdu.DataSMRespID, MessageID: "abc"}},
	"query_sm":     {ID: pdu.QuerySMID, Sequence: 9, Body: &Query{MessageID: "abc", Source: Address{1, 1, "447700900002"}}},
	"query_sm_resp": {ID: pdu.QuerySMRespID, Sequence: 9, Body: &QueryResp{
		MessageID: "abc", FinalDate: "261123120000004+", State: StateDelivered, ErrorCode: 3,
	}},
	"cancel_sm": {ID: pdu.CancelSMID, Sequence: 10, Body: &Cancel{
		ServiceType: "CMT", MessageID: "abc", Source: Address{1, 1, "447700900002"}, Destination: Address{1, 1, "447700900001"},
	}},
	"cancel_sm_resp": {ID: pdu.CancelSMRespID, Sequence: 10},
	"replace_sm": {ID: pdu.ReplaceSMID, Sequence: 11, Body: &Replace{
		MessageID: "abc", Source: Address{1, 1, "447700900002"}, ScheduleTime: "261123120000004+", ValidityPeriod: "000001000000000R",
		RegisteredDelivery: 1, DefaultMessageID: 2, Text: []byte("other"),
	}},
	"replace_sm_resp":   {ID: pdu.ReplaceSMRespID, Status: RReplaceFail, Sequence: 11},
	"enquire_link":      {ID: pdu.EnquireLinkID, Sequence: 12},
	"enquire_link_resp": {ID: pdu.EnquireLinkRespID, Sequence: 12},
	"alert_notification": {
		ID: pdu.AlertNotificationID, Sequence: 13,
		Body: &Alert{Source: Address{1, 1, "447700900001"}, ESME: Address{0, 0, "esme"}},
		TLVs: TLVs{Uint8(pdutlv.TagMsAvailabilityStatus, 0)},
	},
}

func encoded(tb testing.TB, p Packet) []byte {
	tb.Helper()
	frame, err := Encode(nil, &p)
	if err != nil {
		tb.Fatalf("%+v: %v", p, err)
	}
	return frame
}

func TestGolden(t *testing.T) {
	seen := map[pdu.ID]bool{}
	for name, p := range samples {
		seen[p.ID] = true
		file := filepath.Join("testdata", name+".hex")
		frame := encoded(t, p)
		if *update {
			if err := os.WriteFile(file, []byte(hex.Dump(frame)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.Dump(frame); got != string(want) {
			t.Errorf("%s became\n%swant\n%s", name, got, want)
		}
		back, err := Decode(frame)
		if err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("%s came back as %+v, %v", name, back, err)
		}
	}
	for _, id := range IDs() {
		if !seen[id] {
			t.Errorf("no sample of %s", Name(id))
		}
	}
}

// TestRoundTrip: what we write we read, whatever is in it.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		for _, id := range IDs() {
			p := randomPacket(r, id)
			frame := encoded(t, p)
			back, err := Decode(frame)
			if err != nil || !reflect.DeepEqual(back, p) {
				t.Fatalf("%s\n%+v\nbecame %+v\n%+v\n%v", Name(id), p, back, back.Body, err)
			}
		}
	}
}

// randomPacket makes a PDU whose strings are between empty and as long as they
// may be.
func randomPacket(r *rand.Rand, id pdu.ID) Packet {
	p := Packet{ID: id, Sequence: r.Uint32()}
	if p.IsResponse() {
		p.Status = pdu.Status(r.IntN(3) * r.IntN(0x500))
	}
	p.Body = randomBody(r, id)
	if p.Body == nil && known[kindOf(id)].layout != nil {
		return p
	}
	for range r.IntN(4) {
		p.TLVs = append(p.TLVs, TLV{pdutlv.Tag(r.Uint32()), randomOctets(r, 300)})
	}
	return p
}

func randomBody(r *rand.Rand, id pdu.ID) Body {
	if id&responseBit != 0 && r.IntN(5) == 0 {
		return nil
	}
	address := func() Address { return Address{uint8(r.Uint32()), uint8(r.Uint32()), randomText(r, 20)} }
	wide := func() Address { return Address{uint8(r.Uint32()), uint8(r.Uint32()), randomText(r, 64)} }
	octet := func() uint8 { return uint8(r.Uint32()) }
	switch id {
	case pdu.BindReceiverID, pdu.BindTransmitterID, pdu.BindTransceiverID:
		return &Bind{id, randomText(r, 15), randomText(r, MaxPassword), randomText(r, 12), octet(), Address{octet(), octet(), randomText(r, 40)}}
	case pdu.BindReceiverRespID, pdu.BindTransmitterRespID, pdu.BindTransceiverRespID:
		return &BindResp{id, randomText(r, 15)}
	case pdu.OutbindID:
		return &Outbind{randomText(r, 15), randomText(r, MaxPassword)}
	case pdu.AlertNotificationID:
		return &Alert{wide(), wide()}
	case pdu.SubmitSMID, pdu.DeliverSMID:
		s := randomShort(r)
		s.Of, s.Destination = id, address()
		return &s
	case pdu.DataSMID:
		return &Short{
			Of: id, ServiceType: randomText(r, 5), Source: wide(), Destination: wide(),
			ESMClass: octet(), RegisteredDelivery: octet(), DataCoding: octet(),
		}
	case pdu.SubmitSMRespID, pdu.DeliverSMRespID, pdu.DataSMRespID:
		return &ShortResp{id, randomText(r, 64)}
	case pdu.SubmitMultiID:
		m := &Multi{Short: randomShort(r)}
		for range 1 + r.IntN(127) {
			m.Destinations = append(m.Destinations, address())
		}
		for range r.IntN(127) {
			m.Lists = append(m.Lists, randomText(r, 20))
		}
		return m
	case pdu.SubmitMultiRespID:
		m := &MultiResp{MessageID: randomText(r, 64)}
		for range r.IntN(256) {
			m.Failed = append(m.Failed, Failed{address(), pdu.Status(r.Uint32())})
		}
		return m
	case pdu.QuerySMID:
		return &Query{randomText(r, 64), address()}
	case pdu.QuerySMRespID:
		return &QueryResp{randomText(r, 64), randomText(r, 16), octet(), octet()}
	case pdu.CancelSMID:
		return &Cancel{randomText(r, 5), randomText(r, 64), address(), address()}
	case pdu.ReplaceSMID:
		return &Replace{randomText(r, 64), address(), randomText(r, 16), randomText(r, 16), octet(), octet(), nilIfEmpty(randomOctets(r, maxText))}
	}
	return nil
}

func randomShort(r *rand.Rand) Short {
	octet := func() uint8 { return uint8(r.Uint32()) }
	return Short{
		ServiceType: randomText(r, 5), Source: Address{octet(), octet(), randomText(r, 20)},
		ESMClass: octet(), RegisteredDelivery: octet(), DataCoding: octet(), ProtocolID: octet(), Priority: octet(),
		ScheduleTime: randomText(r, 16), ValidityPeriod: randomText(r, 16), ReplaceIfPresent: octet(), DefaultMessageID: octet(),
		Text: nilIfEmpty(randomOctets(r, maxText)),
	}
}

func randomOctets(r *rand.Rand, most int) []byte {
	b := make([]byte, min(most, r.IntN(most*5/4)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func randomText(r *rand.Rand, most int) string {
	return string(bytes.ReplaceAll(randomOctets(r, most), []byte{0}, []byte{'x'}))
}

func nilIfEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// frame makes a PDU of the rest behind the header.
func frame(id pdu.ID, status pdu.Status, rest string) []byte {
	b := make([]byte, pdu.HeaderLen, pdu.HeaderLen+len(rest))
	binary.BigEndian.PutUint32(b, uint32(pdu.HeaderLen+len(rest)))
	binary.BigEndian.PutUint32(b[4:], uint32(id))
	binary.BigEndian.PutUint32(b[8:], uint32(status))
	b[15] = 5
	return append(b, rest...)
}

func TestDecodeRefuses(t *testing.T) {
	const addresses = "\x01\x01123\x00\x01\x01456\x00"
	long := func(n int) string { return strings.Repeat("x", n) + "\x00" }
	submit := func(rest string) []byte {
		return frame(pdu.SubmitSMID, 0, "\x00"+addresses+"\x00\x00\x00\x00\x00\x00\x00\x00\x00"+rest)
	}
	for name, c := range map[string]struct {
		frame []byte
		want  pdu.Status
	}{
		"half a header":           {make([]byte, 12), RInvCmdLen},
		"another command_length":  {append(frame(pdu.UnbindID, 0, ""), 0), RInvCmdLen},
		"an unknown command_id":   {frame(0x42, 0, ""), RInvCmdID},
		"broadcast_sm":            {frame(0x111, 0, "\x00"), RInvCmdID},
		"an unknown response":     {frame(0x80000042, 0, ""), RInvCmdID},
		"no body":                 {frame(pdu.SubmitSMID, 0, ""), RInvCmdLen},
		"a bind without password": {frame(pdu.BindTransceiverID, 0, "esme\x00"), RInvCmdLen},
		"a string without NUL":    {frame(pdu.BindTransceiverID, 0, "esme"), RInvCmdLen},
		"a long system_id":        {frame(pdu.BindTransceiverID, 0, long(16)), RInvSysID},
		"a long password":         {frame(pdu.BindTransceiverID, 0, "e\x00"+long(65)), RInvPaswd},
		"a long system_type":      {frame(pdu.BindTransceiverID, 0, "e\x00p\x00"+long(13)), RInvSysTyp},
		"a long address_range":    {frame(pdu.BindTransceiverID, 0, "e\x00p\x00t\x00\x34\x01\x01"+long(41)), RBindFail},
		"a long service_type":     {frame(pdu.SubmitSMID, 0, long(6)), RInvSerTyp},
		"a long source_addr":      {frame(pdu.SubmitSMID, 0, "\x00\x01\x01"+long(21)), RInvSrcAdr},
		"a long destination_addr": {frame(pdu.SubmitSMID, 0, "\x00\x01\x01123\x00\x01\x01"+long(21)), RInvDstAdr},
		"of data_sm":              {frame(pdu.DataSMID, 0, "\x00\x01\x01123\x00\x01\x01"+long(65)), RInvDstAdr},
		"a long schedule time":    {frame(pdu.SubmitSMID, 0, "\x00"+addresses+"\x00\x00\x00"+long(17)), RInvSched},
		"a long validity period":  {frame(pdu.SubmitSMID, 0, "\x00"+addresses+"\x00\x00\x00\x00"+long(17)), RInvExpiry},
		"a long message_id":       {frame(pdu.QuerySMID, 0, long(65)), RInvMsgID},
		"sm_length over the end":  {submit("\x05hell"), RInvMsgLen},
		"sm_length 255":           {submit("\xff" + strings.Repeat("x", 255)), RInvMsgLen},
		"no sm_length":            {submit(""), RInvCmdLen},
		"garbage at the end":      {submit("\x00abc"), RInvOptParStream},
		"half a TLV":              {submit("\x00\x04\x24\x00\x05hell"), RInvOptParStream},
		"a body of enquire_link":  {frame(pdu.EnquireLinkID, 0, "x"), RInvOptParStream},
		"257 TLVs":                {submit("\x00" + strings.Repeat("\x04\x24\x00\x00", 257)), RInvOptParStream},
		"no destinations":         {frame(pdu.SubmitMultiID, 0, "\x00\x01\x01123\x00\x00"), RInvNumDests},
		"255 destinations":        {frame(pdu.SubmitMultiID, 0, "\x00\x01\x01123\x00\xff"), RInvNumDests},
		"missing destinations":    {frame(pdu.SubmitMultiID, 0, "\x00\x01\x01123\x00\x02\x01\x01\x01456\x00"), RInvCmdLen},
		"no number_of_dests":      {frame(pdu.SubmitMultiID, 0, "\x00\x01\x01123\x00"), RInvCmdLen},
		"half a destination":      {frame(pdu.SubmitMultiID, 0, "\x00\x01\x01123\x00\x01\x01\x01"), RInvCmdLen},
		"an unknown dest_flag":    {frame(pdu.SubmitMultiID, 0, "\x00\x01\x01123\x00\x01\x03456\x00"), RInvDestFlag},
		"a long dl_name":          {frame(pdu.SubmitMultiID, 0, "\x00\x01\x01123\x00\x01\x02"+long(21)), RInvDLName},
	} {
		p, err := Decode(c.frame)
		var e *Error
		if !errors.As(err, &e) || e.Status != c.want {
			t.Errorf("%s: %v, want %s", name, err, StatusName(c.want))
		}
		if len(c.frame) >= pdu.HeaderLen && p.Sequence != 5 || p.Body != nil || p.TLVs != nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestDecodeForgives: what peers do with responses.
func TestDecodeForgives(t *testing.T) {
	resp := func(id string) *ShortResp { return &ShortResp{pdu.SubmitSMRespID, id} }
	for name, c := range map[string]struct {
		frame []byte
		body  Body
		tlvs  int
	}{
		"no body":                       {frame(pdu.SubmitSMRespID, 0, ""), nil, 0},
		"no body of an error":           {frame(pdu.BindTransceiverRespID, RBindFail, ""), nil, 0},
		"an empty message_id":           {frame(pdu.SubmitSMRespID, RThrottled, "\x00"), resp(""), 0},
		"no NUL":                        {frame(pdu.SubmitSMRespID, 0, "abc"), resp("abc"), 0},
		"no NUL of 3.3":                 {frame(pdu.SubmitSMRespID, 0, "12345678"), resp("12345678"), 0},
		"an error with garbage":         {frame(pdu.SubmitSMRespID, RSysErr, "abc\x00\x01"), resp("abc"), 0},
		"ESME_ROK with garbage":         {frame(pdu.SubmitSMRespID, 0, "abc\x00\x01"), resp("abc"), 0},
		"too long a name":               {frame(pdu.SubmitSMRespID, 0, strings.Repeat("x", 65)+"\x00"), nil, 0},
		"too long a system_id":          {frame(pdu.BindTransceiverRespID, 0, strings.Repeat("x", 16)+"\x00"), nil, 0},
		"a name and more behind NULs":   {frame(pdu.SubmitSMRespID, 0, "abc\x00def\x00"), resp("abc"), 0},
		"no no_unsuccess":               {frame(pdu.SubmitMultiRespID, 0, "abc\x00"), nil, 0},
		"a missing failed":              {frame(pdu.SubmitMultiRespID, 0, "abc\x00\x01"), nil, 0},
		"half a status of a failed":     {frame(pdu.SubmitMultiRespID, 0, "abc\x00\x01\x01\x01456\x00\x00\x00"), nil, 0},
		"a short query_sm_resp":         {frame(pdu.QuerySMRespID, 0, "abc\x00\x00\x02"), nil, 0},
		"a body of enquire_link_resp":   {frame(pdu.EnquireLinkRespID, 0, "x"), nil, 0},
		"an error with too long a name": {frame(pdu.SubmitSMRespID, RSysErr, strings.Repeat("x", 70)), nil, 0},
		"TLVs alone":                    {frame(pdu.BindTransceiverRespID, RBindFail, "\x02\x10\x00\x01\x34"), nil, 1},
		"a garbage after an error":      {frame(pdu.UnbindRespID, RSysErr, "x"), nil, 0},
	} {
		p, err := Decode(c.frame)
		if err != nil || !reflect.DeepEqual(p.Body, c.body) || len(p.TLVs) != c.tlvs {
			t.Errorf("%s: %+v, %v, %v", name, p.Body, p.TLVs, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	submit := func(s Short) Packet { s.Of = pdu.SubmitSMID; return Packet{ID: pdu.SubmitSMID, Body: &s} }
	for name, c := range map[string]struct {
		packet Packet
		want   pdu.Status
	}{
		"an unknown command_id":    {Packet{ID: 0x42}, RInvCmdID},
		"no body":                  {Packet{ID: pdu.SubmitSMID}, RInvCmdID},
		"another's body":           {Packet{ID: pdu.SubmitSMID, Body: &Query{}}, RInvCmdID},
		"a body that lies":         {Packet{ID: pdu.SubmitSMID, Body: &ShortResp{Of: pdu.SubmitSMID}}, RInvCmdID},
		"a body where none is":     {Packet{ID: pdu.UnbindID, Body: &Short{Of: pdu.UnbindID}}, RInvCmdID},
		"TLVs without a body":      {Packet{ID: pdu.SubmitSMRespID, TLVs: TLVs{Uint8(1, 1)}}, RInvCmdID},
		"a long source":            {submit(Short{Source: Address{Number: long(21)}}), RInvSrcAdr},
		"a NUL":                    {submit(Short{Source: Address{Number: "1\x002"}}), RInvSrcAdr},
		"a long text":              {submit(Short{Text: []byte(long(255))}), RInvMsgLen},
		"a long TLV":               {Packet{ID: pdu.UnbindID, TLVs: TLVs{{1, make([]byte, 65536)}}}, RInvParLen},
		"many TLVs":                {Packet{ID: pdu.UnbindID, TLVs: make(TLVs, 257)}, RInvOptParStream},
		"no destinations":          {Packet{ID: pdu.SubmitMultiID, Body: &Multi{}}, RInvNumDests},
		"many destinations":        {Packet{ID: pdu.SubmitMultiID, Body: &Multi{Destinations: make([]Address, 255)}}, RInvNumDests},
		"a long destination":       {Packet{ID: pdu.SubmitMultiID, Body: &Multi{Destinations: []Address{{0, 0, long(21)}}}}, RInvDstAdr},
		"a long list":              {Packet{ID: pdu.SubmitMultiID, Body: &Multi{Lists: []string{long(21)}}}, RInvDLName},
		"many failed":              {Packet{ID: pdu.SubmitMultiRespID, Body: &MultiResp{Failed: make([]Failed, 256)}}, RInvNumDests},
		"a long failed":            {Packet{ID: pdu.SubmitMultiRespID, Body: &MultiResp{Failed: []Failed{{Address: Address{Number: long(21)}}}}}, RInvDstAdr},
		"a long text of a replace": {Packet{ID: pdu.ReplaceSMID, Body: &Replace{Text: []byte(long(255))}}, RInvMsgLen},
	} {
		b, err := Encode([]byte("before"), &c.packet)
		var e *Error
		if !errors.As(err, &e) || e.Status != c.want || string(b) != "before" {
			t.Errorf("%s: %q, %v, want %s", name, b, err, StatusName(c.want))
		}
	}
}

func TestTLVs(t *testing.T) {
	tags := TLVs{
		Uint8(1, 7), Uint16(2, 0x1234), Uint32(3, 0x12345678), Text(4, "abc"),
		{5, []byte("no NUL")}, {6, []byte{}}, {7, make([]byte, 5)}, Uint8(1, 8),
	}
	for tag, want := range map[pdutlv.Tag]uint32{1: 7, 2: 0x1234, 3: 0x12345678} {
		if n, ok := tags.Uint(tag); !ok || n != want {
			t.Errorf("tag %d is %x, %t", tag, n, ok)
		}
	}
	for _, tag := range []pdutlv.Tag{6, 7, 8} {
		if n, ok := tags.Uint(tag); ok {
			t.Errorf("tag %d is %x", tag, n)
		}
	}
	for tag, want := range map[pdutlv.Tag]string{4: "abc", 5: "no NUL", 6: ""} {
		if s, ok := tags.Text(tag); !ok || s != want {
			t.Errorf("tag %d is %q, %t", tag, s, ok)
		}
	}
	if v, ok := tags.Get(6); !ok || v == nil {
		t.Error("an empty value isn't there")
	}
	if _, ok := tags.Text(8); ok {
		t.Error("a missing tag is there")
	}
}

func TestNames(t *testing.T) {
	for id, want := range map[pdu.ID]string{pdu.DataSMRespID: "data_sm_resp", 0: "unknown", 0x104: "unknown", 0xFFFFFFFF: "unknown"} {
		if got := Name(id); got != want {
			t.Errorf("%#x is %s", uint32(id), got)
		}
	}
	for status, want := range map[pdu.Status]string{RThrottled: "ESME_RTHROTTLED", RxTAppn: "ESME_RX_T_APPN", 1234: "0x000004d2"} {
		if got := StatusName(status); got != want {
			t.Errorf("%d is %s", status, got)
		}
	}
}

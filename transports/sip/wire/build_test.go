package wire

import (
	"net/netip"
	"strings"
	"testing"
)

// FuzzBuild: no value can change the structure of what is written. Either it is
// refused, or what is read back has the same fields as a harmless message.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{"x", "a\r\nEvil: yes", "a\nb", "a\x00", "<>", "\"", "a;tag=2", " ", "ä", "a\\"} {
		f.Add(s, s, s, s, s)
	}
	f.Fuzz(func(t *testing.T, display, user, name, value, callID string) {
		o := testOutgoing
		a := mustBeAddress(user)
		o.From = string(AppendParty(nil, display, AppendURI(nil, a, "h"), "tag"))
		o.To = string(AppendParty(nil, "", AppendURI(nil, a, "h"), ""))
		o.CallID = callID
		o.Headers = []Header{{name, value}, {"Content-Type", value}}
		packet, err := appendRequest(nil, &o, testWay, "z9hG4bKx")
		if err != nil || a.User == "" || callID == "" {
			return
		}
		r, _, refusal := Parse(packet, maxBody)
		if refusal != nil {
			if strings.HasPrefix(refusal.Phrase, "More Than One") || strings.HasPrefix(refusal.Phrase, "Header Line") {
				return // the caller's header came twice, or is too long
			}
			t.Fatalf("%q: %v", packet, refusal)
		}
		if len(r.headers) != 6+2+1 || r.CallID != callID || r.From.Display != strings.TrimSpace(display) && r.From.Display != display || string(r.Body) != "hello" {
			t.Fatalf("%q became %+v", packet, r)
		}
	})
}

func TestBuildRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Outgoing)
	}{
		{"a line break in From", func(o *Outgoing) { o.From += "\r\nX: y" }},
		{"a line feed in a value", func(o *Outgoing) { o.Headers = []Header{{"Subject", "a\nb"}} }},
		{"NUL in a value", func(o *Outgoing) { o.Headers = []Header{{"Subject", "a\x00b"}} }},
		{"a line break in a name", func(o *Outgoing) { o.Headers = []Header{{"Subject: x\r\nTo", "a"}} }},
		{"a Via of the caller's", func(o *Outgoing) { o.Headers = []Header{{"v", "SIP/2.0/UDP evil"}} }},
		{"a Route of the caller's", func(o *Outgoing) { o.Headers = []Header{{"Route", "<sip:evil;lr>"}} }},
		{"a Content-Length of the caller's", func(o *Outgoing) { o.Headers = []Header{{"content-length", "0"}} }},
		{"a space in the Request-URI", func(o *Outgoing) { o.URI = "sip:a@b SIP/2.0" }},
		{"a space in Call-ID", func(o *Outgoing) { o.CallID = "a b" }},
		{"no Request-URI", func(o *Outgoing) { o.URI = "" }},
		{"no method", func(o *Outgoing) { o.Method = "" }},
	}
	for _, test := range tests {
		o := testOutgoing
		test.change(&o)
		if _, err := appendRequest(nil, &o, testWay, "z9hG4bKx"); err != ErrUnsafe {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestResponseRefuses(t *testing.T) {
	for _, reply := range []Reply{
		{Status: 400, Phrase: "a\r\nX: y"},
		{Status: 200, Headers: []Header{{"Contact", "<sip:a@b>\r\nX: y"}}},
		{Status: 200, Headers: []Header{{"To", "<sip:a@b>"}}},
	} {
		if _, err := AppendReply(nil, parsed(t, "a"), reply, "tag"); err != ErrUnsafe {
			t.Errorf("%+v: %v", reply, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	packet := testPacket(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, refusal := Parse(packet, maxBody); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	r, _, _ := Parse(testPacket(b), maxBody)
	r.Flow = testFlow
	packet, err := AppendReply(nil, r, Reply{Status: 200}, "tag")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, refusal := Parse(packet, maxBody); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

func BenchmarkBuildRequest(b *testing.B) {
	o := testOutgoing
	buffer := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buffer, _ = appendRequest(buffer[:0], &o, testWay, "z9hG4bK0123456789012345678901")
	}
}

func BenchmarkBuildResponse(b *testing.B) {
	r, _, _ := Parse(testPacket(b), maxBody)
	r.Flow = testFlow
	buffer := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buffer, _ = AppendReply(buffer[:0], r, Reply{Status: 200}, "abcdefghijklm")
	}
}

// testPacket is a MESSAGE of about 650 octets with Authorization.
func testPacket(tb testing.TB) []byte {
	tb.Helper()
	o := testOutgoing
	o.Headers = []Header{
		{"Authorization", `Digest username="1001", realm="sip.example.com", nonce="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", uri="sip:1002@sip.example.com", response="0123456789abcdef0123456789abcdef", algorithm=MD5, cnonce="0a4f113b", qop=auth, nc=00000001`},
		{"User-Agent", "example/1.0"}, {"Content-Type", "text/plain"},
	}
	o.Body = []byte(strings.Repeat("hello ", 12))
	packet, err := appendRequest(nil, &o, testWay, "z9hG4bK0123456789012345678901")
	if err != nil {
		tb.Fatal(err)
	}
	return packet
}

// TestReceivedHasNoZone: which interface of ours a link-local address belongs to
// is nothing that the peer could read.
func TestReceivedHasNoZone(t *testing.T) {
	r := parsed(t, "a")
	r.Flow.Remote = netip.MustParseAddrPort("[fe80::1%eth0]:4000")
	reply, err := AppendReply(nil, r, Reply{Status: 200}, "ours")
	if err != nil || !strings.Contains(string(reply), ";received=fe80::1\r\n") {
		t.Errorf("%v, %s", err, reply)
	}
}

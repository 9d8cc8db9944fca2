package wire

import (
	"fmt"
	"testing"
)

func TestBehind(t *testing.T) {
	for _, test := range []struct{ vias, want string }{
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\n", ""},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1;received=192.0.2.66\r\n", ""},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nVia: SIP/2.0/TCP 192.0.2.1:5070;branch=z9hG4bK2\r\n", "TCP 192.0.2.1:5070"},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nv: SIP/2.0/UDP 192.0.2.1\r\n", "UDP 192.0.2.1:5060"},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1, SIP/2.0/TLS c.invalid:1;rport=4000;received=192.0.2.7;branch=z9hG4bK2, SIP/2.0/UDP 192.0.2.8\r\n", "TLS 192.0.2.7:4000"},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nMax-Forwards: 7\r\nVia: SIP/2.0/UDP [2001:db8::1]:5060;received=2001:db8::2;rport;\r\n", "UDP [2001:db8::2]:5060"},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP [2001:db8::1]:6000\r\n", "UDP [2001:db8::1]:6000"},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP 192.0.2.1;rport=99999;received=::ffff:192.0.2.9\r\n", "UDP 192.0.2.9:5060"},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP client.example.com;branch=z9hG4bK2\r\n", ""},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nVia: what\r\n", ""},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1,\r\n", ""},
		{"Via: SIP/2.0/UDP p;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP h;received=\"\r\n", ""},
	} {
		text := "OPTIONS sip:a SIP/2.0\r\n" + test.vias + "From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
		r, _, refusal := Parse([]byte(text), maxBody)
		if refusal != nil {
			t.Errorf("%q: %v", test.vias, refusal)
			continue
		}
		got := ""
		if hop, ok := r.Behind(); ok {
			got = fmt.Sprintf("%s %s", hop.Transport, hop.Address)
		}
		if got != test.want {
			t.Errorf("%q: %q, want %q", test.vias, got, test.want)
		}
	}
}

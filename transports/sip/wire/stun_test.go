package wire

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// unhex reads octets written in groups.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The addresses, and how they look when they are disguised, are those of RFC
// 5769 §2.2 and §2.3, under its transaction b7e7a701bc34d686fa87dfae.
const (
	stunID    = "b7e7a701 bc34d686 fa87dfae"
	stunPlain = "0001 0000 2112a442" + stunID
)

func TestSTUN(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:32853"), netip.MustParseAddrPort("[2001:db8:1234:5678:11:2233:4455:6677]:32853")
	const success4 = "0101 000c 2112a442" + stunID + "0020 0008 0001 a147 e112a643"
	const success6 = "0101 0018 2112a442" + stunID + "0020 0014 0002 a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9"
	tests := []struct {
		name, request string
		source        netip.AddrPort
		answer        string
	}{
		{"IPv4", stunPlain, four, success4},
		{"IPv6", stunPlain, six, success6},
		{"known attributes", "0001 0010 2112a442" + stunID + "0006 0001 61000000 8022 0004 74657374", four, success4},
		{"unknown attribute", "0001 0004 2112a442" + stunID + "0003 0000", four, "0111 0010 2112a442" + stunID + "0009 0004 00000414 000a 0002 0003 0000"},
		{"two unknown", "0001 0010 2112a442" + stunID + "0024 0004 6e0001ff 0025 0000 802a 0000", four, "0111 0010 2112a442" + stunID + "0009 0004 00000414 000a 0004 0024 0025"},
		{"wrong length", "0001 0004 2112a442" + stunID, four, ""},
		{"length not a multiple of four", "0001 0002 2112a442" + stunID + "0000", four, ""},
		{"no cookie", "0001 0000 2112a443" + stunID, four, ""},
		{"response", "0101 0000 2112a442" + stunID, four, ""},
		{"indication", "0011 0000 2112a442" + stunID, four, ""},
		{"short", "0001 0000 2112a442", four, ""},
		{"attribute that is cut", "0001 0004 2112a442" + stunID + "0006 0001", four, ""},
		{"wrong fingerprint", "0001 0008 2112a442" + stunID + "8028 0004 00000000", four, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := appendBinding(nil, unhex(t, test.request), test.source)
			if want := unhex(t, test.answer); !bytes.Equal(got, want) {
				t.Errorf("%x, want %x", got, want)
			}
		})
	}
}

// TestSTUNFingerprint takes the request of RFC 5769 §2.1, of which a server for
// SIP knows all but PRIORITY; its fingerprint is right.
func TestSTUNFingerprint(t *testing.T) {
	request := unhex(t, "0001 0058 2112a442"+stunID+
		"8022 0010 5354554e 20746573 7420636c 69656e74"+
		"0024 0004 6e0001ff"+
		"8029 0008 932ff9b1 51263b36"+
		"0006 0009 6576746a 3a683676 59202020"+
		"0008 0014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2"+
		"8028 0004 e57a3bcf")
	source := netip.MustParseAddrPort("192.0.2.1:32853")
	want := unhex(t, "0111 0010 2112a442"+stunID+"0009 0004 00000414 000a 0002 0024 0000")
	if got := appendBinding(nil, request, source); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	request[40]++
	if got := appendBinding(nil, request, source); got != nil {
		t.Errorf("%x in spite of a wrong fingerprint", got)
	}
}

// TestSTUNKeepAlive: on the sockets of SIP, of both families, beside it.
func TestSTUNKeepAlive(t *testing.T) {
	for family, address := range loopbacks() {
		t.Run(family, func(t *testing.T) {
			e := openEach(t, "udp", address, Config{}, echo)
			p := dial(t, e)
			p.send(unhex(t, "0001 0000 00000000"+stunID)) // no answer
			p.send(unhex(t, stunPlain))
			own := netip.MustParseAddrPort(p.conn.LocalAddr().String())
			if got, want := p.receive(), appendStunSuccess(nil, unhex(t, stunPlain), own); got != string(want) {
				t.Errorf("%x, want %x", got, want)
			}
			p.send(p.message("a"))
			if got := status(p.receive()); got != "200 OK" {
				t.Error(got)
			}
			if n := e.Counts(); n.Bindings != 1 || n.Malformed != 1 || n.Requests != 1 {
				t.Errorf("%+v", n)
			}
		})
	}
}

// FuzzSTUN: an answer is STUN itself, has the transaction of its request, and is
// hardly longer.
func FuzzSTUN(f *testing.F) {
	for _, seed := range []string{stunPlain, "0001 0004 2112a442" + stunID + "0003 0000", "0001 0008 2112a442" + stunID + "8028 0004 00000000"} {
		f.Add(unhex(f, seed))
	}
	source := netip.MustParseAddrPort("[2001:db8::1]:5060")
	f.Fuzz(func(t *testing.T, request []byte) {
		answer := appendBinding(nil, request, source)
		if answer == nil {
			return
		}
		if len(answer) > len(request)+24 || len(answer)%4 != 0 || !bytes.Equal(answer[4:stunHead], request[4:stunHead]) || int(answer[3]) != len(answer)-stunHead {
			t.Errorf("%x to %x", answer, request)
		}
	})
}

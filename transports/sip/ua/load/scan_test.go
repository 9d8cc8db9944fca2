package load

import (
	"bytes"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

const delivery = "MESSAGE sip:17@127.0.0.1:4000 SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKone;rport\r\n" +
	"v: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKtwo\r\n" +
	"f: <sip:a@b>;tag=1\r\n" +
	"TO : <sip:c@d>\r\n" +
	"call-id: x@y\r\n" +
	"CSeq: 7\r\n MESSAGE\r\n" +
	"Subject: nothing\r\n" +
	"l: 5\r\n\r\nhello surplus"

func TestScanRequest(t *testing.T) {
	var d datagram
	if !d.scan([]byte(delivery)) {
		t.Fatal("not taken")
	}
	for _, c := range []struct{ name, got, want string }{
		{"method", string(d.method), "MESSAGE"},
		{"uri", string(d.uri), "sip:17@127.0.0.1:4000"},
		{"from", string(d.from), "<sip:a@b>;tag=1"},
		{"to", string(d.to), "<sip:c@d>"},
		{"call-id", string(d.callID), "x@y"},
		{"cseq", string(d.cseq), "7\r\n MESSAGE"},
		{"body", string(d.body), "hello"},
		{"vias", string(bytes.Join(d.vias, []byte("|"))), "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKone;rport|SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKtwo"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
	if d.code != 0 || !d.answerable() {
		t.Errorf("code %d, answerable %v", d.code, d.answerable())
	}
}

func TestScanResponse(t *testing.T) {
	var d datagram
	if !d.scan([]byte("SIP/2.0 401 Unauthorized\r\nVia: x\r\nWWW-Authenticate: one\r\nwww-authenticate: two\r\nProxy-Authenticate: three\r\nContact: <sip:1@2>;expires=60\r\nExpires: 70\r\n\r\n")) {
		t.Fatal("not taken")
	}
	if d.code != 401 || len(d.challenges) != 3 || string(d.challenges[2]) != "three" || d.grantedSeconds() != 60 {
		t.Errorf("got %d, %q, %d", d.code, d.challenges, d.grantedSeconds())
	}
	d.contact = nil
	if d.grantedSeconds() != 70 {
		t.Errorf("granted %d, want 70", d.grantedSeconds())
	}
}

func TestScanRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"a ping":           "\r\n\r\n",
		"no end of header": "MESSAGE sip:a SIP/2.0\r\nVia: x\r\n",
		"no version":       "MESSAGE sip:a\r\n\r\n",
		"another version":  "MESSAGE sip:a SIP/3.0\r\n\r\n",
		"no method":        " sip:a SIP/2.0\r\n\r\n",
		"code too small":   "SIP/2.0 099 X\r\n\r\n",
		"code no number":   "SIP/2.0 2x0 X\r\n\r\n",
		"short code":       "SIP/2.0 20\r\n\r\n",
		"body cut short":   "MESSAGE sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nfour",
		"open line":        "MESSAGE sip:a SIP/2.0\r\nVia: x\r\n y",
	} {
		var d datagram
		if d.scan([]byte(text)) {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAnswer(t *testing.T) {
	var d datagram
	d.scan([]byte(delivery))
	got := string(d.appendAnswer(nil, "200 OK", "mine", ";received=127.0.0.1;rport=5060"))
	want := "SIP/2.0 200 OK\r\n" +
		"Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKone;received=127.0.0.1;rport=5060\r\n" +
		"Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKtwo\r\n" +
		"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=mine\r\nCall-ID: x@y\r\nCSeq: 7\r\n MESSAGE\r\nContent-Length: 0\r\n\r\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if _, err := sip.ParseMessage([]byte(got)); err != nil {
		t.Errorf("no answer for a real parser: %v", err)
	}
}

func TestAnswerKeepsWhatIsThere(t *testing.T) {
	var d datagram
	d.scan([]byte(strings.Replace(strings.Replace(delivery, ";rport", ";rport=7", 1), "<sip:c@d>", "<sip:c@d>;tag=9", 1)))
	got := string(d.appendAnswer(nil, "200 OK", "mine", ";received=x"))
	if strings.Contains(got, "mine") || strings.Contains(got, "received") || !strings.Contains(got, ";rport=7\r\n") {
		t.Errorf("got %q", got)
	}
}

func TestTransactionIn(t *testing.T) {
	const prefix = "z9hG4bKRUN-0."
	via := appendTransaction([]byte("SIP/2.0/UDP x;branch="), prefix, 12, 345)
	for _, tail := range []string{"", ";rport=1", ", SIP/2.0/UDP y"} {
		slot, generation, ok := transactionIn(append(via, tail...), prefix)
		if !ok || slot != 12 || generation != 345 {
			t.Errorf("%q: %d, %d, %v", tail, slot, generation, ok)
		}
	}
	for _, other := range []string{"", "branch=z9hG4bKRUN-1.1.1", "branch=" + prefix, "branch=" + prefix + "1", "branch=" + prefix + "1.", "branch=" + prefix + "x.1"} {
		if _, _, ok := transactionIn([]byte(other), prefix); ok {
			t.Errorf("%q was taken", other)
		}
	}
}

func TestContactIn(t *testing.T) {
	for uri, want := range map[string]int{"sip:17@h:1": 17, "sip:17": -1, "sips:17@h": -1, "sip:@h": -1, "sip:x@h": -1, "": -1} {
		if got := contactIn([]byte(uri)); got != want {
			t.Errorf("%q: %d, want %d", uri, got, want)
		}
	}
}

// FuzzScan proves that no datagram brings the scanner down, that it reads
// nothing beyond the datagram, and that its answers repeat what they must.
func FuzzScan(f *testing.F) {
	f.Add([]byte(delivery))
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKRUN-0.1.1\r\nContact: <sip:a>;EXPIRES=5\r\n\r\n"))
	f.Add([]byte("M  SIP/2.0\nv:;rport,\n\t:\n:\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		guarded := append(append([]byte(nil), b...), "\r\nguard"...)
		var d datagram
		if !d.scan(guarded[:len(b):len(b)]) {
			return
		}
		d.grantedSeconds()
		contactIn(d.uri)
		for _, via := range d.vias {
			transactionIn(via, "z9hG4bKRUN-0.")
		}
		if d.code > 0 || !d.answerable() {
			return
		}
		answer := d.appendAnswer(nil, "200 OK", "mine", ";received=127.0.0.1;rport=5060")
		var again datagram
		if !again.scan(answer) || again.code != 200 || len(again.vias) != len(d.vias) || !bytes.Equal(again.callID, d.callID) {
			t.Fatalf("%q is answered by %q", b, answer)
		}
	})
}

func BenchmarkScanAndAnswer(b *testing.B) {
	text := []byte(delivery)
	var d datagram
	var answer []byte
	b.ReportAllocs()
	for b.Loop() {
		d.scan(text)
		answer = d.appendAnswer(answer[:0], "200 OK", "mine", ";received=127.0.0.1;rport=5060")
	}
}

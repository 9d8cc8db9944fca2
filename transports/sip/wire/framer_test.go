package wire

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// lots is a budget that no test uses up.
const lots = 1 << 30

// found runs a stream through a framer in pieces of the given size and writes
// down what it finds.
func found(stream string, piece, maxBody int) []string {
	f := framer{maxBody: maxBody}
	b := newBudget(lots)
	var list []string
	for stream != "" {
		room := f.room(b)
		n := copy(room[:min(piece, len(room))], stream)
		f.add(n)
		stream = stream[n:]
		for u := f.next(); u.kind != unitNone; u = f.next() {
			list = append(list, describe(&u, maxBody))
			if u.kind == unitBroken {
				return list
			}
		}
	}
	if f.inMessage() {
		list = append(list, "more to come")
	}
	return list
}

func describe(u *unit, maxBody int) string {
	switch u.kind {
	case unitKeepAlive:
		return "CRLF"
	case unitPing:
		return "ping"
	}
	text := "message"
	if u.kind == unitBroken {
		text = "broken"
	}
	if u.draft == nil {
		return text
	}
	request, response, refusal := u.draft.finish(u.body, maxBody)
	switch {
	case refusal != nil:
		return fmt.Sprintf("%s %d %s, answered: %t", text, refusal.Status, refusal.Phrase, request != nil)
	case response != nil:
		return fmt.Sprintf("%s %d %q", text, response.Status, response.Body)
	}
	return fmt.Sprintf("%s %s %q", text, request.Method, request.Body)
}

// streamed is a request as it comes over TCP; rest follows CSeq.
func streamed(rest string) string {
	return "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\n" + rest
}

func TestFramer(t *testing.T) {
	const ok = "SIP/2.0 200 OK\r\nv: SIP/2.0/TCP h;branch=z9hG4bK1\r\nf: <sip:a@b>;tag=1\r\nt: <sip:a@b>;tag=2\r\ni: c\r\nCSeq: 1 MESSAGE\r\nl: 2\r\n\r\nok"
	hello := streamed("Content-Length: 5\r\n\r\nhello")
	tests := []struct {
		name, stream string
		want         []string
	}{
		{"one", hello, []string{`message MESSAGE "hello"`}},
		{"compact form", streamed("l: 5\r\n\r\nhello"), []string{`message MESSAGE "hello"`}},
		{"folded", streamed("Content-Length:\r\n 5\r\n\r\nhello"), []string{`message MESSAGE "hello"`}},
		{"three and a half", hello + ok + streamed("l: 0\r\n\r\n") + "MESS", []string{`message MESSAGE "hello"`, `message 200 "ok"`, `message MESSAGE ""`, "more to come"}},
		{"keep-alive in front", "\r\n" + hello, []string{"CRLF", `message MESSAGE "hello"`}},
		{"ping", "\r\n\r\n" + hello + "\r\n\r\n\r\n", []string{"CRLF", "ping", `message MESSAGE "hello"`, "CRLF", "ping", "CRLF"}},
		{"body of CRLFs", streamed("l: 4\r\n\r\n\r\n\r\n") + hello, []string{`message MESSAGE "\r\n\r\n"`, `message MESSAGE "hello"`}},
		{"fault of meaning", strings.Replace(hello, "1 MESSAGE", "1 INFO", 1) + hello, []string{"message 400 CSeq Method Mismatch, answered: true", `message MESSAGE "hello"`}},
		{"two Subjects", streamed("s: a\r\nSubject: b\r\nl: 5\r\n\r\nhello") + hello, []string{"message 400 More Than One Subject, answered: true", `message MESSAGE "hello"`}},
		{"NUL in a field of no weight", streamed("X: a\x00b\r\nl: 5\r\n\r\nhello") + hello, []string{"message 400 Control Character In Header, answered: true", `message MESSAGE "hello"`}},
		{"NUL in a To", strings.Replace(streamed("l: 5\r\n\r\nhello"), "To: <", "To: \"\x00\" <", 1) + hello, []string{"message 400 Missing Header, answered: false", `message MESSAGE "hello"`}},
		{"NUL in one Content-Length of two", streamed("l: 5\x00\r\nl: 0\r\n\r\nhello") + hello, []string{"broken 400 Control Character In Header, answered: true"}},
		{"bare CR", streamed("X: a\rl: 3\r\nl: 5\r\n\r\nhello") + hello, []string{"broken 400 Control Character In Header, answered: true"}},
		{"body above the limit", streamed("l: 101\r\n\r\n"+strings.Repeat("x", 101)) + hello, []string{"message 413 Request Entity Too Large, answered: true", `message MESSAGE "hello"`}},
		{"body far above the limit", streamed("l: 1048577\r\n\r\n") + hello, []string{"broken 413 Request Entity Too Large, answered: true"}},
		{"no Content-Length", streamed("\r\nhello"), []string{"broken 400 Missing Content-Length, answered: true"}},
		{"two", streamed("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), []string{"broken 400 More Than One Content-Length, answered: true"}},
		{"two, one compact", streamed("Content-Length: 5\r\nl: 6\r\n\r\nhello"), []string{"broken 400 More Than One Content-Length, answered: true"}},
		{"not a number", streamed("Content-Length: +5\r\n\r\nhello"), []string{"broken 400 Bad Content-Length, answered: true"}},
		{"more digits than a number has", streamed("Content-Length: 18446744073709551616\r\n\r\nhello"), []string{"broken 400 Bad Content-Length, answered: true"}},
		{"hidden by a control character", streamed("X: a\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello"), []string{"broken 400 Control Character In Header, answered: true"}},
		{"hidden by its name", streamed("Content-Length\x0b: 3\r\nContent-Length: 5\r\n\r\nhello"), []string{"broken 400 Bad Header Name, answered: true"}},
		{"header section too large", streamed(strings.Repeat("Subject: "+strings.Repeat("x", 1000)+"\r\n", 40)), []string{"broken 513 Message Too Large, answered: true"}},
		{"header section just too large", streamed(strings.Repeat("X: "+strings.Repeat("x", 1019)+"\r\n", 32) + "l: 0\r\n\r\n"), []string{"broken 513 Message Too Large, answered: true"}},
		{"header section too large for its Call-ID", strings.Replace(streamed(strings.Repeat("X: "+strings.Repeat("x", 1019)+"\r\n", 32)+"Call-ID: c\r\nl: 0\r\n\r\n"), "Call-ID", "X", 1), []string{"broken 400 Missing Header, answered: false"}},
		{"endless line", strings.Repeat("x", maxHead+1), []string{"broken"}},
		{"TLS", "\x16\x03\x01\x02\x00\x01", []string{"broken"}},
		{"bare CR", "\rMESSAGE", []string{"broken"}},
		{"HTTP", "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", []string{"message 400 Bad Request Line, answered: false"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, piece := range []int{1, 7, 4096, lots} {
				if got := found(test.stream, piece, 100); !slices.Equal(got, test.want) {
					t.Errorf("in pieces of %d: %q, want %q", piece, got, test.want)
				}
			}
		})
	}
}

// TestFramerLimitsTheHeadInALargeBuffer: a header section isn't longer because
// the message before it has made room.
func TestFramerLimitsTheHeadInALargeBuffer(t *testing.T) {
	stream := streamed("l: 40000\r\n\r\n"+strings.Repeat("x", 40_000)) +
		strings.Replace(streamed(strings.Repeat("X: "+strings.Repeat("x", 1019)+"\r\n", 32)+"Call-ID: c\r\nl: 0\r\n\r\n"), "Call-ID", "X", 1)
	for _, piece := range []int{100, lots} {
		got := found(stream, piece, maxBody)
		if len(got) != 2 || got[1] != "broken 400 Missing Header, answered: false" {
			t.Errorf("in pieces of %d: %.200q", piece, got)
		}
	}
}

// FuzzFramer: however a stream is cut, the same is found in it; and what is
// found as a message would be found in a datagram.
func FuzzFramer(f *testing.F) {
	hello := streamed("Content-Length: 5\r\n\r\nhello")
	for _, s := range []string{hello, "\r\n\r\n" + hello + "\r\n" + hello, streamed("l: 200\r\n\r\n" + strings.Repeat("x", 200) + hello), streamed("\r\n"), streamed("l: 1\r\nl: 2\r\n\r\n"), "\r\r\n", "\x00"} {
		f.Add(s, 1)
		f.Add(s, 13)
	}
	f.Fuzz(func(t *testing.T, stream string, piece int) {
		if piece < 1 || len(stream)/piece > 10_000 {
			return
		}
		whole := found(stream, lots, 100)
		if got := found(stream, piece, 100); !slices.Equal(got, whole) {
			t.Fatalf("in pieces of %d: %q, whole: %q", piece, got, whole)
		}
		if got := found(stream, 1, 100); len(stream) < 10_000 && !slices.Equal(got, whole) {
			t.Fatalf("octet by octet: %q, whole: %q", got, whole)
		}
	})
}

// TestFramerGivesBack: a large message takes of the budget while it comes, and
// nothing afterwards; without a budget it can't come.
func TestFramerGivesBack(t *testing.T) {
	large := streamed("l: 9000\r\n\r\n" + strings.Repeat("x", 9000))
	f, b := framer{maxBody: maxBody}, newBudget(20_000)
	for rest := large; rest != ""; {
		n := copy(f.room(b), rest)
		f.add(n)
		rest = rest[n:]
	}
	if left := b.left.Load(); left > 20_000-7000 {
		t.Errorf("%d left while the message is there", left)
	}
	if u := f.next(); u.kind != unitMessage || len(u.body) != 9000 {
		t.Errorf("found %d", u.kind)
	}
	f.room(b)
	if left := b.left.Load(); left != 20_000 || cap(f.buffer) != smallBuffer {
		t.Errorf("%d left after it, buffer of %d", left, cap(f.buffer))
	}
	poor := newBudget(100)
	f.add(copy(f.room(poor), large))
	if f.room(poor) != nil || poor.left.Load() != 100 {
		t.Error("there was room beyond the budget")
	}
}

// BenchmarkFramer cuts a stream of requests of about 650 octets, as it is read
// from a busy connection.
func BenchmarkFramer(b *testing.B) {
	packet := testPacket(b)
	f, all := framer{maxBody: maxBody}, newBudget(lots)
	b.ReportAllocs()
	for b.Loop() {
		f.add(copy(f.room(all), packet))
		u := f.next()
		if _, _, refusal := u.draft.finish(u.body, maxBody); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

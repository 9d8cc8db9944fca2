package sipfile

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/message"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is a message as the files beside the inputs have it.
type golden struct {
	Sender, Recipient message.Address
	ContentType, Body string
	Expires           *int   `json:",omitempty"`
	Error             string `json:",omitempty"`
}

// TestFiles holds each testdata/NAME.sip against testdata/NAME.json.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.sip")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(text)
		got := golden{m.Sender, m.Recipient, m.ContentType, string(m.Body), m.Expires, ""}
		if err != nil {
			got = golden{Error: err.Error()}
		}
		compare(t, strings.TrimSuffix(file, ".sip")+".json", got)
	}
}

func compare(t *testing.T, file string, got golden) {
	t.Helper()
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != string(text) {
		t.Errorf("%s: %v\n%s\nwant\n%s", file, err, text, want)
	}
}

// typed is a message as somebody types it, with a part of it replaced.
func typed(old, with string) string {
	const text = "MESSAGE sip:1002@sip.example.com SIP/2.0\nFrom: <sip:1001@sip.example.com>;tag=1\n" +
		"To: <sip:1002@sip.example.com>\nCall-ID: 1\nCSeq: 1 MESSAGE\nContent-Type: text/plain\n\nHello"
	return strings.Replace(text, old, with, 1)
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "line 1: expected a request"},
		{typed("MESSAGE sip", "message sip"), "line 1: expected a request"},
		{typed("SIP/2.0", "SIP/7.0"), "line 1: expected a request"},
		{typed("MESSAGE sip", "MESSAGE  sip"), "line 1: expected a request"},
		{typed("1002@sip.example.com SIP", "sip.example.com SIP"), "line 1: the Request-URI: expected a SIP URI with a user"},
		{typed("sip:1002@sip.example.com SIP", "tel:+x SIP"), "line 1: the Request-URI: expected a telephone number, such as tel:+447700900123"},
		{typed("sip:1002@sip.example.com SIP", "sips:1002@sip.example.com SIP"), "the scheme sip, and tel for a recipient, alone"},
		{typed("sip:1001@sip.example.com>", "tel:+447700900000>"), "the scheme sip, and tel for a recipient, alone"},
		{typed("1002@sip.example.com SIP", "a@b@c SIP"), "line 1: the Request-URI: expected a SIP URI"},
		{typed("1002@sip.example.com SIP", "a%40b@c SIP"), "line 1: the Request-URI: expected a SIP URI"},
		{typed("1002@sip.example.com SIP", "a%zz@c SIP"), "line 1: the Request-URI: expected a SIP URI"},
		{typed("1002@sip.example.com SIP", "a:secret@c SIP"), "line 1: the Request-URI: expected a SIP URI"},
		{typed("From:", "X-From:"), "expected a header field From, found none"},
		{typed("Call-ID:", "X:"), "expected a header field Call-ID, found none"},
		{typed("CSeq: 1 MESSAGE", "CSeq: 1 INVITE"), "CSeq: expected a number and the method"},
		{typed("To:", "f:"), "expected a header field To, found none"},
		{typed("Call-ID: 1", "Call-ID: 1\nf: <sip:1003@sip.example.com>"), "expected one header field From, found 2"},
		{typed("Call-ID: 1", "Call-ID 1"), "line 4: expected a header field"},
		{typed("From:", " From:"), "line 2: expected a header field, found the rest of one"},
		{typed("Call-ID: 1", "Call-ID: 1\r1"), "line 4: expected no control characters"},
		{typed("<sip:1001@sip.example.com>", "<sip:sip.example.com>"), "the sender in From: expected a SIP URI with a user"},
		{typed("text/plain", "text"), "Content-Type: expected a MIME type"},
		{typed("Call-ID: 1", "Call-ID: 1\nExpires: soon"), "Expires: expected a whole number of seconds"},
		{typed("Call-ID: 1", "Call-ID: 1\nMax-Forwards: 0"), "Max-Forwards: expected 1 to 255"},
		{typed("Call-ID: 1", "Call-ID: 1\ne: gzip"), "Content-Encoding: the gateway refuses"},
		{typed("Call-ID: 1", "Call-ID: 1\nl: 6"), "Content-Length: expected 5"},
		{typed("Call-ID: 1", "Call-ID: 1\nl: 4"), "Content-Length: expected 5"},
		{typed("Call-ID: 1", "Call-ID: 1\nl: -1"), "Content-Length: expected a whole number"},
		{strings.Repeat("x", MaxSize+1), "expected at most 65536 octets"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for uri, want := range map[string]string{
		"tel:+44-7700-900123;ext=1":                      "+447700900123",
		"sip:+44.7700.900123@sms.example.com;user=phone": "+447700900123@sms.example.com",
		"sip:a.b@sms.example.com;user=phone":             "a.b@sms.example.com",
	} {
		m, err := Parse([]byte(typed("sip:1002@sip.example.com SIP", uri+" SIP")))
		if err != nil || m.Recipient.String() != want {
			t.Errorf("%s: %s, %v", uri, m.Recipient, err)
		}
	}
}

// FuzzParse: whatever is in a file, there is an error or a message that the
// gateway could have taken.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.sip")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(typed("", "")))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		if err := errors.Join(m.Sender.Validate(), m.Recipient.Validate()); err != nil {
			t.Errorf("%+v: %v", m, err)
		}
		if m.ContentType == "" || m.Expires != nil && *m.Expires < 0 || m.Sender.Host == "" {
			t.Errorf("%+v", m)
		}
	})
}

package sip

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
)

func zipped(t *testing.T, w io.WriteCloser, b *bytes.Buffer, body string) string {
	t.Helper()
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func gzipped(t *testing.T, body string) string {
	var b bytes.Buffer
	return zipped(t, gzip.NewWriter(&b), &b, body)
}

func deflated(t *testing.T, body string) string {
	var b bytes.Buffer
	return zipped(t, zlib.NewWriter(&b), &b, body)
}

func deflatedBare(t *testing.T, body string) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	return zipped(t, w, &b, body)
}

// TestContentEncoding: nobody behind the door sees an encoding; a repeat is known
// by what came.
func TestContentEncoding(t *testing.T) {
	const text = "äöü привет 你好 ✓"
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	for _, test := range []struct{ encoding, body string }{
		{"Content-Encoding: gzip", gzipped(t, text)},
		{"e: X-Gzip", gzipped(t, text)},
		{"Content-Encoding: deflate", deflated(t, text)},
		{"Content-Encoding: deflate", deflatedBare(t, text)},
		{"Content-Encoding: deflate, gzip", gzipped(t, deflated(t, text))},
		{"Content-Encoding: deflate\r\nContent-Encoding: gzip", gzipped(t, deflated(t, text))},
		{"Content-Encoding: identity", text},
		{"Content-Encoding: ", text},
	} {
		want(t, c.message(test.encoding+"\r\nContent-Type: text/plain\r\n", test.body), "202 Accepted")
		arrivals := g.submitted()
		m := arrivals[len(arrivals)-1].Message
		if string(m.Body) != text || len(m.Headers) > 0 || m.ContentType != "text/plain" {
			t.Errorf("%s: %q %v", test.encoding, m.Body, m.Headers)
		}
	}
	want(t, c.message("Content-Encoding: deflate\r\n", ""), "202 Accepted")
	keys := map[string]bool{}
	for _, a := range g.submitted() {
		keys[a.Key] = true
	}
	if len(keys) != 9 {
		t.Errorf("%d keys", len(keys))
	}
}

func TestContentEncodingRefused(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, func(c *Config) { c.Limits.Body = 1000 }))
	c.login()
	for _, test := range []struct{ encoding, body, status string }{
		{"gzip", gzipped(t, strings.Repeat("a", 1001)), "413 Request Entity Too Large"},
		{"deflate", deflated(t, strings.Repeat("a", 300_000)), "413 Request Entity Too Large"},
		{"gzip, gzip", gzipped(t, gzipped(t, strings.Repeat("a", 300_000))), "413 Request Entity Too Large"},
		{"gzip", "hello", "400 Bad Content-Encoding"},
		{"deflate", deflated(t, "hello")[:5], "400 Bad Content-Encoding"},
		{"compress", "hello", "415 Unsupported Media Type"},
	} {
		got := c.message("Content-Encoding: "+test.encoding+"\r\n", test.body)
		want(t, got, test.status)
		if strings.Contains(got, "Accept-Encoding: gzip, deflate, identity\r\n") != strings.HasPrefix(test.status, "415") {
			t.Error(got)
		}
	}
	if n := len(g.submitted()); n > 0 {
		t.Errorf("%d messages", n)
	}
	want(t, c.message("Content-Encoding: gzip\r\n", gzipped(t, strings.Repeat("a", 1000))), "202 Accepted")
}

// TestDeflatedNotice: liblinphone's notices of typing come deflated, in an
// envelope, with Expires: 0; the engine sees what they are.
func TestDeflatedNotice(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	notice := "From: <sip:1001@sip.example.com>\r\nTo: <sip:1002@sip.example.com>\r\nDateTime: 2026-11-23T12:00:00Z\r\n\r\n" +
		"Content-Type: application/im-iscomposing+xml\r\n\r\n<isComposing><state>active</state></isComposing>"
	want(t, c.message("Content-Type: message/cpim\r\nContent-Encoding: deflate\r\nExpires: 0\r\nContent-Disposition: notification\r\n", deflated(t, notice)), "202 Accepted")
	m := g.submitted()[0].Message
	facts := content.Examine(m.ContentType, m.Body)
	if facts.Class != message.Composing || string(m.Body) != notice || m.Expires == nil || *m.Expires != 0 {
		t.Errorf("%+v %+v", facts, m)
	}
}

// TestEnvelopeIsFromItsSender: nobody writes somebody else of ours into the envelope
// as the sender, whom clients show.
func TestEnvelopeIsFromItsSender(t *testing.T) {
	c := newClient(t, openDoor(t, &gate{}, nil))
	c.login()
	for _, test := range []struct{ envelope, status string }{
		{"From: \"Ann\" <sip:1001@sip.example.com>\r\n", "202 Accepted"},
		{"From: <sip:1001@SIP.example.com;gr=urn:uuid:f81d4fae>\r\n", "202 Accepted"},
		{"From: <im:1001@sip.example.com>\r\n", "202 Accepted"},
		{"From: <sip:anonymous@anonymous.invalid>\r\n", "202 Accepted"},
		{"To: <sip:1002@sip.example.com>\r\n", "202 Accepted"},
		{"From: <sip:1003@sip.example.com>\r\n", "403 Forbidden"},
		{"From: \"x\" <sip:1001@sip.example.com> <sip:1003@sip.example.com>\r\n", "403 Forbidden"},
		{"From: <sips:%31003@sip.example.com:5061>\r\n", "403 Forbidden"},
		{"From: <IM:1003@SIP.EXAMPLE.COM>\r\n", "403 Forbidden"},
		{"From: <tel:+15550100>\r\n", "403 Forbidden"},
		{"From: <sip:1001@sip.example.com>\r\nFrom: <sip:1003@sip.example.com>\r\n", "400 Bad Request"},
		{"no envelope", "400 Bad Request"},
	} {
		got := c.message("Content-Type: message/cpim\r\n", test.envelope+"\r\nContent-Type: text/plain\r\n\r\nhello")
		if !strings.HasPrefix(got, "SIP/2.0 "+test.status) {
			t.Errorf("%q is answered %q, want %s", test.envelope, got[:min(len(got), 60)], test.status)
		}
	}
}

// TestUnknownTypePasses: a client's own type, such as Acrobits' for files, goes
// from one client to the other octet for octet.
func TestUnknownTypePasses(t *testing.T) {
	const kind = `application/x-acro-filetransfer+json; x="a;b"`
	body := "{\"Attachments\":[{\"content-url\":\"https://files.example.com/\u00e4\",\"size\":1}]}\r\n\x00\xff"
	g := &gate{}
	d := openDoor(t, g, nil)
	c := newClient(t, d)
	c.login()
	want(t, c.message("Content-Type: "+kind+"\r\n", body), "202 Accepted")
	m := g.submitted()[0].Message
	m.Class = content.Examine(m.ContentType, m.Body).Class
	sent := d.sendLater(t, m, route(d, c))
	got := c.receive()
	if !strings.HasSuffix(got, "\r\n\r\n"+body) || !strings.Contains(got, "\r\nContent-Type: "+kind+"\r\n") {
		t.Errorf("%q", got)
	}
	c.send(answer(got, "415 Unsupported Media Type"))
	if r := <-sent; !isFailure(r.err, message.UnsupportedType, false) || r.Unwrapped {
		t.Errorf("%+v", r)
	}
}

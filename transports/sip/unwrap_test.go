package sip

import (
	"net/http"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/message"
)

// envelope is a message/cpim around a content with its headers.
func envelope(content string) []byte {
	return []byte("From: <sip:1001@sip.example.com>\r\nTo: <sip:1002@sip.example.com>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: x\r\n" +
		"imdn.Disposition-Notification: positive-delivery\r\n\r\n" + content)
}

func wrappedMessage(content string) *message.Message {
	m := testMessage()
	m.ContentType, m.Body = "Message/CPIM", envelope(content)
	m.Headers = append(m.Headers, message.Header{Name: "Content-Disposition", Value: "inline"})
	return m
}

const unsupported = "415 Unsupported Media Type"

// TestUnwrapped: a device that doesn't know envelopes gets what is in one, as the
// next request of the same delivery.
func TestUnwrapped(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	m := wrappedMessage("Content-Type: text/plain; charset=utf-8\r\n\r\näöü ✓")
	sent := d.sendLater(t, m, route(d, c))
	first := c.receive()
	if !strings.Contains(first, "\r\nCSeq: 1 MESSAGE\r\n") || !strings.HasSuffix(first, string(m.Body)) || !strings.Contains(first, "Content-Disposition: inline\r\n") {
		t.Errorf("%q", first)
	}
	c.send(strings.Replace(answer(first, unsupported), "Content-Length", "Accept: text/plain\r\nContent-Length", 1))
	second := c.receive()
	if !strings.Contains(second, "\r\nCSeq: 2 MESSAGE\r\n") || !strings.HasSuffix(second, "\r\n\r\näöü ✓") ||
		!strings.Contains(second, "\r\nContent-Type: text/plain; charset=utf-8\r\n") || strings.Contains(second, "Content-Disposition") ||
		!strings.Contains(second, "Subject: s\r\n") || !strings.Contains(second, "Date: "+m.Received.Format(http.TimeFormat)) {
		t.Errorf("%q", second)
	}
	for _, name := range []string{"Call-ID", "From", "To"} {
		if fieldOf(first, name) != fieldOf(second, name) {
			t.Errorf("%s: %q, then %q", name, fieldOf(first, name), fieldOf(second, name))
		}
	}
	c.send(answer(second, "200 OK"))
	if r := <-sent; r.err != nil || !r.Final || !r.Unwrapped {
		t.Errorf("%+v", r)
	}
}

// TestWrapped: who knows envelopes gets them.
func TestWrapped(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	sent := d.sendLater(t, wrappedMessage("\r\nx"), route(d, c))
	c.send(answer(c.receive(), "200 OK"))
	if r := <-sent; r.err != nil || !r.Final || r.Unwrapped {
		t.Errorf("%+v", r)
	}
}

// TestUnwrappedFails: what counts is what the device says of the text.
func TestUnwrappedFails(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	for _, test := range []struct {
		second    string
		reason    message.Reason
		temporary bool
	}{
		{unsupported, message.UnsupportedType, false},
		{"486 Busy Here", message.Busy, true},
		{"603 Decline", message.Declined, false},
	} {
		sent := d.sendLater(t, wrappedMessage("\r\nx"), route(d, c))
		c.send(answer(c.receive(), unsupported))
		c.send(answer(c.receive(), test.second))
		if r := <-sent; !isFailure(r.err, test.reason, test.temporary) || !r.Unwrapped || r.Final {
			t.Errorf("%s: %+v", test.second, r)
		}
	}
}

// TestNotUnwrapped: there is nothing that this device takes.
func TestNotUnwrapped(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	notification := wrappedMessage("\r\nx")
	notification.Class = message.Notification
	composing := wrappedMessage("\r\nx")
	composing.Class = message.Composing
	plain := testMessage()
	for name, m := range map[string]*message.Message{
		"an IMDN": notification, "a notice of typing": composing, "no envelope": plain, "an envelope that can't be read": {
			Received: plain.Received, From: plain.From, Recipient: plain.Recipient, ContentType: "message/cpim", Body: []byte("x"),
		},
	} {
		sent := d.sendLater(t, m, route(d, c))
		c.send(answer(c.receive(), unsupported))
		if r := <-sent; !isFailure(r.err, message.UnsupportedType, false) || r.Unwrapped {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestUnwrappedContent(t *testing.T) {
	const mixed = "Content-Type: multipart/mixed;boundary=b\r\n\r\n--b\r\nContent-Type: text/plain;charset=iso-8859-1\r\n\r\n\xfc\r\n--b--\r\n"
	for name, test := range map[string]struct {
		content, accept   string
		contentType, body string // empty: nothing
	}{
		"text, and no Accept":            {"\r\nx", "", "text/plain", "x"},
		"its parameters":                 {"Content-Type: Text/Plain;charset=iso-8859-1\r\n\r\n\xfc", "", "Text/Plain;charset=iso-8859-1", "\xfc"},
		"transfer encodings are undone":  {"Content-Transfer-Encoding: base64\r\n\r\neA==", "text/plain;q=0.5", "text/plain", "x"},
		"any text":                       {"\r\nx", "text/*", "text/plain", "x"},
		"anything":                       {"\r\nx", "application/json, */*", "text/plain", "x"},
		"something else":                 {"\r\nx", "application/json, image/*", "", ""},
		"an image, and no Accept":        {"Content-Type: image/png\r\n\r\nx", "", "", ""},
		"an image":                       {"Content-Type: image/png\r\n\r\nx", "text/plain, IMAGE/PNG", "image/png", "x"},
		"not an image":                   {"Content-Type: image/png\r\n\r\nx", "text/plain", "", ""},
		"a text in parts, and no Accept": {mixed, "", typeText, "ü"},
		"a text in parts":                {mixed, "text/plain", typeText, "ü"},
		"parts":                          {mixed, "multipart/mixed", "multipart/mixed;boundary=b", mixed[strings.Index(mixed, "--b"):]},
		"a type that is none":            {"Content-Type: text\r\n\r\nx", "*/*", "", ""},
		"parameters that are none":       {"Content-Type: text/plain; charset=\"a\r\n\r\nx", "*/*", "", ""},
		"an envelope in an envelope":     {"Content-Type: message/cpim\r\n\r\n" + string(envelope("\r\nx")), "", "text/plain", "x"},
	} {
		var accept []string
		if test.accept != "" {
			accept = strings.Split(test.accept, ", ")
		}
		m := wrappedMessage(test.content)
		before := *m
		got := unwrapped(m, accept)
		switch {
		case got == nil && test.contentType != "":
			t.Errorf("%s: nothing", name)
		case got != nil && (got.ContentType != test.contentType || string(got.Body) != test.body || len(got.Headers) != 1):
			t.Errorf("%s: %q %q %v", name, got.ContentType, got.Body, got.Headers)
		}
		if m.ContentType != before.ContentType || len(m.Headers) != 2 || m.Headers[1].Name != "Content-Disposition" {
			t.Errorf("%s: the message itself was changed", name)
		}
	}
}

package sip

import (
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// TestNumbersComeIn: whatever a client calls a telephone number, that is the
// recipient; without a domain if its URI has none.
func TestNumbersComeIn(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	for uri, want := range map[string]string{
		"tel:+44-(0)7700.900123":                       "+4407700900123",
		"tel:2424;phone-context=sip.example.com":       "2424",
		"sip:+447700900123@sms.example.com":            "+447700900123@sms.example.com",
		"sip:%2B44-7700@SMS.example.com;user=phone":    "+447700@sms.example.com",
		"sip:07700-900123@sms.example.com;user=dialed": "07700-900123@sms.example.com",
	} {
		c.send(c.request("MESSAGE", uri, c.credentials("MESSAGE", uri), "hello"))
		if got := status(c.receive()); got != "202 Accepted" {
			t.Fatalf("%s: %s", uri, got)
		}
		all := g.submitted()
		if got := all[len(all)-1].Message.Recipient.String(); got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
		}
	}
	// Nobody has it: that isn't relaying, which it is for a domain that isn't ours.
	g.refuse(message.Fail(message.UnknownRecipient, "no"))
	for uri, answer := range map[string]string{"tel:+1555": "404 Not Found", "sip:+1555@sms.example.com": "403 Relaying Denied"} {
		c.send(c.request("MESSAGE", uri, c.credentials("MESSAGE", uri), "hello"))
		want(t, c.receive(), answer)
	}
	// Nobody registers a number.
	const number = "tel:+15551234"
	c.send(c.request("REGISTER", number, c.credentials("REGISTER", number), ""))
	want(t, c.receive(), "404 Not Our Domain")
}

// TestNumbersGoOut: an SMS that comes in reaches a phone with a To that is a SIP
// URI, and with a From in the domain of the SMS, to which it can answer.
func TestNumbersGoOut(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	m := testMessage()
	m.DisplayName, m.Headers = "", nil
	m.From, m.Recipient = message.Address{User: "+4366412345678", Host: "sms.example.com"}, message.Address{User: "+447700900001"}
	m.ContentType = "text/plain;charset=utf-8"
	m.Received = time.Now()
	life := time.Hour
	m.Expires = &life
	sent := d.sendLater(t, m, route(d, c))
	got := c.receive()
	for _, line := range []string{
		"From: <sip:+4366412345678@sms.example.com>;tag=" + route(d, c).Reference, "To: <sip:+447700900001@sip.example.com>",
		"Content-Type: text/plain;charset=utf-8", "Expires: 3600",
	} {
		if !strings.Contains(got, line+"\r\n") {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
	c.send(answer(got, "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}
	// A name that isn't a number, as a sender may have it (SMPP 3.4 §5.2.5: TON 5).
	m.From.User = "Big & Shop"
	sent = d.sendLater(t, m, route(d, c))
	got = c.receive()
	if !strings.Contains(got, "\r\nFrom: <sip:Big%20&%20Shop@sms.example.com>;tag=") {
		t.Error(got)
	}
	c.send(answer(got, "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}
}

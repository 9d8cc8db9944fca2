package client

import (
	"testing"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/smsc"
)

// wrapped is an SMS that comes in an envelope whose sender wants to be notified.
func wrapped() *message.Message {
	m := sms("")
	m.ContentType, m.Report = content.TypeCPIM, message.ReportDelivery
	m.Body = []byte("From: <im:a@example.com>\r\nTo: <im:b@example.com>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: x\r\n" +
		"imdn.Disposition-Notification: positive-delivery\r\n\r\nContent-Type: text/plain\r\n\r\ngrüße")
	return m
}

// TestUnwrapped: an SMSC gets the text alone and is asked for a receipt, and who
// notifies the sender knows it.
func TestUnwrapped(t *testing.T) {
	var texts took
	registered := make(chan uint8, 1)
	b := work(t, smsc.Config{Took: texts.take, Answer: func(s smsc.Submit) smsc.Answer {
		registered <- s.Short.RegisteredDelivery
		return smsc.Answer{}
	}}, func(c *Config) { c.Dialect.Receipts = "failure" })
	receipt, err := b.send(wrapped(), routeTo())
	if err != nil || !receipt.Unwrapped || receipt.Final || len(receipt.PeerIDs) != 1 {
		t.Errorf("%+v, %v", receipt, err)
	}
	if asked := <-registered; asked != 1 {
		t.Errorf("registered_delivery is %d", asked)
	}
	if got := texts.all(); len(got) != 1 || got[0] != "grüße" {
		t.Errorf("the SMSC has taken %q", got)
	}
}

// TestUnwrappedUnanswered: the SMSC may have it, and then it has no envelope.
func TestUnwrappedUnanswered(t *testing.T) {
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer { return smsc.Answer{Silent: true} }}, func(c *Config) {
		c.Response = 50 * time.Millisecond
	})
	receipt, err := b.send(wrapped(), routeTo())
	wantFailure(t, err, message.NoAnswer, true)
	if !receipt.Unwrapped {
		t.Errorf("%+v", receipt)
	}
	if receipt, _ := b.send(sms("plain"), routeTo()); receipt.Unwrapped {
		t.Errorf("of plain text: %+v", receipt)
	}
}

// TestNoticesGoByNoSMS: what only clients understand ends here, whatever it is in.
func TestNoticesGoByNoSMS(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	for contentType, body := range map[string]string{
		content.TypeComposing: "<isComposing/>",
		content.TypeIMDN:      "<imdn/>",
		content.TypeCPIM:      "From: <im:a@example.com>\r\n\r\nContent-Type: message/imdn+xml\r\n\r\n<imdn/>",
	} {
		m := sms(body)
		m.ContentType = contentType
		_, err := b.send(m, routeTo())
		if f := wantFailure(t, err, message.UnsupportedType, false); len(f.Accept) == 0 {
			t.Errorf("%s: nothing says what would pass", contentType)
		}
	}
}

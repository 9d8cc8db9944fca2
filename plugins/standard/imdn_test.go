package standard_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua"
)

// envelope is a message/cpim whose sender wants to know of its delivery, as clients
// write it.
func envelope(from, to, id, contentType, body string) []byte {
	return fmt.Appendf(nil, "From: <sip:%s>\r\nTo: <sip:%s>\r\nDateTime: %s\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: %s\r\n"+
		"imdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		from, to, time.Now().UTC().Format(time.RFC3339), id, contentType, len(body), body)
}

// told reads the IMDN that a phone has got.
func told(t *testing.T, m ua.Incoming) *content.IMDN {
	t.Helper()
	c, err := content.ParseCPIM(m.Body)
	if err != nil || content.MediaType(m.ContentType) != content.TypeCPIM || c.ContentType != content.TypeIMDN {
		t.Fatalf("%s: %s, %v", m.ContentType, m.Body, err)
	}
	imdn, err := content.ParseIMDN(c.Body)
	if err != nil {
		t.Fatal(err)
	}
	return imdn
}

// TestNotifiedOfSMS: whoever asks for it in an envelope is told by us what a vendor
// reports of the SMS.
func TestNotifiedOfSMS(t *testing.T) {
	g := open(t)
	ann, got := g.phone(t, "ann")
	g.vendor.receipt.Store(&plugin.Receipt{PeerIDs: []string{"1"}, Unwrapped: true})
	to := message.Address{User: "+447700900123", Host: "sms.example.com"}
	body := envelope("ann@sip.example.com", to.String(), "34jk324j", "text/plain", "hello")
	if r, err := ann.Message(t.Context(), to, content.TypeCPIM, body, ua.Options{}); err != nil || r.Code != 202 {
		t.Fatalf("%+v, %v", r, err)
	}
	received(t, g.vendor.sent)
	deadline := time.Now().Add(testWait)
	for g.gate.Report(t.Context(), "1", plugin.Status{Delivered: true}) != nil { // it has come before its receipt was noted
		if time.Now().After(deadline) {
			t.Fatal("the report isn't taken")
		}
	}
	m := received(t, got)
	if imdn := told(t, m); imdn.MessageID != "34jk324j" || imdn.Kind != content.Delivery || imdn.Status != content.StatusDelivered || m.From != to {
		t.Errorf("%+v from %s", imdn, m.From)
	}
}

// TestClientsNotifyEachOther: who gets the envelope itself notifies its sender, also
// one that is away, and we don't besides.
func TestClientsNotifyEachOther(t *testing.T) {
	g := open(t)
	ann, toAnn := g.phone(t, "ann")
	bob, toBob := g.phone(t, "bob")
	a, b := message.Address{User: "ann", Host: "sip.example.com"}, message.Address{User: "bob", Host: "sip.example.com"}
	if r, err := ann.Message(t.Context(), b, content.TypeCPIM, envelope(a.String(), b.String(), "1", "text/plain", "hello"), ua.Options{}); err != nil || r.Code != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := ann.Register(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if m := received(t, toBob); content.MediaType(m.ContentType) != content.TypeCPIM {
		t.Errorf("%+v", m)
	}
	imdn := content.IMDN{MessageID: "1", DateTime: time.Now(), Status: content.StatusDelivered}
	notice := envelope(b.String(), a.String(), "2", content.TypeIMDN, string(imdn.Append(nil)))
	none := time.Duration(0)
	if r, err := bob.Message(t.Context(), a, content.TypeCPIM, notice, ua.Options{Expires: &none}); err != nil || r.Code != 202 {
		t.Fatalf("%+v, %v: it isn't kept", r, err)
	}
	if _, err := ann.Register(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := told(t, received(t, toAnn)); got.MessageID != "1" {
		t.Errorf("%+v", got)
	}
	if len(toAnn) > 0 || len(toBob) > 0 {
		t.Error("somebody was told twice")
	}
}

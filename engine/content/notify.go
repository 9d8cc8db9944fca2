package content

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
)

// Notify makes the IMDN that tells the sender of a message/cpim how it has ended,
// if it asks for IMDNs and can be told: from its recipient, since the sender's
// client looks for that (RFC 5438 §7.2.1.1), and to its sender. The same
// arguments make the same notification. done is when it ended.
func Notify(original []byte, state message.ReceiptState, reason message.Reason, done time.Time) (contentType string, body []byte, ok bool) {
	c, err := ParseCPIM(original)
	if err != nil || c.From.URI == "" || len(c.To) == 0 || c.To[0].URI == "" {
		return "", nil, false
	}
	id := c.Get(NamespaceIMDN, "Message-ID")
	if id == "" {
		return "", nil, false
	}
	sent := c.DateTime
	if sent.IsZero() {
		sent = done
	}
	imdn := IMDN{
		MessageID: id, DateTime: sent, RecipientURI: c.To[0].URI, OriginalRecipientURI: c.Get(NamespaceIMDN, "Original-To"),
		Kind: Delivery, Status: statusOf(state, reason),
	}
	notification := CPIM{
		From: c.To[0], To: []Party{c.From}, DateTime: done,
		Headers:     []Header{{Space: NamespaceIMDN, Name: "Message-ID", Value: nameOf(original, imdn.Status)}},
		ContentType: TypeIMDN, ContentHeaders: []Header{{Name: "Content-Disposition", Value: "notification"}},
		Body: imdn.Append(nil),
	}
	return TypeCPIM, notification.Append(nil), true
}

func statusOf(state message.ReceiptState, reason message.Reason) string {
	switch {
	case state == message.ReceiptDelivered:
		return StatusDelivered
	case state == message.ReceiptUnknown:
		return StatusError
	}
	switch reason {
	case message.Forbidden, message.Rejected, message.Blocked, message.Declined:
		return StatusForbidden
	}
	return StatusFailed
}

// nameOf names a notification: nobody can guess it who doesn't know the message.
func nameOf(original []byte, status string) string {
	h := sha256.New()
	h.Write(original)
	h.Write([]byte(status))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Append writes the envelope and its content. Whatever is in its fields, what comes
// out is one message/cpim: values are escaped (RFC 3862 §2.3).
func (c *CPIM) Append(b []byte) []byte {
	b = appendParty(b, "From: ", c.From)
	for _, to := range c.To {
		b = appendParty(b, "To: ", to)
	}
	if !c.DateTime.IsZero() {
		b = append(b, "DateTime: "...)
		b = c.DateTime.UTC().AppendFormat(b, time.RFC3339)
		b = append(b, "\r\n"...)
	}
	b = append(b, "NS: imdn <"+NamespaceIMDN+">\r\n"...)
	for _, h := range c.Headers {
		if h.Space == NamespaceIMDN {
			b = append(b, "imdn."...)
		}
		b = append(append(b, h.Name...), ": "...)
		b = append(appendEscaped(b, h.Value), "\r\n"...)
	}
	b = append(b, "\r\nContent-Type: "...)
	b = append(append(b, c.ContentType...), "\r\n"...)
	for _, h := range c.ContentHeaders {
		b = append(append(b, h.Name...), ": "...)
		b = append(append(b, h.Value...), "\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(c.Body)), 10)
	return append(append(b, "\r\n\r\n"...), c.Body...)
}

func appendParty(b []byte, name string, p Party) []byte {
	if p.URI == "" {
		return b
	}
	b = append(b, name...)
	if p.Name != "" {
		b = append(b, '"')
		b = append(appendEscaped(b, p.Name), `" `...)
	}
	b = append(b, '<')
	return append(appendEscaped(b, p.URI), ">\r\n"...)
}

func appendEscaped(b []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r == '\\' || r == '"':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r < ' ' || r == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, hex.EncodeToString([]byte{byte(r)})...)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

// Append writes the IMDN.
func (m *IMDN) Append(b []byte) []byte {
	w := bytes.NewBuffer(b)
	w.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<imdn xmlns="urn:ietf:params:xml:ns:imdn">` + "\n")
	for _, e := range [][2]string{
		{"message-id", m.MessageID}, {"datetime", m.DateTime.UTC().Format(time.RFC3339)},
		{"recipient-uri", m.RecipientURI}, {"original-recipient-uri", strings.Trim(m.OriginalRecipientURI, "<>")}, {"subject", m.Subject},
	} {
		if e[1] != "" {
			w.WriteString("<" + e[0] + ">")
			_ = xml.EscapeText(w, []byte(e[1]))
			w.WriteString("</" + e[0] + ">\n")
		}
	}
	kind := dispositions[m.Kind]
	w.WriteString("<" + kind + "><status><" + m.Status + "/></status></" + kind + ">\n</imdn>\n")
	return w.Bytes()
}

package content

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Notify makes the IMDN that tells the sender of a message/cpim how it has ended:
// from the one it was sent to, as that one's client would (RFC 5438 §7.2.1), and
// in a message/cpim that asks for no IMDN itself (§8). Why a message has failed
// isn't in it: there is no place for that, and "forbidden" says something else.
// done is when it ended. The same arguments give the same notification, under the
// same name. ok is false for what has no sender, recipient or name, and for what
// nobody is notified of: IMDNs, and notices of typing.
func Notify(original []byte, state message.ReceiptState, done time.Time) (contentType string, body []byte, ok bool) {
	c, err := ParseCPIM(original)
	if err != nil || c.From.URI == "" || len(c.To) == 0 || c.To[0].URI == "" || c.messageID() == "" {
		return "", nil, false
	}
	if newReader().class(c.part(), 1) != message.Text {
		return "", nil, false
	}
	done = done.UTC()
	told := IMDN{
		MessageID:            c.messageID(),
		DateTime:             c.DateTime,
		RecipientURI:         c.To[0].URI,
		OriginalRecipientURI: strings.Trim(c.Get(NamespaceIMDN, "Original-To"), "<> "),
		Kind:                 Delivery,
		Status:               statusOf(state),
	}
	if told.DateTime.IsZero() {
		told.DateTime = done
	}
	notification := CPIM{
		From: c.To[0], To: []Party{c.From}, DateTime: done,
		Headers:        []Header{{Space: NamespaceIMDN, Name: "Message-ID", Value: nameOf(original, told.Status)}},
		ContentType:    TypeIMDN,
		ContentHeaders: []Header{{Name: "Content-Disposition", Value: "notification"}},
		Body:           told.Append(nil),
	}
	return TypeCPIM, notification.Append(nil), true
}

func statusOf(state message.ReceiptState) string {
	switch state {
	case message.ReceiptDelivered:
		return StatusDelivered
	case message.ReceiptFailed:
		return StatusFailed
	}
	return StatusError
}

// nameOf names a notification by what it is about: its message's name is random
// (RFC 5438 §6.3).
func nameOf(original []byte, status string) string {
	h := sha256.New()
	h.Write(original)
	_, _ = io.WriteString(h, status) // a hash has no errors
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Package content reads what messages contain, as far as the gateway must know
// it to treat them right, and writes what it has to say itself in the form in
// which clients say it. It knows no transport, keeps nothing, and bounds
// everything that it is given: it reads what anybody may have written.
package content

import (
	"strings"

	"github.com/imgate/imgate/engine/message"
)

// The types that mean something to the gateway.
const (
	TypePlain     = "text/plain"
	TypeCPIM      = "message/cpim"                   // RFC 3862
	TypeComposing = "application/im-iscomposing+xml" // that somebody is typing (RFC 3994 §6.1)
	TypeIMDN      = "message/imdn+xml"               // what has become of a message (RFC 5438 §13.1)
)

// maxNotice bounds, in octets, what counts as a notice that somebody is typing or
// as an IMDN: they cost nothing, so nobody shall write letters in them.
const maxNotice = 8 << 10

// MediaType returns the type of a Content-Type value in lower case, without
// parameters: "Text/Plain; charset=utf-8" is "text/plain".
func MediaType(contentType string) string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(mediaType))
}

// ClassOf says how a message of this media type is to be treated, as far as the
// type alone tells: Examine also looks at what it holds.
func ClassOf(mediaType string) message.Class {
	switch mediaType {
	case TypeComposing:
		return message.Composing
	case TypeIMDN:
		return message.Notification
	}
	return message.Text
}

// Facts are what the engine must know of a message's content.
type Facts struct {
	// Class is that of what the message says, also if it says it within a
	// message/cpim.
	Class message.Class
	// Inner is the media type of what a message/cpim holds; empty: it isn't one.
	Inner string
	// Wants is what the sender asks to be told in IMDNs (RFC 5438 §6.2). A notice
	// of typing and an IMDN ask for nothing, whatever they say (§8).
	Wants message.Report
}

// Examine looks at a message. What can't be read is text: it is kept and charged
// as any other.
func Examine(contentType string, body []byte) Facts {
	mediaType := MediaType(contentType)
	switch mediaType {
	case TypePlain:
		return Facts{}
	case TypeCPIM:
		return examineCPIM(body)
	}
	return Facts{Class: classOf(mediaType, body)}
}

// classOf is ClassOf for a body that is that, too.
func classOf(mediaType string, body []byte) message.Class {
	class := ClassOf(mediaType)
	switch {
	case class == message.Text || len(body) > maxNotice:
		return message.Text
	case class == message.Notification:
		if _, err := ParseIMDN(body); err != nil {
			return message.Text
		}
	}
	return class
}

func examineCPIM(body []byte) Facts {
	c, err := ParseCPIM(body)
	if err != nil {
		return Facts{}
	}
	facts := Facts{Inner: MediaType(c.ContentType)}
	contentType, inner, ok := c.content(maxDepth)
	if ok {
		facts.Class = classOf(MediaType(contentType), inner)
	}
	if facts.Class == message.Text {
		facts.Wants = c.wants()
	}
	return facts
}

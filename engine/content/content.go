// Package content reads what messages contain, as far as the gateway must know
// it to treat them right, and writes what the gateway has to say itself in the
// form in which clients say it. It knows no transport and keeps nothing. Whatever
// it is given anybody may have written: all that it reads is bounded.
package content

import (
	"strings"

	"github.com/imgate/imgate/engine/message"
)

// The types that mean something to the gateway.
const (
	TypePlain     = "text/plain"
	TypeCPIM      = "message/cpim"                   // RFC 3862
	TypeComposing = "application/im-iscomposing+xml" // that somebody is typing (RFC 3994)
	TypeIMDN      = "message/imdn+xml"               // what has become of a message (RFC 5438)
)

// maxNotice bounds, in octets, what counts as a notice of typing or as an IMDN:
// they cost nothing, so nobody shall write letters in them.
const maxNotice = 8 << 10

// MediaType returns the type of a Content-Type value in lower case, without
// parameters: "Text/Plain; charset=utf-8" is "text/plain".
func MediaType(contentType string) string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(mediaType))
}

// ClassOf says how a message of this media type is to be treated, as far as the
// type tells: Examine also looks at what is there.
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
	// message/cpim. A multipart/mixed has the class that all its parts have: IMDNs
	// that are sent together are one.
	Class message.Class
	// Inner is the media type of what a message/cpim holds; empty: it isn't one.
	Inner string
	// Wants is what the sender of a message/cpim asks to be told (RFC 5438 §6.2).
	// A notice of typing and an IMDN ask for nothing, whatever they say.
	Wants message.Report
}

// Examine looks at a message. What can't be read is text: it is kept and paid for
// as any other.
func Examine(contentType string, body []byte) Facts {
	mediaType := MediaType(contentType)
	switch {
	case mediaType == TypePlain:
		return Facts{}
	case mediaType != TypeCPIM:
		return Facts{Class: newReader().class(part{contentType: contentType, body: body}, 0)}
	}
	c, err := ParseCPIM(body)
	if err != nil {
		return Facts{}
	}
	facts := Facts{Class: newReader().class(c.part(), 1), Inner: MediaType(c.ContentType)}
	if facts.Class == message.Text {
		facts.Wants = c.wants()
	}
	return facts
}

// class is ClassOf for something that also is what its type says.
func (r *reader) class(p part, depth int) message.Class {
	switch mediaType := MediaType(p.contentType); mediaType {
	case TypeCPIM:
		if inner, ok := r.inner(p, depth); ok {
			return r.class(inner, depth+1)
		}
	case typeMixed:
		return r.common(p, depth)
	case TypeComposing, TypeIMDN:
		if body, ok := r.decoded(p); ok && isNotice(mediaType, body) {
			return ClassOf(mediaType)
		}
	}
	return message.Text
}

func isNotice(mediaType string, body []byte) bool {
	if len(body) > maxNotice {
		return false
	}
	if mediaType == TypeComposing {
		return true
	}
	_, err := ParseIMDN(body)
	return err == nil
}

// common is the class that all parts of a multipart/mixed have.
func (r *reader) common(p part, depth int) message.Class {
	parts, ok := r.split(p, depth)
	if !ok || len(parts) == 0 {
		return message.Text
	}
	class := r.class(parts[0], depth+1)
	for _, p := range parts[1:] {
		if class == message.Text || r.class(p, depth+1) != class {
			return message.Text
		}
	}
	return class
}

package sip

import (
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
)

// typeText is that of a text that was taken out of what a device doesn't know.
const typeText = content.TypePlain + ";charset=utf-8"

// unwrapped is a message for a device that doesn't know message/cpim: what is in
// the envelope, if the device takes that, else the text that can be read there. It
// is nil if there is none, and for notices that only clients understand which know
// envelopes too. accept is what the device says that it takes; empty: it doesn't.
func unwrapped(m *message.Message, accept []string) *message.Message {
	if content.MediaType(m.ContentType) != content.TypeCPIM || m.Class != message.Text {
		return nil
	}
	contentType, inner, ok := content.Unwrap(m.Body)
	switch {
	case !ok:
		return nil
	case isMediaType(contentType) && takes(accept, content.MediaType(contentType)):
		return holding(m, contentType, inner)
	}
	words, ok := content.Text(contentType, inner)
	if !ok || !takes(accept, content.TypePlain) {
		return nil
	}
	return holding(m, typeText, []byte(words))
}

// holding is a message with another content. What is to be done with the envelope
// says nothing of that.
func holding(m *message.Message, contentType string, body []byte) *message.Message {
	other := *m
	other.ContentType, other.Body = contentType, body
	other.Headers = slices.DeleteFunc(slices.Clone(m.Headers), func(h message.Header) bool {
		return strings.EqualFold(h.Name, "Content-Disposition")
	})
	return &other
}

// takes tells whether an Accept (RFC 3261 §20.1) includes a media type. Who has
// none is expected to take text.
func takes(accept []string, mediaType string) bool {
	if len(accept) == 0 {
		return mediaType == content.TypePlain
	}
	return slices.ContainsFunc(accept, func(item string) bool {
		item = content.MediaType(item)
		family, all := strings.CutSuffix(item, "*")
		return item == mediaType || item == "*/*" || all && strings.HasPrefix(mediaType, family)
	})
}

// Package content reads what messages contain, as far as the gateway must know
// it to treat them right. It knows no transport.
package content

import (
	"strings"

	"github.com/imgate/imgate/engine/message"
)

// TypeComposing is the notice that somebody is typing (RFC 3994 §6.1).
const TypeComposing = "application/im-iscomposing+xml"

// MediaType returns the type of a Content-Type value in lower case, without
// parameters: "Text/Plain; charset=utf-8" is "text/plain".
func MediaType(contentType string) string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(mediaType))
}

// ClassOf says how a message of this media type is to be treated.
func ClassOf(mediaType string) message.Class {
	if mediaType == TypeComposing {
		return message.Composing
	}
	return message.Text
}

package content

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
)

// maxDecoded bounds, in octets, what is made of what a message holds encoded.
const maxDecoded = 128 << 10

// Unwrap returns what a message/cpim holds, its encodings undone, for a recipient
// who doesn't know envelopes. It is never a message/cpim again. ok is false if it
// can't be read.
func Unwrap(body []byte) (contentType string, inner []byte, ok bool) {
	c, err := ParseCPIM(body)
	if err != nil {
		return "", nil, false
	}
	return c.content(maxDepth)
}

// content is what is in the innermost envelope.
func (c *CPIM) content(depth int) (contentType string, inner []byte, ok bool) {
	inner, ok = c.decoded()
	if !ok || MediaType(c.ContentType) != TypeCPIM {
		return c.ContentType, inner, ok
	}
	if depth--; depth == 0 {
		return "", nil, false
	}
	next, err := ParseCPIM(inner)
	if err != nil {
		return "", nil, false
	}
	return next.content(depth)
}

// decoded is the body as its headers say that it was before it was encoded.
func (c *CPIM) decoded() ([]byte, bool) {
	body, ok := undoTransfer(c.contentHeader("Content-Transfer-Encoding"), c.Body)
	if !ok {
		return nil, false
	}
	body, err := Decode(c.contentHeader("Content-Encoding"), body, maxDecoded)
	return body, err == nil
}

// undoTransfer undoes a Content-Transfer-Encoding (RFC 2045 §6).
func undoTransfer(encoding string, body []byte) ([]byte, bool) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "7bit", "8bit", "binary":
		return body, true
	case "base64":
		decoded, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body)))
		return decoded, err == nil
	case "quoted-printable":
		decoded, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(body)))
		return decoded, err == nil
	}
	return nil, false
}

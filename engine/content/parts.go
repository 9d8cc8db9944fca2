package content

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"strings"
)

// The multiparts that are looked into (RFC 2046 §5.1, RFC 2387).
const (
	typeMixed       = "multipart/mixed"
	typeAlternative = "multipart/alternative"
	typeRelated     = "multipart/related"
)

// Bounds of what is looked at within one message.
const (
	maxDepth   = 4         // envelopes and multiparts within each other
	maxParts   = 64        // parts of multiparts, all together
	maxDecoded = 128 << 10 // octets that are made of compressed ones, all together
)

// part is something that has a type: a message, what is in an envelope, or a part
// of a multipart.
type part struct {
	contentType string
	transfer    string // Content-Transfer-Encoding (RFC 2045 §6); empty: none
	encoding    string // Content-Encoding; empty: none
	body        []byte
}

// reader looks into one message: it counts what it has looked at.
type reader struct {
	parts  int // that it may yet look at
	octets int // that it may yet make of compressed ones
}

func newReader() *reader { return &reader{parts: maxParts, octets: maxDecoded} }

// decoded is the body of a part as it was before it was encoded.
func (r *reader) decoded(p part) ([]byte, bool) {
	body, ok := undoTransfer(p.transfer, p.body)
	if !ok || p.encoding == "" {
		return body, ok
	}
	body, err := Decode(p.encoding, body, r.octets)
	if err != nil {
		r.octets = 0
		return nil, false
	}
	r.octets -= len(body)
	return body, true
}

// undoTransfer undoes a Content-Transfer-Encoding. None makes more of less.
func undoTransfer(encoding string, body []byte) ([]byte, bool) {
	var decoder io.Reader
	switch strings.ToLower(encoding) {
	case "", "7bit", "8bit", "binary":
		return body, true
	case "base64":
		decoder = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body))
	case "quoted-printable":
		decoder = quotedprintable.NewReader(bytes.NewReader(body))
	default:
		return nil, false
	}
	decoded, err := io.ReadAll(decoder)
	return decoded, err == nil
}

// inner is what an envelope holds.
func (r *reader) inner(p part, depth int) (part, bool) {
	body, ok := r.decoded(p)
	if !ok || depth >= maxDepth {
		return part{}, false
	}
	c, err := ParseCPIM(body)
	if err != nil {
		return part{}, false
	}
	return c.part(), true
}

// split returns the parts of a multipart; false: it isn't one, or has too many.
func (r *reader) split(p part, depth int) ([]part, bool) {
	_, parameters, err := mime.ParseMediaType(p.contentType)
	body, ok := r.decoded(p)
	if err != nil || !ok || depth >= maxDepth || parameters["boundary"] == "" {
		return nil, false
	}
	var parts []part
	for in := multipart.NewReader(bytes.NewReader(body), parameters["boundary"]); ; {
		next, err := in.NextRawPart()
		if err == io.EOF {
			return parts, true
		}
		if r.parts--; err != nil || r.parts < 0 {
			return nil, false
		}
		content, err := io.ReadAll(next)
		if err != nil {
			return nil, false
		}
		parts = append(parts, part{
			contentType: typeOr(next.Header.Get("Content-Type"), TypePlain),
			transfer:    next.Header.Get("Content-Transfer-Encoding"),
			encoding:    next.Header.Get("Content-Encoding"),
			body:        content,
		})
	}
}

func typeOr(contentType, otherwise string) string {
	if contentType == "" {
		return otherwise
	}
	return contentType
}

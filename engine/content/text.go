package content

import (
	"bytes"
	"mime"
	"strings"
	"unicode/utf8"
)

// The types that hold text.
const (
	TypePlain = "text/plain"
	TypeCPIM  = "message/cpim" // RFC 3862
)

// Bounds of what is looked through for the text within a message/cpim.
const (
	maxHead  = 8 << 10 // octets of its two groups of header lines
	maxLines = 128     // of these lines
)

// Text returns what a person reads of a message, in UTF-8; false: there is
// nothing that can be read. That is text/plain in UTF-8, which is SIP's default
// (RFC 3261 §7.4.1), US-ASCII or ISO 8859-1, as it is or within a message/cpim.
func Text(contentType string, body []byte) (string, bool) {
	mediaType, charset, ok := parseType(contentType)
	switch {
	case !ok:
		return "", false
	case mediaType == TypePlain:
		return decode(charset, body)
	case mediaType == TypeCPIM:
		return unwrap(body)
	}
	return "", false
}

// parseType reads a Content-Type value. Most have no more than one parameter,
// and no quotes.
func parseType(contentType string) (mediaType, charset string, ok bool) {
	first, rest, more := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(first))
	if !more {
		return mediaType, "", true
	}
	name, value, _ := strings.Cut(rest, "=")
	if strings.EqualFold(strings.TrimSpace(name), "charset") && !strings.ContainsAny(value, `;"`) {
		return mediaType, strings.ToLower(strings.TrimSpace(value)), true
	}
	mediaType, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", "", false
	}
	return mediaType, strings.ToLower(parameters["charset"]), true
}

func decode(charset string, body []byte) (string, bool) {
	switch charset {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		if !utf8.Valid(body) {
			return "", false
		}
		return string(body), true
	case "iso-8859-1", "latin1":
		return latin1(body), true
	}
	return "", false
}

// latin1 is ISO 8859-1: its octets are Unicode's first 256 characters.
func latin1(body []byte) string {
	text := make([]byte, 0, len(body)+len(body)/8)
	for _, octet := range body {
		text = utf8.AppendRune(text, rune(octet))
	}
	return string(text)
}

// unwrap returns the text within a message/cpim: behind the message's headers
// and those of its content (RFC 3862 §2).
func unwrap(body []byte) (string, bool) {
	lines := maxLines
	_, rest, ok := head(body, &lines)
	if !ok {
		return "", false
	}
	fields, inner, ok := head(rest, &lines)
	if !ok || len(body)-len(inner) > maxHead {
		return "", false
	}
	contentType, encoding := TypePlain, ""
	for _, line := range fields {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-type":
			contentType = value
		case "content-transfer-encoding":
			encoding = strings.ToLower(strings.TrimSpace(value))
		}
	}
	mediaType, charset, ok := parseType(contentType)
	if !ok || mediaType != TypePlain || !identity(encoding) {
		return "", false
	}
	return decode(charset, inner)
}

// identity tells whether a content transfer encoding leaves the octets as they
// are (RFC 2045 §6.2).
func identity(encoding string) bool {
	switch encoding {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}

// head reads header lines up to the empty one, folded lines put together
// (RFC 5322 §2.2.3), and returns what is behind. lines is how many there may be.
func head(b []byte, lines *int) (fields []string, rest []byte, ok bool) {
	for size := 0; *lines > 0 && size <= maxHead; *lines-- {
		line, after, found := bytes.Cut(b, []byte("\n"))
		if !found {
			return nil, nil, false
		}
		size += len(line)
		b = after
		text := strings.TrimSuffix(string(line[:min(len(line), maxHead)]), "\r")
		switch {
		case text == "":
			return fields, b, true
		case len(fields) > 0 && (text[0] == ' ' || text[0] == '\t'):
			fields[len(fields)-1] += text
		default:
			fields = append(fields, text)
		}
	}
	return nil, nil, false
}

package content

import (
	"mime"
	"strings"
	"unicode/utf8"
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

// unwrap returns the text within a message/cpim.
func unwrap(body []byte) (string, bool) {
	contentType, inner, ok := Unwrap(body)
	if !ok {
		return "", false
	}
	mediaType, charset, ok := parseType(contentType)
	if !ok || mediaType != TypePlain {
		return "", false
	}
	return decode(charset, inner)
}

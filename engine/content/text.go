package content

import (
	"mime"
	"strings"
)

// Text returns what a person reads of a message, in UTF-8; false: there is
// nothing that can be read. That is text/plain in UTF-8, which is SIP's default
// (RFC 3261 §7.4.1), US-ASCII, ISO 8859-1 or -15, Windows-1252 or UTF-16: as it is,
// within a message/cpim, or the first such part of a multipart/mixed,
// multipart/alternative or multipart/related.
func Text(contentType string, body []byte) (string, bool) {
	mediaType, charset, ok := parseType(contentType)
	switch {
	case !ok:
		return "", false
	case mediaType == TypePlain:
		return decodeText(charset, body)
	}
	return newReader().text(part{contentType: contentType, body: body}, 0)
}

func (r *reader) text(p part, depth int) (string, bool) {
	mediaType, charset, ok := parseType(p.contentType)
	if !ok {
		return "", false
	}
	switch mediaType {
	case TypePlain:
		body, ok := r.decoded(p)
		if !ok {
			return "", false
		}
		return decodeText(charset, body)
	case TypeCPIM:
		if inner, ok := r.inner(p, depth); ok {
			return r.text(inner, depth+1)
		}
	case typeMixed, typeAlternative, typeRelated:
		return r.firstText(p, depth)
	}
	return "", false
}

func (r *reader) firstText(p part, depth int) (string, bool) {
	parts, _ := r.split(p, depth)
	for _, p := range parts {
		if text, ok := r.text(p, depth+1); ok {
			return text, true
		}
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

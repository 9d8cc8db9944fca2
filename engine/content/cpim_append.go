package content

import (
	"strconv"
	"strings"
	"time"
)

// Append writes the envelope and its content. Whatever its fields hold, what comes
// out is one message/cpim with no headers but these: values of the envelope are
// escaped (RFC 3862 §2.3), controls in those of the content become spaces, and a
// header whose name can't be one is left out. A header of a name space gets the
// prefix "imdn" if that is RFC 5438's, else "ns1" and so on.
func (c *CPIM) Append(b []byte) []byte {
	b = appendParty(b, "From: ", c.From)
	for _, to := range c.To {
		b = appendParty(b, "To: ", to)
	}
	if !c.DateTime.IsZero() {
		b = append(c.DateTime.AppendFormat(append(b, "DateTime: "...), time.RFC3339), crlf...)
	}
	prefixes := map[string]string{}
	for _, h := range c.Headers {
		b = appendHeader(b, h, prefixes)
	}
	b = append(b, crlf...)
	b = appendContentHeader(b, "Content-Type", typeOr(printable(c.ContentType), TypePlain))
	for _, h := range c.ContentHeaders {
		if !isWritten(h.Name) {
			b = appendContentHeader(b, h.Name, printable(h.Value))
		}
	}
	b = appendContentHeader(b, "Content-Length", strconv.Itoa(len(c.Body)))
	return append(append(b, crlf...), c.Body...)
}

const crlf = "\r\n"

// isWritten tells the headers of the content that Append writes itself.
func isWritten(name string) bool {
	return strings.EqualFold(name, "Content-Type") || strings.EqualFold(name, "Content-Length")
}

// appendParty writes a name as a string, and no space behind it: so RFC 3862 §4.1
// has it, and not every client reads more than that.
func appendParty(b []byte, header string, p Party) []byte {
	if p.URI == "" {
		return b
	}
	b = append(b, header...)
	if p.Name != "" {
		b = append(appendEscaped(append(b, '"'), p.Name), '"')
	}
	b = appendEscaped(append(b, '<'), brackets.Replace(p.URI))
	return append(append(b, '>'), crlf...)
}

// brackets would end a URI.
var brackets = strings.NewReplacer("<", "%3C", ">", "%3E")

// appendHeader writes a header of the envelope, and in front of the first one of a
// name space which prefix stands for that.
func appendHeader(b []byte, h Header, prefixes map[string]string) []byte {
	if !isName(h.Name) || h.Space == "" && isOwn(h.Name) {
		return b
	}
	if h.Space != "" {
		prefix, known := prefixes[h.Space]
		if !known {
			prefix = prefixOf(h.Space, len(prefixes)+1)
			prefixes[h.Space] = prefix
			b = append(append(append(b, "NS: "...), prefix...), " <"...)
			b = append(append(appendEscaped(b, brackets.Replace(h.Space)), '>'), crlf...)
		}
		b = append(append(b, prefix...), '.')
	}
	b = append(append(b, h.Name...), ':')
	if h.Params != "" && strings.IndexFunc(h.Params, isControlOrSpace) < 0 {
		b = append(append(b, ';'), h.Params...)
	}
	return append(appendEscaped(append(b, ' '), h.Value), crlf...)
}

func prefixOf(space string, n int) string {
	if space == NamespaceIMDN {
		return "imdn"
	}
	return "ns" + strconv.Itoa(n)
}

// isOwn tells the headers of the envelope that are fields of CPIM, or come with
// name spaces.
func isOwn(name string) bool {
	return name == "From" || name == "To" || name == "DateTime" || name == "NS"
}

// isName tells whether a header may be called so (RFC 3862 §3.6, NAMECHAR).
func isName(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool {
		isLetter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !isLetter && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-^_`|~", r)
	}) < 0
}

func appendContentHeader(b []byte, name, value string) []byte {
	if !isName(name) {
		return b
	}
	return append(append(append(append(b, name...), ": "...), value...), crlf...)
}

// printable is a value of MIME, which has no escapes.
func printable(value string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, value))
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

func isControlOrSpace(r rune) bool { return isControl(r) || r == ' ' }

package content

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// CPIM is a message/cpim (RFC 3862): an envelope, and what is in it.
type CPIM struct {
	From     Party
	To       []Party
	DateTime time.Time // zero: it isn't said, or can't be read
	Headers  []Header  // the others of the envelope, as they came

	ContentType    string   // of Body; text/plain if it isn't said (RFC 2045 §5.2)
	ContentHeaders []Header // the others of Body; without Content-Length
	Body           []byte   // as it stands there: it may be encoded
}

// Party is a sender or a recipient.
type Party struct {
	Name string // empty: there is none
	URI  string // empty: there is no such party, or it can't be read
}

// Header is a header field of an envelope or of its content.
type Header struct {
	// Space is the URI of the name space of an envelope's header; empty: it is
	// one of RFC 3862's own. Those of a content have none.
	Space string
	Name  string
	// Params is what stands in front of the value, such as "lang=fr".
	Params string
	Value  string // without escapes
}

// NamespaceIMDN is the name space of the headers of RFC 5438 §6.
const NamespaceIMDN = "urn:ietf:params:imdn"

// Get returns the value of the first header of that name in an envelope.
func (c *CPIM) Get(space, name string) string {
	for _, h := range c.Headers {
		if h.Space == space && h.Name == name {
			return h.Value
		}
	}
	return ""
}

// contentHeader is the value of a header of the content, whose names are the same
// in any case (RFC 2045 §2.1); empty: there is none.
func (c *CPIM) contentHeader(name string) string {
	for _, h := range c.ContentHeaders {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// Bounds of what is read of an envelope.
const (
	maxHead  = 8 << 10 // octets of its two groups of header lines
	maxLines = 128     // of these lines
	maxDepth = 4       // envelopes and multiparts within each other
)

var (
	errHead   = errors.New("header lines without an end, or too many of them")
	errLine   = errors.New("a header line without a colon")
	errTwice  = errors.New("a header that may be there once is there twice")
	errLength = errors.New("the content is not as long as it says")
)

// ParseCPIM reads a message/cpim. Lines may end in LF alone. Its envelope and the
// headers of its content may have 8,192 octets in 128 lines. The body isn't
// copied.
func ParseCPIM(body []byte) (*CPIM, error) {
	lines := maxLines
	envelope, rest, ok := head(body, &lines)
	if !ok {
		return nil, errHead
	}
	fields, inner, ok := head(rest, &lines)
	if !ok || len(body)-len(inner) > maxHead {
		return nil, errHead
	}
	c := &CPIM{ContentType: TypePlain, Body: inner}
	if err := c.readEnvelope(envelope); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if err := c.readContent(fields); err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	return c, nil
}

// readEnvelope reads the headers of RFC 3862 §4. A prefix stands for the name
// space that the last NS before it gives it.
func (c *CPIM) readEnvelope(lines []string) error {
	spaces := map[string]string{}
	for _, line := range lines {
		h, err := parseHeader(line)
		if err != nil {
			return err
		}
		prefix, name, found := strings.Cut(h.Name, ".")
		if space, known := spaces[prefix]; found && known {
			h.Space, h.Name = space, name
		} else if !found {
			h.Space = spaces[""]
		}
		if h.Space == "" && h.Name == "NS" {
			prefix, uri := parseNamespace(h.Value)
			spaces[prefix] = uri
			continue
		}
		if err := c.take(h); err != nil {
			return err
		}
	}
	return nil
}

func (c *CPIM) take(h Header) error {
	switch {
	case h.Space != "":
	case h.Name == "From":
		if c.From != (Party{}) {
			return errTwice
		}
		c.From = parseParty(h.Value)
		return nil
	case h.Name == "To":
		c.To = append(c.To, parseParty(h.Value))
		return nil
	case h.Name == "DateTime":
		c.DateTime, _ = time.Parse(time.RFC3339, h.Value)
		return nil
	}
	c.Headers = append(c.Headers, h)
	return nil
}

// parseHeader reads "Subject:;lang=fr Bonjour": one space stands in front of the
// value (RFC 3862 §2.2).
func parseHeader(line string) (Header, error) {
	name, rest, found := strings.Cut(line, ":")
	if !found || name == "" {
		return Header{}, errLine
	}
	h := Header{Name: strings.TrimSpace(name)}
	if strings.HasPrefix(rest, ";") {
		h.Params, rest, _ = strings.Cut(rest[1:], " ")
	}
	h.Value = unescape(strings.TrimSpace(rest))
	return h, nil
}

// parseNamespace reads "imdn <urn:ietf:params:imdn>"; without a prefix it is the
// name space of names that have none (RFC 3862 §4.6).
func parseNamespace(value string) (prefix, uri string) {
	prefix, uri, _ = strings.Cut(value, "<")
	return strings.TrimSpace(prefix), strings.TrimSuffix(strings.TrimSpace(uri), ">")
}

// parseParty reads "Alice <im:alice@example.com>" (RFC 3862 §4.1).
func parseParty(value string) Party {
	open, end := strings.LastIndexByte(value, '<'), strings.LastIndexByte(value, '>')
	if open < 0 || end < open {
		return Party{}
	}
	name := strings.TrimSpace(value[:open])
	if len(name) >= 2 && name[0] == '"' && name[len(name)-1] == '"' {
		name = name[1 : len(name)-1]
	}
	return Party{Name: name, URI: value[open+1 : end]}
}

// readContent reads the MIME headers of the content.
func (c *CPIM) readContent(lines []string) error {
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		if !found {
			return errLine
		}
		h := Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)}
		switch strings.ToLower(h.Name) {
		case "content-type":
			c.ContentType = h.Value
		case "content-length":
			if err := c.cut(h.Value); err != nil {
				return err
			}
		default:
			c.ContentHeaders = append(c.ContentHeaders, h)
		}
	}
	return nil
}

// cut takes away the line ends that some clients put behind the content.
func (c *CPIM) cut(length string) error {
	n, err := strconv.ParseUint(length, 10, 31)
	if err != nil || int(n) > len(c.Body) || len(bytes.Trim(c.Body[n:], "\r\n")) > 0 {
		return errLength
	}
	c.Body = c.Body[:n]
	return nil
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

// unescape undoes the escapes of RFC 3862 §2.3. What is none stays.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for s != "" {
		r, size := unescapeOne(s)
		b = utf8.AppendRune(b, r)
		s = s[size:]
	}
	return string(b)
}

func unescapeOne(s string) (rune, int) {
	if s[0] != '\\' || len(s) < 2 {
		return utf8.DecodeRuneInString(s)
	}
	switch s[1] {
	case 'b':
		return '\b', 2
	case 't':
		return '\t', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case '"', '\'', '\\':
		return rune(s[1]), 2
	case 'u':
		if len(s) >= 6 {
			if n, err := strconv.ParseUint(s[2:6], 16, 32); err == nil {
				return rune(n), 6
			}
		}
	}
	return '\\', 1
}

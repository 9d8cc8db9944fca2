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
	Headers  []Header  // the others of the envelope, in their order

	ContentType    string   // of Body; text/plain if it isn't said (RFC 2045 §5.2)
	ContentHeaders []Header // the others of Body, without Content-Length
	Body           []byte   // as it came: these headers say whether it is encoded
}

// Party is a sender or a recipient.
type Party struct {
	Name string // empty: none
	URI  string // empty: nobody, or it can't be read
}

// Header is a header of an envelope or of what is in it.
type Header struct {
	Space  string // the URI of the name space of an envelope's header; empty: RFC 3862's own
	Name   string
	Params string // of an envelope's header: what stands in front of its value, such as "lang=fr"
	Value  string // without escapes
}

// NamespaceIMDN is the name space of the headers of RFC 5438 §6.
const NamespaceIMDN = "urn:ietf:params:imdn"

// Get returns the value of the envelope's first header of that name, or "". Names
// are case-sensitive (RFC 3862 §2.2).
func (c *CPIM) Get(space, name string) string {
	for _, h := range c.Headers {
		if h.Space == space && h.Name == name {
			return h.Value
		}
	}
	return ""
}

// contentHeader returns the value of a header of the content, or "". These names
// aren't case-sensitive (RFC 2045 §2).
func (c *CPIM) contentHeader(name string) string {
	for _, h := range c.ContentHeaders {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

func (c *CPIM) part() part {
	return part{
		contentType: c.ContentType,
		transfer:    c.contentHeader("Content-Transfer-Encoding"),
		encoding:    c.contentHeader("Content-Encoding"),
		body:        c.Body,
	}
}

// Unwrap returns what a message/cpim holds, as it was before it was encoded, for
// recipients who don't know envelopes: it is never a message/cpim itself. ok is
// false if that can't be read.
func Unwrap(body []byte) (contentType string, inner []byte, ok bool) {
	r := newReader()
	p := part{contentType: TypeCPIM, body: body}
	for depth := 0; MediaType(p.contentType) == TypeCPIM; depth++ {
		if p, ok = r.inner(p, depth); !ok {
			return "", nil, false
		}
	}
	inner, ok = r.decoded(p)
	return p.contentType, inner, ok
}

// Bounds of an envelope.
const (
	maxHead  = 8 << 10 // octets of its header lines and of those of its content
	maxLines = 128     // of these lines
)

var (
	errHead   = errors.New("header lines without an end, or too many of them")
	errLine   = errors.New("a header line without a name")
	errTwice  = errors.New("a header is there twice")
	errLength = errors.New("the content isn't as long as it says")
)

// ParseCPIM reads a message/cpim, whose lines may end in LF alone. The header
// lines, those of the content too, may have 8,192 octets in 128 lines. The body
// isn't copied.
func ParseCPIM(body []byte) (*CPIM, error) {
	lines := maxLines
	envelope, rest, ok := head(body, &lines)
	if ok && isOwnType(envelope) {
		envelope, rest, ok = head(rest, &lines)
	}
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

// isOwnType tells the header of the message/cpim itself, which some write into it
// as RFC 3862 §2 draws it.
func isOwnType(lines []string) bool {
	if len(lines) != 1 {
		return false
	}
	name, value, _ := strings.Cut(lines[0], ":")
	return strings.EqualFold(name, "Content-Type") && MediaType(value) == TypeCPIM
}

// readEnvelope reads the headers of the message. A prefix stands for what the last
// NS in front of it says (RFC 3862 §2.2, §4.6).
func (c *CPIM) readEnvelope(lines []string) error {
	var spaces map[string]string
	for _, line := range lines {
		h, err := parseHeader(line)
		if err != nil {
			return err
		}
		if h.Name == "NS" {
			if spaces == nil {
				spaces = map[string]string{}
			}
			prefix, uri := parseNamespace(h.Value)
			spaces[prefix] = uri
			continue
		}
		prefix, name, found := strings.Cut(h.Name, ".")
		switch space := spaces[prefix]; {
		case found && space != "":
			h.Space, h.Name = space, name
		case !found:
			h.Space = spaces[""]
		}
		if err := c.take(h); err != nil {
			return err
		}
	}
	return nil
}

// take puts a header where it belongs. What can't be read is as if it weren't
// there: the message itself can be.
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
		if !c.DateTime.IsZero() {
			return errTwice
		}
		c.DateTime = parseTime(h.Value)
		return nil
	}
	h.Value = unescape(h.Value)
	c.Headers = append(c.Headers, h)
	return nil
}

// parseHeader reads "Subject:;lang=fr Bonjour" (RFC 3862 §2.2), but for the
// escapes in its value.
func parseHeader(line string) (Header, error) {
	name, rest, found := strings.Cut(line, ":")
	h := Header{Name: strings.TrimSpace(name)}
	if !found || h.Name == "" {
		return h, errLine
	}
	if params, found := strings.CutPrefix(rest, ";"); found {
		h.Params, rest, _ = strings.Cut(params, " ")
	}
	h.Value = strings.Trim(rest, " \t")
	return h, nil
}

// parseNamespace reads "imdn <urn:ietf:params:imdn>". Without a prefix it is that
// of the names without one.
func parseNamespace(value string) (prefix, uri string) {
	prefix, uri, _ = strings.Cut(value, "<")
	return strings.TrimSpace(prefix), unescape(strings.TrimSuffix(strings.TrimSpace(uri), ">"))
}

// parseParty reads "Alice <im:alice@example.com>" (RFC 3862 §4.1).
func parseParty(value string) Party {
	open := strings.LastIndexByte(value, '<')
	if open < 0 || !strings.HasSuffix(value, ">") {
		return Party{}
	}
	name := strings.TrimSpace(value[:open])
	if len(name) >= 2 && name[0] == '"' && name[len(name)-1] == '"' {
		name = name[1 : len(name)-1]
	}
	return Party{Name: unescape(name), URI: unescape(value[open+1 : len(value)-1])}
}

// parseTime reads a time of RFC 3339; zero: it isn't one.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// readContent reads the MIME headers of the content.
func (c *CPIM) readContent(lines []string) error {
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		h := Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)}
		if !found || h.Name == "" {
			return errLine
		}
		switch {
		case strings.EqualFold(h.Name, "Content-Length"):
			if err := c.cut(h.Value); err != nil {
				return err
			}
		case strings.EqualFold(h.Name, "Content-Type"):
			c.ContentType = typeOr(h.Value, TypePlain)
		case c.contentHeader(h.Name) != "":
			return errTwice
		default:
			c.ContentHeaders = append(c.ContentHeaders, h)
		}
	}
	return nil
}

// cut ends the body where its length says, if nothing but line ends is behind.
func (c *CPIM) cut(length string) error {
	n, err := strconv.ParseUint(length, 10, 31)
	if err != nil || n > uint64(len(c.Body)) || len(bytes.Trim(c.Body[n:], "\r\n")) > 0 {
		return errLength
	}
	c.Body = c.Body[:n]
	return nil
}

// head reads header lines up to the empty one, folded lines put together
// (RFC 5322 §2.2.3), and returns what is behind. lines is how many there may be.
func head(b []byte, lines *int) (fields []string, rest []byte, ok bool) {
	for size := 0; *lines > 0; *lines-- {
		line, after, found := bytes.Cut(b, []byte("\n"))
		if size += len(line); !found || size > maxHead {
			return nil, nil, false
		}
		b = after
		text := string(bytes.TrimSuffix(line, []byte("\r")))
		switch {
		case text == "":
			return fields, b, true
		case !utf8.ValidString(text) || strings.ContainsAny(text, "\r\x00"):
			return nil, nil, false
		case len(fields) > 0 && (text[0] == ' ' || text[0] == '\t'):
			fields[len(fields)-1] += text
		default:
			fields = append(fields, text)
		}
	}
	return nil, nil, false
}

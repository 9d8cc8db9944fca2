package wire

import (
	"bytes"
	"strings"
)

// field identifies the header fields that this package looks at.
type field uint8

const (
	fieldOther field = iota
	fieldVia
	fieldContact
	fieldSupported
	fieldContentEncoding
	// From here on a field may be there only once.
	fieldFrom
	fieldTo
	fieldCallID
	fieldCSeq
	fieldMaxForwards
	fieldContentLength
	fieldContentType
	fieldContentDisposition
	fieldExpires
	fieldSubject
	fieldDate
	fieldRetryAfter
	fieldMinExpires
	fields
)

// compactOthers are the compact forms of fields that this package passes on
// (IANA's list of SIP header fields).
var compactOthers = [...]struct{ name, compact string }{
	{"Accept-Contact", "a"},      // RFC 3841
	{"Referred-By", "b"},         // RFC 3892
	{"Request-Disposition", "d"}, // RFC 3841
	{"Reject-Contact", "j"},      // RFC 3841
	{"Identity-Info", "n"},       // RFC 4474
	{"Event", "o"},               // RFC 6665
	{"Refer-To", "r"},            // RFC 3515
	{"Allow-Events", "u"},        // RFC 6665
	{"Session-Expires", "x"},     // RFC 4028
	{"Identity", "y"},            // RFC 8224
}

// known lists names, and compact forms (RFC 3261 §7.3.3), by field.
var known = [fields]struct{ name, compact string }{
	fieldVia:                {"Via", "v"},
	fieldContact:            {"Contact", "m"},
	fieldSupported:          {"Supported", "k"},
	fieldContentEncoding:    {"Content-Encoding", "e"},
	fieldFrom:               {"From", "f"},
	fieldTo:                 {"To", "t"},
	fieldCallID:             {"Call-ID", "i"},
	fieldCSeq:               {"CSeq", ""},
	fieldMaxForwards:        {"Max-Forwards", ""},
	fieldContentLength:      {"Content-Length", "l"},
	fieldContentType:        {"Content-Type", "c"},
	fieldContentDisposition: {"Content-Disposition", ""},
	fieldExpires:            {"Expires", ""},
	fieldSubject:            {"Subject", "s"},
	fieldDate:               {"Date", ""},
	fieldRetryAfter:         {"Retry-After", ""},
	fieldMinExpires:         {"Min-Expires", ""},
}

// identify returns a field and its usual name.
func identify(name string) (field, string) {
	if len(name) == 1 {
		return identifyCompact(name)
	}
	for f := fieldVia; f < fields; f++ {
		k := &known[f]
		if len(name) == len(k.name) && strings.EqualFold(name, k.name) {
			return f, k.name
		}
	}
	return fieldOther, name
}

// identifyCompact returns a field and its usual name by its compact form.
func identifyCompact(name string) (field, string) {
	for f := fieldVia; f < fields; f++ {
		if strings.EqualFold(name, known[f].compact) {
			return f, known[f].name
		}
	}
	for _, other := range compactOthers {
		if strings.EqualFold(name, other.compact) {
			return fieldOther, other.name
		}
	}
	return fieldOther, name
}

// head is the header section of a message, taken apart but not understood.
type head struct {
	start    string // the start line
	headers  []Header
	single   [fields]int32 // where a field that may be there only once is, plus one
	unframed bool          // there is a fault behind which a Content-Length could hide
	via      int           // where the topmost Via is, plus one
}

func (h *head) value(f field) string {
	if h.single[f] == 0 {
		return ""
	}
	return h.headers[h.single[f]-1].Value
}

func (h *head) has(f field) bool { return h.single[f] != 0 }

// Headers returns all header fields in order. They aren't to be changed.
func (h *head) Headers() []Header { return h.headers }

// Get returns the value of the first header field of a name, in its usual long
// form; empty if there is none.
func (h *head) Get(name string) string {
	for i := range h.headers {
		if len(h.headers[i].Name) == len(name) && strings.EqualFold(h.headers[i].Name, name) {
			return h.headers[i].Value
		}
	}
	return ""
}

// All returns the values of all header fields of a name, in order.
func (h *head) All(name string) []string {
	var values []string
	for i := range h.headers {
		if len(h.headers[i].Name) == len(name) && strings.EqualFold(h.headers[i].Name, name) {
			values = append(values, h.headers[i].Value)
		}
	}
	return values
}

// split divides a datagram into its header section, each line of it with its
// CRLF, and its body. Empty lines in front are skipped (RFC 3261 §7.5).
func split(data []byte) (string, []byte, *Refusal) {
	for len(data) > 1 && data[0] == '\r' && data[1] == '\n' {
		data = data[2:]
	}
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return "", nil, refuse("No End Of Headers")
	}
	return string(data[:end+2]), data[end+4:], nil
}

// scan takes a header section apart. It goes on after a fault of a single field
// and returns the first such fault, so that the request can be answered.
func (h *head) scan(text string) *Refusal {
	var first *Refusal
	note := func(r *Refusal) {
		if first == nil {
			first = r
		}
	}
	h.start, text, _ = strings.Cut(text, "\r\n")
	if hasControl(h.start) {
		h.unframed = true
		return refuse("Control Character In Start Line")
	}
	h.headers = make([]Header, 0, 16)
	for text != "" {
		var line string
		line, text = nextLine(text)
		if len(line) > maxHeaderLine {
			h.unframed = true
			note(exceeds("Header Line Too Long"))
			continue
		}
		if len(h.headers) == maxHeaders {
			h.unframed = true
			return exceeds("Too Many Headers")
		}
		note(h.add(line))
	}
	return first
}

// nextLine returns a header field with the lines folded into it (RFC 3261
// §7.3.1), and what follows.
func nextLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\r\n")
	for rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
		var more string
		more, rest, _ = strings.Cut(rest, "\r\n")
		line = strings.TrimRight(line, " \t") + " " + strings.TrimLeft(more, " \t")
		if len(line) > maxHeaderLine {
			break // the next line begins with a space: it has no name and is refused
		}
	}
	return line, rest
}

func (h *head) add(line string) *Refusal {
	name, value, ok := strings.Cut(line, ":")
	name = strings.TrimRight(name, " \t")
	if !ok || !IsToken(name) {
		h.unframed = true
		return refuse("Bad Header Name")
	}
	f, name := identify(name)
	if hasControl(value) {
		h.unframed = h.unframed || f == fieldContentLength || strings.ContainsAny(value, "\r\n")
		return refuse("Control Character In Header")
	}
	h.headers = append(h.headers, Header{Name: name, Value: strings.Trim(value, " \t")})
	if f == fieldVia && h.via == 0 {
		h.via = len(h.headers)
	}
	if f < fieldFrom {
		return nil
	}
	if h.single[f] != 0 {
		h.unframed = h.unframed || f == fieldContentLength
		return refuse("More Than One " + name)
	}
	h.single[f] = int32(len(h.headers))
	return nil
}

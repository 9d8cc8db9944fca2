// Package sipfile reads a SIP MESSAGE from a file, as somebody has captured it or
// typed it, for trying a policy on it. It refuses what the SIP door refuses, in
// words for whoever wrote the file. It must not know what a policy makes of it.
package sipfile

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
)

// MaxSize is how large a file may be, in octets: more doesn't fit into a
// datagram.
const MaxSize = 64 << 10

// Message is what the gateway reads of a MESSAGE.
type Message struct {
	Sender      message.Address // From
	Recipient   message.Address // the Request-URI
	ContentType string          // with parameters; text/plain where the file doesn't say
	Body        []byte
	Expires     *int // seconds; nil: it doesn't say
}

// Parse reads one MESSAGE. Lines may end with CRLF or LF alone, as editors
// write them; line breaks behind the body don't count where Content-Length says
// so.
func Parse(text []byte) (Message, error) {
	if len(text) > MaxSize {
		return Message{}, fmt.Errorf("expected at most %d octets", MaxSize)
	}
	head, body, err := split(text)
	if err != nil {
		return Message{}, err
	}
	return head.read(body)
}

// head is what stands before the body.
type head struct {
	start  string
	fields []field
	crlf   bool // lines end as they do on the wire
}

// field is a header field: the name in lower case and not in its compact form.
type field struct{ name, value string }

// compact are the compact forms of the fields that matter here (RFC 3261 §7.3.3).
var compact = map[string]string{
	"f": "from", "t": "to", "i": "call-id", "l": "content-length", "c": "content-type", "e": "content-encoding", "v": "via",
}

// split takes a message apart: its first line, its header fields, its body.
func split(text []byte) (head, []byte, error) {
	var h head
	for number := 1; ; number++ {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		line, h.crlf = bytes.CutSuffix(line, []byte("\r"))
		if err := h.add(string(line), number); err != nil {
			return h, nil, fmt.Errorf("line %d: %w", number, err)
		}
		if len(line) == 0 || !ended { // a file may end without the empty line, if it has no body
			return h, rest, nil
		}
		text = rest
	}
}

func (h *head) add(line string, number int) error {
	switch {
	case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return errors.New("expected no control characters before the body")
	case number == 1:
		h.start = line
	case line == "":
	case line[0] == ' ' || line[0] == '\t':
		if len(h.fields) == 0 {
			return errors.New("expected a header field, found the rest of one")
		}
		last := &h.fields[len(h.fields)-1]
		last.value = strings.TrimSpace(last.value + " " + strings.TrimSpace(line))
	default:
		name, value, found := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		if !found || !isToken(name) {
			return errors.New("expected a header field, such as From: <sip:1001@sip.example.com>")
		}
		if long, ok := compact[name]; ok {
			name = long
		}
		h.fields = append(h.fields, field{name, strings.TrimSpace(value)})
	}
	return nil
}

// value returns a field, "" if there is none.
func (h *head) value(name string) string {
	for _, f := range h.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// single are the fields that may be there once. required are those that must.
var (
	single   = []string{"from", "to", "call-id", "cseq", "content-length", "content-type", "max-forwards", "expires"}
	required = []string{"from", "to", "call-id", "cseq"}
)

// check refuses what the door wouldn't take, whatever the policy says.
func (h *head) check() error {
	for _, name := range required {
		if h.value(name) == "" {
			return fmt.Errorf("expected a header field %s, found none", canonical(name))
		}
	}
	for _, name := range single {
		if h.count(name) > 1 {
			return fmt.Errorf("expected one header field %s, found %d", canonical(name), h.count(name))
		}
	}
	if fields := strings.Fields(h.value("cseq")); len(fields) != 2 || fields[1] != "MESSAGE" {
		return errors.New(`CSeq: expected a number and the method, such as "1 MESSAGE"`)
	}
	if n, err := decimal(h.value("max-forwards"), 8); h.count("max-forwards") > 0 && (err != nil || n == 0) {
		return errors.New("Max-Forwards: expected 1 to 255; the gateway doesn't take this message any further")
	}
	if encoding := h.value("content-encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fmt.Errorf("Content-Encoding: the gateway refuses a body that is encoded, %q, with 415", encoding)
	}
	return nil
}

func (h *head) count(name string) (n int) {
	for _, f := range h.fields {
		if f.name == name {
			n++
		}
	}
	return n
}

// read makes a message of it.
func (h *head) read(rest []byte) (m Message, err error) {
	if m.Recipient, err = h.recipient(); err != nil {
		return m, err
	}
	if err := h.check(); err != nil {
		return m, err
	}
	if m.Sender, err = h.sender(); err != nil {
		return m, fmt.Errorf("the sender in From: %w", err)
	}
	if m.ContentType, err = h.contentType(); err != nil {
		return m, err
	}
	if m.Expires, err = h.expires(); err != nil {
		return m, err
	}
	m.Body, err = h.body(rest)
	return m, err
}

// recipient reads "MESSAGE sip:1002@sip.example.com SIP/2.0".
func (h *head) recipient() (message.Address, error) {
	words := strings.Split(h.start, " ")
	if len(words) != 3 || words[0] != "MESSAGE" || words[2] != "SIP/2.0" {
		return message.Address{}, errors.New(`line 1: expected a request, such as "MESSAGE sip:1002@sip.example.com SIP/2.0"`)
	}
	a, isNumber, err := number(words[1])
	if !isNumber {
		a, err = address(words[1])
	}
	if err != nil {
		return a, fmt.Errorf("line 1: the Request-URI: %w", err)
	}
	return a, nil
}

// number reads the telephone number of a tel URI (RFC 3966), which has no domain.
func number(text string) (a message.Address, isNumber bool, err error) {
	scheme, rest, _ := strings.Cut(text, ":")
	if !strings.EqualFold(scheme, "tel") {
		return a, false, nil
	}
	subscriber, _, _ := strings.Cut(rest, ";")
	digits, ok := message.ParseNumber(subscriber)
	if !ok {
		return a, true, errors.New("expected a telephone number, such as tel:+447700900123")
	}
	return message.Address{User: digits}, true, nil
}

func (h *head) sender() (message.Address, error) {
	var uri sip.Uri
	value := h.value("from")
	if _, err := sip.ParseAddressValue(value, &uri, nil); err != nil {
		return message.Address{}, errors.New("expected an address, such as <sip:1001@sip.example.com>;tag=1")
	}
	return address(bare(value))
}

// bare is the URI of a name-addr or an addr-spec (RFC 3261 §25.1), as written.
func bare(value string) string {
	if end := strings.LastIndexByte(value, '"'); end >= 0 && strings.HasPrefix(value, `"`) {
		value = value[end+1:] // a display name may have anything in it
	}
	if _, after, found := strings.Cut(value, "<"); found {
		uri, _, _ := strings.Cut(after, ">")
		return uri
	}
	uri, _, _ := strings.Cut(value, ";")
	return strings.TrimSpace(uri)
}

var errNoURI = errors.New("expected a SIP URI with a user, such as sip:1001@sip.example.com")

// address is who a SIP URI names, unescaped.
func address(text string) (message.Address, error) {
	scheme, rest, _ := strings.Cut(text, ":")
	if !strings.EqualFold(scheme, "sip") {
		return message.Address{}, fmt.Errorf("the gateway knows the scheme sip, and tel for a recipient, alone: %w", errNoURI)
	}
	var uri sip.Uri
	if strings.Count(rest, "@") != 1 || strings.ContainsAny(rest, " \t<>\"") || sip.ParseUri(text, &uri) != nil || uri.Password != "" || uri.Host == "" {
		return message.Address{}, errNoURI
	}
	user, err := url.PathUnescape(uri.User)
	if err != nil || strings.Contains(user, "@") || !utf8.ValidString(user) {
		return message.Address{}, errNoURI
	}
	if kind, _ := uri.UriParams.Get("user"); strings.EqualFold(kind, "phone") {
		digits, _, _ := strings.Cut(user, ";")
		if number, ok := message.ParseNumber(digits); ok {
			user = number
		}
	}
	a := message.Address{User: user, Host: strings.ToLower(uri.Host)}
	if a.Validate() != nil {
		return message.Address{}, errNoURI
	}
	return a, nil
}

func (h *head) contentType() (string, error) {
	value := h.value("content-type")
	if value == "" {
		return "text/plain", nil
	}
	kind, _, _ := strings.Cut(value, ";")
	main, sub, _ := strings.Cut(strings.TrimRight(kind, " \t"), "/")
	if !isToken(main) || !isToken(sub) {
		return "", errors.New("Content-Type: expected a MIME type, such as text/plain; charset=utf-8")
	}
	return value, nil
}

func (h *head) expires() (*int, error) {
	if h.count("expires") == 0 {
		return nil, nil
	}
	seconds, err := decimal(h.value("expires"), 32)
	if err != nil {
		return nil, errors.New("the field Expires: expected a whole number of seconds")
	}
	return &seconds, nil
}

// body returns as much of what follows the head as Content-Length says. In a file
// that an editor has been at, lines may have lost their CR, and there may be a
// line break too many in the end.
func (h *head) body(rest []byte) ([]byte, error) {
	if h.count("content-length") == 0 {
		return rest, nil
	}
	length, err := decimal(h.value("content-length"), 31)
	if err != nil {
		return nil, errors.New("Content-Length: expected a whole number of octets")
	}
	asSent := rest
	if !h.crlf {
		asSent = withCRLF(rest)
	}
	for _, body := range [][]byte{asSent, rest} {
		if length <= len(body) && len(bytes.Trim(body[length:], "\r\n")) == 0 {
			return body[:length], nil
		}
	}
	return nil, fmt.Errorf("Content-Length: expected %d, as many octets as the body has, found %d; leave it out if the file was typed", len(rest), length)
}

func withCRLF(text []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

// decimal reads decimal digits alone, of a value that fits into so many bits.
func decimal(text string, bits int) (int, error) {
	n, err := strconv.ParseUint(text, 10, bits)
	return int(n), err
}

// isToken tells whether s is a token (RFC 3261 §25.1).
func isToken(s string) bool {
	const marks = "-.!%*_+`'~"
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(marks, r)
	})
}

// canonical is a name as people write it.
func canonical(name string) string {
	switch name {
	case "call-id":
		return "Call-ID"
	case "cseq":
		return "CSeq"
	}
	words := strings.Split(name, "-")
	for i, word := range words {
		words[i] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, "-")
}

package load

import (
	"bytes"
	"strconv"
)

// Limits of what is read of a datagram; fields beyond them are ignored.
const (
	maxVias       = 8
	maxChallenges = 4
)

// datagram is what the generator needs to know of a SIP message: slices of the
// buffer that it was read into. It is no parser: it takes more than SIP allows.
type datagram struct {
	code        int    // of a response; 0: a request
	method, uri []byte // of a request

	vias                   [][]byte // the topmost first
	from, to, callID, cseq []byte
	contact, expires       []byte
	challenges             [][]byte
	body                   []byte

	viaRoom       [maxVias][]byte
	challengeRoom [maxChallenges][]byte
}

var version = []byte("SIP/2.0")

// scan reads a datagram; false means that it is not SIP, or cut short. The
// slices are valid as long as b is.
func (d *datagram) scan(b []byte) bool {
	*d = datagram{}
	d.vias, d.challenges = d.viaRoom[:0], d.challengeRoom[:0]
	line, rest, ok := cutLine(b)
	if !ok || !d.startLine(line) {
		return false
	}
	length := -1
	for {
		if line, rest, ok = cutField(rest); !ok {
			return false
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		d.field(bytes.TrimSpace(name), bytes.TrimSpace(value), &length)
	}
	if length > len(rest) {
		return false
	}
	if length >= 0 {
		rest = rest[:length]
	}
	d.body = rest
	return true
}

func (d *datagram) startLine(line []byte) bool {
	if after, isResponse := bytes.CutPrefix(line, version); isResponse {
		if len(after) < 4 || after[0] != ' ' {
			return false
		}
		d.code = number(after[1:4])
		return d.code >= 100 && d.code < 700
	}
	var found bool
	if d.method, line, found = bytes.Cut(line, []byte(" ")); !found {
		return false
	}
	d.uri, line, found = bytes.Cut(line, []byte(" "))
	return found && bytes.Equal(line, version) && len(d.method) > 0
}

// field keeps a header field if it is one of those that matter. Names are told
// apart by their length first, since most don't matter.
func (d *datagram) field(name, value []byte, length *int) {
	switch len(name) {
	case 1:
		d.compact(name[0]|0x20, value, length)
	case 2:
		keep(&d.to, name, "to", value)
	case 3:
		if is(name, "via") {
			d.via(value)
		}
	case 4:
		keep(&d.from, name, "from", value)
		keep(&d.cseq, name, "cseq", value)
	case 7:
		keep(&d.callID, name, "call-id", value)
		keep(&d.contact, name, "contact", value)
		keep(&d.expires, name, "expires", value)
	case 14:
		if is(name, "content-length") {
			*length = number(value)
		}
	case 16:
		if is(name, "www-authenticate") {
			d.challenge(value)
		}
	case 18:
		if is(name, "proxy-authenticate") {
			d.challenge(value)
		}
	}
}

// compact is field for the short forms (RFC 3261 §7.3.3).
func (d *datagram) compact(name byte, value []byte, length *int) {
	switch name {
	case 'v':
		d.via(value)
	case 'f':
		d.from = value
	case 't':
		d.to = value
	case 'i':
		d.callID = value
	case 'm':
		d.contact = value
	case 'l':
		*length = number(value)
	}
}

func (d *datagram) via(value []byte) {
	if len(d.vias) < maxVias {
		d.vias = append(d.vias, value)
	}
}

func (d *datagram) challenge(value []byte) {
	if len(d.challenges) < maxChallenges {
		d.challenges = append(d.challenges, value)
	}
}

func keep(into *[]byte, name []byte, wanted string, value []byte) {
	if *into == nil && is(name, wanted) {
		*into = value
	}
}

// is compares a name of the same length without regard to case; wanted is in
// lower case.
func is(name []byte, wanted string) bool {
	for i := range name {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != wanted[i] {
			return false
		}
	}
	return true
}

// indexFold finds text in lower case without regard to case; -1: nowhere.
func indexFold(b []byte, wanted string) int {
	for i := 0; i+len(wanted) <= len(b); i++ {
		if is(b[i:i+len(wanted)], wanted) {
			return i
		}
	}
	return -1
}

// answerable tells whether a request has what its answer must repeat.
func (d *datagram) answerable() bool {
	return len(d.vias) > 0 && d.from != nil && d.to != nil && d.callID != nil && d.cseq != nil
}

// cutLine splits off a line without its end.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return nil, nil, false
	}
	return bytes.TrimSuffix(b[:end], []byte("\r")), b[end+1:], true
}

// cutField splits off a header field with the lines that continue it
// (RFC 3261 §7.3.1). The empty field ends the header.
func cutField(b []byte) (field, rest []byte, ok bool) {
	field, rest, ok = cutLine(b)
	if !ok || len(field) == 0 {
		return field, rest, ok
	}
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		_, after, ok := cutLine(rest)
		if !ok {
			return nil, nil, false
		}
		field, rest = bytes.TrimSuffix(b[:len(b)-len(after)-1], []byte("\r")), after
	}
	return field, rest, true
}

// number reads decimal digits; anything else is -1.
func number(digits []byte) int {
	if len(digits) == 0 || len(digits) > 9 {
		return -1
	}
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// grantedSeconds is what a registrar granted for the only contact that an
// address has: the contact's parameter, else the header (RFC 3261 §10.2.4).
func (d *datagram) grantedSeconds() int {
	const parameter = "expires="
	if at := indexFold(d.contact, parameter); at >= 0 {
		value := d.contact[at+len(parameter):]
		if end := bytes.IndexAny(value, ",; \t"); end >= 0 {
			value = value[:end]
		}
		return number(value)
	}
	return number(d.expires)
}

// appendAnswer appends a final response to a request that is answerable. tag
// goes to a To that has none; received completes a bare rport in the topmost
// Via (RFC 3581 §4).
func (d *datagram) appendAnswer(b []byte, status, tag, received string) []byte {
	b = append(b, "SIP/2.0 "...)
	b = append(b, status...)
	for i, via := range d.vias {
		b = append(b, "\r\nVia: "...)
		if i > 0 {
			b = append(b, via...)
			continue
		}
		b = appendVia(b, via, received)
	}
	b = append(append(b, "\r\nFrom: "...), d.from...)
	b = append(append(b, "\r\nTo: "...), d.to...)
	if indexFold(d.to, ";tag=") < 0 {
		b = append(append(b, ";tag="...), tag...)
	}
	b = append(append(b, "\r\nCall-ID: "...), d.callID...)
	b = append(append(b, "\r\nCSeq: "...), d.cseq...)
	return append(b, "\r\nContent-Length: 0\r\n\r\n"...)
}

func appendVia(b, via []byte, received string) []byte {
	const rport = ";rport"
	at := indexFold(via, rport)
	if at < 0 {
		return append(b, via...)
	}
	end := at + len(rport)
	if end < len(via) && via[end] != ';' && via[end] != ',' {
		return append(b, via...) // it has a value
	}
	b = append(b, via[:at]...)
	b = append(b, received...)
	return append(b, via[end:]...)
}

// transactionIn reads the transaction that a branch of ours names.
func transactionIn(via []byte, prefix string) (slot, generation int, ok bool) {
	at := bytes.Index(via, []byte(prefix))
	if at < 0 {
		return 0, 0, false
	}
	first, rest, found := bytes.Cut(via[at+len(prefix):], []byte("."))
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	slot, generation = number(first), number(rest[:end])
	return slot, generation, found && slot >= 0 && generation >= 0
}

func appendTransaction(b []byte, prefix string, slot, generation int) []byte {
	b = strconv.AppendInt(append(b, prefix...), int64(slot), 10)
	return strconv.AppendInt(append(b, '.'), int64(generation), 10)
}

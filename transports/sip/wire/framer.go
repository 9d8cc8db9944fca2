package wire

import "bytes"

// maxSkipped is the largest body that is read past so that the connection can
// go on, in octets.
const maxSkipped = 1 << 20

// framer cuts a stream of octets into messages (RFC 3261 §18.3) and keep-alives
// (RFC 5626 §4.4.1). It holds at most one message that isn't complete.
type framer struct {
	maxBody int
	inbox
	taken   int   // how much of it was taken
	scanned int   // how much of the rest holds no end of a header section
	headed  bool  // the header section is complete:
	draft   draft // this is it,
	length  int   // that long, with the empty line,
	body    int   // and so long is the body
	skip    int   // octets of a body too large that are still to come
	crlf    bool  // the last thing that came was a single CRLF
}

// unitKind says what was found in a stream.
type unitKind uint8

const (
	unitNone      unitKind = iota // nothing whole: more is to be read
	unitKeepAlive                 // a CRLF
	unitPing                      // a second CRLF: a pong is due
	unitMessage
	unitBroken // nobody knows where the next message begins
)

// unit is what a framer found. It is valid until more is read.
type unit struct {
	kind  unitKind
	draft *draft // of a message; of what is broken, if it might be answered
	body  []byte
	data  []byte // all of it, as it came
}

// next takes the next unit off.
func (f *framer) next() unit {
	if f.skip > 0 {
		n := min(f.skip, len(f.rest()))
		f.taken, f.skip = f.taken+n, f.skip-n
	}
	rest := f.rest()
	switch {
	case len(rest) == 0:
		return unit{}
	case f.headed:
		return f.message()
	case rest[0] == '\r':
		return f.emptyLine()
	case classes[rest[0]]&classToken == 0:
		return unit{kind: unitBroken, data: rest}
	}
	f.crlf = false
	return f.header()
}

func (f *framer) rest() []byte { return f.buffer[f.taken:] }

// inMessage tells whether a message has begun and isn't complete.
func (f *framer) inMessage() bool { return f.skip > 0 || len(f.rest()) > 0 }

// forgetCRLF tells that time has passed: a CRLF that comes now is not the
// second half of a ping.
func (f *framer) forgetCRLF() { f.crlf = false }

func (f *framer) emptyLine() unit {
	rest := f.rest()
	if len(rest) == 1 {
		return unit{}
	}
	if rest[1] != '\n' {
		return unit{kind: unitBroken, data: rest}
	}
	f.taken += 2
	f.crlf = !f.crlf
	if f.crlf {
		return unit{kind: unitKeepAlive}
	}
	return unit{kind: unitPing}
}

// header looks for the end of the header section.
func (f *framer) header() unit {
	rest := f.rest()
	end := bytes.Index(rest[f.scanned:], []byte("\r\n\r\n"))
	if end < 0 {
		f.scanned = max(0, len(rest)-3)
	} else {
		f.length = f.scanned + end + 4
	}
	switch {
	case end < 0 && len(rest) < maxHead:
		return unit{}
	case end < 0 || f.length > maxHead:
		return f.headTooLarge()
	}
	f.scanned = 0
	f.draft = readHead(string(rest[:f.length-2]))
	if !f.measure() {
		return unit{kind: unitBroken, draft: &f.draft, data: rest[:f.length]}
	}
	if f.body > f.maxBody {
		return f.bodyTooLarge()
	}
	f.headed = true
	return f.message()
}

// headTooLarge gives back what was read of it: its first lines may be enough
// for an answer.
func (f *framer) headTooLarge() unit {
	data := f.rest()[:maxHead]
	last := bytes.LastIndex(data, []byte("\r\n"))
	if last < 0 {
		return unit{kind: unitBroken, data: data}
	}
	f.draft = readHead(string(data[:last+2]))
	f.draft.fault = errHeadTooLarge
	return unit{kind: unitBroken, draft: &f.draft, data: data}
}

// measure reads how long the body is. It returns false if that can't be known
// for sure (RFC 3261 §18.3, §20.14), and notes why: no Content-Length, two of
// them, one that is no number, or a fault in the header section behind which one
// could hide. A body that would take too long to read past counts too.
//
// Any other fault is that of one message: what a proxy passes on of one client
// must not end the connection that it has for all.
func (f *framer) measure() bool {
	d := &f.draft
	if d.unframed {
		return false
	}
	if !d.has(fieldContentLength) {
		d.fault = refuse("Missing Content-Length")
		return false
	}
	n, ok := Number(d.value(fieldContentLength), 1<<32)
	switch {
	case !ok:
		d.fault = refuse("Bad Content-Length")
	case n > uint64(max(maxSkipped, f.maxBody)):
		d.fault = errBodyTooLarge
	default:
		f.body = int(n)
		return true
	}
	return false
}

// bodyTooLarge hands a message on without its body, which is skipped.
func (f *framer) bodyTooLarge() unit {
	f.draft.fault = errBodyTooLarge
	data := f.rest()[:f.length]
	f.taken += f.length
	f.skip = f.body
	return unit{kind: unitMessage, draft: &f.draft, data: data}
}

// message hands a message on when its body is complete.
func (f *framer) message() unit {
	rest := f.rest()
	whole := f.length + f.body
	if len(rest) < whole {
		return unit{}
	}
	f.headed = false
	f.taken += whole
	return unit{kind: unitMessage, draft: &f.draft, body: rest[f.length:whole], data: rest[:whole]}
}

// room returns where to read to, nil if that would take more of the budget than
// there is.
func (f *framer) room(b *budget) []byte {
	n := copy(f.buffer, f.rest())
	f.buffer, f.taken = f.buffer[:n], 0
	if !f.headed {
		f.draft = draft{} // an idle connection doesn't hold the last message
	}
	return f.inbox.room(b)
}

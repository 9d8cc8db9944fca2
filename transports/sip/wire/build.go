package wire

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Reply is a response to be written.
type Reply struct {
	Status     int
	Phrase     string        // empty: the usual one
	RetryAfter time.Duration // rounded up to seconds; 0: none
	Headers    []Header      // beyond those that every response has
	Body       []byte
}

// isPlain tells whether a status and a Retry-After say it all.
func (r *Reply) isPlain() bool {
	return r.Phrase == "" && len(r.Headers) == 0 && len(r.Body) == 0
}

// seconds rounds up, so that a hint is never too short.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// AppendReply writes the response to a request (RFC 3261 §8.2.6): Via, From,
// Call-ID and CSeq as they came; To with a tag if it had none. ErrUnsafe: a
// value holds a control character.
func AppendReply(b []byte, r *Request, reply Reply, tag string) ([]byte, error) {
	w := writer{b: b}
	w.raw("SIP/2.0 ")
	w.number(int64(reply.Status))
	w.raw(" ")
	if reply.Phrase == "" {
		w.raw(Phrase(reply.Status))
	} else {
		w.value(reply.Phrase)
	}
	w.raw("\r\n")
	w.vias(r)
	w.raw("From: ")
	w.value(r.head.value(fieldFrom))
	w.raw("\r\nTo: ")
	if to := r.head.value(fieldTo); r.ToTag != "" {
		w.value(to)
	} else {
		w.value(strings.TrimRight(to, " \t;"))
		w.raw(";tag=")
		w.value(tag)
	}
	w.raw("\r\nCall-ID: ")
	w.value(r.CallID)
	w.raw("\r\nCSeq: ")
	w.value(r.head.value(fieldCSeq))
	w.raw("\r\n")
	if reply.RetryAfter > 0 {
		w.raw("Retry-After: ")
		w.number(seconds(reply.RetryAfter))
		w.raw("\r\n")
	}
	w.headers(reply.Headers)
	w.body(reply.Body)
	return w.b, w.err
}

// Outgoing is a request to be written. From and To are whole values: see
// AppendParty.
type Outgoing struct {
	Method      string
	URI         string // the Request-URI
	Route       string // the value of Route: the proxies on the way; empty: none
	From, To    string
	CallID      string
	CSeq        uint32
	MaxForwards uint8
	Headers     []Header
	Body        []byte

	// MaxDatagram is how many octets the request may have over UDP; 0: as many as
	// Config.MaxUDP says.
	MaxDatagram int
}

// appendRequest writes a request with our Via on top. ErrUnsafe: a value holds
// a control character, a name is not a token, or is one of those that only this
// function writes.
func appendRequest(b []byte, o *Outgoing, via *way, branch string) ([]byte, error) {
	w := writer{b: b}
	if !IsToken(o.Method) || o.URI == "" || strings.ContainsAny(o.URI, " \t<>\"") || strings.ContainsAny(o.CallID, " \t") {
		w.err = ErrUnsafe
	}
	w.raw(o.Method)
	w.raw(" ")
	w.value(o.URI)
	w.raw(" SIP/2.0\r\nVia: SIP/2.0/")
	w.raw(via.transport)
	w.raw(" ")
	w.value(via.sentBy)
	w.raw(";rport;branch=")
	w.value(branch)
	w.raw("\r\nMax-Forwards: ")
	w.number(int64(o.MaxForwards))
	if o.Route != "" {
		w.raw("\r\nRoute: ")
		w.value(o.Route)
	}
	w.raw("\r\nFrom: ")
	w.value(o.From)
	w.raw("\r\nTo: ")
	w.value(o.To)
	w.raw("\r\nCall-ID: ")
	w.value(o.CallID)
	w.raw("\r\nCSeq: ")
	w.number(int64(o.CSeq))
	w.raw(" ")
	w.raw(o.Method)
	w.raw("\r\n")
	w.headers(o.Headers)
	w.body(o.Body)
	return w.b, w.err
}

// writer appends to a message and remembers the first value that could have
// changed its structure.
type writer struct {
	b   []byte
	err error
}

func (w *writer) raw(s string)   { w.b = append(w.b, s...) }
func (w *writer) number(n int64) { w.b = strconv.AppendInt(w.b, n, 10) }

func (w *writer) value(s string) {
	if hasControl(s) {
		w.err = ErrUnsafe
	}
	w.b = append(w.b, s...)
}

func (w *writer) headers(headers []Header) {
	for _, h := range headers {
		if !IsToken(h.Name) || isStructural(h.Name) {
			w.err = ErrUnsafe
		}
		w.raw(h.Name)
		w.raw(": ")
		w.value(h.Value)
		w.raw("\r\n")
	}
}

// isStructural tells whether a field decides where a message goes, where it
// ends or what it belongs to; those are written by this package alone.
func isStructural(name string) bool {
	switch f, _ := identify(name); f {
	case fieldVia, fieldFrom, fieldTo, fieldCallID, fieldCSeq, fieldMaxForwards, fieldContentLength:
		return true
	}
	return strings.EqualFold(name, "Route") || strings.EqualFold(name, "Record-Route")
}

func (w *writer) body(body []byte) {
	w.raw("Content-Length: ")
	w.number(int64(len(body)))
	w.raw("\r\n\r\n")
	w.b = append(w.b, body...)
}

// vias writes the Via fields back, the topmost with where the request really
// came from (RFC 3261 §18.2.1, RFC 3581 §4).
func (w *writer) vias(r *Request) {
	v := &r.Via
	w.raw("Via: ")
	if v.rport > 0 {
		w.value(v.value[:v.rport])
		if v.value[v.rport-1] != '=' {
			w.raw("=")
		}
		w.number(int64(r.Flow.Remote.Port()))
	}
	w.value(v.value[v.rport:])
	source := r.Flow.Remote.Addr()
	if v.hasRPort || !isSame(v.Host, source) {
		w.raw(";received=")
		w.b = source.WithZone("").AppendTo(w.b) // the zone is ours alone (RFC 4007 §11.2)
	}
	w.value(v.rest)
	w.raw("\r\n")
	for i := r.head.via; i < len(r.head.headers); i++ {
		if h := &r.head.headers[i]; h.Name == "Via" {
			w.raw("Via: ")
			w.value(h.Value)
			w.raw("\r\n")
		}
	}
}

// isSame tells whether a sent-by host is the literal form of an address.
func isSame(host string, source netip.Addr) bool {
	var b [64]byte
	return strings.Trim(host, "[]") == string(source.AppendTo(b[:0]))
}

// AppendParty writes the value of From or To: a display name, which may be
// empty, an address and a tag, which may be empty.
func AppendParty(b []byte, display string, uri []byte, tag string) []byte {
	if display != "" {
		b = append(b, Quote(display)...)
		b = append(b, ' ')
	}
	b = append(b, '<')
	b = append(b, uri...)
	b = append(b, '>')
	if tag != "" {
		b = append(b, ";tag="...)
		b = append(b, tag...)
	}
	return b
}

// Phrase is the usual reason phrase of a status (RFC 3261 §21 and later).
func Phrase(status int) string {
	switch status {
	case 200:
		return "OK"
	case 202:
		return "Accepted"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 402:
		return "Payment Required"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 410:
		return "Gone"
	case 413:
		return "Request Entity Too Large"
	case 415:
		return "Unsupported Media Type"
	case 416:
		return "Unsupported URI Scheme"
	case 420:
		return "Bad Extension"
	case 423:
		return "Interval Too Brief"
	case 480:
		return "Temporarily Unavailable"
	case 481:
		return "Call/Transaction Does Not Exist"
	case 483:
		return "Too Many Hops"
	case 486:
		return "Busy Here"
	case 487:
		return "Request Terminated"
	case 488:
		return "Not Acceptable Here"
	case 500:
		return "Server Internal Error"
	case 503:
		return "Service Unavailable"
	case 505:
		return "Version Not Supported"
	case 513:
		return "Message Too Large"
	case 603:
		return "Decline"
	}
	return "Status " + strconv.Itoa(status)
}

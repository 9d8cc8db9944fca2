package wire

import (
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Request is a request that passed the validator.
type Request struct {
	head
	Method      string // a token; upper and lower case are different (RFC 3261 §7.1)
	URI         sip.Uri
	URIText     string // the Request-URI as it was written
	Via         Via
	From, To    NameAddr
	FromTag     string
	ToTag       string
	CallID      string
	CSeq        uint32
	MaxForwards uint8 // 70 if the request doesn't say
	Body        []byte

	Flow Flow // on which it came
	link link // that carries the answer
}

// Response is a response that passed the validator.
type Response struct {
	head
	Status int
	Phrase string
	Branch string // of the topmost Via
	CSeq   uint32
	Method string // of CSeq
	Body   []byte
}

// Refusal says why a message did not pass the validator, in words for a reason
// phrase, and the status that says so.
type Refusal struct {
	Status  int
	Phrase  string
	Exceeds bool // a limit: nothing else is wrong with it
}

// Error returns the phrase.
func (r *Refusal) Error() string { return r.Phrase }

// exceeds refuses what is over a limit that has no status of its own.
func exceeds(phrase string) *Refusal {
	return &Refusal{Status: sip.StatusBadRequest, Phrase: phrase, Exceeds: true}
}

func refuse(phrase string) *Refusal { return &Refusal{Status: sip.StatusBadRequest, Phrase: phrase} }

// Parse reads a datagram: a *Request or a *Response is returned, or neither. A
// request comes together with a refusal if enough of it could be read to answer
// it. maxBody limits the body, in octets.
//
// What RFC 3261 §18.3 and §7.3 ask for is enforced: every field of which there
// may be one is there once at most, Content-Length is not above what arrived
// (what follows is cut off), CSeq names the method, and there is no control
// character but HTAB anywhere in the header section. Tolerated is what old
// clients do: no Max-Forwards, no From tag, no magic cookie.
func Parse(data []byte, maxBody int) (*Request, *Response, *Refusal) {
	if len(data) > MaxMessage {
		return nil, nil, refuse("Message Too Large")
	}
	text, body, refusal := split(data)
	if refusal != nil {
		return nil, nil, refusal
	}
	d := readHead(text)
	return d.finish(body, maxBody)
}

// draft is a message whose header section was taken apart and whose body was
// not looked at.
type draft struct {
	head
	fault *Refusal // the first of the header section
}

// readHead takes a header section apart, of which each line has its CRLF.
func readHead(text string) draft {
	var d draft
	d.fault = d.scan(text)
	if d.fault == nil && len(text) > maxHead {
		d.fault = errHeadTooLarge
	}
	return d
}

// errHeadTooLarge: 513 and not 413, because it isn't the body (RFC 3261
// §21.4.11, §21.5.7).
var errHeadTooLarge = &Refusal{Status: 513, Phrase: "Message Too Large", Exceeds: true}

// errBodyTooLarge is the refusal of RFC 3261 §21.4.11.
var errBodyTooLarge = &Refusal{Status: sip.StatusRequestEntityTooLarge, Phrase: "Request Entity Too Large", Exceeds: true}

func (d *draft) isResponse() bool { return strings.HasPrefix(d.start, "SIP/2.0 ") }

// isSIP tells whether the start line says so.
func (d *draft) isSIP() bool { return d.isResponse() || strings.Contains(d.start, " SIP/") }

// finish reads what the message says. It returns what Parse returns.
func (d *draft) finish(body []byte, maxBody int) (*Request, *Response, *Refusal) {
	if d.isResponse() {
		response, refusal := d.response(body, maxBody)
		return nil, response, refusal
	}
	request, refusal := d.request(body, maxBody)
	return request, nil, refusal
}

func (d *draft) request(body []byte, maxBody int) (*Request, *Refusal) {
	r := &Request{head: d.head}
	started := r.parseStartLine()
	if r.Method == "" {
		return nil, started
	}
	if refusal := r.parseEssential(); refusal != nil {
		return nil, refusal
	}
	for _, refusal := range []*Refusal{d.fault, started, r.parseRemaining(), r.takeBody(body, maxBody)} {
		if refusal != nil {
			return r, refusal
		}
	}
	return r, nil
}

// parseStartLine reads "MESSAGE sip:1002@sip.example.com SIP/2.0". Method stays
// empty unless it is a token.
func (r *Request) parseStartLine() *Refusal {
	method, rest, _ := strings.Cut(r.start, " ")
	end := strings.LastIndex(rest, " SIP/")
	if end < 0 || !IsToken(method) {
		return refuse("Bad Request Line")
	}
	uri, version := rest[:end], rest[end+1:]
	r.Method, r.URIText = method, uri
	switch {
	case strings.ContainsAny(uri+version, " \t"):
		return refuse("Bad Request Line")
	case version != "SIP/2.0":
		return &Refusal{Status: 505, Phrase: "Version Not Supported"}
	}
	var err error
	switch r.URI, err = parseTarget(uri); err {
	case nil:
		return nil
	case ErrBadScheme:
		return &Refusal{Status: sip.StatusRequestedRangeNotSatisfiable, Phrase: "Unsupported URI Scheme"} // 416
	default:
		return refuse("Bad Request-URI")
	}
}

// parseEssential reads what a response needs: without it there can't be one.
func (r *Request) parseEssential() *Refusal {
	if r.via == 0 || !r.has(fieldFrom) || !r.has(fieldTo) || !r.has(fieldCallID) || !r.has(fieldCSeq) {
		return refuse("Missing Header")
	}
	var ok bool
	if r.Via, ok = parseVia(r.headers[r.via-1].Value); !ok {
		return refuse("Bad Via")
	}
	r.CallID = r.value(fieldCallID)
	if r.CallID == "" || strings.ContainsAny(r.CallID, " \t") {
		return refuse("Bad Call-ID")
	}
	return nil
}

// parseRemaining reads the other fields.
func (r *Request) parseRemaining() *Refusal {
	if !r.Via.isSound() {
		return refuse("Bad Via")
	}
	method := ""
	var ok bool
	if r.CSeq, method, ok = parseCSeq(r.value(fieldCSeq)); !ok {
		return refuse("Bad CSeq")
	}
	if method != r.Method {
		return refuse("CSeq Method Mismatch")
	}
	if r.From, r.FromTag, ok = parseParty(r.value(fieldFrom)); !ok {
		return refuse("Bad From")
	}
	if r.To, r.ToTag, ok = parseParty(r.value(fieldTo)); !ok {
		return refuse("Bad To")
	}
	r.MaxForwards = 70
	if r.has(fieldMaxForwards) {
		n, ok := Number(r.value(fieldMaxForwards), 255)
		if !ok {
			return refuse("Bad Max-Forwards")
		}
		r.MaxForwards = uint8(n)
	}
	return nil
}

func parseCSeq(s string) (n uint32, method string, ok bool) {
	digits, method, _ := strings.Cut(strings.ReplaceAll(s, "\t", " "), " ")
	method = strings.TrimLeft(method, " ")
	seq, ok := Number(digits, maxCSeq)
	return uint32(seq), method, ok && IsToken(method)
}

func parseParty(s string) (a NameAddr, tag string, ok bool) {
	if a, ok = ParseNameAddr(s); !ok {
		return a, "", false
	}
	if _, err := ParseURI(a.URI); err == ErrBadURI {
		return a, "", false
	}
	tag, found := a.Params.Get("tag")
	return a, tag, !found || IsToken(tag)
}

func (r *Request) takeBody(body []byte, maxBody int) (refusal *Refusal) {
	r.Body, refusal = r.head.body(body, maxBody)
	return refusal
}

// body returns a copy of the body, as long as Content-Length says.
func (h *head) body(body []byte, maxBody int) ([]byte, *Refusal) {
	if h.has(fieldContentLength) {
		n, ok := Number(h.value(fieldContentLength), 1<<32)
		if !ok || n > uint64(len(body)) {
			return nil, refuse("Content-Length Mismatch")
		}
		body = body[:n]
	}
	if len(body) > maxBody {
		return nil, errBodyTooLarge
	}
	if len(body) == 0 {
		return nil, nil
	}
	return append([]byte(nil), body...), nil
}

func (d *draft) response(body []byte, maxBody int) (*Response, *Refusal) {
	if d.fault != nil {
		return nil, d.fault
	}
	r := &Response{head: d.head}
	code, phrase, _ := strings.Cut(r.start[len("SIP/2.0 "):], " ")
	status, ok := Number(code, 699)
	if !ok || status < 100 || len(code) != 3 {
		return nil, refuse("Bad Status Line")
	}
	r.Status, r.Phrase = int(status), phrase
	// From and To are ours, given back: that they are there is enough.
	if r.via == 0 || !r.has(fieldFrom) || !r.has(fieldTo) || !r.has(fieldCallID) || !r.has(fieldCSeq) {
		return nil, refuse("Missing Header")
	}
	via, ok := parseVia(r.headers[r.via-1].Value)
	if !ok || !via.isSound() {
		return nil, refuse("Bad Via")
	}
	r.Branch = via.Branch
	if r.CSeq, r.Method, ok = parseCSeq(r.value(fieldCSeq)); !ok {
		return nil, refuse("Bad CSeq")
	}
	var refusal *Refusal
	r.Body, refusal = r.head.body(body, maxBody)
	return r, refusal
}

// Expires returns the value of the Expires header field in seconds.
func (r *Request) Expires() (seconds uint32, found, ok bool) {
	if !r.has(fieldExpires) {
		return 0, false, true
	}
	n, ok := Number(r.value(fieldExpires), 1<<32-1)
	return uint32(n), true, ok
}

// destination is where a response to this request goes over UDP (RFC 3261
// §18.2.2, RFC 3581 §4): to the address the request came from, to the port it
// came from if the client asked for that, else to the one in the Via. A maddr is
// not followed and no name is looked up: it would let anybody point us at
// others. Over TCP it goes back on the connection.
func (r *Request) destination() netip.AddrPort {
	if r.Via.hasRPort || r.Flow.ID != "" {
		return r.Flow.Remote
	}
	port := r.Via.Port
	if port == 0 {
		port = 5060
	}
	return netip.AddrPortFrom(r.Flow.Remote.Addr(), port)
}

package wire

import (
	"net/netip"
	"strings"
)

// Hop is where a proxy got a request from.
type Hop struct {
	Transport string // as written: "UDP"
	Address   netip.AddrPort
}

// Behind returns from where the request came to who put in the topmost Via, as
// that says in the Via below: received and rport, else the sent-by (RFC 3261
// §18.2.1, RFC 3581 §4). It is as good as the word of that proxy: a received in
// the topmost Via means nothing, but the one below only a proxy can have
// written, if it does what the RFC asks for. False: there is no such Via, or
// it names no address.
func (r *Request) Behind() (Hop, bool) {
	value, found := r.secondVia()
	if !found {
		return Hop{}, false
	}
	value, _, _, ok := cut(value, ",")
	via, isVia := parseVia(value)
	if !ok || !isVia {
		return Hop{}, false
	}
	_, text, _ := strings.Cut(value, ";")
	params := Params(strings.TrimRight(text, " \t;"))
	host, found := params.Get("received")
	if !found {
		host = via.Host
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return Hop{}, false
	}
	return Hop{via.Transport, netip.AddrPortFrom(address.Unmap().WithZone(""), via.returnPort(params))}, true
}

// returnPort is the port that a response goes to.
func (v *Via) returnPort(params Params) uint16 {
	if text, _ := params.Get("rport"); text != "" {
		if port, ok := Number(text, 65535); ok {
			return uint16(port)
		}
	}
	if v.Port != 0 {
		return v.Port
	}
	return 5060
}

// secondVia returns what begins with the Via below the topmost.
func (r *Request) secondVia() (string, bool) {
	if rest, found := strings.CutPrefix(r.Via.rest, ","); found {
		return strings.Trim(rest, " \t"), true
	}
	for _, h := range r.headers[r.via:] {
		if h.Name == "Via" {
			return h.Value, true
		}
	}
	return "", false
}

package sip

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/transports/sip/wire"
)

// followRoute does with Route what RFC 3261 §16.4 asks for: values that name us
// have done their work. A strict router's request, which has our URI in the
// place of its target, gets its target back.
//
// What remains leads elsewhere. Where a message goes is for the policies to
// say, so a client may not decide it; a trusted peer's wish is passed over: the
// request is for us, by whatever way the peer would have sent it on.
func (d *Door) followRoute(x *wire.Exchange, peer *Peer) *wire.Reply {
	fields := x.All("Route")
	if fields == nil {
		return nil
	}
	values, ok := wire.List(fields)
	if !ok {
		return bad("Bad Route")
	}
	routes := make([]sip.Uri, len(values))
	for i, value := range values {
		if routes[i], ok = routeURI(value); !ok {
			return bad("Bad Route")
		}
	}
	if n := len(routes); n > 0 && d.names.include(x.URI) && x.URI.User == "" && x.URI.UriParams.Has("lr") {
		x.URI, x.URIText = routes[n-1], routes[n-1].String()
		routes = routes[:n-1]
	}
	for len(routes) > 0 && d.names.include(routes[0]) {
		routes = routes[1:]
	}
	if len(routes) > 0 && peer == nil {
		return &wire.Reply{Status: 403, Phrase: "Route Not Allowed"}
	}
	return nil
}

func routeURI(value string) (sip.Uri, bool) {
	a, ok := wire.ParseNameAddr(value)
	if !ok {
		return sip.Uri{}, false
	}
	u, err := wire.ParseURI(a.URI)
	return u, err == nil
}

// Limits of a path.
const (
	maxPath        = 2048 // octets
	maxPathProxies = 8
)

// pathOf reads the proxies that a registration came through and that want to be
// on the way back (RFC 3327 §5.3): the value for Route, empty if there are none.
// Only a trusted peer may say so: anybody else could have us send through
// whomever he likes. A client doesn't put in a Path itself, so it isn't told
// that its was ignored, but refused.
//
// Whether the client knows the extension (Supported: path) is no matter: it is
// the proxies that make use of it.
func pathOf(x *wire.Exchange, peer *Peer) (string, *wire.Reply) {
	fields := x.All("Path")
	if fields == nil {
		return "", nil
	}
	if peer == nil {
		return "", &wire.Reply{Status: 403, Phrase: "Path Not Allowed"}
	}
	values, ok := wire.List(fields)
	path := strings.Join(values, ", ")
	if !ok || len(values) > maxPathProxies || len(path) > maxPath {
		return "", bad("Bad Path")
	}
	for _, value := range values {
		if u, ok := routeURI(value); !ok || !u.UriParams.Has("lr") {
			return "", bad("Bad Path") // RFC 3327 §4: loose routers only
		}
	}
	return path, nil
}

// way is how to reach a device: the flow on which it registered, and the proxies
// between us.
type way struct {
	flow  wire.Flow
	route string // the value of Route; empty: none
}

// String returns the form that parseWay reads, for a binding.
func (w way) String() string {
	if w.route == "" {
		return w.flow.String()
	}
	return w.flow.String() + " " + w.route
}

// parseWay is the inverse of String.
func parseWay(s string) (way, error) {
	flow, route, _ := strings.Cut(s, " ")
	f, err := wire.ParseFlow(flow)
	return way{f, route}, err
}

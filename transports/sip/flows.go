package sip

import (
	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// flowTimer is how long, in seconds, a client may be silent on its connection
// before it sends a keep-alive (RFC 5626 §4.4): what stands in its way, NATs
// above all, forgets it later than that.
const flowTimer = "120"

// outbound are the fields of a 200 that tell a client that its flows are kept
// apart (RFC 5626 §6): one that knows of them, and comes to us directly, or over
// an edge proxy that does, by the ob in its Path.
func outbound(x *wire.Exchange, r plugin.Registration, path string) []wire.Header {
	if !supports(x, "outbound") || !hasFlow(r) || !firstHopIsOutbound(x, path) {
		return nil
	}
	headers := []wire.Header{{Name: "Require", Value: "outbound"}}
	if path == "" && x.Flow.ID != "" {
		headers = append(headers, wire.Header{Name: "Flow-Timer", Value: flowTimer})
	}
	return headers
}

// hasFlow tells whether a registration has a reg-id.
func hasFlow(r plugin.Registration) bool {
	for _, b := range r.Bindings {
		if b.RegID != "" {
			return true
		}
	}
	return false
}

// firstHopIsOutbound tells whether the client's own flow leads to us, or to a
// proxy that knows what a flow is: the last one in the Path.
func firstHopIsOutbound(x *wire.Exchange, path string) bool {
	if path == "" {
		vias, ok := wire.List(x.All("Via"))
		return ok && len(vias) == 1
	}
	edge, ok := edgeOf(path)
	return ok && edge.UriParams.Has("ob")
}

// edgeOf is the proxy that a client talks to: the last one in the Path.
func edgeOf(path string) (sip.Uri, bool) {
	proxies, ok := wire.List([]string{path})
	if !ok || len(proxies) == 0 {
		return sip.Uri{}, false
	}
	return routeURI(proxies[len(proxies)-1])
}

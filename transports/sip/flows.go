package sip

import (
	"time"

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

// ended notes that a connection is gone, and has the gate told if bindings were
// on it.
func (d *Door) ended(flow wire.Flow) {
	if d.streams.closed(flow) {
		d.lost(flow.String())
	}
}

// lost has the gate told that a flow is gone, so that nothing more is tried over
// it. A node that isn't the active one says nothing: clients leave it to find
// who is, and their bindings are his. Nor is it tried again: whoever finds the
// flow gone when he would send over it says so anew.
func (d *Door) lost(flow string) {
	if d.gate.Active() == nil {
		d.losses.add(flow)
	}
}

func (d *Door) lose(flow string) {
	if err := d.gate.Lost(d.accepting.Context(time.Now()), flow); err != nil {
		d.log.Debug("flow that is gone isn't noted", "error", err)
	}
}

// lostBehind does what lost does for a binding that couldn't be sent to since
// its connection is gone. What leads through a proxy may go over another
// connection of that proxy, and over UDP there is nothing that could be gone.
func (d *Door) lostBehind(b *plugin.Binding, w way) {
	if w.route == "" && w.flow.ID != "" {
		d.lost(b.Flow)
	}
}

// failedBehind does what lost does for a device whose proxy answers that its flow
// has failed (RFC 5626 §5.3.1). One that doesn't name the flow in its URI (§5.2) may
// have others behind the same.
func (d *Door) failedBehind(b *plugin.Binding, w way) {
	edge, ok := edgeOf(w.route)
	if ok && edge.User != "" && edge.UriParams.Has("ob") {
		d.lost(b.Flow)
	}
}

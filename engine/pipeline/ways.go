package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// way is how a plan wants a message to go: to the first of some transports that
// has a way to the recipient, or along the routes that charging named.
type way struct {
	transports []string
	routes     []plugin.Route
	fallback   bool
}

// wayOf is the way that is at work for a message.
func wayOf(e *spool.Entry, fallback bool) way {
	if fallback {
		return way{transports: e.Plan.Fallback.Transports, fallback: true}
	}
	return way{transports: e.Plan.Transports, routes: e.Routes}
}

// exists tells whether any transport of a way is still there.
func (p *Pipeline) exists(way way) bool {
	isThere := func(instance string) bool { _, ok := p.Doors[instance]; return ok }
	return slices.ContainsFunc(way.transports, isThere) ||
		slices.ContainsFunc(way.routes, func(r plugin.Route) bool { return isThere(r.Transport) })
}

// target is one contact or next hop, with the delivery that it belongs to.
type target struct {
	route  plugin.Route
	door   plugin.Transport
	device string
	others []target // the device's other ways, or the next hops that follow, where this one is gone
}

// result is what became of one attempt at one target.
type result struct {
	target
	receipt   plugin.Receipt   // with a failure: of the parts that were taken
	failure   *message.Failure // nil: it was taken
	unreached []string         // the instances that had no way now, before this one and it too
}

// unreachable tells whether nothing was sent, since there was no way now.
func (r *result) unreachable() bool {
	return r.failure != nil && r.failure.Temporary && r.failure.Reason == message.Unavailable && len(r.receipt.Progress) == 0
}

// isOf tells whether a delivery is that of the result's device.
func (r *result) isOf(d *spool.Delivery) bool {
	return r.route.Transport == d.Transport && r.device == d.Device
}

// reason is why the target didn't take the message; empty: it did.
func (r *result) reason() message.Reason {
	if r.failure == nil {
		return ""
	}
	return r.failure.Reason
}

// targets are the ways to the devices that haven't refused the message.
// Contacts that are still silent about an earlier message are left out while
// there are others.
func (p *Pipeline) targets(l *lane, e *spool.Entry, it *item, way way, now time.Time) (_ []target, refusal message.Reason) {
	var targets, silent []target
	for _, route := range p.routes(e, way, now) {
		t := target{route: route, door: p.Doors[route.Transport].Transport, device: deviceOf(route)}
		if t.door == nil {
			continue
		}
		if noted := it.state.of(route.Transport, t.device); noted != nil {
			if noted.Refused != "" {
				refusal = noted.Refused
				continue
			}
			t.route.Progress = noted.Progress
		}
		if p.lanes.silent(l.recipient, t.key()) {
			silent = append(silent, t)
			continue
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		targets = silent
	}
	switch {
	case refusal != "" && len(targets) > 0 && len(way.routes) == 0 && targets[0].route.Binding == nil:
		return nil, refusal // for which the plan has its fallback
	case len(targets) < 2:
	case targets[0].route.Binding == nil:
		targets = inTurn(targets)
	default:
		targets = perDevice(targets)
	}
	return targets, refusal
}

// inTurn makes one target of next hops: each gets its turn where those before it
// can't be reached now. Of charging's routes the next one is tried also when one
// refuses. What has gone to one in part stays with that.
func inTurn(targets []target) []target {
	partly := func(t target) bool { return len(t.route.Progress) > 0 }
	if i := slices.IndexFunc(targets, partly); i >= 0 {
		return targets[i : i+1]
	}
	targets[0].others = targets[1:]
	return targets[:1]
}

// perDevice makes one target of the ways to each device (RFC 5626 §4.2): it gets a
// message once. The newest way comes first. Contacts that don't name their
// device stay apart.
func perDevice(targets []target) []target {
	merged := make([]target, 0, len(targets))
	for _, t := range slices.Backward(targets) {
		i := slices.IndexFunc(merged, func(o target) bool {
			return t.device != "" && o.device == t.device && o.route.Transport == t.route.Transport
		})
		if i < 0 {
			merged = append(merged, t)
			continue
		}
		merged[i].others = append(merged[i].others, t)
	}
	return merged
}

// routes are those that charging named, else those of the first of a way's
// transports that has any; where that one leads outside, of all that do.
func (p *Pipeline) routes(e *spool.Entry, way way, now time.Time) []plugin.Route {
	if len(way.routes) > 0 {
		return way.routes
	}
	bindings := p.Locations.Of(e.Account, now)
	if device := e.Copy.Device; device != "" {
		bindings = slices.DeleteFunc(slices.Clone(bindings), func(b plugin.Binding) bool { return b.Device != device })
	}
	for i, instance := range way.transports {
		door, ok := p.Doors[instance]
		if !ok {
			continue
		}
		if !door.Registrar {
			return p.outside(way.transports[i:])
		}
		if routes := bound(bindings, way.transports); len(routes) > 0 {
			return routes
		}
	}
	return nil
}

// outside are the ways over those of some transports that lead outside.
func (p *Pipeline) outside(transports []string) []plugin.Route {
	routes := make([]plugin.Route, 0, len(transports))
	for _, instance := range transports {
		if door, ok := p.Doors[instance]; ok && !door.Registrar {
			routes = append(routes, plugin.Route{Transport: instance})
		}
	}
	return routes
}

// bound are the ways to the bindings on some transports: all devices are
// alike, whichever of the doors they registered at.
func bound(bindings []plugin.Binding, transports []string) []plugin.Route {
	routes := make([]plugin.Route, 0, len(bindings))
	for i := range bindings {
		if slices.Contains(transports, bindings[i].Transport) {
			routes = append(routes, plugin.Route{Transport: bindings[i].Transport, Binding: &bindings[i]})
		}
	}
	return routes
}

func deviceOf(r plugin.Route) string {
	if r.Binding == nil {
		return r.Address
	}
	return r.Binding.Device
}

// peer is the contact, or the next hop.
func (t target) peer() string {
	if t.route.Binding == nil {
		return t.route.Address
	}
	return t.route.Binding.Contact
}

// key names a target among those of its recipient.
func (t target) key() string {
	return t.route.Transport + "\x00" + t.peer()
}

// reference names a delivery to its peer: the message's own name, which nobody
// can guess and no other has had, which device it is for, and whether that gets
// it by the fallback, which may have another sender.
func (p *Pipeline) reference(id message.ID, transport, device string, fallback bool) string {
	to := transport + "\x00" + device
	if fallback {
		to += "\x00fallback"
	}
	sum := sha256.Sum256([]byte(to))
	var room [64]byte
	text := append(p.names.Append(room[:0], id), '.')
	return string(hex.AppendEncode(text, sum[:4]))
}

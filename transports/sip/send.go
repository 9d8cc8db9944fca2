package sip

import (
	"context"
	"errors"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/translate"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Send makes one attempt to deliver a message to a binding, over the flow on
// which it was registered. A repeat has the same Call-ID, CSeq and From tag, so
// that the device can tell. One that doesn't know envelopes is asked a second time
// at once, with what is in it.
func (d *Door) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	endpoint := d.endpoint.Load()
	if endpoint == nil {
		return plugin.Receipt{}, message.FailForNow(message.Unavailable, "the door isn't open")
	}
	if route.Binding == nil {
		return plugin.Receipt{}, message.Fail(message.Unbuildable, "sip needs a binding to send to")
	}
	response, err := d.ask(ctx, endpoint, m, route, 1)
	var receipt plugin.Receipt
	if err == nil && response.Status == 415 {
		if inner := translate.Unwrapped(m, translate.Accepted(response)); inner != nil {
			receipt.Unwrapped = true
			response, err = d.ask(ctx, endpoint, inner, route, 2)
		}
	}
	if err != nil {
		return receipt, err
	}
	if response.Status >= 300 {
		return receipt, translate.Refusal(response)
	}
	receipt.Final = true
	return receipt, nil
}

// ask sends a message to a binding and returns the final response.
func (d *Door) ask(ctx context.Context, endpoint *wire.Endpoint, m *message.Message, route plugin.Route, cseq uint32) (*wire.Response, error) {
	way, err := parseWay(route.Binding.Flow)
	if err != nil {
		return nil, message.FailForNow(message.Unavailable, "binding: %w", err)
	}
	request, err := d.request(m, route, time.Now())
	if err != nil {
		return nil, message.Fail(message.Unbuildable, "%w", err)
	}
	request.Route, request.CSeq = way.route, cseq
	response, err := d.exchange(ctx, endpoint, route.Binding, way.flow, request)
	if errors.Is(err, wire.ErrNoFlow) {
		d.lostBehind(route.Binding, way)
	}
	if err != nil {
		return nil, translate.Unanswered(err)
	}
	if response.Status == statusFlowFailed {
		d.failedBehind(route.Binding, way)
	}
	return response, nil
}

const statusFlowFailed = 430 // RFC 5626 §11.6

// exchange sends a request on a binding's flow. What leads through a proxy may
// go over any connection of that proxy: none of them is the device's own.
func (d *Door) exchange(ctx context.Context, endpoint *wire.Endpoint, b *plugin.Binding, flow wire.Flow, request wire.Outgoing) (*wire.Response, error) {
	response, err := endpoint.Do(ctx, flow, request)
	switch {
	case errors.Is(err, wire.ErrNeedsStream):
		return d.exchangeLarge(ctx, endpoint, b, flow, request)
	case errors.Is(err, wire.ErrNoFlow) && request.Route != "":
		if other, found := d.streams.through(flow.Remote.Addr()); found && (other.IsSecure() || !isSIPS(request.URI)) {
			return endpoint.Do(ctx, other, request)
		}
	}
	return response, err
}

// isSIPS tells whether a contact may only be reached over a secure flow.
func isSIPS(contact string) bool {
	u, err := wire.ParseURI(contact)
	return err == nil && wire.IsSecure(u)
}

// exchangeLarge sends what is too large for UDP: over a connection of the same
// device, or of its proxy, if there is one; else over UDP after all, up to a
// configured size (RFC 3261 §18.1.1): in fragments, which not every network lets
// through.
func (d *Door) exchangeLarge(ctx context.Context, endpoint *wire.Endpoint, b *plugin.Binding, flow wire.Flow, request wire.Outgoing) (*wire.Response, error) {
	if stream, uri, found := d.streamFor(b, flow, request); found {
		overStream := request
		overStream.URI = uri
		response, err := endpoint.Do(ctx, stream, overStream)
		if !errors.Is(err, wire.ErrNoFlow) {
			return response, err
		}
	}
	request.MaxDatagram = d.config.Limits.UDPMessage
	return endpoint.Do(ctx, flow, request)
}

// streamFor returns a connection that leads to the device of a binding, and its
// contact there.
func (d *Door) streamFor(b *plugin.Binding, flow wire.Flow, request wire.Outgoing) (stream wire.Flow, uri string, found bool) {
	if request.Route != "" {
		stream, found = d.streams.through(flow.Remote.Addr())
		return stream, request.URI, found
	}
	s, found := d.streams.of(b, time.Now())
	return s.flow, wire.RequestURI(s.contact), found
}

var errContact = errors.New("contact is not a SIP URI")

// request is the MESSAGE for a device.
func (d *Door) request(m *message.Message, route plugin.Route, now time.Time) (wire.Outgoing, error) {
	if _, err := wire.ParseURI(route.Binding.Contact); err != nil {
		return wire.Outgoing{}, errContact
	}
	ours := d.config.Domains[0] // of numbers
	return translate.Message(m, translate.Envelope{
		URI: wire.RequestURI(route.Binding.Contact), Reference: route.Reference, FromDomain: ours, ToDomain: ours,
	}, now)
}

package sip

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
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
		if inner := unwrapped(m, accepted(response)); inner != nil {
			receipt.Unwrapped = true
			response, err = d.ask(ctx, endpoint, inner, route, 2)
		}
	}
	if err != nil {
		return receipt, err
	}
	if response.Status >= 300 {
		return receipt, failureOf(response)
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
	if err != nil {
		return nil, undelivered(err)
	}
	return response, nil
}

// exchange sends a request on a binding's flow. What leads through a proxy may
// go over any connection of that proxy: none of them is the device's own.
func (d *Door) exchange(ctx context.Context, endpoint *wire.Endpoint, b *plugin.Binding, flow wire.Flow, request wire.Outgoing) (*wire.Response, error) {
	response, err := endpoint.Do(ctx, flow, request)
	switch {
	case errors.Is(err, wire.ErrNeedsStream):
		return d.exchangeLarge(ctx, endpoint, b, flow, request)
	case errors.Is(err, wire.ErrNoFlow) && request.Route != "":
		if other, found := d.streams.through(flow.Remote.Addr()); found {
			return endpoint.Do(ctx, other, request)
		}
	}
	return response, err
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

// undelivered says what an attempt without a response means. What the system
// says of a destination may pass.
func undelivered(err error) *message.Failure {
	switch {
	case errors.Is(err, wire.ErrUnsafe):
		return message.Fail(message.Unbuildable, "%w", err)
	case errors.Is(err, wire.ErrTooLarge), errors.Is(err, wire.ErrNeedsStream):
		return message.Fail(message.TooLarge, "%w", err)
	case errors.Is(err, wire.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return message.FailForNow(message.NoAnswer, "%w", err)
	default:
		return message.FailForNow(message.Unavailable, "%w", err)
	}
}

var (
	errReference   = errors.New("route has no usable reference")
	errContact     = errors.New("contact is not a SIP URI")
	errContentType = errors.New("content type is not one")
	errAddress     = errors.New("address has no place in a SIP URI")
	errHeader      = errors.New("header field is one that the door writes")
)

// request is the MESSAGE for a device.
func (d *Door) request(m *message.Message, route plugin.Route, now time.Time) (wire.Outgoing, error) {
	var o wire.Outgoing
	if !isReference(route.Reference) {
		return o, errReference
	}
	if _, err := wire.ParseURI(route.Binding.Contact); err != nil {
		return o, errContact
	}
	if !isMediaType(m.ContentType) {
		return o, errContentType
	}
	for _, address := range []message.Address{m.From, m.Recipient} {
		if address.Validate() != nil || address.Host != "" && !wire.IsHost(address.Host) {
			return o, errAddress
		}
	}
	if slices.ContainsFunc(m.Headers, isOurs) {
		return o, errHeader
	}
	return wire.Outgoing{
		Method:      "MESSAGE",
		URI:         wire.RequestURI(route.Binding.Contact),
		From:        d.party(m.DisplayName, m.From, route.Reference),
		To:          d.party("", m.Recipient, ""),
		CallID:      route.Reference,
		MaxForwards: m.Hops,
		Headers:     outgoingHeaders(m, now),
		Body:        m.Body,
	}, nil
}

// isReference tells whether s may be a Call-ID and a tag.
func isReference(s string) bool {
	return s != "" && len(s) <= 64 && wire.IsToken(s)
}

// isOurs tells a field that outgoingHeaders writes itself. What the wire writes,
// the wire refuses.
func isOurs(h message.Header) bool {
	return strings.EqualFold(h.Name, "Content-Type") || strings.EqualFold(h.Name, "Expires")
}

// party writes From or To. A number without a domain gets our first.
func (d *Door) party(display string, a message.Address, tag string) string {
	var uri, value [256]byte
	return string(wire.AppendParty(value[:0], display, wire.AppendURI(uri[:0], a, d.config.Domains[0]), tag))
}

// outgoingHeaders are the fields beyond those that every request has: what
// travels along, when the message was received unless the sender said when it
// was written, how long it is still good for, and the type.
func outgoingHeaders(m *message.Message, now time.Time) []wire.Header {
	headers := make([]wire.Header, 0, len(m.Headers)+3)
	for _, h := range m.Headers {
		headers = append(headers, wire.Header{Name: h.Name, Value: h.Value})
	}
	if !slices.ContainsFunc(m.Headers, func(h message.Header) bool { return strings.EqualFold(h.Name, "Date") }) {
		headers = append(headers, wire.Header{Name: "Date", Value: m.Received.UTC().Format(http.TimeFormat)})
	}
	if m.Expires != nil {
		left := max(0, *m.Expires-now.Sub(m.Received))
		headers = append(headers, wire.Header{Name: "Expires", Value: strconv.FormatInt(int64((left+time.Second-1)/time.Second), 10)})
	}
	return append(headers, wire.Header{Name: "Content-Type", Value: m.ContentType})
}

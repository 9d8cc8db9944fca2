package trunk

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/translate"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Send makes one attempt to hand a message over: to one server after the other,
// until one answers. Route.Address, if it is there, is a next hop in the place of
// the configured one. A repeat has the same Call-ID and From tag, and the same
// CSeq if it is answered in the same way. A server that doesn't know envelopes is
// asked a second time at once, with what is in it.
func (t *Trunk) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	w := t.work.Load()
	if w == nil {
		return plugin.Receipt{}, unavailable(errNotOpen)
	}
	to, err := t.wayOf(m, route)
	if err != nil {
		return plugin.Receipt{}, err
	}
	if to.probed && t.health.down.Load() {
		t.health.missed.Store(true)
		return plugin.Receipt{}, unavailable(errOutOfService)
	}
	response, err := t.offer(ctx, w, m, to, route.Reference, 1)
	if err == nil && response.Status == 415 {
		if inner := translate.Unwrapped(m, translate.Accepted(response)); inner != nil {
			response, err = t.offer(ctx, w, inner, to, route.Reference, 1+maxAsked+1)
			receipt, err := t.receipt(to, w, response, err)
			receipt.Unwrapped = true
			return receipt, err
		}
	}
	return t.receipt(to, w, response, err)
}

// offer sends a message, from that CSeq on, and returns the final response.
func (t *Trunk) offer(ctx context.Context, w *work, m *message.Message, to way, reference string, cseq uint32) (*wire.Response, error) {
	request, err := t.request(m, to, reference, time.Now())
	if err != nil {
		return nil, message.Fail(message.Unbuildable, "%w", err)
	}
	request.CSeq = cseq
	return t.hand(ctx, w, to, request)
}

// receipt says what became of an attempt.
func (t *Trunk) receipt(to way, w *work, response *wire.Response, err error) (plugin.Receipt, error) {
	if err != nil {
		t.metrics.answers["none"].Inc()
		failure := message.AsFailure(err)
		if failure.Reason == message.Unavailable && to.probed {
			t.health.missed.Store(true)
		}
		return plugin.Receipt{}, failure
	}
	t.metrics.answered(response.Status)
	switch {
	case response.Status < 300:
		if to.probed {
			t.health.reached(w.gate)
		}
		return plugin.Receipt{Final: true}, nil
	case t.config.Username != "" && (response.Status == 401 || response.Status == 407):
		t.metrics.refused.Inc()
		t.complaints.of(refusedCredentials, time.Now(), message.Unauthenticated, "username", t.config.Username)
		return plugin.Receipt{}, message.FailForNow(message.Undelivered, "our credentials were answered with %d", response.Status)
	}
	return plugin.Receipt{}, translate.Refusal(response)
}

// way is where a message goes.
type way struct {
	server  sip.Uri // whose servers get it
	request string  // the Request-URI
	domain  string  // of a recipient who is a number
	probed  bool    // the server is the one that is probed
	public  bool    // the sender has chosen the server: it must not lead inside
}

var (
	errNoDomain  = errors.New("the recipient is a number, and there is no next hop")
	errRecipient = errors.New("the recipient has no place in a SIP URI")
)

// wayOf says where a message goes.
func (t *Trunk) wayOf(m *message.Message, route plugin.Route) (way, error) {
	if m.Recipient.Host != "" && !wire.IsHost(m.Recipient.Host) {
		return way{}, message.Fail(message.Unbuildable, "%w", errRecipient)
	}
	var w way
	switch {
	case route.Address != "":
		hop, err := parseAddress(route.Address)
		if err != nil {
			return w, message.Fail(message.Unbuildable, "the route's address: %w", err)
		}
		w.server = hop
	case t.next != nil:
		w.server, w.probed = *t.next, t.config.Probe.Every > 0
	case m.Recipient.Host == "":
		return w, message.Fail(message.UnknownRecipient, "%w", errNoDomain)
	default:
		w.server, w.public = sip.Uri{Scheme: "sip", Host: m.Recipient.Host}, !t.config.PrivateAddresses
	}
	w.domain = t.config.NumberDomain
	authority := w.domain
	if w.domain == "" {
		w.domain = w.server.Host
		authority = hostPort(w.server)
	}
	var room [256]byte
	w.request = string(wire.AppendURI(room[:0], m.Recipient, authority))
	if _, isNumber := message.ParseNumber(m.Recipient.User); isNumber && m.Recipient.Host == "" && t.config.UserPhone {
		w.request += ";user=phone"
	}
	return w, nil
}

// parseAddress reads the next hop of a route: a URI, or host:port.
func parseAddress(s string) (sip.Uri, error) {
	if scheme, _, _ := strings.Cut(s, ":"); strings.EqualFold(scheme, "sip") || strings.EqualFold(scheme, "sips") {
		return parseHop(s)
	}
	return parseHop("sip:" + s)
}

// hostPort is a server as it stands in a URI.
func hostPort(u sip.Uri) string {
	if u.Port == 0 {
		return u.Host
	}
	return u.Host + ":" + strconv.Itoa(u.Port)
}

// request is the MESSAGE for a server.
func (t *Trunk) request(m *message.Message, to way, reference string, now time.Time) (wire.Outgoing, error) {
	request, err := translate.Message(m, translate.Envelope{
		URI: to.request, Reference: reference, FromDomain: t.config.Domain, ToDomain: to.domain,
	}, now)
	if err == nil && t.config.Assert {
		// Not the display name: that is what the sender calls itself.
		var uri, value [256]byte
		identity := wire.AppendParty(value[:0], "", wire.AppendURI(uri[:0], m.From, t.config.Domain), "")
		request.Headers = append(request.Headers, wire.Header{Name: "P-Asserted-Identity", Value: string(identity)})
	}
	return request, err
}

// isInside tells whether an address is of a private network, or of this machine.
func isInside(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || sharedSpace.Contains(a)
}

// sharedSpace is that of providers' networks (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

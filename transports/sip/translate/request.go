package translate

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Errors of messages that SIP can't express.
var (
	errReference   = errors.New("route has no usable reference")
	errContentType = errors.New("content type is not one")
	errAddress     = errors.New("address has no place in a SIP URI")
	errHeader      = errors.New("header field is one that the door writes")
)

// Envelope is what a request has besides the message.
type Envelope struct {
	URI       string // where it goes
	Reference string // Call-ID and From tag: the same for each repeat of a delivery

	// The domains that numbers get which have none.
	FromDomain, ToDomain string
}

// Message is the MESSAGE (RFC 3428) that carries m. An error says why it can't be
// built.
func Message(m *message.Message, e Envelope, now time.Time) (wire.Outgoing, error) {
	if !isReference(e.Reference) {
		return wire.Outgoing{}, errReference
	}
	if !IsMediaType(m.ContentType) {
		return wire.Outgoing{}, errContentType
	}
	for _, address := range []message.Address{m.From, m.Recipient} {
		if address.Validate() != nil || address.Host != "" && !wire.IsHost(address.Host) {
			return wire.Outgoing{}, errAddress
		}
	}
	if slices.ContainsFunc(m.Headers, isOurs) {
		return wire.Outgoing{}, errHeader
	}
	return wire.Outgoing{
		Method:      "MESSAGE",
		URI:         e.URI,
		From:        party(m.DisplayName, m.From, e.FromDomain, e.Reference),
		To:          party("", m.Recipient, e.ToDomain, ""),
		CallID:      e.Reference,
		CSeq:        1,
		MaxForwards: m.Hops,
		Headers:     headers(m, now),
		Body:        m.Body,
	}, nil
}

// isReference tells whether s may be a Call-ID and a tag.
func isReference(s string) bool {
	return s != "" && len(s) <= 64 && wire.IsToken(s)
}

// isOurs tells a field that headers writes itself. What the wire writes, the wire
// refuses.
func isOurs(h message.Header) bool {
	return strings.EqualFold(h.Name, "Content-Type") || strings.EqualFold(h.Name, "Expires")
}

// party writes From or To.
func party(display string, a message.Address, domain, tag string) string {
	var uri, value [256]byte
	return string(wire.AppendParty(value[:0], display, wire.AppendURI(uri[:0], a, domain), tag))
}

// headers are the fields beyond those that every request has: what travels
// along, when the message was received unless the sender said when it was
// written, how long it is still good for, and the type.
func headers(m *message.Message, now time.Time) []wire.Header {
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

// IsMediaType checks type and subtype, and that parameters can be told apart:
// what they say is for who reads the body.
func IsMediaType(s string) bool {
	kind, params, _ := strings.Cut(s, ";")
	main, sub, _ := strings.Cut(strings.TrimRight(kind, " \t"), "/")
	return wire.IsToken(main) && wire.IsToken(sub) && wire.Params(params).Valid() && utf8.ValidString(params)
}

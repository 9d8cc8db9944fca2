package sip

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// message takes a MESSAGE in. It runs on the worker of its source up to Submit,
// so that messages are submitted in the order in which they came.
func (d *Door) message(ctx context.Context, x *wire.Exchange, o *origin) {
	if x.MaxForwards == 0 {
		d.refuse(x, message.Fail(message.TooManyHops, "Max-Forwards is 0"))
		return
	}
	now := time.Now()
	who, ok := d.identify(ctx, x, o, now)
	if !ok {
		return
	}
	if !d.begin(x) {
		who.mayRepeat(x)
		return
	}
	if refusal := contentRefusal(x); refusal != nil {
		d.answer(x, *refusal)
		return
	}
	body, refusal := bodyOf(x, d.config.Limits.Body)
	if refusal != nil {
		d.answer(x, *refusal)
		return
	}
	m, failure := d.read(x, body, who, now)
	if failure != nil {
		d.refuse(x, failure)
		return
	}
	m.Trace = traceOf(x, o.peer)
	ticket := d.gate.Submit(plugin.Arrival{Message: m, Account: who.account, Key: submissionKey(x, who.name), Call: x.CallID})
	p := who.proof
	d.waiters.run(func() {
		defer x.Recover()
		d.answerMessage(ctx, x, p, ticket)
	})
}

// identify finds out who brings a message: whose credentials it has, or a peer
// that vouches for its sender. If it returns false it has answered.
func (d *Door) identify(ctx context.Context, x *wire.Exchange, o *origin, now time.Time) (identity, bool) {
	digest, found := d.credentials(x)
	if found || !o.peer.vouches() {
		return d.authenticate(ctx, x, o, digest, found, now)
	}
	from, err := identityOf(x)
	if err != nil {
		d.refuse(x, message.Fail(message.Malformed, "sender: %w", err))
		return identity{}, false
	}
	x.Keep()
	d.rates.excuse(o)
	return identity{account: o.peer.account(&from), from: &from, proof: proof{name: "peer " + o.peer.Name}}, true
}

// answerMessage waits until the message is ours, and if the plan says so for
// what becomes of it: 200 when a device has it, 202 when it is kept.
func (d *Door) answerMessage(ctx context.Context, x *wire.Exchange, p proof, ticket plugin.Ticket) {
	answer, err := ticket.Accepted(d.accepting.Context(time.Now()))
	if err != nil {
		failure := message.AsFailure(err)
		if failure.Temporary {
			p.mayRepeat(x)
		}
		if errors.Is(err, plugin.ErrUnknown) {
			x.Abandon() // it may have been kept: the client repeats it, and is told then
			return
		}
		d.refuseMessage(x, failure)
		return
	}
	if answer.Within == 0 {
		d.answer(x, wire.Reply{Status: 202})
		return
	}
	waiting, cancel := context.WithTimeout(ctx, answer.Within)
	defer cancel()
	switch outcome := ticket.First(waiting); outcome.State {
	case plugin.OutcomeDelivered:
		d.answer(x, wire.Reply{Status: 200})
	case plugin.OutcomeFailed:
		d.refuse(x, message.AsFailure(outcome.Failure))
	default:
		d.answer(x, wire.Reply{Status: 202})
	}
}

// refuseMessage answers a message that isn't taken. That nobody has an address
// of another domain only says that no service leads there.
func (d *Door) refuseMessage(x *wire.Exchange, failure *message.Failure) {
	elsewhere := x.URI.Host != "" && !d.names.include(x.URI) // a number alone is nowhere
	if failure.Reason == message.UnknownRecipient && !failure.Temporary && elsewhere {
		d.metrics.refused[failure.Reason].Inc()
		d.answer(x, wire.Reply{Status: 403, Phrase: "Relaying Denied"})
		return
	}
	d.refuse(x, failure)
}

// read makes a message of the request.
func (d *Door) read(x *wire.Exchange, body []byte, who identity, now time.Time) (*message.Message, *message.Failure) {
	m := &message.Message{
		Received:    now,
		DisplayName: who.displayName(x),
		ContentType: x.Get("Content-Type"),
		Body:        body,
		Headers:     headersOf(x, now),
		Hops:        x.MaxForwards - 1,
		Transport:   d.instance,
		Peer:        x.Flow.Remote.Addr().String(),
	}
	var err error
	if m.From, err = who.sender(x); err != nil || !who.account.Owns(m.From) {
		return nil, message.Fail(message.Forbidden, "From is not one of the account's identities")
	}
	if failure := d.checkEnvelope(m, who); failure != nil {
		return nil, failure
	}
	if m.Recipient, err = wire.Address(x.URI); err != nil {
		return nil, message.Fail(message.Malformed, "Request-URI: %w", err)
	}
	if m.ContentType == "" {
		m.ContentType = "text/plain"
	}
	seconds, found, ok := x.Expires()
	if !ok {
		return nil, message.Fail(message.Malformed, "Expires is not a number of seconds")
	}
	if found {
		expires := time.Duration(seconds) * time.Second
		m.Expires = &expires
	}
	return m, nil
}

// checkEnvelope wants a message/cpim to be from its sender: From in there is whom
// clients show, so it is as little for anybody to choose as the request's, if it
// is a number or in a domain of ours. Who is elsewhere isn't ours to know, nor do
// we check whom a peer vouches for. What we can't read a client perhaps can, so it
// is refused.
func (d *Door) checkEnvelope(m *message.Message, who identity) *message.Failure {
	if who.from != nil || content.MediaType(m.ContentType) != content.TypeCPIM {
		return nil
	}
	c, err := content.ParseCPIM(m.Body)
	if err != nil {
		return message.Fail(message.Malformed, "message/cpim: %w", err)
	}
	uri := c.From.URI
	if scheme, rest, _ := strings.Cut(uri, ":"); strings.EqualFold(scheme, "im") { // RFC 3860
		uri = "sip:" + rest
	}
	from, err := wire.Identity(uri)
	isOurs := err == nil && (from.Host == "" || d.names.hasDomain(from.Host))
	if isOurs && !who.account.Owns(from) {
		return message.Fail(message.Forbidden, "From of the message/cpim is not one of the account's identities")
	}
	return nil
}

func sender(x *wire.Exchange) (message.Address, error) {
	u, err := wire.ParseURI(x.From.URI)
	if err != nil {
		return message.Address{}, err
	}
	return wire.Address(u)
}

// submissionKey is the same when a client repeats itself, through whatever
// transaction, and differs when it says something new.
func submissionKey(x *wire.Exchange, who string) string {
	h := sha256.New()
	b := make([]byte, 0, 512)
	for _, field := range []string{who, x.CallID, x.FromTag, x.URIText} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	b = binary.BigEndian.AppendUint32(b, x.CSeq)
	h.Write(b)
	h.Write(x.Body)
	return base64.RawURLEncoding.EncodeToString(h.Sum(b[:0])[:18])
}

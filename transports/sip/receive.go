package sip

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// clockSkew is how far off a sender's Date may be to be believed.
const clockSkew = 5 * time.Minute

// carried are the header fields that travel along (RFC 3428 §8 names most).
var carried = []string{"Subject", "Content-Language", "Content-Disposition", "Content-Encoding", "In-Reply-To", "Date"}

// message takes a MESSAGE in. It runs on the worker of its source up to Submit,
// so that messages are submitted in the order in which they came.
func (d *Door) message(ctx context.Context, x *wire.Exchange) {
	if x.MaxForwards == 0 {
		d.refuse(x, message.Fail(message.TooManyHops, "Max-Forwards is 0"))
		return
	}
	now := time.Now()
	account, ok := d.authenticate(ctx, x, now)
	if !ok || !d.begin(x) {
		return
	}
	m, failure := d.read(x, account, now)
	if failure != nil {
		d.refuse(x, failure)
		return
	}
	ticket := d.gate.Submit(plugin.Arrival{Message: m, Account: account, Key: submissionKey(x, account.ID)})
	d.waiters.run(func() {
		defer x.Recover()
		d.answerMessage(ctx, x, ticket)
	})
}

// answerMessage waits until the message is ours, and if the plan says so for
// what becomes of it: 200 when a device has it, 202 when it is kept.
func (d *Door) answerMessage(ctx context.Context, x *wire.Exchange, ticket plugin.Ticket) {
	answer, err := ticket.Accepted(d.accepting.Context(time.Now()))
	if err != nil {
		if ctx.Err() != nil {
			x.Abandon() // we are closing, and don't know
			return
		}
		d.refuse(x, message.AsFailure(err))
		return
	}
	if answer.Within == 0 {
		x.Answer(wire.Reply{Status: 202})
		return
	}
	waiting, cancel := context.WithTimeout(ctx, answer.Within)
	defer cancel()
	switch outcome := ticket.First(waiting); outcome.State {
	case plugin.OutcomeDelivered:
		x.Answer(wire.Reply{Status: 200})
	case plugin.OutcomeFailed:
		d.refuse(x, message.AsFailure(outcome.Failure))
	default:
		x.Answer(wire.Reply{Status: 202})
	}
}

// read makes a message of the request.
func (d *Door) read(x *wire.Exchange, account plugin.Account, now time.Time) (*message.Message, *message.Failure) {
	m := &message.Message{
		Received:    now,
		DisplayName: x.From.Display,
		ContentType: x.Get("Content-Type"),
		Body:        x.Body,
		Headers:     headersOf(x, now),
		Hops:        x.MaxForwards - 1,
		Transport:   d.instance,
		Peer:        x.Flow.Remote.Addr().String(),
	}
	var err error
	if m.From, err = sender(x); err != nil || !account.Owns(m.From) {
		return nil, message.Fail(message.Forbidden, "From is not one of the account's identities")
	}
	if m.Recipient, err = wire.Address(x.URI); err != nil {
		return nil, message.Fail(message.Malformed, "Request-URI: %w", err)
	}
	if m.ContentType == "" {
		m.ContentType = "text/plain"
	}
	if !isMediaType(m.ContentType) {
		return nil, message.Fail(message.Malformed, "Content-Type is not one")
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

func sender(x *wire.Exchange) (message.Address, error) {
	u, err := wire.ParseURI(x.From.URI)
	if err != nil {
		return message.Address{}, err
	}
	return wire.Address(u)
}

// isMediaType checks type and subtype; parameters are for who reads the body.
func isMediaType(s string) bool {
	s, _, _ = strings.Cut(s, ";")
	main, sub, _ := strings.Cut(strings.TrimRight(s, " \t"), "/")
	return wire.IsToken(main) && wire.IsToken(sub)
}

// headersOf returns what travels along: a Date only if it is about now.
func headersOf(x *wire.Exchange, now time.Time) []message.Header {
	var headers []message.Header
	for _, h := range x.Headers() {
		i := slices.IndexFunc(carried, func(name string) bool { return strings.EqualFold(name, h.Name) })
		if i < 0 || h.Value == "" || carried[i] == "Date" && !isAbout(h.Value, now) {
			continue
		}
		headers = append(headers, message.Header{Name: carried[i], Value: h.Value})
	}
	return headers
}

func isAbout(date string, now time.Time) bool {
	t, err := time.Parse(http.TimeFormat, date)
	return err == nil && t.Sub(now).Abs() <= clockSkew
}

// submissionKey is the same when a client repeats itself, through whatever
// transaction, and differs when it says something new.
func submissionKey(x *wire.Exchange, account string) string {
	h := sha256.New()
	b := make([]byte, 0, 512)
	for _, field := range []string{account, x.CallID, x.FromTag, x.URIText} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	b = binary.BigEndian.AppendUint32(b, x.CSeq)
	h.Write(b)
	h.Write(x.Body)
	return base64.RawURLEncoding.EncodeToString(h.Sum(b[:0])[:18])
}

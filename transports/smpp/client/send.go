package client

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"slices"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// spare is how much of an attempt's time is left when Send stops trying what the
// SMSC throttles.
const spare = 2 * time.Second

// maxRetry is the longest hint when to try again: by then the SMSC may take more.
const maxRetry = 30 * time.Second

// Send hands a message to the SMSC over one of the binds, in as many PDUs as it
// needs. The parts go one after the other, each when the one before it was
// taken: so no throttling lets one overtake another, and what was taken of a
// message is always its first so many parts. Windows are for different messages.
func (c *Client) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	d := delivery{client: c, mark: marking(route.Reference), reference: route.Reference, unwraps: translate.Unwraps(m)}
	if !d.change() {
		return plugin.Receipt{Progress: route.Progress}, message.FailForNow(message.Unavailable, "no bind that can send is up")
	}
	defer d.leave()
	if c.waiting.Add(1) > int64(c.config.Queue) {
		c.waiting.Add(-1)
		return plugin.Receipt{Progress: route.Progress}, overloaded(firstPause, "as many messages wait as may")
	}
	defer c.waiting.Add(-1)
	parts, err := c.config.Dialect.Outgoing(m, route, pdu.SubmitSMID)
	if err != nil {
		return plugin.Receipt{}, message.AsFailure(err)
	}
	c.name(parts, d.mark)
	d.parts, d.taken = parts, takenOf(route.Progress, parts)
	for d.taken < len(parts) {
		if failure := d.submit(ctx); failure != nil {
			return d.incomplete(), failure
		}
	}
	return plugin.Receipt{PeerIDs: d.ids, Unwrapped: d.unwraps}, nil
}

// name gives the parts the reference of their delivery, by which the SMSC could
// know a repeat (SMPP 3.4 §5.3.2.17). SMPP 3.3 has no place for it.
func (c *Client) name(parts []translate.Outgoing, mark uint16) {
	if c.config.Dialect.Version < translate.Version34 {
		return
	}
	for i := range parts {
		parts[i].TLVs = append(slices.Clip(parts[i].TLVs), wire.Uint16(pdutlv.TagUserMessageReference, mark))
	}
}

// marking is a delivery's user_message_reference.
func marking(reference string) uint16 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, reference) // a hash has no errors
	sum := h.Sum32()
	return uint16(sum>>16) ^ uint16(sum)
}

func overloaded(after time.Duration, why string) *message.Failure {
	return &message.Failure{Reason: message.Overloaded, Temporary: true, RetryAfter: after, Err: errors.New(why)}
}

// delivery is one attempt to hand a message over.
type delivery struct {
	client    *Client
	mark      uint16 // its user_message_reference
	reference string
	unwraps   bool // what is in an envelope goes without it
	bind      *bind
	watched   bool // on this bind
	parts     []translate.Outgoing
	taken     int      // parts that the SMSC has, of attempts before too
	ids       []string // of those that it took in this attempt and will report
}

// incomplete says how far it came.
func (d *delivery) incomplete() plugin.Receipt {
	receipt := plugin.Receipt{Unwrapped: d.unwraps}
	if d.taken > 0 {
		receipt.PeerIDs, receipt.Progress = d.ids, progress(d.taken, d.parts)
	}
	return receipt
}

// submit sends the next part until the SMSC says anything but that it comes too
// fast. Then it is in nobody's way: other messages have their turns meanwhile.
func (d *delivery) submit(ctx context.Context) *message.Failure {
	c, part := d.client, &d.parts[d.taken]
	for {
		if turn, ok := c.pace.wait(ctx, spare); !ok {
			return overloaded(min(max(turn, firstPause), maxRetry), "the SMSC wants less than there is")
		}
		sent := time.Now()
		response, failure := d.exchange(ctx, part)
		if failure != nil {
			return failure
		}
		failure = c.config.Errors.FailureOf(response.Status)
		if failure == nil {
			d.took(part, response)
			return nil
		}
		if failure.Reason != message.Overloaded || !failure.Temporary {
			c.metrics.submitted[answerOf(failure)].Inc()
			return failure
		}
		c.metrics.submitted[answerThrottled].Inc()
		c.pace.throttled(sent, time.Now())
	}
}

func answerOf(failure *message.Failure) string {
	if failure.Temporary {
		return answerTemporary
	}
	return answerPermanent
}

// exchange sends a part. If its bind ends before that, or is none in the eyes of
// the SMSC, another one serves: the parts of a message needn't come on one.
func (d *delivery) exchange(ctx context.Context, part *translate.Outgoing) (wire.Packet, *message.Failure) {
	for {
		began := time.Now()
		response, err := d.bind.session.Do(ctx, &part.Short, part.TLVs)
		switch {
		case err == nil && response.Status == wire.RInvBndSts:
			err = errDisowned
			d.bind.disown()
		case err == nil:
			d.client.metrics.responses.Observe(time.Since(began))
			return response, nil
		case !errors.Is(err, wire.ErrUnsent):
			return response, d.unanswered(err)
		}
		if ctx.Err() != nil || !d.change() {
			return response, message.FailForNow(message.Unavailable, "%w", err)
		}
	}
}

// change takes another bind, if there is one, which is left in the end.
func (d *delivery) change() bool {
	other := d.client.binds.take(d.bind)
	if other == nil {
		return false
	}
	if d.bind != nil {
		d.leave()
	}
	d.bind = other
	if d.watched = d.client.watched.Watched(); d.watched {
		other.threads.Begin(d.mark, d.reference)
	}
	return true
}

func (d *delivery) leave() {
	if d.watched {
		d.bind.threads.End(d.mark)
	}
	d.client.binds.leave(d.bind)
}

// unanswered says what it means that there is no response to a part that was
// sent, or couldn't be written.
func (d *delivery) unanswered(err error) *message.Failure {
	if _, ok := errors.AsType[*wire.Error](err); ok {
		return message.Fail(message.Unbuildable, "%w", err)
	}
	d.client.metrics.submitted[answerNone].Inc()
	return message.FailForNow(message.NoAnswer, "%w", err)
}

// receiptAsked are the bits of registered_delivery that ask for a delivery
// receipt (SMPP 3.4 §5.2.17).
const receiptAsked = 0x03

// took notes that the SMSC has the part.
func (d *delivery) took(part *translate.Outgoing, response wire.Packet) {
	d.taken++
	d.client.pace.taken(time.Now())
	d.client.metrics.submitted[answerTaken].Inc()
	if part.Short.RegisteredDelivery&receiptAsked == 0 {
		return
	}
	body, ok := response.Body.(*wire.ShortResp)
	if !ok {
		return
	}
	if id := d.client.config.Dialect.NormalID(body.MessageID); id != "" { // some have nothing but spaces
		d.ids = append(d.ids, id)
	}
}

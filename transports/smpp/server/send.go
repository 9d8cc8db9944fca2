package server

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// slowFor is how long an ESME is left alone that says there is too much for it.
const slowFor = time.Second

// queueWindows is how many windows of messages may wait for a session's own. Who
// reads more slowly than that has its messages wait in the spool.
const queueWindows = 4

// Send makes one attempt to deliver a message to an ESME: with deliver_sm, over
// one of the sessions of the binding's account. Its ESME_ROK is final.
func (d *Door) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	if route.Binding == nil {
		return plugin.Receipt{}, message.Fail(message.Unbuildable, "smpp-server needs a binding to send to")
	}
	for {
		s := d.pick(route.Binding.Account, m)
		if s == nil {
			d.knock(route.Binding, time.Now())
			return plugin.Receipt{Progress: route.Progress}, message.FailForNow(message.Unavailable, "the ESME has no session that takes this number")
		}
		receipt, err := s.send(ctx, m, route)
		s.sending.Add(-1)
		if !errors.Is(err, errLeft) || ctx.Err() != nil {
			receipt.Unwrapped = translate.Unwraps(m)
			return receipt, err
		}
		route.Progress = receipt.Progress
	}
}

// pick returns the session for a message. A receipt goes to another one where none
// serves the number that its message was from: whoever submits needn't get
// messages under that number, nor be called by one.
func (d *Door) pick(account string, m *message.Message) *session {
	s := d.table.pick(account, m.Recipient.User)
	if s == nil && m.Receipt != nil {
		s = d.table.pick(account, anyDestination)
	}
	return s
}

// errLeft is the cause of a failure when nothing was sent, since the session ends.
// No other attempt picks that session.
var errLeft = errors.New("the session ends")

// send sends a message over a session, part by part.
func (s *session) send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	b := s.bind.Load()
	if s.sending.Load() > int64(1+queueWindows)*int64(b.terms.window) {
		return plugin.Receipt{Progress: route.Progress}, message.FailForNow(message.Overloaded, "the ESME reads too slowly")
	}
	parts, err := b.dialect.Outgoing(m, route, pdu.DeliverSMID)
	if err != nil {
		return plugin.Receipt{}, err
	}
	mark := marking(route.Reference)
	if s.door.watched.Watched() {
		s.threads.Begin(mark, route.Reference)
		defer s.threads.End(mark)
	}
	taken := readProgress(route.Progress, len(parts))
	for i := range parts {
		if taken.has(i) {
			continue
		}
		if b.version >= translate.Version34 && m.Receipt == nil { // a receipt would have its message's (SMPP 3.4 §5.3.2.17)
			parts[i].TLVs = append(parts[i].TLVs, wire.Uint16(pdutlv.TagUserMessageReference, mark))
		}
		if failure := s.deliver(ctx, &parts[i]); failure != nil {
			return taken.receipt(), failure
		}
		taken.add(i)
	}
	return plugin.Receipt{Final: true}, nil
}

// marking is what an ESME may know a repeat of a delivery by, in
// user_message_reference (SMPP 3.4 §5.3.2.17).
func marking(reference string) uint16 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, reference) // a hash has no errors
	sum := h.Sum32()
	return uint16(sum>>16) ^ uint16(sum)
}

// deliver sends one PDU and reads what the ESME says.
func (s *session) deliver(ctx context.Context, part *translate.Outgoing) *message.Failure {
	began := time.Now()
	response, err := s.wire.Do(ctx, &part.Short, part.TLVs)
	failure := s.failureOf(response, err)
	if failure == nil || failure.Reason != message.Unavailable {
		s.door.metrics.sent(failure, time.Since(began))
	}
	return failure
}

func (s *session) failureOf(response wire.Packet, err error) *message.Failure {
	switch {
	case err == nil:
		failure := s.door.config.Errors.FailureOf(response.Status)
		if failure != nil && failure.Reason == message.Overloaded {
			s.wire.Slow(slowFor)
		}
		return failure
	case errors.Is(err, wire.ErrNoAnswer):
		return message.FailForNow(message.NoAnswer, "%w", err)
	case errors.Is(err, wire.ErrUnsent) && s.isLeaving():
		return message.FailForNow(message.Unavailable, "%w: %w", errLeft, err)
	case errors.Is(err, wire.ErrUnsent):
		return message.FailForNow(message.Unavailable, "%w", err)
	}
	return message.Fail(message.Unbuildable, "%w", err)
}

func (s *session) isLeaving() bool {
	select {
	case <-s.wire.Done():
		return true
	default:
		return false
	}
}

// progress is which parts of a message an ESME has: a bit for each, after an octet
// with the number of parts. That many fit in plugin.Route's.
type progress []byte

// readProgress reads what an attempt before has returned. Of another number of
// parts than there are now nothing can be used: another session cuts differently.
func readProgress(b []byte, parts int) progress {
	p := make(progress, 1+(parts+7)/8)
	if len(b) == len(p) && int(b[0]) == parts%256 {
		copy(p, b)
	}
	p[0] = byte(parts)
	return p
}

func (p progress) has(part int) bool { return p[1+part/8]&(1<<(part%8)) != 0 }

func (p progress) add(part int) { p[1+part/8] |= 1 << (part % 8) }

// receipt says what was taken of a message that wasn't taken as a whole; nothing
// if no part was.
func (p progress) receipt() plugin.Receipt {
	for _, octet := range p[1:] {
		if octet != 0 {
			return plugin.Receipt{Progress: p}
		}
	}
	return plugin.Receipt{}
}

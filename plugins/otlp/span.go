package otlp

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// maxValue bounds each text in a span, in octets.
const maxValue = 256

// builder makes the spans that are complete with a step. What it makes holds
// nothing of the step: texts are copied.
type builder struct {
	step      *plugin.Step
	origin    origin
	addresses bool
}

// endsRoot tells whether the root span is complete. That depends on the step
// and the message alone, so that it is exported once.
func (b *builder) endsRoot() bool {
	notice := b.step.Message.Class == message.Composing
	switch b.step.Name {
	case plugin.StepRefused, plugin.StepDiscarded:
		return true
	case plugin.StepStored:
		return !notice
	case plugin.StepDelivered, plugin.StepHandedOver, plugin.StepFailed:
		return notice
	}
	return false
}

// root is the span that all others hang below.
func (b *builder) root() *tracepb.Span {
	m := b.step.Message
	span := b.span("message", b.origin.root, b.origin.parent, m.Received)
	span.Kind = tracepb.Span_SPAN_KIND_SERVER
	span.Attributes = append(span.Attributes,
		textOf("imgate.message.public_id", m.PublicID),
		textOf("imgate.message.class", m.Class.String()),
		numberOf("imgate.message.size", len(m.Body)),
		textOf("imgate.transport", m.Transport),
		textOf("imgate.from", b.address(m.From)),
		textOf("imgate.recipient", b.address(m.Recipient)),
		textOf("imgate.outcome", string(b.step.Name)),
	)
	if b.origin.continued() {
		span.Flags |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	return span
}

// child is the span of the step itself; nil: it has none.
func (b *builder) child() *tracepb.Span {
	s := b.step
	switch s.Name {
	case plugin.StepReceived, plugin.StepRefused, plugin.StepDiscarded:
		return nil // the root's beginning, and its end
	case plugin.StepDecided:
		return b.below("policy", s.Began, textOf("imgate.service", s.Service))
	case plugin.StepAuthorized:
		return b.below("authorize", s.Began)
	case plugin.StepStored:
		return b.below("store", s.Began)
	case plugin.StepAttempted:
		span := b.below("attempt", s.Began, numberOf("imgate.attempt", s.Attempt),
			textOf("imgate.transport", s.Transport), textOf("imgate.peer", b.peer()))
		span.Kind = tracepb.Span_SPAN_KIND_CLIENT
		return span
	case plugin.StepDelivered, plugin.StepHandedOver, plugin.StepFailed:
		return b.below("delivery", s.Message.Received, textOf("imgate.outcome", string(s.Name)), textOf("imgate.transport", s.Transport))
	}
	return b.moment()
}

// moment is an empty span that bears an event.
func (b *builder) moment() *tracepb.Span {
	span := b.below(string(b.step.Name), b.step.Ended)
	span.Events = []*tracepb.Span_Event{{
		TimeUnixNano: nanos(b.step.Ended),
		Name:         span.Name,
		Attributes:   []*commonpb.KeyValue{textOf("imgate.reason", string(b.step.Reason))},
	}}
	return span
}

func (b *builder) below(name string, began time.Time, attributes ...*commonpb.KeyValue) *tracepb.Span {
	var id spanID
	for id == (spanID{}) {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	span := b.span(name, id, b.origin.root, began)
	span.Attributes = append(span.Attributes, attributes...)
	return span
}

// span is what all spans have. It ends when the step did.
func (b *builder) span(name string, id, parent spanID, began time.Time) *tracepb.Span {
	if began.IsZero() || began.After(b.step.Ended) {
		began = b.step.Ended
	}
	span := &tracepb.Span{
		TraceId: b.origin.trace[:], SpanId: id[:],
		Flags: sampledFlag | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK),
		Name:  strings.Clone(name), Kind: tracepb.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: nanos(began), EndTimeUnixNano: nanos(b.step.Ended),
		Attributes: []*commonpb.KeyValue{textOf("imgate.message.id", b.step.Message.ID.String())},
	}
	if parent != (spanID{}) {
		span.ParentSpanId = parent[:]
	}
	if b.failed() {
		reason := string(b.step.Reason)
		span.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: bounded(reason)}
		span.Attributes = append(span.Attributes, textOf("error.type", reason))
	}
	return span
}

// failed tells errors from what is only late.
func (b *builder) failed() bool {
	switch b.step.Name {
	case plugin.StepRefused, plugin.StepFailed, plugin.StepQuarantined:
		return true
	case plugin.StepAttempted:
		return b.step.Reason != ""
	}
	return false
}

// address is as much of an address as may be exported.
func (b *builder) address(a message.Address) string {
	if b.addresses {
		return a.String()
	}
	return a.Host
}

// peer is a contact or next hop without whose it is.
func (b *builder) peer() string {
	if b.addresses {
		return b.step.Peer
	}
	scheme, rest, ok := strings.Cut(b.step.Peer, ":")
	if i := strings.LastIndexByte(rest, '@'); ok && i >= 0 {
		return scheme + ":" + rest[i+1:]
	}
	return b.step.Peer[strings.LastIndexByte(b.step.Peer, '@')+1:]
}

func nanos(t time.Time) uint64 { return uint64(max(0, t.UnixNano())) }

// textOf copies the value: it may be a part of something large.
func textOf(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: bounded(value)}}}
}

// bounded is a copy in UTF-8, without which protobuf refuses it.
func bounded(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxValue)], "?"))
}

func numberOf(key string, value int) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: int64(value)}}}
}

package translate

import (
	"encoding/hex"
	"errors"
	"hash/fnv"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// How messages that came in as SMS look inside the gateway.
const (
	typeText   = "text/plain;charset=utf-8"
	typeBinary = "application/octet-stream"

	headerDataCoding = "SMPP-Data-Coding" // of what isn't text: in decimal
	headerUDH        = "SMPP-UDH"         // information elements: in hexadecimal
	headerESMClass   = "SMPP-ESM-Class"   // in decimal, unless 0
)

// accepted are the types that can be sent, for who sends others.
var accepted = []string{content.TypePlain, content.TypeCPIM}

// shortestLife is the validity of what must go at once: long enough for a phone
// that can be reached.
const shortestLife = time.Minute

// Outgoing is the body of one PDU.
type Outgoing struct {
	Short wire.Short
	TLVs  wire.TLVs
}

// Outgoing writes a message as submit_sm, data_sm or deliver_sm, one for each
// part: at most 255. The same message over the same route is written alike each
// time, but for what is left of its life, so that after an attempt that ended in
// the middle the rest can follow. Errors are *message.Failure, all of them final:
// UnsupportedType (also: none of the alphabets has all characters),
// UnknownRecipient, Forbidden (there is no source address), TooLarge,
// Unbuildable.
func (d *Dialect) Outgoing(m *message.Message, r plugin.Route, of pdu.ID) ([]Outgoing, error) {
	return d.outgoing(m, r, of, time.Now())
}

func (d *Dialect) outgoing(m *message.Message, r plugin.Route, of pdu.ID, now time.Time) ([]Outgoing, error) {
	if m.Receipt != nil {
		return d.outgoingReceipt(m, of)
	}
	envelope, failure := d.envelope(m, r, of, now)
	if failure != nil {
		return nil, failure
	}
	segments, failure := d.segments(m, r)
	if failure != nil {
		return nil, failure
	}
	parts := make([]Outgoing, len(segments))
	for i := range segments {
		parts[i] = envelope.with(&segments[i])
	}
	return parts, nil
}

// envelope is what all parts have in common.
func (d *Dialect) envelope(m *message.Message, r plugin.Route, of pdu.ID, now time.Time) (Outgoing, *message.Failure) {
	destination, failure := d.destination(m, of)
	if failure != nil {
		return Outgoing{}, failure
	}
	source, failure := d.source(m, of)
	if failure != nil {
		return Outgoing{}, failure
	}
	o := Outgoing{Short: wire.Short{
		Of: of, ServiceType: d.ServiceType, Source: source, Destination: destination,
		ESMClass: esmClassOf(m),
	}}
	switch of {
	case pdu.SubmitSMID:
		o.Short.RegisteredDelivery = d.registeredDelivery(m)
		o.Short.ValidityPeriod = d.validity(r.Until, now)
	case pdu.DataSMID:
		o.Short.RegisteredDelivery = d.registeredDelivery(m)
		if d.Validity != ValidityNone {
			o.TLVs = wire.TLVs{wire.Uint32(pdutlv.TagQosTimeToLive, uint32(left(r.Until, now)/time.Second))}
		}
	}
	return o, nil
}

// registeredDelivery asks for receipts (SMPP 3.4 §5.2.17). Where those of failures
// would do, a sender who wants to be told of the delivery has it asked for as well.
// SMPP 3.3 doesn't know those of failures alone.
func (d *Dialect) registeredDelivery(m *message.Message) uint8 {
	switch {
	case d.Receipts == ReceiptsFailure && m.Report&message.ReportDelivery == 0 && !d.is33():
		return receiptFailure
	case d.Receipts == ReceiptsFailure, d.Receipts == ReceiptsFinal:
		return receiptFinal
	}
	return 0
}

// registered_delivery (SMPP 3.4 §5.2.17, 5.0 §4.7.21). Its other bits ask for
// acknowledgements of phones, and for notifications that a message is on its way,
// which aren't given.
const (
	receiptFinal   = 1
	receiptFailure = 2
	receiptAsked   = 3
)

// reports are what an ESME wants to be told, by registered_delivery: 3 is SMPP
// 5.0's for success alone.
var reports = [...]message.Report{
	message.ReportNothing, receiptFinal: message.ReportEnd, receiptFailure: message.ReportFailure, 3: message.ReportDelivery,
}

// is33 tells whether the peer speaks SMPP 3.3, which has no TLVs.
func (d *Dialect) is33() bool { return d.Version != 0 && d.Version < Version34 }

// validity says when a message's life ends.
func (d *Dialect) validity(until, now time.Time) string {
	switch d.Validity {
	case ValidityRelative:
		return text.FormatRelative(left(until, now))
	case ValidityAbsolute:
		return text.FormatAbsolute(now.Add(left(until, now)))
	}
	return ""
}

// left is what is left of a message's life.
func left(until, now time.Time) time.Duration {
	if until.IsZero() {
		return shortestLife
	}
	return max(until.Sub(now), time.Second)
}

// segments writes what is in a message.
func (d *Dialect) segments(m *message.Message, r plugin.Route) ([]text.Segment, *message.Failure) {
	options, failure := d.options(m, r)
	if failure != nil {
		return nil, failure
	}
	if words, ok := content.Text(m.ContentType, m.Body); ok {
		segments, err := text.Encode(words, options)
		return segments, unwritable(err)
	}
	if strings.ContainsAny(m.ContentType, "\r\n") {
		return nil, message.Fail(message.Unbuildable, "the content type is more than a line")
	}
	coding, err := strconv.ParseUint(headerOf(m, headerDataCoding), 10, 8)
	if content.MediaType(m.ContentType) != typeBinary || err != nil || !text.IsBinary(uint8(coding)) {
		failure := message.Fail(message.UnsupportedType, "only text goes by SMS")
		failure.Accept = accepted
		return nil, failure
	}
	segments, err := text.EncodeBinary(m.Body, uint8(coding), options)
	return segments, unwritable(err)
}

// Unwraps tells whether only the text of a message goes, without the envelope in
// which its sender may ask to be notified.
func Unwraps(m *message.Message) bool { return content.MediaType(m.ContentType) == content.TypeCPIM }

// unwritable says why a text can't be written; nil: it was.
func unwritable(err error) *message.Failure {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, text.ErrAlphabet):
		return message.Fail(message.UnsupportedType, "text: %w", err)
	case errors.Is(err, text.ErrTooLong):
		return message.Fail(message.TooLarge, "text: %w", err)
	}
	return message.Fail(message.Unbuildable, "text: %w", err)
}

// options are those of the dialect, with what the plan and the message say.
func (d *Dialect) options(m *message.Message, r plugin.Route) (text.Options, *message.Failure) {
	o := d.Text
	if len(r.Text.Alphabets) > 0 {
		o.Alphabets = r.Text.Alphabets
	}
	switch r.Text.Transliterate {
	case plugin.TransliterateAlways:
		o.Transliterate = true
	case plugin.TransliterateNever:
		o.Transliterate = false
	}
	if d.is33() && (o.Long == text.LongPayload || o.Long == text.LongSAR) {
		o.Long = text.LongUDH
	}
	o.Reference = func() uint16 { return referenceOf(r.Reference) }
	elements, err := hex.DecodeString(headerOf(m, headerUDH))
	if err != nil || !text.ValidElements(elements) {
		return o, message.Fail(message.Unbuildable, "the message's %s can't be written", headerUDH)
	}
	o.Elements = elements
	return o, nil
}

// referenceOf names the parts of a message: a repeat of the delivery has the same.
func referenceOf(delivery string) uint16 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, delivery) // a hash has no errors
	sum := h.Sum32()
	return uint16(sum>>16) ^ uint16(sum)
}

// with puts a segment into a copy of the envelope.
func (o Outgoing) with(s *text.Segment) Outgoing {
	o.Short.DataCoding = s.DataCoding
	if s.UDHI {
		o.Short.ESMClass |= esmUDHI
	}
	tlvs := o.TLVs[:len(o.TLVs):len(o.TLVs)]
	if s.SAR {
		tlvs = append(tlvs,
			wire.Uint16(pdutlv.TagSarMsgRefNum, s.Reference),
			wire.Uint8(pdutlv.TagSarTotalSegments, s.Total),
			wire.Uint8(pdutlv.TagSarSegmentSeqnum, s.Number))
	}
	if s.Payload || o.Short.Of == pdu.DataSMID { // data_sm has no short_message
		o.TLVs = append(tlvs, wire.TLV{Tag: pdutlv.TagMessagePayload, Value: s.Data})
		return o
	}
	o.Short.Text, o.TLVs = s.Data, tlvs
	return o
}

func headerOf(m *message.Message, name string) string {
	for _, h := range m.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// Parts of esm_class (SMPP 3.4 §5.2.12).
const (
	esmType         = 0x3c
	esmReceipt      = 0x04
	esmDeliveryAck  = 0x08
	esmManualAck    = 0x10
	esmIntermediate = 0x20
	esmUDHI         = 0x40
	esmReplyPath    = 0x80
)

// esmClassOf is what travels along of the esm_class that a message came with:
// that it acknowledges another one, and that a reply may take the same way.
func esmClassOf(m *message.Message) uint8 {
	class, err := strconv.ParseUint(headerOf(m, headerESMClass), 10, 8)
	if err != nil {
		return 0
	}
	return carriedClass(uint8(class))
}

func carriedClass(class uint8) uint8 {
	carried := class & esmReplyPath
	if kind := class & esmType; kind == esmDeliveryAck || kind == esmManualAck {
		carried |= kind
	}
	return carried
}

package translate

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Incoming is what a PDU brought: a message, a part of one, or a delivery receipt.
type Incoming struct {
	Message *message.Message // nil: it is a receipt
	Part    *plugin.Part     // nil: Message is whole
	Receipt *Receipt
}

// Incoming reads a submit_sm, deliver_sm or data_sm. Of the message it fills in
// From, Recipient, ContentType, Body, Headers, Expires, NotBefore and Report. An
// error is a *wire.Error with the status for the peer.
func (d *Dialect) Incoming(p wire.Packet, now time.Time) (Incoming, error) {
	short, ok := p.Body.(*wire.Short)
	if !ok {
		return Incoming{}, &wire.Error{Status: wire.RInvCmdID, Reason: "not a PDU that brings a message"}
	}
	if bringsReceipt(short, p.TLVs) {
		r, err := d.receipt(short, p.TLVs)
		return Incoming{Receipt: r}, err
	}
	in, err := d.message(short, p.TLVs, now)
	if err != nil {
		return Incoming{}, err
	}
	if in.Message.Recipient, err = d.recipient(short.Destination); err != nil {
		return Incoming{}, err
	}
	return in, nil
}

// IncomingMulti reads a submit_multi: a message, or a part of one, for each
// destination, in their order, but for those that it returns as failed, in their
// order too. An error is a *wire.Error with the status for the whole.
func (d *Dialect) IncomingMulti(p wire.Packet, now time.Time) (all []Incoming, failed []wire.Failed, err error) {
	multi, ok := p.Body.(*wire.Multi)
	if !ok {
		return nil, nil, &wire.Error{Status: wire.RInvCmdID, Reason: "not a submit_multi"}
	}
	common, err := d.message(&multi.Short, p.TLVs, now)
	if err != nil {
		return nil, nil, err
	}
	for _, destination := range multi.Destinations {
		recipient, err := d.recipient(destination)
		if err != nil {
			failed = append(failed, wire.Failed{Address: destination, Status: statusOfError(err)})
			continue
		}
		one := *common.Message
		one.Recipient = recipient
		all = append(all, Incoming{Message: &one, Part: common.Part})
	}
	return all, failed, nil
}

func statusOfError(err error) pdu.Status {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Status
	}
	return wire.RSysErr
}

// message reads all but the recipient.
func (d *Dialect) message(short *wire.Short, t wire.TLVs, now time.Time) (Incoming, error) {
	if err := checkFields(short); err != nil {
		return Incoming{}, err
	}
	from, err := d.sender(short.Source)
	if err != nil {
		return Incoming{}, err
	}
	data, err := userData(short, t)
	if err != nil {
		return Incoming{}, err
	}
	decoded, err := text.Decode(data, short.DataCoding, short.ESMClass&esmUDHI != 0, d.Text.Default)
	if err != nil {
		return Incoming{}, unreadable(err)
	}
	part, err := d.part(&decoded, t)
	if err != nil {
		return Incoming{}, err
	}
	m := &message.Message{From: from, Headers: headersOf(short, &decoded)}
	m.ContentType, m.Body = body(&decoded, part != nil)
	if short.Of == pdu.DeliverSMID { // there, the times are not used (SMPP 3.4 §4.6.1)
		return Incoming{Message: m, Part: part}, nil
	}
	m.Report = reports[short.RegisteredDelivery&receiptAsked]
	if err := takeTimes(m, short, t, now); err != nil {
		return Incoming{}, err
	}
	return Incoming{Message: m, Part: part}, nil
}

// checkFields refuses what a peer may not ask, and what there isn't here.
func checkFields(short *wire.Short) error {
	kind := short.ESMClass & esmType
	switch {
	case short.DefaultMessageID != 0:
		return &wire.Error{Status: wire.RInvDftMsgID, Reason: "sm_default_msg_id: there are no such messages here"}
	case short.Of != pdu.DeliverSMID && kind != 0 && kind != esmDeliveryAck && kind != esmManualAck:
		return &wire.Error{Status: wire.RInvEsmClass, Reason: "esm_class is not one of an ESME's"}
	}
	return nil
}

// userData is the text, wherever it is.
func userData(short *wire.Short, t wire.TLVs) ([]byte, error) {
	payload, ok := t.Get(pdutlv.TagMessagePayload)
	switch {
	case !ok:
		return short.Text, nil
	case len(short.Text) > 0: // SMPP 3.4 §5.3.2.32
		return nil, &wire.Error{Status: wire.RInvMsgLen, Reason: "both short_message and message_payload"}
	}
	return payload, nil
}

// unreadable says why what a PDU brings can't be read.
func unreadable(err error) error {
	if errors.Is(err, text.ErrHeader) {
		return &wire.Error{Status: wire.RInvEsmClass, Reason: err.Error()}
	}
	return &wire.Error{Status: wire.RInvDCS, Reason: err.Error()}
}

// part says which part a message is. A user data header counts before TLVs: it is
// what phones read.
func (d *Dialect) part(decoded *text.Decoded, t wire.TLVs) (*plugin.Part, error) {
	concat := decoded.Concat
	if concat == nil {
		var err error
		if concat, err = concatOf(t); err != nil || concat == nil {
			return nil, err
		}
	}
	return &plugin.Part{Reference: concat.Reference, Total: concat.Total, Number: concat.Number, Wait: d.PartsWait}, nil
}

// concatOf reads the TLVs that say which part a message is. Unless all three are
// there, they say nothing (SMPP 3.4 §5.3.2.22).
func concatOf(t wire.TLVs) (*text.Concat, error) {
	reference, ok := t.Uint(pdutlv.TagSarMsgRefNum)
	total, hasTotal := t.Uint(pdutlv.TagSarTotalSegments)
	number, hasNumber := t.Uint(pdutlv.TagSarSegmentSeqnum)
	if !ok || !hasTotal || !hasNumber {
		return nil, nil
	}
	concat, ok := text.NewConcat(uint16(reference), uint8(total), uint8(number))
	if !ok || reference > 0xffff || total > text.MaxParts || number > text.MaxParts {
		return nil, &wire.Error{Status: wire.RInvOptParamVal, Reason: "sar_segment_seqnum is not one of sar_total_segments"}
	}
	return concat, nil
}

// body is what was read, as it is inside the gateway. The half of a surrogate pair
// stays what it is only in a part, where the engine finds the other half.
func body(decoded *text.Decoded, isPart bool) (contentType string, octets []byte) {
	switch {
	case decoded.Binary:
		return typeBinary, decoded.Data
	case isPart:
		return typeText, []byte(decoded.Text)
	}
	return typeText, []byte(strings.ToValidUTF8(decoded.Text, "\ufffd"))
}

// headersOf is what travels along.
func headersOf(short *wire.Short, decoded *text.Decoded) []message.Header {
	var headers []message.Header
	if decoded.Binary {
		headers = append(headers, message.Header{Name: headerDataCoding, Value: strconv.Itoa(int(short.DataCoding))})
	}
	if len(decoded.UDH) > 0 && text.ValidElements(decoded.UDH) {
		headers = append(headers, message.Header{Name: headerUDH, Value: hex.EncodeToString(decoded.UDH)})
	}
	if class := carriedClass(short.ESMClass); class != 0 {
		headers = append(headers, message.Header{Name: headerESMClass, Value: strconv.Itoa(int(class))})
	}
	return headers
}

// takeTimes reads when the sender wants a message delivered.
func takeTimes(m *message.Message, short *wire.Short, t wire.TLVs, now time.Time) error {
	if short.ScheduleTime != "" {
		at, err := text.ParseTime(short.ScheduleTime, now)
		if err != nil || at.Before(now) {
			return &wire.Error{Status: wire.RInvSched, Reason: "schedule_delivery_time is not a time to come"}
		}
		m.NotBefore = at
	}
	until, err := endOf(short, t, now)
	if err != nil || until.IsZero() {
		return err
	}
	if until.Before(now) || until.Before(m.NotBefore) {
		return &wire.Error{Status: wire.RInvExpiry, Reason: "validity_period ends before it begins"}
	}
	life := until.Sub(now)
	m.Expires = &life
	return nil
}

// endOf is when a message's life ends; zero: the sender doesn't say.
func endOf(short *wire.Short, t wire.TLVs, now time.Time) (time.Time, error) {
	if short.ValidityPeriod != "" {
		until, err := text.ParseTime(short.ValidityPeriod, now)
		if err != nil {
			return until, &wire.Error{Status: wire.RInvExpiry, Reason: "validity_period is not a time"}
		}
		return until, nil
	}
	if seconds, ok := t.Uint(pdutlv.TagQosTimeToLive); ok {
		return now.Add(time.Duration(seconds) * time.Second), nil
	}
	return time.Time{}, nil
}

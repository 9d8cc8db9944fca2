package translate

import (
	"fmt"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Report is what a receipt says of a message that was submitted.
type Report struct {
	MessageID           string       // that the response named
	Source, Destination wire.Address // of the message: its receipt goes back
	State               State
	Error               int // of the network, 0 to 999; 0: none
	Submitted, Done     time.Time
	Text                string // how the message begins, in ASCII; at most 20 characters are said
}

// maxQuote is how much of a message its receipt repeats (SMPP 3.4 appendix B).
const maxQuote = 20

// AppendReceipt appends the text of a receipt (SMPP 3.4 appendix B), with times
// in UTC.
func AppendReceipt(dst []byte, r Report) []byte {
	const minutes = "0601021504"
	delivered := 0
	if r.State == Delivered {
		delivered = 1
	}
	return fmt.Appendf(dst, "id:%s sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:%03d text:%.*s",
		r.MessageID, delivered, r.Submitted.UTC().Format(minutes), r.Done.UTC().Format(minutes), r.State, r.Error, maxQuote, r.Text)
}

// Report writes a receipt as deliver_sm: in text, and in TLVs for peers that know
// them.
func (d *Dialect) Report(r Report) Outgoing {
	class := uint8(esmReceipt)
	if _, failed := reasons[r.State]; !failed && r.State != Delivered {
		class = esmIntermediate
	}
	o := Outgoing{Short: wire.Short{
		Of: pdu.DeliverSMID, Source: r.Destination, Destination: r.Source, ESMClass: class, Text: AppendReceipt(nil, r),
	}}
	if d.is33() {
		return o
	}
	o.TLVs = wire.TLVs{
		wire.Text(pdutlv.TagReceiptedMessageID, r.MessageID),
		wire.Uint8(pdutlv.TagMessageStateOption, uint8(r.State)),
	}
	if r.Error != 0 {
		o.TLVs = append(o.TLVs, wire.TLV{Tag: pdutlv.TagNetworkErrorCode, Value: []byte{networkGSM, byte(r.Error >> 8), byte(r.Error)}})
	}
	return o
}

// networkGSM is the type of network in network_error_code (SMPP 3.4 §5.3.2.31).
const networkGSM = 3

// outgoingReceipt writes a message that is a receipt: only an ESME gets any.
func (d *Dialect) outgoingReceipt(m *message.Message, of pdu.ID) ([]Outgoing, error) {
	if of != pdu.DeliverSMID {
		return nil, message.Fail(message.Unbuildable, "a receipt for an SMSC")
	}
	destination, failure := d.destination(m, of)
	if failure != nil {
		return nil, failure
	}
	source, failure := d.source(m, of)
	if failure != nil {
		return nil, failure
	}
	return []Outgoing{d.Report(Report{
		MessageID: MessageID(m.Receipt.PublicID), Source: destination, Destination: source,
		State: StateOf(m.Receipt.State, m.Receipt.Reason), Submitted: m.Receipt.Submitted, Done: m.Receipt.Done,
	})}, nil
}

// StateOf is the message_state of a message that has ended. What nobody knows is
// UNKNOWN and not ACCEPTED, which says that somebody at the SMSC took the message
// in the phone's place (SMPP 5.0 §4.7.15), and which many ESMEs take for no end.
func StateOf(s message.ReceiptState, why message.Reason) State {
	switch s {
	case message.ReceiptDelivered:
		return Delivered
	case message.ReceiptFailed:
		return FailedState(why)
	}
	return Unknown
}

// FailedState is the message_state of a message that has failed.
func FailedState(why message.Reason) State {
	switch why {
	case message.Expired:
		return Expired
	case message.Cancelled:
		return Deleted
	case message.Rejected, message.Forbidden, message.InsufficientFunds, message.Declined:
		return Rejected
	}
	return Undeliverable
}

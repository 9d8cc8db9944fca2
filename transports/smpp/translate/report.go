package translate

import (
	"fmt"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

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

package message

import "time"

// Report is what the sender of a message wants to be told of its end: nothing, or
// any of these together. SMPP asks for it with registered_delivery (SMPP 3.4
// §5.2.17), SIP with Disposition-Notification (RFC 5438 §6.1).
type Report uint8

// What may be wanted.
const (
	ReportDelivery Report = 1 << iota // that it was delivered
	ReportFailure                     // that it wasn't, and won't be

	ReportNothing Report = 0
	ReportEnd            = ReportDelivery | ReportFailure // whatever it is, also that nobody knows
)

// Receipt is what a message says that tells a sender how one of its messages has
// ended. It has no text: each protocol has a form of its own for it.
type Receipt struct {
	PublicID string // of the message that has ended
	State    ReceiptState
	Reason   Reason // why, if it failed
	// When the message was submitted, and when it ended.
	Submitted, Done time.Time
}

// TypeReceipt is the content type of a receipt, which has no body.
const TypeReceipt = "receipt"

// ReceiptState is how a message has ended, as far as anybody knows. Rows on disk
// hold the number: new ones go to the end.
type ReceiptState uint8

// The ends.
const (
	ReceiptDelivered ReceiptState = iota // its recipient has it
	ReceiptFailed                        // it wasn't delivered, and won't be
	ReceiptUnknown                       // the next hop took it, and hasn't said what became of it
)

// Wants tells whether the sender wants to be told of such an end. That nobody
// knows is neither a delivery nor a failure.
func (r Report) Wants(s ReceiptState) bool {
	switch s {
	case ReceiptDelivered:
		return r&ReportDelivery != 0
	case ReceiptFailed:
		return r&ReportFailure != 0
	}
	return r == ReportEnd
}

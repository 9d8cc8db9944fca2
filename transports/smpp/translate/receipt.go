package translate

import (
	"math/big"
	"strings"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Receipt is what a peer says became of a message (SMPP 3.4 §4.6, appendix B).
type Receipt struct {
	MessageID string // as NormalID returns that of the response
	State     State
	Final     bool          // otherwise the message is still on its way
	Status    plugin.Status // what State means, if Final
}

// State is message_state (SMPP 3.4 §5.2.28, 5.0 §4.7.15).
type State uint8

// The states.
const (
	Scheduled     = State(wire.StateScheduled) // SMPP 5.0
	Enroute       = State(wire.StateEnroute)
	Delivered     = State(wire.StateDelivered)
	Expired       = State(wire.StateExpired)
	Deleted       = State(wire.StateDeleted)
	Undeliverable = State(wire.StateUndeliverable)
	Accepted      = State(wire.StateAccepted)
	Unknown       = State(wire.StateUnknown)
	Rejected      = State(wire.StateRejected)
	Skipped       = State(wire.StateSkipped) // SMPP 5.0
)

// words are the states as the text of a receipt has them (SMPP 3.4 appendix B),
// and the beginnings by which they are known: peers write them in full, too.
var words = [...]struct {
	state           State
	word, beginning string
}{
	{Delivered, "DELIVRD", "DELIV"},
	{Expired, "EXPIRED", "EXPIR"},
	{Deleted, "DELETED", "DELET"},
	{Undeliverable, "UNDELIV", "UNDEL"},
	{Accepted, "ACCEPTD", "ACCEP"},
	{Unknown, "UNKNOWN", "UNKNO"},
	{Rejected, "REJECTD", "REJEC"},
	{Enroute, "ENROUTE", "ENROU"},
	{Scheduled, "SCHEDULED", "SCHED"},
	{Skipped, "SKIPPED", "SKIPP"},
	{Undeliverable, "FAILED", "FAIL"},
}

// String returns the word that the text of a receipt has for it.
func (s State) String() string {
	for _, w := range words {
		if w.state == s {
			return w.word
		}
	}
	return "UNKNOWN"
}

// reasons are why a message wasn't delivered; states that aren't here are no end.
// Many peers say ACCEPTD of what they go on to deliver.
var reasons = map[State]message.Reason{
	Expired:       message.Expired,
	Deleted:       message.Cancelled,
	Undeliverable: message.Undelivered,
	Unknown:       message.Undelivered,
	Rejected:      message.Declined,
	Skipped:       message.Undelivered,
}

// bringsReceipt tells whether a PDU brings a receipt: it says so, or has what only
// receipts have, since some peers forget esm_class. An ESME has none to give.
func bringsReceipt(short *wire.Short, t wire.TLVs) bool {
	switch kind := short.ESMClass & esmType; {
	case short.Of == pdu.SubmitSMID:
		return false
	case kind == esmReceipt, kind == esmIntermediate:
		return true
	case kind != 0:
		return false
	}
	_, hasID := t.Get(pdutlv.TagReceiptedMessageID)
	_, hasState := t.Get(pdutlv.TagMessageStateOption)
	return hasID && hasState
}

// receipt reads a receipt: its TLVs, and its text for what they don't say.
func (d *Dialect) receipt(short *wire.Short, t wire.TLVs) (*Receipt, error) {
	data, err := userData(short, t)
	if err != nil {
		return nil, err
	}
	said := string(data[:min(len(data), maxReceipt)])
	id := nameOf(said, t)
	if id == "" || len(id) > maxMessageID {
		return nil, &wire.Error{Status: wire.RInvMsgID, Reason: "a receipt that names no message"}
	}
	r := &Receipt{MessageID: d.receiptID(id), State: stateOf(said, t)}
	reason, failed := reasons[r.State]
	r.Final = (failed || r.State == Delivered) && short.ESMClass&esmType != esmIntermediate
	if r.Final {
		r.Status = plugin.Status{Delivered: !failed, Reason: reason}
	}
	return r, nil
}

const (
	maxReceipt   = 512 // octets of a receipt's text that are looked at
	maxMessageID = 64  // SMPP 3.4 §5.2.23
)

// nameOf is the name of a receipt's message; empty: it has none.
func nameOf(said string, t wire.TLVs) string {
	id, _ := t.Text(pdutlv.TagReceiptedMessageID)
	if id = strings.TrimSpace(id); id != "" {
		return id
	}
	return strings.TrimSpace(fieldOf(said, "id"))
}

// stateOf is what a receipt says of its message; what can't be read is no end.
func stateOf(said string, t wire.TLVs) State {
	if n, ok := t.Uint(pdutlv.TagMessageStateOption); ok && n <= uint32(Skipped) {
		return State(n)
	}
	word := strings.ToUpper(fieldOf(said, "stat"))
	for _, w := range words {
		if strings.HasPrefix(word, w.beginning) {
			return w.state
		}
	}
	return Enroute
}

// keys are the fields of a receipt's text.
var keys = [...]string{"id", "sub", "dlvrd", "submit date", "done date", "stat", "err", "text"}

// fieldOf returns a field of a receipt's text, "id:… sub:… dlvrd:… submit date:…
// done date:… stat:… err:… text:…": in any case and order, with or without
// spaces around the colon, in quotation marks or not; empty: it isn't there. What
// is behind text: isn't the receipt's.
func fieldOf(said, key string) string {
	said, _ = cutKey(said, "text")
	_, value := cutKey(said, key)
	value = strings.TrimLeft(value, " ")
	if value == "" {
		return ""
	}
	if quote := value[0]; quote == '"' || quote == '\'' {
		value, _, _ = strings.Cut(value[1:], string(quote))
		return strings.TrimSpace(value)
	}
	if end := strings.IndexAny(value, " \t\r\n,;"); end >= 0 {
		value = value[:end]
	}
	for _, other := range keys {
		if hasFold(value, other+":") { // the field is empty
			return ""
		}
	}
	return value
}

// cutKey returns what is before and behind a key and its colon.
func cutKey(said, key string) (before, behind string) {
	for at := 0; at+len(key) < len(said); at++ {
		if !hasFold(said[at:], key) || at > 0 && isAlphanumeric(said[at-1]) {
			continue
		}
		if rest, ok := strings.CutPrefix(strings.TrimLeft(said[at+len(key):], " "), ":"); ok {
			return said[:at], rest
		}
	}
	return said, ""
}

func hasFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// NormalID is the name of a message, from the message_id of a response, as
// Receipt.MessageID has it: what a client gives to the engine. Peers write
// the same number once with leading zeros and once without, in either case, and,
// see ReceiptIDs, once in hexadecimal and once in decimal.
func (d *Dialect) NormalID(messageID string) string {
	if d.ReceiptIDs == ReceiptIDsHex {
		return normal(messageID, 10)
	}
	return normal(messageID, 16)
}

// receiptID is NormalID for the message_id of a receipt.
func (d *Dialect) receiptID(messageID string) string {
	if d.ReceiptIDs == ReceiptIDsDecimal {
		return normal(messageID, 10)
	}
	return normal(messageID, 16)
}

// normal writes a number in hexadecimal. What isn't a number stays as it is.
func normal(messageID string, base int) string {
	messageID = strings.TrimSpace(messageID)
	for i := range len(messageID) {
		if !isDigit(messageID[i], base) {
			return messageID
		}
	}
	n, ok := new(big.Int).SetString(messageID, base)
	if !ok {
		return messageID
	}
	return n.Text(16)
}

// isDigit also keeps signs and "_" away from big.Int.
func isDigit(c byte, base int) bool {
	return c >= '0' && c <= '9' || base == 16 && (c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f')
}

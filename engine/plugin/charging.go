package plugin

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Charging takes the money. A message that costs something is authorised
// before it is accepted and settled after its fate is known; in between a
// reservation stands.
type Charging interface {
	// Authorize makes a reservation. Called from many goroutines, once for
	// each message whose plan charges, before it is accepted. The reservation
	// takes effect at once and lasts until HoldUntil; then it lapses. Changes
	// in the answer create rows of the plugin's own tables; they are committed
	// together with the message, or never, so the hold is as durable as the
	// message is.
	//
	// Failures: InsufficientFunds, Forbidden, UnknownRecipient (no route) are
	// final; anything that can't be known now is temporary.
	Authorize(ctx context.Context, r Request) (Authorization, error)

	// Settle ends reservations: Charged records are paid, the others given
	// back. It is idempotent by Key: the engine repeats records whose changes
	// weren't committed when a node died. A record without a reservation
	// (lapsed, or made by a node that died) is settled all the same, marked
	// late. The changes are committed together with the engine's removal of
	// the records, in the order of the calls. One call at a time. An error
	// means that nothing was settled; the same records come again.
	Settle(ctx context.Context, records []Record) ([]Change, error)

	// Close lets go. No other method runs or follows.
	Close() error
}

// Request asks whether a message may be sent at somebody's cost.
type Request struct {
	Key         message.ID
	Payer       string // the account that pays
	Destination string // what the plan says it is charged as; may be empty
	Units       int    // how many times the price of an event
	From        message.Address
	Recipient   message.Address
	HoldUntil   time.Time
	Routing     bool // the plan wants Authorization.Routes; without one the message is refused
}

// Authorization is a reservation.
type Authorization struct {
	// Reserved comes back in Record.Reserved: whatever the plugin needs to
	// settle, so that it needn't keep it. At most 1,024 octets.
	Reserved []byte
	Routes   []Route // where to send it, in order; read only if Request.Routing asks for them
	Changes  []Change
}

// Record says what became of a message that was authorised.
type Record struct {
	Key         message.ID // the message; money moves once for each
	Charged     bool       // false: the reservation goes back
	Payer       string
	Destination string
	Units       int
	From        message.Address
	Recipient   message.Address
	Service     string // the policy's service
	Transport   string // through which it was delivered
	Received    time.Time
	Settled     time.Time // when the event happened that is charged for
	Reserved    []byte
}

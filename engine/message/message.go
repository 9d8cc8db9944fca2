// Package message holds what everybody in the gateway talks about: a message,
// its addresses, and the reasons for which it can fail. It knows no protocol,
// no storage and no policy, and imports nothing of ours.
package message

import "time"

// Class says how the engine treats a message because of what it contains.
type Class uint8

// The classes. The names are those that policies see.
const (
	Text         Class = iota // something a person wrote: kept and charged as the plan says
	Composing                 // RFC 3994: "is typing"; never kept, costs nothing
	Notification              // RFC 5438: what has become of a message; kept, costs nothing, and never notified of itself
)

// String returns the name that policies see.
func (c Class) String() string {
	switch c {
	case Composing:
		return "composing"
	case Notification:
		return "notification"
	}
	return "text"
}

// Header is a header field that is carried from end to end unchanged.
type Header struct{ Name, Value string }

// Message is one instant message on its way through the gateway. A door fills
// it in; once it is submitted nobody changes it.
type Message struct {
	ID       ID        // assigned by the engine
	PublicID string    // what peers see instead of ID; assigned by the engine
	Received time.Time // by our clock; a message's life is counted from here

	From        Address // the sender, one of its account's identities
	DisplayName string  // the sender's own name for itself; may be empty
	Number      string  // the sender's telephone number, the first of its account's identities without a domain; assigned by the engine; may be empty
	Recipient   Address // where it goes: the Request-URI, the SMPP destination address

	ContentType string // MIME type with parameters; a door fills in its protocol's default
	Class       Class  // assigned by the engine from the content type
	Body        []byte
	Headers     []Header // what else travels along

	// Expires is how long the sender wants it kept. Nil: it doesn't say.
	// Zero: deliver now or not at all.
	Expires *time.Duration
	// NotBefore is when the sender wants it delivered at the earliest; zero: at
	// once. Its life is still counted from receipt, unless the sender says nothing
	// of that.
	NotBefore time.Time
	// Missing is how many of the parts in which it came haven't: it is incomplete.
	Missing int
	// Report is what the sender wants to be told of its end.
	Report Report
	// Receipt is what it says if it is a receipt, which the engine has made: to its
	// Recipient, about a message to its From. Nil: it isn't. It goes only through
	// instances that hand in messages with a Report.
	Receipt *Receipt
	// Hops is how many more hops it may take (SIP: Max-Forwards after us).
	Hops uint8

	// Trace is the W3C traceparent under which whoever handed it over follows
	// it; empty: nobody does. It stays with the message on disk.
	Trace string

	Transport string // the instance through which it came in
	Peer      string // who handed it over: an address, a system_id
}

package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Transport is a door: messages come in and go out through it in its own
// protocol. It runs on every node, active or not.
//
// New takes no address and holds nothing that has to be let go: a transport
// that is opened and never served is just forgotten. While the one before still
// serves, a reload opens its successor on the same address.
type Transport interface {
	// Serve opens the door, calls gate.Ready once it takes traffic, and returns
	// nil when ctx is done, or why the door can't be kept open; then everything
	// is let go. It is called once. While gate.Active is not nil it answers
	// traffic with its protocol's way of saying "another node".
	Serve(ctx context.Context, gate Gate) error

	// Send makes one attempt over one route and waits for the peer's answer or
	// the end of ctx. Several run at once, for one recipient too. A Receipt
	// means that the peer has taken responsibility. An error is a
	// *message.Failure; its Temporary decides whether the attempt is repeated.
	// Reason Unbuildable: the message can't be expressed in this protocol.
	// Unavailable, temporary: nothing was sent, there is no way now; another
	// transport of the plan's gets its turn. NoAnswer: the peer may have it.
	// Overloaded, temporary: the next hop wants less; no message passes it.
	//
	// One with a Receipt is for who handed in a message with a Report over this
	// instance, and goes to no other.
	//
	// What went in several parts, of which some were taken, is an error with a
	// Receipt that names these and says in Progress which they are; the next
	// attempt over this route gets that back.
	Send(ctx context.Context, m *message.Message, route Route) (Receipt, error)
}

// Route is one way to one device or next hop.
type Route struct {
	Transport string // the instance
	Address   string // the next hop, for instances that have several; may be empty
	Binding   *Binding

	// Reference names this delivery to the peer: the same for each repeat of
	// the same delivery, different for every other, and unguessable. SIP:
	// Call-ID and From tag. At most 64 octets [A-Za-z0-9_.-].
	Reference string

	// Until is the end of the message's life; zero: it must go at once or not at all.
	Until time.Time
	// Text says in what alphabets its text may be written, where there are several.
	Text PlanText
	// Progress is what an earlier attempt over this route returned: at most 256
	// octets, opaque to others.
	Progress []byte
}

// The bounds of a Receipt.
const (
	MaxParts    = 255
	MaxPeerID   = 64  // octets
	MaxProgress = 256 // octets
)

// Receipt is what a peer said when it took a message.
type Receipt struct {
	// Final: the recipient has it. Otherwise the peer has promised to deliver
	// and says later what became of it, see Gate.Report; without PeerIDs nobody
	// will.
	Final bool
	// PeerIDs are the peer's own names for it, one for each part in which it went
	// that is to be reported: at most 255 of 1 to 64 octets each. With an error:
	// of the parts that were taken in this attempt.
	PeerIDs []string
	// Progress says which parts were taken, with an error. See Route.
	Progress []byte
	// Unwrapped: what was sent of a message/cpim is what it holds, without what
	// its sender asks for there: the recipient's client can't notify the sender
	// (RFC 5438), so the gateway does.
	Unwrapped bool
}

// Validate checks the bounds; failed: it came with an error.
func (r *Receipt) Validate(failed bool) error {
	switch {
	case len(r.PeerIDs) > MaxParts:
		return fmt.Errorf("%d names of parts, at most %d", len(r.PeerIDs), MaxParts)
	case len(r.Progress) > MaxProgress:
		return fmt.Errorf("progress of %d octets, at most %d", len(r.Progress), MaxProgress)
	case failed && len(r.PeerIDs) > 0 && len(r.Progress) == 0:
		return errors.New("names of parts with an error, and no progress")
	}
	for _, id := range r.PeerIDs {
		if len(id) == 0 || len(id) > MaxPeerID {
			return fmt.Errorf("a name of %d octets for a part, expected 1 to %d", len(id), MaxPeerID)
		}
	}
	return nil
}

// Status is what a peer reports after it took a message.
type Status struct {
	Delivered bool
	Reason    message.Reason // why not, unless Delivered
}

// Gate is what the engine offers a transport. All methods may be called from
// any goroutine.
type Gate interface {
	// Ready says that the door is open. Called once.
	Ready()
	// Active tells whether this node is the one that takes traffic. If not, the
	// failure says why (message.Standby, message.Draining, …).
	Active() *message.Failure
	// Tenure is what this node works under as the active one. While it isn't,
	// the failure is that of Active.
	Tenure() (Tenure, *message.Failure)

	// Authenticate asks the accounts plugin. A *message.Failure with
	// Unauthenticated: wrong credentials, and nothing more is said about why;
	// temporary failures mean that nobody could be asked.
	Authenticate(ctx context.Context, c Credentials) (Account, error)

	// Register changes an account's bindings, all or none, and wakes what waits
	// for it. It returns when the change is on disk, with the bindings that the
	// address-of-record then has. Failures: Forbidden (not one of the account's
	// identities), Malformed (out of order: the same Call-ID with a CSeq that
	// is not greater), LimitReached, and temporary ones.
	Register(ctx context.Context, r Registration) ([]Binding, error)

	// Lost says that a flow of this instance's is gone for good, as Binding.Flow
	// names it. Bindings over it end; those with a Push sleep: they keep their
	// place, and no message is sent to them until they are registered again. It
	// returns when that is on disk; nil also if there are none.
	Lost(ctx context.Context, flow string) error

	// Reachable says that the next hop can be reached again: what waits for this
	// instance, since an attempt was Unavailable there, goes at once; what is to be
	// left alone for a while, since one was Overloaded, when that is over.
	Reachable()

	// Submit hands in a message, or a part of one. It never blocks: what can't be
	// taken fails in the ticket. Order is kept for messages of one sender to one
	// recipient that are submitted one after the other.
	Submit(a Arrival) Ticket

	// Find tells an account what has become of a message that it has handed in.
	// UnknownMessage: it has none of that name, or its record was forgotten;
	// else temporary.
	Find(ctx context.Context, account, publicID string) (Submitted, error)
	// Cancel ends what waits of an account's messages, for the recipient or for its
	// other parts, and returns how many were ended, at most 10,000, once that is
	// on disk. Of one that was sent in part the rest stays. UnknownMessage: there is
	// none such. Conflict: it is being sent, or the next hop has it, or it has ended.
	Cancel(ctx context.Context, account string, which Which) (int, error)
	// Replace puts another message in the place of one that waits, under the same
	// name, as if it came now: it is decided upon and authorised anew. Either of
	// them is ours when Replace returns, never both. Failures: those of Cancel
	// (Conflict also where the next hop has a part of it, or its own parts aren't all
	// here) and of Ticket.Accepted; then the first stays.
	Replace(ctx context.Context, account, publicID string, by Replacement) error

	// Report says what became of a message that this instance sent and whose
	// receipt was not final. It returns nil when that is on disk, and also if
	// nobody waits for it any more; a temporary failure if it came before its
	// message's receipt, or can't be kept: the peer should say it again.
	Report(ctx context.Context, peerID string, s Status) error
}

// Tenure is the time for which a node holds the lease.
type Tenure struct {
	// Fence is that of the lease: another node, or this one after another, has a
	// greater one. It stays the same while a reload exchanges what runs.
	Fence Fence
	Since time.Time // when this node began to take traffic under it
	// Key is a secret of the installation for this instance: the same on every
	// node that shares the storage, and for all time.
	Key [32]byte
}

// Arrival is a message at the door, with who brought it.
type Arrival struct {
	Message *message.Message
	// Account is as Authenticate returned it. A transport that trusts its peers
	// vouches for one that owns the sender; if its ID is the instance's name, it
	// isn't one of our accounts and pays for nothing.
	Account Account

	// Key tells a repeated submission from a new one: everything that stays the
	// same when the peer repeats itself and differs when it says something new
	// (SIP: peer, Call-ID, CSeq, From tag, Request-URI, digest of the body).
	// Checked for ten minutes. Never empty.
	Key string

	// Call is what the packets that brought it bear as Packet.Call, for traces.
	// Empty: the protocol has no such thing.
	Call string

	// ShortName: the peer can't bear names longer than eight characters (SMPP
	// 3.3 §6.2.3): Answer.PublicID has eight hexadecimal digits.
	ShortName bool
	// Part: Message is one of several parts of a message, as its sender has cut it.
	// Nil: it is whole.
	Part *Part
}

// Part is a part of a message that comes in several (3GPP TS 23.040 §9.2.3.24.1,
// SMPP 3.4 §5.3.2.22). The parts of one message have account, sender, recipient,
// Reference and Total in common; each is on disk when its ticket says accepted,
// all have the same Answer. What the policy is asked, once the last one is here,
// is about the joined message. Bodies of text are joined as they are, in UTF-8;
// halves of a surrogate pair in two parts are each written as three octets.
type Part struct {
	Reference uint16
	Total     uint8 // 2 to 255
	Number    uint8 // 1 to Total
	// Wait is how long after the first part the last one may come, 1 s to 24 h.
	// Then the policy decides about what is there: see Message.Missing.
	Wait time.Duration
}

// Which names messages: one by its name, or all of a sender to a recipient.
type Which struct {
	PublicID        string // empty: all of From to Recipient
	From, Recipient message.Address
}

// Replacement is what takes the place of a message that waits. What is nil stays
// as it was.
type Replacement struct {
	Account     Account         // as for an Arrival: the one that asks
	From        message.Address // who sends it: the same as before; zero: that isn't said
	ContentType string
	Body        []byte
	Expires     *time.Duration
	NotBefore   *time.Time
	Report      *message.Report
}

// Submitted is what the one who handed a message in may know of it.
type Submitted struct {
	From, Recipient message.Address // as it came
	Received        time.Time
	State           SubmittedState
	Reason          message.Reason // why, if it failed
	Ended           time.Time      // zero: it hasn't
}

// SubmittedState is what has become of a message.
type SubmittedState string

// The states.
const (
	SubmittedScheduled SubmittedState = "scheduled"   // NotBefore hasn't come
	SubmittedWaiting   SubmittedState = "waiting"     // for the recipient, or for its other parts
	SubmittedUnknown   SubmittedState = "unknown"     // sent, and not answered
	SubmittedHanded    SubmittedState = "handed-over" // the next hop has it
	SubmittedDelivered SubmittedState = "delivered"
	SubmittedFailed    SubmittedState = "failed"
	SubmittedDiscarded SubmittedState = "discarded"
)

// Ticket stands for a submission. Both methods may be called any number of
// times; they wait until they know, or the context ends.
type Ticket interface {
	// Accepted returns once the message is on disk, or needs not be. From then
	// on it is ours: only now may a peer be told so. An error is a
	// *message.Failure and means that nothing was kept and nothing is charged,
	// unless it is ErrUnknown too: also when ctx has ended.
	Accepted(ctx context.Context) (Answer, error)
	// First returns the first outcome of a message that was accepted. If ctx
	// ends before there is one, that outcome is OutcomeWaiting.
	First(ctx context.Context) Outcome
}

// ErrUnknown is what an error of Ticket.Accepted wraps if it isn't known whether
// the message was kept: the storage, or this node's lease, was lost in the middle
// of it. The peer is told nothing, in a protocol that allows it: it repeats its
// submission, and the repeat is told what became of it.
var ErrUnknown = errors.New("whether it was kept isn't known")

// Answer says how the sender's request is to be answered.
type Answer struct {
	ID       message.ID // zero for a repeat of a message that is no longer with us
	PublicID string
	// Within is how long to wait for the first outcome, at most 15 s. Zero:
	// don't wait, say "accepted".
	Within time.Duration
}

// Outcome is the first that is known of a message's fate.
type Outcome struct {
	State   OutcomeState
	Failure *message.Failure // why, if State is OutcomeFailed
}

// OutcomeState is what can first be known of a message's fate.
type OutcomeState uint8

// The outcomes.
const (
	OutcomeWaiting   OutcomeState = iota // kept for later
	OutcomeDelivered                     // a device has it, or the next hop is responsible
	OutcomeFailed                        // it will never be delivered
)

// Registration is one change to the bindings of an address-of-record
// (RFC 3261 §10.3).
type Registration struct {
	Account Account
	AOR     message.Address
	CallID  string
	CSeq    uint32
	// Bindings are those named in the request. One whose Expires is not in the
	// future ends. None at all: a question.
	Bindings []Binding
	// All ends every binding of the address-of-record.
	All bool
}

// MaxBindingWindow is the greatest Binding.Window that counts.
const MaxBindingWindow = 1024

// Binding is where a device can be reached. Bindings are on disk.
type Binding struct {
	Account   string          // the account's ID
	AOR       message.Address // the identity that it was registered for
	Transport string          // the instance that took the registration and can reach it
	Contact   string          // the URI as it was registered
	Flow      string          // the transport's own name of the way back; opaque to others
	Device    string          // which device (RFC 5626 §4.1, +sip.instance): it gets each message once; empty: unknown
	RegID     string          // which of the device's flows (RFC 5626 §4.2, reg-id); empty: its only one
	Q         int             // preference in thousandths, 0 to 1000
	Window    int             // how many messages it takes at once, at most MaxBindingWindow; 0: it doesn't say
	Expires   time.Time
	CallID    string
	CSeq      uint32

	Push   Push // how its app can be woken; zero: it can't
	Asleep bool // its flow is gone, or it has expired: it is there only to be woken
}

package message

import (
	"errors"
	"fmt"
	"time"
)

// Reason says why a message, a registration or an attempt did not succeed, in
// our words. Each transport has one table that translates it to its codes.
type Reason string

// What is wrong with the message, or who may not send it.
const (
	Malformed         Reason = "malformed"          // breaks its protocol's grammar or rules
	Unauthenticated   Reason = "unauthenticated"    // no credentials, or wrong ones
	Forbidden         Reason = "forbidden"          // known, but not allowed
	UnknownRecipient  Reason = "unknown-recipient"  // nobody has this address
	UnsupportedType   Reason = "unsupported-type"   // MIME type not allowed over the chosen transport
	TooLarge          Reason = "too-large"          // over a size limit
	TooManyHops       Reason = "too-many-hops"      // a loop, by all appearances
	InsufficientFunds Reason = "insufficient-funds" // the payer can't pay
	Rejected          Reason = "rejected"           // the policy says no
	Blocked           Reason = "blocked"            // the policy says no, and not who to blame
)

// What is wrong with the recipient or the way there.
const (
	Unavailable Reason = "unavailable" // not reachable now
	NoAnswer    Reason = "no-answer"   // reached by all appearances, and silent
	Busy        Reason = "busy"        // the recipient is busy
	Declined    Reason = "declined"    // the recipient doesn't want it
	Gone        Reason = "gone"        // the recipient has left for good
	Expired     Reason = "expired"     // its life ended before it could be delivered
	Cancelled   Reason = "cancelled"   // taken out by an operator
	Undelivered Reason = "undelivered" // the next hop refused and doesn't say more
	Unbuildable Reason = "unbuildable" // can't be expressed in the transport's protocol: quarantined
	Incomplete  Reason = "incomplete"  // parts of it never came
)

// What is wrong with a question about a message, or with a change to it.
const (
	UnknownMessage Reason = "unknown-message" // there is none of that name
	Conflict       Reason = "conflict"        // it is being sent, or the next hop has it, or it has ended
)

// What is wrong with us, and concerns this message alone.
const (
	PolicyFailed   Reason = "policy-failed"   // no verdict: undefined, error, deadline, outside the schema
	ChargingFailed Reason = "charging-failed" // no answer whether the payer can pay
	LimitReached   Reason = "limit-reached"   // a limit of this sender or recipient
	Internal       Reason = "internal"        // a fault of ours
)

// What is wrong with this node: another one may well take the message.
const (
	Overloaded  Reason = "overloaded"
	Draining    Reason = "draining"
	Standby     Reason = "standby"
	StorageDown Reason = "storage-down"
)

// Reasons lists every reason, for tables that must be complete.
var Reasons = [...]Reason{
	Malformed, Unauthenticated, Forbidden, UnknownRecipient, UnsupportedType, TooLarge, TooManyHops,
	InsufficientFunds, Rejected, Blocked,
	Unavailable, NoAnswer, Busy, Declined, Gone, Expired, Cancelled, Undelivered, Unbuildable, Incomplete,
	UnknownMessage, Conflict,
	PolicyFailed, ChargingFailed, LimitReached, Internal,
	Overloaded, Draining, Standby, StorageDown,
}

// OfNode tells whether the reason is about this node and not about the
// message, so that an upstream does well to try another node.
func (r Reason) OfNode() bool {
	switch r {
	case Overloaded, Draining, Standby, StorageDown:
		return true
	}
	return false
}

// Failure is the error that crosses the borders between rooms.
type Failure struct {
	Reason     Reason
	Temporary  bool          // trying again later may help
	RetryAfter time.Duration // a hint; 0: none
	Accept     []string      // with UnsupportedType: the types that would pass
	Err        error         // the cause, for the log and never for a peer; may be nil
}

// Fail makes a Failure that is final.
func Fail(r Reason, format string, args ...any) *Failure {
	return &Failure{Reason: r, Err: fmt.Errorf(format, args...)}
}

// FailForNow makes a Failure that may pass.
func FailForNow(r Reason, format string, args ...any) *Failure {
	return &Failure{Reason: r, Temporary: true, Err: fmt.Errorf(format, args...)}
}

// Error returns the reason, and the cause where there is one.
func (f *Failure) Error() string {
	if f.Err == nil {
		return string(f.Reason)
	}
	return string(f.Reason) + ": " + f.Err.Error()
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// AsFailure reads any error as a Failure. One that isn't a Failure is an
// internal fault and temporary: giving up is always on purpose.
func AsFailure(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	return &Failure{Reason: Internal, Temporary: true, Err: err}
}

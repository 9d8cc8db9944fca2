package sip

import (
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// defaultRetryAfter is the hint where a temporary failure has none.
const defaultRetryAfter = 5 * time.Second

// finals says how a failure is answered. 503 is only for reasons of the node:
// upstreams fail over on it (DESIGN §1.7). 408 isn't there because RFC 4320 §4.2
// forbids it.
var finals = []struct {
	reason    message.Reason
	final     int // the status if it is final
	temporary int // the status if it may pass; goes with Retry-After
}{
	{message.Malformed, 400, 500},
	{message.Unauthenticated, 401, 500}, // with a challenge
	{message.Forbidden, 403, 480},
	{message.UnknownRecipient, 404, 480},
	{message.UnsupportedType, 415, 480}, // with Accept
	{message.TooLarge, 413, 413},
	{message.TooManyHops, 483, 480},
	{message.InsufficientFunds, 402, 480},
	{message.Rejected, 403, 480},
	{message.Blocked, 480, 480}, // looks as if the recipient weren't there
	{message.Unavailable, 480, 480},
	{message.NoAnswer, 480, 480},
	{message.Busy, 486, 486},
	{message.Declined, 603, 480},
	{message.Gone, 410, 480},
	{message.Expired, 480, 480},
	{message.Cancelled, 487, 480},
	{message.Undelivered, 488, 480},
	{message.Unbuildable, 488, 480},
	{message.Incomplete, 480, 480},
	{message.UnknownMessage, 404, 480},
	{message.Conflict, 480, 480},
	{message.PolicyFailed, 500, 500},
	{message.ChargingFailed, 500, 500},
	{message.LimitReached, 403, 480}, // final: too many contacts
	{message.Internal, 500, 500},
	{message.Overloaded, 503, 503},
	{message.Draining, 503, 503},
	{message.Standby, 503, 503},
	{message.StorageDown, 503, 503},
}

// finalFor is the answer to a request that failed.
func finalFor(f *message.Failure) wire.Reply {
	reply := wire.Reply{Status: 500}
	for _, row := range finals {
		if row.reason == f.Reason {
			reply.Status = row.final
			if f.Temporary {
				reply.Status = row.temporary
			}
		}
	}
	if f.Temporary || f.Reason.OfNode() {
		reply.RetryAfter = f.RetryAfter
		if reply.RetryAfter <= 0 {
			reply.RetryAfter = defaultRetryAfter
		}
	}
	if reply.Status == 415 && f.Accept != nil { // an empty one says that nothing passes (RFC 3261 §20.1)
		reply.Headers = []wire.Header{{Name: "Accept", Value: strings.Join(f.Accept, ", ")}}
	}
	return reply
}

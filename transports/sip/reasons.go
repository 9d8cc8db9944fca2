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

// answers says what a device's refusal means. What isn't here is read as the
// x00 of its class (RFC 3261 §8.1.3.2). 400, 401 and the like are our fault and
// not the sender's, so they don't become malformed or unauthenticated.
var answers = []struct {
	status    int
	reason    message.Reason
	temporary bool
}{
	{300, message.Undelivered, false}, // we don't follow redirections
	{400, message.Undelivered, false},
	{401, message.Undelivered, false},
	{402, message.Undelivered, false},
	{403, message.Undelivered, false},
	{404, message.UnknownRecipient, false},
	{405, message.Undelivered, false},
	{407, message.Undelivered, false},
	{408, message.NoAnswer, true},
	{410, message.Gone, false},
	{413, message.TooLarge, false},
	{415, message.UnsupportedType, false},
	{430, message.Unavailable, true}, // the flow is gone (RFC 5626 §11.4)
	{480, message.Unavailable, true},
	{482, message.TooManyHops, false},
	{483, message.TooManyHops, false},
	{484, message.UnknownRecipient, false},
	{486, message.Busy, true},
	{487, message.Undelivered, true},
	{488, message.Undelivered, false},
	{491, message.Busy, true},
	{500, message.Undelivered, true},
	{501, message.Undelivered, false},
	{503, message.Unavailable, true},
	{504, message.NoAnswer, true},
	{505, message.Undelivered, false},
	{513, message.TooLarge, false},
	{600, message.Busy, true},
	{603, message.Declined, false},
	{604, message.UnknownRecipient, false},
	{606, message.Undelivered, false},
	{607, message.Declined, false}, // unwanted (RFC 8197)
	{608, message.Declined, false}, // rejected by an intermediary (RFC 8688)
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

// failureOf reads the refusal of a device.
func failureOf(r *wire.Response) *message.Failure {
	for _, status := range []int{r.Status, r.Status / 100 * 100} {
		for _, row := range answers {
			if row.status == status {
				f := message.Fail(row.reason, "the device answered %d", r.Status)
				f.Temporary = row.temporary
				f.RetryAfter = retryAfter(r)
				f.Accept = accepted(r)
				return f
			}
		}
	}
	return message.FailForNow(message.Undelivered, "the device answered %d", r.Status)
}

// retryAfter reads "120 (in a meeting);duration=60" (RFC 3261 §20.33).
func retryAfter(r *wire.Response) time.Duration {
	value := r.Get("Retry-After")
	if end := strings.IndexAny(value, " (;\t"); end >= 0 {
		value = value[:end]
	}
	const day = 24 * 60 * 60
	n, ok := wire.Number(value, day)
	if !ok {
		return 0
	}
	return time.Duration(n) * time.Second
}

func accepted(r *wire.Response) []string {
	if r.Status != 415 {
		return nil
	}
	types, _ := wire.List(r.All("Accept")) // what can't be read tells us nothing
	return types
}

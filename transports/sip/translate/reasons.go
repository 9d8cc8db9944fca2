// Package translate says in SIP's words what the gateway says in its own, for
// both doors of SIP: the one at which clients register, and the trunks to other
// servers.
//
// It must not know how a message gets to its recipient, nor what happens behind
// the gate.
package translate

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// answers says what the refusal of a device, or of a next hop, means. What isn't
// here is read as the x00 of its class (RFC 3261 §8.1.3.2). 400, 401 and the like
// are our fault and not the sender's, so they don't become malformed or
// unauthenticated.
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

// Refusal reads a final response that isn't a success.
func Refusal(r *wire.Response) *message.Failure {
	for _, status := range []int{r.Status, r.Status / 100 * 100} {
		for _, row := range answers {
			if row.status == status {
				f := message.Fail(row.reason, "answered %d", r.Status)
				f.Temporary = row.temporary
				f.RetryAfter = RetryAfter(r)
				if r.Status == 415 {
					f.Accept = Accepted(r)
				}
				return f
			}
		}
	}
	return message.FailForNow(message.Undelivered, "answered %d", r.Status)
}

// RetryAfter reads "120 (in a meeting);duration=60" (RFC 3261 §20.33), at most a
// day; 0: the response doesn't say.
func RetryAfter(r *wire.Response) time.Duration {
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

// Accepted are the types that whoever sent a response takes (RFC 3261 §20.1); nil:
// it doesn't say.
func Accepted(r *wire.Response) []string {
	types, _ := wire.List(r.All("Accept")) // what can't be read tells us nothing
	return types
}

// Unanswered says what an attempt without a response means. What the system says
// of a destination may pass.
func Unanswered(err error) *message.Failure {
	switch {
	case errors.Is(err, wire.ErrUnsafe):
		return message.Fail(message.Unbuildable, "%w", err)
	case errors.Is(err, wire.ErrTooLarge), errors.Is(err, wire.ErrNeedsStream):
		return message.Fail(message.TooLarge, "%w", err)
	case errors.Is(err, wire.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return message.FailForNow(message.NoAnswer, "%w", err)
	default:
		return message.FailForNow(message.Unavailable, "%w", err)
	}
}

package wire

import (
	"sync/atomic"
)

// counters count what nobody logs.
type counters struct {
	requests, responses, sent                atomic.Uint64
	malformed, keepAlives, unmatched, unsafe atomic.Uint64
	retransmissions, overflows, busy, panics atomic.Uint64
	readErrors, writeErrors                  atomic.Uint64
}

// Counts is a snapshot of what an endpoint counted since it was opened.
type Counts struct {
	Requests        uint64 // valid requests
	Responses       uint64 // valid responses
	Sent            uint64 // datagrams
	Malformed       uint64 // messages that did not pass the validator
	KeepAlives      uint64 // datagrams without content
	Unmatched       uint64 // responses that nobody waits for, late ones among them
	Unsafe          uint64 // responses that would have carried a control character
	Retransmissions uint64 // requests that came again
	Overflows       uint64 // requests dropped because their worker had too many
	Busy            uint64 // requests refused because too many were being handled
	Panics          uint64 // of handlers
	ReadErrors      uint64
	WriteErrors     uint64
	Pending         int64 // requests without a final response, now
}

// Counts returns what was counted so far.
func (e *Endpoint) Counts() Counts {
	c := &e.counters
	return Counts{
		Requests:        c.requests.Load(),
		Responses:       c.responses.Load(),
		Sent:            c.sent.Load(),
		Malformed:       c.malformed.Load(),
		KeepAlives:      c.keepAlives.Load(),
		Unmatched:       c.unmatched.Load(),
		Unsafe:          c.unsafe.Load(),
		Retransmissions: c.retransmissions.Load(),
		Overflows:       c.overflows.Load(),
		Busy:            c.busy.Load(),
		Panics:          c.panics.Load(),
		ReadErrors:      c.readErrors.Load(),
		WriteErrors:     c.writeErrors.Load(),
		Pending:         e.server.pending.Load(),
	}
}

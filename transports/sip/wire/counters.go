package wire

import "sync/atomic"

// counters count what nobody logs. What was refused, pressure counts.
type counters struct {
	requests, responses, sent                          atomic.Uint64
	malformed, tooLarge, keepAlives, unmatched, unsafe atomic.Uint64
	retransmissions, panics                            atomic.Uint64
	readErrors, writeErrors, lost                      atomic.Uint64
	accepted, pings                                    atomic.Uint64
	ended                                              [causes]atomic.Uint64
}

// Counts is a snapshot of what an endpoint counted since it was opened.
type Counts struct {
	Requests        uint64 // valid requests
	Responses       uint64 // valid responses
	Sent            uint64 // messages
	Malformed       uint64 // messages that did not pass the validator
	TooLarge        uint64 // messages over a limit of size
	KeepAlives      uint64 // datagrams without content, and empty lines on connections
	Pings           uint64 // of those, second lines: they were answered
	Unmatched       uint64 // responses that nobody waits for, late ones among them
	Unsafe          uint64 // responses that would have carried a control character
	Retransmissions uint64 // requests that came again
	Repeats         uint64 // requests that we sent again
	Overflows       uint64 // requests dropped, over TCP refused, because their worker had too many
	Busy            uint64 // requests refused because too many were being handled
	Panics          uint64 // of handlers
	ReadErrors      uint64
	WriteErrors     uint64
	Lost            uint64 // messages whose connection was gone
	Pending         int64  // requests without a final response, now

	Connections    int    // now
	Accepted       uint64 // connections let in
	TooMany        uint64 // connections refused because there were too many
	TooManyOfOne   uint64 // connections refused because their address had too many
	AcceptErrors   uint64
	EndedIdle      uint64 // connections closed because nothing came
	EndedSlow      uint64 // because a message took too long to come
	EndedUnread    uint64 // because the peer didn't read
	EndedMalformed uint64 // because nobody knew where the next message began
	EndedMemory    uint64 // because all together held too much
	EndedDismissed uint64 // because their peers were sent away
	EndedByPeer    uint64
}

// Counts returns what was counted so far.
func (e *Endpoint) Counts() Counts {
	c := &e.counters
	return Counts{
		Requests:        c.requests.Load(),
		Responses:       c.responses.Load(),
		Sent:            c.sent.Load(),
		Malformed:       c.malformed.Load(),
		TooLarge:        c.tooLarge.Load(),
		KeepAlives:      c.keepAlives.Load(),
		Pings:           c.pings.Load(),
		Unmatched:       c.unmatched.Load(),
		Unsafe:          c.unsafe.Load(),
		Retransmissions: c.retransmissions.Load(),
		Repeats:         e.client.repeats.Load(),
		Overflows:       e.pressure.count(pressureOverflow),
		Busy:            e.pressure.count(pressureBusy),
		Panics:          c.panics.Load(),
		ReadErrors:      c.readErrors.Load(),
		WriteErrors:     c.writeErrors.Load(),
		Lost:            c.lost.Load(),
		Pending:         e.server.pending.Load(),

		Connections:    e.connections.count(),
		Accepted:       c.accepted.Load(),
		TooMany:        e.pressure.count(pressureConnections),
		TooManyOfOne:   e.pressure.count(pressureAddress),
		AcceptErrors:   e.pressure.count(pressureAccept),
		EndedIdle:      c.ended[causeIdle].Load(),
		EndedSlow:      c.ended[causeSlowSender].Load(),
		EndedUnread:    c.ended[causeSlowReader].Load(),
		EndedMalformed: c.ended[causeMalformed].Load(),
		EndedMemory:    c.ended[causeMemory].Load(),
		EndedDismissed: c.ended[causeDismissed].Load(),
		EndedByPeer:    c.ended[causePeer].Load(),
	}
}

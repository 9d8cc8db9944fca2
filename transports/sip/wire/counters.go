package wire

import "sync/atomic"

// counters count what nobody logs. What was refused, pressure counts.
type counters struct {
	requests, responses, sent                          atomic.Uint64
	malformed, tooLarge, keepAlives, unmatched, unsafe atomic.Uint64
	retransmissions, panics                            atomic.Uint64
	readErrors, writeErrors, lost                      atomic.Uint64
	pings, bindings                                    atomic.Uint64
	networks                                           map[string]*connectionCounters
}

// connectionCounters count the connections of a network.
type connectionCounters struct {
	now      atomic.Int64 // open
	accepted atomic.Uint64
	ended    [causes]atomic.Uint64
}

func newConnectionCounters() map[string]*connectionCounters {
	counters := map[string]*connectionCounters{}
	for network := range transports {
		if isStream(network) {
			counters[network] = &connectionCounters{}
		}
	}
	return counters
}

// of returns the counters for a connection.
func (c *counters) of(conn *connection) *connectionCounters { return c.networks[conn.flow.Network] }

// accepted is how many connections were let in, of all networks.
func (c *counters) accepted() (n uint64) {
	for _, network := range c.networks {
		n += network.accepted.Load()
	}
	return n
}

// ended is how many connections of all networks ended for a cause.
func (c *counters) ended(why cause) (n uint64) {
	for _, network := range c.networks {
		n += network.ended[why].Load()
	}
	return n
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
	Bindings        uint64 // STUN Binding requests that were answered
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
	EndedHandshake uint64 // because their handshakes failed
	EndedDisplaced uint64 // because others needed the room that their handshakes took
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
		Bindings:        c.bindings.Load(),
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
		Accepted:       c.accepted(),
		TooMany:        e.pressure.count(pressureConnections),
		TooManyOfOne:   e.pressure.count(pressureAddress),
		AcceptErrors:   e.pressure.count(pressureAccept),
		EndedIdle:      c.ended(causeIdle),
		EndedSlow:      c.ended(causeSlowSender),
		EndedUnread:    c.ended(causeSlowReader),
		EndedMalformed: c.ended(causeMalformed),
		EndedMemory:    c.ended(causeMemory),
		EndedDismissed: c.ended(causeDismissed),
		EndedHandshake: c.ended(causeHandshake),
		EndedDisplaced: c.ended(causeDisplaced),
		EndedByPeer:    c.ended(causePeer),
	}
}

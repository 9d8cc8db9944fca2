package load

import (
	"fmt"
	"strconv"
	"time"
)

// timers are those of a non-INVITE client transaction (RFC 3261 §17.1.2.2).
type timers struct{ t1, t2 time.Duration }

var standardTimers = timers{t1: 500 * time.Millisecond, t2: 4 * time.Second}

// timeout is Timer F, here from the first transmission of all tries.
func (t timers) timeout() time.Duration { return 64 * t.t1 }

// silence is how long one of several servers may take to answer.
func (t timers) silence() time.Duration { return 4 * t.t1 }

// maxTries is how often a request is sent with other credentials.
const maxTries = 5

// exchange is one request on its way to its final response. An endpoint has a
// table of them and uses them again, with the memory of their packets.
type exchange struct {
	used       bool
	generation int // tells this use from earlier ones, and each try from the last
	tries      int

	server   int       // that is being asked
	refusals int       // answered 503, where there are several servers
	unsure   bool      // a server that was left may have taken it
	signed   bool      // it has credentials
	asked    time.Time // the server, the first time; zero: not yet

	first    time.Time // transmission of all
	repeatAt time.Time // Timer E
	interval time.Duration
	packet   []byte

	account *account // whose request it is

	// Of a MESSAGE.
	pair     *pair // nil: this is a REGISTER
	serial   int
	sequence int
	measured bool

	// Of a REGISTER.
	contact string
	expires int
}

// pair is a sender and a recipient. One message at a time is on its way
// between them, as in a conversation, so that their order is defined.
type pair struct {
	id       int
	from, to *account
	uri      string // of the recipient
}

func newPair(id int, from, to *account) *pair {
	return &pair{id: id, from: from, to: to, uri: "sip:" + to.aor}
}

// numbers is how many telephone numbers there are that are nobody's: those of
// +447700900000 and so on.
const numbers = 1000

// sendToNumbers has a number in a domain stand for each recipient.
func sendToNumbers(pairs []*pair, domain string) {
	for _, p := range pairs {
		p.uri = fmt.Sprintf("sip:+447700900%03d@%s", p.to.index%numbers, domain)
	}
}

// build writes the packet for the exchange's next try.
func (e *endpoint) build(x *exchange, index int) {
	x.signed = x.account.login.known
	if x.pair == nil {
		e.buildRegister(x, index)
		return
	}
	e.buildMessage(x, index)
}

func (e *endpoint) buildMessage(x *exchange, index int) {
	b := append(append(append(x.packet[:0], "MESSAGE "...), x.pair.uri...), " SIP/2.0\r\n"...)
	b = e.appendVia(b, x, index)
	b = append(append(b, "From: <sip:"...), x.account.aor...)
	b = strconv.AppendInt(append(b, ">;tag=m"...), int64(x.serial), 10)
	b = append(append(b, "\r\nTo: <"...), x.pair.uri...)
	b = append(append(b, ">\r\nCall-ID: "...), e.name...)
	b = strconv.AppendInt(append(b, "-m"...), int64(x.serial), 10)
	b = strconv.AppendInt(append(b, "\r\nCSeq: "...), int64(x.tries), 10)
	b = append(b, " MESSAGE\r\nContent-Type: text/plain\r\n"...)
	b = x.account.login.append(b, "MESSAGE", x.pair.uri)
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(e.bodies.padding)), 10)
	x.packet = e.bodies.append(append(b, "\r\n\r\n"...), x.pair.id, x.sequence)
}

func (e *endpoint) buildRegister(x *exchange, index int) {
	x.account.cseq++
	uri := "sip:" + x.account.domain
	b := append(append(append(x.packet[:0], "REGISTER "...), uri...), " SIP/2.0\r\n"...)
	b = e.appendVia(b, x, index)
	b = append(append(b, "From: <sip:"...), x.account.aor...)
	b = strconv.AppendInt(append(b, ">;tag=r"...), int64(x.account.cseq), 10)
	b = append(append(b, "\r\nTo: <sip:"...), x.account.aor...)
	b = append(append(b, ">\r\nCall-ID: "...), x.account.callID...)
	b = strconv.AppendInt(append(b, "\r\nCSeq: "...), int64(x.account.cseq), 10)
	b = append(append(b, " REGISTER\r\nContact: "...), x.contact...)
	b = strconv.AppendInt(append(b, "\r\nExpires: "...), int64(x.expires), 10)
	b = x.account.login.append(append(b, "\r\n"...), "REGISTER", uri)
	x.packet = append(b, "Content-Length: 0\r\n\r\n"...)
}

func (e *endpoint) appendVia(b []byte, x *exchange, index int) []byte {
	b = append(append(append(b, "Via: SIP/2.0/UDP "...), e.local...), ";branch="...)
	b = appendTransaction(b, e.branch, index, x.generation)
	return append(b, ";rport\r\nMax-Forwards: 70\r\n"...)
}

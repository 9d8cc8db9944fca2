// Package wire speaks SMPP (3.4, and what peers of 3.3 and 5.0 do differently)
// over connections: PDUs, sessions with their windows and timers, and the
// listener. It doesn't know what a message or an account is, what a text means
// or who may bind: its users decide that.
package wire

import (
	"errors"
	"log/slog"
	"time"
)

// Why a request of ours has no answer. Both are wrapped, with the cause.
var (
	// ErrUnsent: the peer can't have got the request. Trying elsewhere is safe.
	ErrUnsent = errors.New("request not sent")
	// ErrNoAnswer: the peer may have got the request, and nobody knows what it did.
	ErrNoAnswer = errors.New("request not answered")
)

// Why a session ended: what Handler.Closed is told, wrapped where there is more
// to say.
var (
	ErrClosed  = errors.New("closed by us")
	ErrUnbound = errors.New("unbound")
	ErrPeer    = errors.New("connection lost")                       // closed by the peer, or by the network
	ErrSilent  = errors.New("enquire_link not answered")             // nothing at all came
	ErrUnread  = errors.New("peer doesn't read")                     // what we write, for Config.Write
	ErrNoBind  = errors.New("no bind in time")                       // Config.Bind
	ErrIdle    = errors.New("nothing but enquire_link for too long") // Config.Idle
	ErrFraming = errors.New("not SMPP")                              // nobody knows where the next PDU begins
)

// Config is how a session behaves. Zero values mean the defaults.
type Config struct {
	Limits // until Session.Limit says otherwise

	MaxPDU int // octets; a longer one is refused with ESME_RINVCMDLEN; default 70 KiB, at most 1 MiB

	EnquireLink time.Duration // without a PDU from the peer, after which we ask whether it is there; default 30 s
	Response    time.Duration // that Do waits for a response, and we for enquire_link_resp; default 10 s
	Idle        time.Duration // without a request other than enquire_link, either way, after which the session is unbound; 0: never
	Write       time.Duration // that the peer may leave unread what we write; default 10 s
	Bind        time.Duration // within which a bind must have succeeded (a bind_resp with ESME_ROK sent or received); default 10 s
	Drain       time.Duration // that what is under way may take when the peer unbinds; default 5 s

	Counters *Counters    // where to count; nil: nowhere that anybody reads
	Log      *slog.Logger // default: nobody reads it

	// Trace is shown each PDU as it travelled, but for the password of a bind,
	// which is blotted out: after it was read, or before it is written. pdu is
	// valid during the call only, which comes from any goroutine and must neither
	// block nor use the session. nil: nobody watches.
	Trace func(sent bool, pdu []byte)
}

// Limits are what a session's two sides may do. Zero values mean the defaults.
type Limits struct {
	Window   int     // our requests that may be unanswered; Do waits beyond; default 10
	InWindow int     // the peer's requests that may be under way; the session answers others with ESME_RTHROTTLED; default 100
	Rate     float64 // submit_sm, submit_multi, deliver_sm and data_sm a second that Do sends; it waits beyond; 0: unlimited
	InRate   float64 // the same of the peer: beyond, the session answers ESME_RTHROTTLED; 0: unlimited
}

func (l Limits) withDefaults() Limits {
	l.Window = orDefault(l.Window, 10)
	l.InWindow = orDefault(l.InWindow, 100)
	return l
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.withDefaults()
	c.MaxPDU = orDefault(c.MaxPDU, 70<<10)
	c.EnquireLink = orDefault(c.EnquireLink, 30*time.Second)
	c.Response = orDefault(c.Response, 10*time.Second)
	c.Write = orDefault(c.Write, 10*time.Second)
	c.Bind = orDefault(c.Bind, 10*time.Second)
	c.Drain = orDefault(c.Drain, 5*time.Second)
	if c.Counters == nil {
		c.Counters = &Counters{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}

// Handler is whom a session tells what happens.
type Handler interface {
	// Request is called for each request of the peer, one after the other in the
	// order of arrival, on the reader's goroutine: it must not block. Each is to
	// be ended once, with Session.Respond or Session.Ignore, from any goroutine and
	// in any order; alert_notification and outbind have no answer. The session
	// itself sees to enquire_link and unbind, to what it can't read and to what is
	// too much. p belongs to the handler.
	Request(s *Session, p Packet)
	// Closed is called once, after the last Request and before Run returns, when
	// every Do has its outcome.
	Closed(s *Session, why error)
}

package pipeline

import (
	"log/slog"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// noticeEvery is how often the log says again that something fails.
const noticeEvery = time.Minute

// What is refused, as it is counted and said.
const (
	refusedMessages      = "messages"
	refusedParts         = "parts"
	refusedReceipts      = "receipts"
	refusedCopies        = "copies"
	refusedRegistrations = "registrations"
)

// notices are log lines for what fails for each message: the first one at once,
// then one a minute that says how often.
type notices struct {
	log *slog.Logger

	mu      sync.Mutex
	pending map[notice]*pendingNotice
}

// notice is what a line says; there are few different ones.
type notice struct {
	what   string
	reason message.Reason
}

type pendingNotice struct {
	said   time.Time
	unsaid int
}

// worthSaying tells whether something is refused through a fault of the
// operator's or of ours, or because of a limit: nobody else would tell them.
func worthSaying(r message.Reason) bool {
	switch r {
	case message.PolicyFailed, message.ChargingFailed, message.Internal,
		message.LimitReached, message.Overloaded, message.TooLarge:
		return true
	}
	return false
}

// refused notes that something of a peer's was refused; about says whose.
func (n *notices) refused(what string, now time.Time, f *message.Failure, about ...any) {
	if !worthSaying(f.Reason) {
		return
	}
	if times := n.due(notice{what, f.Reason}, now); times > 0 {
		n.log.Warn(what+" are refused", append(about, "reason", f, "times", times)...)
	}
}

// due counts, and returns how many are to be said now; zero: not yet.
func (n *notices) due(what notice, now time.Time) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	pending := n.pending[what]
	if pending == nil {
		pending = &pendingNotice{}
		n.pending[what] = pending
	}
	pending.unsaid++
	if now.Sub(pending.said) < noticeEvery {
		return 0
	}
	times := pending.unsaid
	pending.said, pending.unsaid = now, 0
	return times
}

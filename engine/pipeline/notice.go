package pipeline

import (
	"log/slog"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// noticeEvery is how often the log says again that something fails.
const noticeEvery = time.Minute

// notices are log lines for what fails for each message: the first one at once,
// then one a minute that says how often.
type notices struct {
	log *slog.Logger

	mu      sync.Mutex
	pending map[message.Reason]*notice
}

type notice struct {
	said   time.Time
	unsaid int
}

// refused notes a message that was refused through a fault of the operator's or
// of ours, which nobody else would tell them.
func (n *notices) refused(m *message.Message, f *message.Failure) {
	if f.Reason != message.PolicyFailed && f.Reason != message.ChargingFailed && f.Reason != message.Internal {
		return
	}
	if times := n.due(f.Reason, m.Received); times > 0 {
		n.log.Warn("messages are refused", "transport", m.Transport, "id", m.ID, "reason", f, "times", times)
	}
}

// due counts, and returns how many are to be said now; zero: not yet.
func (n *notices) due(r message.Reason, now time.Time) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	pending := n.pending[r]
	if pending == nil {
		pending = &notice{}
		n.pending[r] = pending
	}
	pending.unsaid++
	if now.Sub(pending.said) < noticeEvery {
		return 0
	}
	times := pending.unsaid
	pending.said, pending.unsaid = now, 0
	return times
}

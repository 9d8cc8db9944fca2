package trunk

import (
	"log/slog"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// complainEvery is how often at most the log has one of the complaints.
const complainEvery = time.Minute

// What operators are told of, since messages suffer from it.
const (
	refusedCredentials = "our credentials are refused; messages wait"
	leadsInside        = "a recipient's domain leads to us, or to a private address; messages there are refused"
	silentDNS          = "a domain can't be looked up; messages wait"
)

// complaints tells operators that there is something to mend: of many messages
// that suffer from the same, of one.
type complaints struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]time.Time // one for each of the above
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, told: map[string]time.Time{}}
}

func (c *complaints) of(what string, now time.Time, reason message.Reason, details ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, found := c.told[what]; found && now.Sub(last) < complainEvery {
		return
	}
	c.told[what] = now
	c.log.Warn(what, append(details, "reason", string(reason))...)
}

package sip

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// What answers are counted by.
var (
	countedMethods  = [...]string{"MESSAGE", "REGISTER", "OPTIONS", "other"}
	countedStatuses = [...]string{"2xx", "401", "4xx", "5xx", "6xx"}
)

// metrics count how requests were answered. What the wire refuses by itself, and
// what it answers again, the wire counts.
type metrics struct {
	answers [len(countedMethods)][len(countedStatuses)]*plugin.Counter
	refused map[message.Reason]*plugin.Counter

	// contacts are registrations with too many of them. All other limits are
	// those of the wire, or behind the gate.
	contacts atomic.Uint64
}

func newMetrics(m *plugin.Metrics) *metrics {
	c := &metrics{refused: map[message.Reason]*plugin.Counter{}}
	for i, method := range countedMethods {
		for j, status := range countedStatuses {
			c.answers[i][j] = m.Counter("sip_requests_total", "Requests by how they were answered; 401 is a challenge and not among 4xx.",
				plugin.Label{Name: "method", Value: method}, plugin.Label{Name: "status", Value: status})
		}
	}
	for _, reason := range message.Reasons {
		c.refused[reason] = m.Counter("sip_refused_requests_total", "Requests that were refused, by reason; not those that were challenged.",
			plugin.Label{Name: "reason", Value: string(reason)})
	}
	return c
}

func (m *metrics) answered(method string, status int) {
	m.answers[methodIndex(method)][statusIndex(status)].Inc()
}

func methodIndex(method string) int {
	last := len(countedMethods) - 1
	for i, known := range countedMethods[:last] {
		if known == method {
			return i
		}
	}
	return last
}

func statusIndex(status int) int {
	switch {
	case status < 300:
		return 0
	case status == 401:
		return 1
	case status < 500:
		return 2
	case status < 600:
		return 3
	}
	return 4
}

// complaintsEvery is how often the log says what was refused.
const complaintsEvery = time.Minute

// alarming are the reasons that tell of wrong or too much input, and not of what
// a policy or a balance says. What the wire drops because there is too much of
// it, the wire says; what was refused behind the gate is said there.
var alarming = []message.Reason{message.Malformed, message.Unauthenticated, message.TooLarge, message.TooManyHops, message.LimitReached}

// complaints are what was refused, as of the last look.
type complaints struct {
	metrics *metrics
	log     *slog.Logger
	seen    map[string]uint64
}

func newComplaints(m *metrics, log *slog.Logger) *complaints {
	return &complaints{metrics: m, log: log, seen: map[string]uint64{}}
}

// watch logs once a minute what was refused, a line for each kind: a flood shall
// not fill the disk with lines about itself.
func (c *complaints) watch(ctx context.Context, counts func() wire.Counts) {
	ticker := time.NewTicker(complaintsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.report(counts())
		case <-ctx.Done():
			c.report(counts())
			return
		}
	}
}

// report logs what has come since the last report.
func (c *complaints) report(wire wire.Counts) {
	for _, reason := range alarming {
		n := c.metrics.refused[reason].Value()
		switch reason {
		case message.Malformed:
			n += wire.Malformed
		case message.TooLarge:
			n = wire.TooLarge
		case message.LimitReached:
			n = c.metrics.contacts.Load()
		}
		if times := n - c.seen[string(reason)]; times > 0 {
			c.log.Warn("requests refused", "reason", string(reason), "times", times)
		}
		c.seen[string(reason)] = n
	}
}

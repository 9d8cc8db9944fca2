package client

import (
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// How an SMSC answers a PDU of ours.
const (
	answerTaken     = "taken"
	answerThrottled = "throttled"
	answerTemporary = "temporary"
	answerPermanent = "permanent"
	answerNone      = "none"
)

// What an SMSC sends us.
const (
	deliveredMessage = "message"
	deliveredReceipt = "receipt"
	deliveredState   = "state" // on its way, and no end
)

// Why there is no bind.
const (
	failedConnect = "connect"
	failedRefused = "refused"
	failedLost    = "lost"
)

// metrics count what an instance does.
type metrics struct {
	submitted map[string]*plugin.Counter // by answer
	delivered map[string]*plugin.Counter // by what it is
	refused   *plugin.Counter
	failures  map[string]*plugin.Counter // by why
	responses *plugin.Histogram
}

// responseBounds are those of how long an SMSC takes for its answer.
var responseBounds = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	500 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

func newMetrics(m *plugin.Metrics, c *Client) *metrics {
	each := func(name, help, label string, values ...string) map[string]*plugin.Counter {
		counters := make(map[string]*plugin.Counter, len(values))
		for _, value := range values {
			counters[value] = m.Counter(name, help, plugin.Label{Name: label, Value: value})
		}
		return counters
	}
	for direction, sending := range map[string]bool{"send": true, "receive": false} {
		label := plugin.Label{Name: "direction", Value: direction}
		m.Gauge("smpp_client_binds", "Binds that are up, by what they can do; a transceiver does both.",
			func() float64 { return float64(c.binds.count(sending)) }, label)
		m.Gauge("smpp_client_binds_wanted", "Binds that there should be on the active node.",
			func() float64 { return float64(c.config.wanted(sending)) }, label)
	}
	m.Gauge("smpp_client_waiting", "Messages that wait for their turn or for an answer.", func() float64 { return float64(c.waiting.Load()) })
	m.Gauge("smpp_client_rate", "PDUs a second that are sent at most, lower while the SMSC complains; 0: as many as it can.", c.pace.perSecond)
	for why, n := range map[string]func() uint64{
		"throttled": c.counters.Throttled.Load, "malformed": c.counters.Malformed.Load, "unknown": c.counters.Unknown.Load,
	} {
		m.CounterFunc("smpp_client_refused_total", "PDUs of the SMSC that were refused unread: too many at once, not as they should be, or of no kind that we know.",
			func() float64 { return float64(n()) }, plugin.Label{Name: "reason", Value: why})
	}
	m.CounterFunc("smpp_client_late_answers_total", "Answers of the SMSC that came when nobody waited for them any more.",
		func() float64 { return float64(c.counters.Late.Load()) })
	return &metrics{
		submitted: each("smpp_client_submits_total", "PDUs that were sent to the SMSC, a message or a part of one each, by its answer.",
			"answer", answerTaken, answerThrottled, answerTemporary, answerPermanent, answerNone),
		delivered: each("smpp_client_deliveries_total", "PDUs that the SMSC sent: messages and parts of them, receipts, and states on the way to one.",
			"kind", deliveredMessage, deliveredReceipt, deliveredState),
		refused: m.Counter("smpp_client_refused_deliveries_total", "PDUs of the SMSC that were refused."),
		failures: each("smpp_client_bind_failures_total", "Binds that failed, by why: no connection, refused by the SMSC, or lost.",
			"why", failedConnect, failedRefused, failedLost),
		responses: m.Histogram("smpp_client_response_seconds", "How long the SMSC took for its answer to a message.", responseBounds),
	}
}

package ledger

import (
	"errors"
	"sync/atomic"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// meters are what the book counts. The gauges are kept beside the maps because
// whoever reads a metric must not wait for the book's lock.
type meters struct {
	accounts     atomic.Int64
	reservations atomic.Int64
	inTime, late *plugin.Counter // settlements
}

// watch registers what the accounts plugin shows.
func (m *meters) watch(metrics *plugin.Metrics) {
	metrics.Gauge("ledger_accounts", "accounts in the ledger", func() float64 { return float64(m.accounts.Load()) })
}

// charge registers what the charging plugin shows. It is called before the
// first settlement.
func (m *meters) charge(metrics *plugin.Metrics) {
	metrics.Gauge("ledger_reservations_open", "reservations that are neither settled nor lapsed",
		func() float64 { return float64(m.reservations.Load()) })
	const name, help = "ledger_settlements_total", "messages that were paid for; late: after their reservation had lapsed"
	m.inTime = metrics.Counter(name, help, plugin.Label{Name: "late", Value: "false"})
	m.late = metrics.Counter(name, help, plugin.Label{Name: "late", Value: "true"})
}

func (m *meters) settled(late bool) {
	if late {
		m.late.Inc()
		return
	}
	m.inTime.Inc()
}

// refusals counts what a plugin refuses, by reason.
type refusals map[message.Reason]*plugin.Counter

// newRefusals registers a counter for each reason that there can be.
func newRefusals(metrics *plugin.Metrics, reasons ...message.Reason) refusals {
	r := refusals{}
	for _, reason := range reasons {
		r[reason] = metrics.Counter("ledger_refusals_total", "credentials and reservations that were refused, by reason",
			plugin.Label{Name: "reason", Value: string(reason)})
	}
	return r
}

// count counts a refusal and returns it.
func (r refusals) count(err error) error {
	f, ok := errors.AsType[*message.Failure](err)
	if !ok {
		return err
	}
	if counter := r[f.Reason]; counter != nil {
		counter.Inc()
	}
	return err
}

package spool

import (
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// commitBounds are the buckets for the time of a transaction.
var commitBounds = []time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Measures are what committers count, one after the other, for as long as the
// process lives.
type Measures struct {
	commits, errors *plugin.Counter
	took            *plugin.Histogram
}

// NewMeasures registers what is counted of the writes to the storage.
func NewMeasures(m *plugin.Metrics) *Measures {
	return &Measures{
		commits: m.Counter("storage_commits_total", "Transactions that the storage has taken."),
		errors:  m.Counter("storage_commit_errors_total", "Transactions that the storage has refused."),
		took:    m.Histogram("storage_commit_seconds", "How long the storage took for a transaction, until it was on disk.", commitBounds),
	}
}

// Count lets a committer count there. It is called before Run.
func (c *Committer) Count(in *Measures) { c.measured.Store(in) }

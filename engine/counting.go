package engine

import (
	"time"

	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// takeoverBounds are the buckets for the time until a node takes traffic.
var takeoverBounds = []time.Duration{
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// counting is what is counted for as long as the process lives: terms come and
// go, and what they count goes on.
type counting struct {
	messages  *pipeline.Meter
	commits   *spool.Measures
	takeovers *plugin.Histogram
	books     map[string]*plugin.Metrics // by key and plugin
}

// measure registers what is counted, and what there is to be seen of a node
// whatever its role is.
func (e *Engine) measure() {
	metrics := e.options.Metrics
	e.counting = counting{
		messages:  pipeline.NewMeter(metrics),
		commits:   spool.NewMeasures(metrics),
		takeovers: metrics.Histogram("takeover_seconds", "From asking for the lease until this node takes traffic.", takeoverBounds),
		books:     map[string]*plugin.Metrics{},
	}
	e.seen.Measure(metrics)
	metrics.Gauge("node_active", "Whether this node is the active one.", func() float64 { return yes(e.leads()) })
	metrics.Gauge("storage_failing", "Whether the storage refuses writes just now, or doesn't say who is active.", func() float64 {
		return yes(e.storageTrouble() != nil)
	})
}

func yes(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// ofBook is where one of the books counts, from one term to the next. The caller
// begins a term: only one does.
func (c *counting) ofBook(i Instance, env plugin.Env) *plugin.Metrics {
	key := i.Key() + "/" + i.Plugin.Name
	if c.books[key] == nil {
		c.books[key] = env.Metrics
	}
	return c.books[key]
}

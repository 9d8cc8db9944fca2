package plugin

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Metrics is where the engine and the plugins register what they count, and
// where whoever shows it reads it. Names and units follow Prometheus: lower
// case with underscores, a unit in the plural at the end, "_total" for
// counters; the engine puts "imgate_" before them. Registering is for New,
// counting for the hot path.
//
// A scope adds labels to all that is registered through it, and takes it all
// away when it is closed, scopes within it included: each instance has one. A nil *Metrics works and shows
// nothing. The methods may be called from any goroutine.
type Metrics struct {
	registry *registry
	labels   []Label
	owner    *owner
}

// owner is a scope as its series know it.
type owner struct {
	within *owner // nil: it is the whole registry
	closed bool   // guarded by the registry's lock
}

// ended tells whether a scope, or one that it is within, is closed.
func (o *owner) ended() bool {
	for ; o != nil; o = o.within {
		if o.closed {
			return true
		}
	}
	return false
}

// Label is a name and a value that tells series of one metric apart. There are
// few values: never an address, a number or an id.
type Label struct{ Name, Value string }

// NewMetrics returns an empty registry.
func NewMetrics() *Metrics { return &Metrics{registry: &registry{}, owner: &owner{}} }

// Scope returns a part of the registry: what is registered through it bears
// these labels besides those of m, and lasts until the scope, or m, is closed.
func (m *Metrics) Scope(labels ...Label) *Metrics {
	if m == nil {
		return nil
	}
	return &Metrics{registry: m.registry, labels: m.with(labels), owner: &owner{within: m.owner}}
}

// Close takes away what was registered through this scope and those within it.
// What is registered later is counted and never shown.
func (m *Metrics) Close() {
	if m != nil {
		m.registry.remove(m.owner)
	}
}

// Retire takes away what is read from somebody who has ended: the gauges, and
// the counters that somebody else keeps, of this scope. Counters and histograms
// stay, and whoever registers them again goes on with them.
func (m *Metrics) Retire() {
	if m != nil {
		m.registry.retire(m.owner)
	}
}

// with returns a list of its own: whoever gets it sorts it.
func (m *Metrics) with(labels []Label) []Label { return slices.Concat(m.labels, labels) }

// Counter returns the counter of that name and those labels, and registers it
// if it is new.
func (m *Metrics) Counter(name, help string, labels ...Label) *Counter {
	if m == nil {
		return new(Counter)
	}
	found := m.registry.add(m.series(KindCounter, name, help, labels), func(s *Series) { s.counter = new(Counter) })
	return found.counter
}

// CounterFunc registers a counter that somebody else keeps. read is called for
// each look, from any goroutine, and must not block.
func (m *Metrics) CounterFunc(name, help string, read func() float64, labels ...Label) {
	if m != nil {
		m.registry.add(m.series(KindCounter, name, help, labels), func(s *Series) { s.read = read })
	}
}

// Gauge registers a value that goes up and down. read is called for each look,
// from any goroutine, and must not block.
func (m *Metrics) Gauge(name, help string, read func() float64, labels ...Label) {
	if m != nil {
		m.registry.add(m.series(KindGauge, name, help, labels), func(s *Series) { s.read = read })
	}
}

// Histogram returns the histogram of durations of that name and those labels,
// and registers it if it is new. bounds are the upper bounds of its buckets, in
// ascending order; the name ends in "_seconds".
func (m *Metrics) Histogram(name, help string, bounds []time.Duration, labels ...Label) *Histogram {
	if m == nil {
		return newHistogram(bounds)
	}
	found := m.registry.add(m.series(KindHistogram, name, help, labels), func(s *Series) { s.histogram = newHistogram(bounds) })
	return found.histogram
}

func (m *Metrics) series(kind MetricKind, name, help string, labels []Label) *Series {
	s := &Series{Kind: kind, Name: name, Help: help, Labels: m.with(labels), owner: m.owner}
	slices.SortFunc(s.Labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// Series returns everything that is registered, sorted by name and labels.
func (m *Metrics) Series() []*Series {
	if m == nil {
		return nil
	}
	return m.registry.list()
}

// MetricKind says what a metric does.
type MetricKind uint8

// The kinds of metrics.
const (
	KindCounter MetricKind = iota
	KindGauge
	KindHistogram
)

// Series is one metric with one set of labels.
type Series struct {
	Kind       MetricKind
	Name, Help string
	Labels     []Label // sorted by name

	counter   *Counter
	histogram *Histogram
	read      func() float64
	owner     *owner
}

// Value reads a counter or a gauge.
func (s *Series) Value() float64 {
	if s.read != nil {
		return s.read()
	}
	return float64(s.counter.Value())
}

// Buckets reads a histogram: the sum in seconds, how many were observed, and
// how many of them up to each bound in seconds.
func (s *Series) Buckets() (sum float64, count uint64, upTo map[float64]uint64) {
	return s.histogram.read()
}

func compareSeries(a, b *Series) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return slices.CompareFunc(a.Labels, b.Labels, func(x, y Label) int {
		if c := strings.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return strings.Compare(x.Value, y.Value)
	})
}

// Counter only goes up.
type Counter struct{ n atomic.Uint64 }

// Add counts n more.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Inc counts one more.
func (c *Counter) Inc() { c.n.Add(1) }

// Value returns what was counted.
func (c *Counter) Value() uint64 { return c.n.Load() }

// Histogram counts durations by size.
type Histogram struct {
	bounds []time.Duration
	counts []atomic.Uint64 // one more than there are bounds
	nanos  atomic.Int64
}

func newHistogram(bounds []time.Duration) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.nanos.Add(int64(d))
}

func (h *Histogram) read() (sum float64, count uint64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64, len(h.bounds))
	for i, bound := range h.bounds {
		count += h.counts[i].Load()
		upTo[bound.Seconds()] = count
	}
	count += h.counts[len(h.bounds)].Load()
	return time.Duration(h.nanos.Load()).Seconds(), count, upTo
}

// Quantile estimates how long the given part (0 to 1) of what was observed
// took at most: the bound of the bucket that it falls into, infinity if that is
// the last one, NaN if nothing was observed.
func (h *Histogram) Quantile(part float64) float64 {
	_, count, upTo := h.read()
	if count == 0 {
		return math.NaN()
	}
	for _, bound := range h.bounds {
		if float64(upTo[bound.Seconds()]) >= part*float64(count) {
			return bound.Seconds()
		}
	}
	return math.Inf(1)
}

// registry holds series, sorted. Two owners may have the same series for a
// while: an instance, and the one that takes its place. The later one counts.
type registry struct {
	mu     sync.Mutex
	series []*Series
}

// add returns its owner's series like s, or fills s in and adds it.
func (r *registry) add(s *Series, fill func(*Series)) *Series {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.owner.ended() {
		fill(s)
		return s
	}
	i, _ := slices.BinarySearchFunc(r.series, s, compareSeries)
	for ; i < len(r.series) && compareSeries(r.series[i], s) == 0; i++ {
		if r.series[i].owner != s.owner {
			continue
		}
		if r.series[i].Kind == s.Kind && r.series[i].read == nil {
			return r.series[i]
		}
		fill(s)
		r.series[i] = s // another function, or a mistake that a look will show
		return s
	}
	fill(s)
	r.series = slices.Insert(r.series, i, s)
	return s
}

func (r *registry) remove(o *owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.closed = true
	r.series = slices.DeleteFunc(r.series, func(s *Series) bool { return s.owner.ended() })
}

func (r *registry) retire(o *owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.series = slices.DeleteFunc(r.series, func(s *Series) bool { return s.owner == o && s.read != nil })
}

func (r *registry) list() []*Series {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Series, 0, len(r.series))
	for i, s := range r.series {
		if i+1 == len(r.series) || compareSeries(s, r.series[i+1]) != 0 {
			list = append(list, s)
		}
	}
	return list
}

package app

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape is what the server's metrics said at one moment. What it doesn't have
// reads as zero.
type scrape struct {
	at       time.Time
	families map[string]*dto.MetricFamily
}

// readScrape asks a server for its metrics.
func readScrape(ctx context.Context, c *client, now time.Time) (*scrape, error) {
	status, content, err := c.page(ctx, metricsPath)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("the server at %s answered %d to %s", c.address, status, metricsPath)
	}
	return parseScrape(content, now)
}

func parseScrape(content []byte, at time.Time) (*scrape, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("the metrics can't be read: %w", err)
	}
	return &scrape{at, families}, nil
}

// series returns those of a metric that bear the labels, which are pairs of
// name and value.
func (s *scrape) series(name string, labels ...string) []*dto.Metric {
	var found []*dto.Metric
	for _, m := range s.families[name].GetMetric() {
		if bears(m, labels) {
			found = append(found, m)
		}
	}
	return found
}

func bears(m *dto.Metric, labels []string) bool {
	for pair := range slices.Chunk(labels, 2) {
		if labelOf(m, pair[0]) != pair[1] {
			return false
		}
	}
	return true
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// sum adds up counters and gauges.
func (s *scrape) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, m := range s.series(name, labels...) {
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
	}
	return total
}

// values returns the values that a label has in any of the metrics, sorted.
func (s *scrape) values(label string, names ...string) []string {
	found := map[string]bool{}
	for _, name := range names {
		for _, m := range s.families[name].GetMetric() {
			if value := labelOf(m, label); value != "" {
				found[value] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// bucket is how many durations were at most so many seconds.
type bucket struct {
	bound float64
	upTo  float64
}

// buckets adds up histograms; the last bucket is that of all durations.
func (s *scrape) buckets(name string, labels ...string) []bucket {
	upTo := map[float64]float64{}
	for _, m := range s.series(name, labels...) {
		h := m.GetHistogram()
		for _, b := range h.GetBucket() {
			if !math.IsInf(b.GetUpperBound(), 1) {
				upTo[b.GetUpperBound()] += float64(b.GetCumulativeCount())
			}
		}
		upTo[math.Inf(1)] += float64(h.GetSampleCount())
	}
	all := make([]bucket, 0, len(upTo))
	for bound, n := range upTo {
		all = append(all, bucket{bound, n})
	}
	slices.SortFunc(all, func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) })
	return all
}

// sameProcess tells whether no restart lies between two scrapes.
func (s *scrape) sameProcess(earlier *scrape) bool {
	const start = "process_start_time_seconds"
	return s.sum(start) == earlier.sum(start)
}

// rate is how often a counter was counted per second since an earlier scrape. A
// counter that went back began anew, as Prometheus sees it too.
func (s *scrape) rate(earlier *scrape, name string, labels ...string) float64 {
	seconds := s.at.Sub(earlier.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	now, before := s.sum(name, labels...), earlier.sum(name, labels...)
	if now < before {
		before = 0
	}
	return (now - before) / seconds
}

// quantiles estimates how long the given parts (0 to 1) of what was observed
// since an earlier scrape took at most.
func (s *scrape) quantiles(earlier *scrape, parts []float64, name string, labels ...string) []estimate {
	since := s.buckets(name, labels...)
	before := map[float64]float64{}
	for _, b := range earlier.buckets(name, labels...) {
		before[b.bound] = b.upTo
	}
	if last := len(since) - 1; last >= 0 && since[last].upTo >= before[since[last].bound] {
		for i := range since {
			since[i].upTo -= before[since[i].bound]
		}
	}
	estimates := make([]estimate, len(parts))
	for i, part := range parts {
		estimates[i] = quantile(since, part)
	}
	return estimates
}

// estimate is a quantile of durations.
type estimate struct {
	duration time.Duration
	known    bool // something was observed
	longer   bool // than the duration: it falls into the bucket without a bound
}

// quantile interpolates within the bucket that the part falls into, as
// Prometheus' histogram_quantile does.
func quantile(buckets []bucket, part float64) estimate {
	if len(buckets) == 0 || buckets[len(buckets)-1].upTo <= 0 {
		return estimate{}
	}
	wanted := part * buckets[len(buckets)-1].upTo
	lower, below := 0.0, 0.0
	for _, b := range buckets {
		if math.IsInf(b.bound, 1) {
			break
		}
		if b.upTo < wanted {
			lower, below = b.bound, b.upTo
			continue
		}
		within := (wanted - below) / (b.upTo - below)
		return estimate{duration: inSeconds(lower + (b.bound-lower)*within), known: true}
	}
	return estimate{duration: inSeconds(lower), known: true, longer: true}
}

func inSeconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

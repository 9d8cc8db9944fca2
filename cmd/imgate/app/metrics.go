package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	metricsPath    = "/metrics"
	metricPrefix   = "imgate_"
	scrapesAtOnce  = 4
	scrapeDeadline = 10 * time.Second
)

// metricsHandler serves what is registered, what Go's runtime and the process
// tell, and what was built, in the text format of Prometheus. Anybody may call
// it: at most a few at once.
func metricsHandler(metrics *plugin.Metrics, log *slog.Logger) http.HandlerFunc {
	complain := newComplaints(log)
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		&exposition{metrics, complain},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            complain,
		ErrorHandling:       promhttp.ContinueOnError, // a page with a gap says more than none
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeDeadline,
	}).ServeHTTP
}

// buildInfo is a metric that is always 1; its labels say what runs.
func buildInfo() prometheus.Collector {
	info, _ := debug.ReadBuildInfo()
	built := readBuild(info)
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: metricPrefix + "build_info",
		Help: "Which version runs; always 1.",
		ConstLabels: prometheus.Labels{
			"version": built.version, "revision": built.revision, "goversion": runtime.Version(),
		},
	}, func() float64 { return 1 })
}

// exposition shows a registry of ours to Prometheus. Plugins choose names and
// labels, so nothing is known before it is collected: what can't be shown is
// left out and complained of, and the rest of the page stands.
type exposition struct {
	metrics  *plugin.Metrics
	complain *complaints
}

// Describe implements prometheus.Collector: it can't say what will come.
func (e *exposition) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (e *exposition) Collect(out chan<- prometheus.Metric) {
	families := map[string]*plugin.Series{}
	for _, s := range e.metrics.Series() {
		first, known := families[s.Name]
		if !known {
			first = s
		}
		metric, err := expose(s, first)
		if err != nil {
			e.complain.about(s.Name, err)
			continue
		}
		families[s.Name] = first
		out <- metric
	}
}

var (
	metricName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	labelName  = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// expose makes one series. The first of its name says what all of that name
// are: one page can't have two kinds or two helps under one name.
func expose(s, first *plugin.Series) (prometheus.Metric, error) {
	if !metricName.MatchString(s.Name) {
		return nil, fmt.Errorf("%q is no name of a metric: expected lower-case letters, digits and _", s.Name)
	}
	if s.Kind != first.Kind {
		return nil, fmt.Errorf("another metric of this name is of another kind")
	}
	names, values, err := labelsOf(s)
	if err != nil {
		return nil, err
	}
	desc := prometheus.NewDesc(metricPrefix+s.Name, first.Help, names, nil)
	switch s.Kind {
	case plugin.KindCounter:
		return prometheus.NewConstMetric(desc, prometheus.CounterValue, s.Value(), values...)
	case plugin.KindGauge:
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, s.Value(), values...)
	case plugin.KindHistogram:
		sum, count, upTo := s.Buckets()
		return prometheus.NewConstHistogram(desc, count, sum, upTo, values...)
	}
	return nil, fmt.Errorf("kind %d of metric is unknown", s.Kind)
}

func labelsOf(s *plugin.Series) (names, values []string, err error) {
	seen := map[string]bool{}
	for _, label := range s.Labels {
		switch {
		case !labelName.MatchString(label.Name):
			return nil, nil, fmt.Errorf("%q is no name of a label: expected lower-case letters, digits and _", label.Name)
		case s.Kind == plugin.KindHistogram && label.Name == "le":
			return nil, nil, fmt.Errorf("the label le belongs to the buckets")
		case seen[label.Name]:
			return nil, nil, fmt.Errorf("the label %s is there twice", label.Name)
		}
		seen[label.Name] = true
		names = append(names, label.Name)
		values = append(values, label.Value)
	}
	return names, values, nil
}

// maxComplaints is how many different ones are made: whoever registers names
// without end isn't given the log as well.
const maxComplaints = 100

// complaints logs each thing that is wrong with the metrics once, and not with
// each scrape.
type complaints struct {
	log *slog.Logger

	mu   sync.Mutex
	made map[string]bool
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, made: map[string]bool{}}
}

func (c *complaints) about(metric string, err error) {
	text := err.Error()
	if c.isNew(metric + ": " + text) {
		c.log.Warn("a metric can't be shown", "metric", metric, "reason", text)
	}
}

// Println implements promhttp.Logger. Whoever asked and has gone since is told
// nothing, and nothing is wrong.
func (c *complaints) Println(v ...any) {
	if slices.ContainsFunc(v, isCanceled) {
		return
	}
	text := strings.TrimSuffix(fmt.Sprintln(v...), "\n")
	if c.isNew(text) {
		c.log.Warn("some metrics can't be shown", "reason", text)
	}
}

func isCanceled(v any) bool {
	err, ok := v.(error)
	return ok && errors.Is(err, context.Canceled)
}

func (c *complaints) isNew(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made[text] || len(c.made) == maxComplaints {
		return false
	}
	c.made[text] = true
	return true
}

// build is what a program knows of how it was built.
type build struct {
	version  string
	revision string // empty: not from a repository
	modified bool
}

// readBuild reads it; info may be nil.
func readBuild(info *debug.BuildInfo) build {
	b := build{version: "(unknown version)"}
	if info == nil {
		return b
	}
	if info.Main.Version != "" {
		b.version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	return b
}

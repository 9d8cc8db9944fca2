package app

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/imgate/imgate/engine/plugin"
)

// scrapeOf returns what a handler says to Prometheus.
func scrapeOf(t *testing.T, handler http.Handler) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, metricsPath, nil))
	if kind := recorder.Header().Get("Content-Type"); recorder.Code != http.StatusOK || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Fatalf("%d %s\n%s", recorder.Code, kind, recorder.Body)
	}
	return recorder.Body.String()
}

// ours are the lines of a page that are about our own metrics, without the
// build, which differs.
func ours(page string) string {
	var lines strings.Builder
	for line := range strings.Lines(page) {
		if strings.Contains(line, metricPrefix) && !strings.Contains(line, "build_info") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

func TestMetricsPage(t *testing.T) {
	metrics := plugin.NewMetrics()
	sip := metrics.Scope(plugin.Label{Name: "transport", Value: "sip"})
	sip.Counter("messages_received_total", "Messages that doors handed in.").Add(7)
	metrics.Scope(plugin.Label{Name: "transport", Value: `a"b\c`}).Counter("messages_received_total", "Another help.").Inc()
	metrics.Gauge("bindings", "Bindings that are there.", func() float64 { return 3 })
	metrics.CounterFunc("storage_commits_total", "Commits.", func() float64 { return 12 })
	h := sip.Histogram("delivery_attempt_seconds", "How long attempts took.", []time.Duration{time.Millisecond, time.Second})
	for _, d := range []time.Duration{time.Microsecond, time.Millisecond, 2 * time.Second} {
		h.Observe(d)
	}
	page := scrapeOf(t, metricsHandler(metrics, slog.New(slog.DiscardHandler)))
	golden(t, "metrics.golden", ours(page))
	for _, want := range []string{`imgate_build_info{goversion="go`, "\ngo_goroutines ", "\nprocess_cpu_seconds_total "} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	sip.Close()
	if page := scrapeOf(t, metricsHandler(metrics, slog.New(slog.DiscardHandler))); strings.Contains(page, `transport="sip"`) {
		t.Errorf("an instance that was closed is still shown:\n%s", ours(page))
	}
}

// TestMetricsThatCannotBeShown: one mistake of a plugin costs one series, and
// one line of the log, however often it is looked at.
func TestMetricsThatCannotBeShown(t *testing.T) {
	label := func(name, value string) plugin.Label { return plugin.Label{Name: name, Value: value} }
	one := func() float64 { return 1 }
	for name, register := range map[string]func(*plugin.Metrics){
		"name":             func(m *plugin.Metrics) { m.Counter("bad-name_total", "Bad.") },
		"no name":          func(m *plugin.Metrics) { m.Counter("", "Bad.") },
		"label":            func(m *plugin.Metrics) { m.Counter("bad_total", "Bad.", label("a b", "x")) },
		"reserved label":   func(m *plugin.Metrics) { m.Counter("bad_total", "Bad.", label("__name__", "x")) },
		"label twice":      func(m *plugin.Metrics) { m.Counter("bad_total", "Bad.", label("a", "x"), label("a", "y")) },
		"value":            func(m *plugin.Metrics) { m.Counter("bad_total", "Bad.", label("a", "\xff")) },
		"label of buckets": func(m *plugin.Metrics) { m.Histogram("bad_seconds", "Bad.", nil, label("le", "1")) },
		"two kinds":        func(m *plugin.Metrics) { m.Gauge("good_total", "Bad.", one, label("a", "x")) },
		"suffix": func(m *plugin.Metrics) {
			m.Histogram("bad_seconds", "Bad.", []time.Duration{time.Second})
			m.Gauge("bad_seconds_count", "Bad.", one)
		},
	} {
		t.Run(name, func(t *testing.T) {
			metrics := plugin.NewMetrics()
			metrics.Counter("good_total", "Good.").Add(5)
			register(metrics)
			var log bytes.Buffer
			handler := metricsHandler(metrics, slog.New(slog.NewTextHandler(&log, nil)))
			for range 3 {
				if page := scrapeOf(t, handler); !strings.Contains(page, "\nimgate_good_total 5\n") || !strings.Contains(page, "\ngo_goroutines ") {
					t.Errorf("the others are gone:\n%s", ours(page))
				}
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("%d lines:\n%s", n, &log)
			}
		})
	}
}

// TestScrapeThatEndsEarly: whoever asks may go away. That is no fault of ours.
func TestScrapeThatEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		metrics := plugin.NewMetrics()
		metrics.Gauge("slow", "Slow.", func() float64 { leave(); <-gone; return 1 })
		var log bytes.Buffer
		handler := metricsHandler(metrics, slog.New(slog.NewTextHandler(&log, nil)))
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, metricsPath, nil))
		close(gone)
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("it says %s", &log)
		}
	})
}

func TestComplaintsAreBounded(t *testing.T) {
	var log bytes.Buffer
	c := newComplaints(slog.New(slog.NewTextHandler(&log, nil)))
	for n := range 10 * maxComplaints {
		c.about(strings.Repeat("x", n), io.EOF)
	}
	if n := strings.Count(log.String(), "\n"); n != maxComplaints || len(c.made) != maxComplaints {
		t.Errorf("%d lines, %d kept", n, len(c.made))
	}
}

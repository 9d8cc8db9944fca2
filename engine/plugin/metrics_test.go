package plugin

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"
)

// shown lists what a registry shows, a line for each series.
func shown(m *Metrics) []string {
	lines := []string{}
	for _, s := range m.Series() {
		line := s.Name
		for _, l := range s.Labels {
			line += fmt.Sprintf(" %s=%s", l.Name, l.Value)
		}
		if s.Kind == KindHistogram {
			sum, count, _ := s.Buckets()
			line += fmt.Sprintf(" %d in %gs", count, sum)
		} else {
			line += fmt.Sprintf(" %g", s.Value())
		}
		lines = append(lines, line)
	}
	return lines
}

func expectShown(t *testing.T, m *Metrics, want ...string) {
	t.Helper()
	if got := shown(m); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("shown are\n\t%q\nwant\n\t%q", got, want)
	}
}

func TestMetricsAreSortedWithTheLabelsOfTheirScope(t *testing.T) {
	m := NewMetrics()
	sip := m.Scope(Label{"transport", "sip"}, Label{"node", "gw1"})
	sip.Counter("sent_total", "", Label{"method", "MESSAGE"}).Add(3)
	sip.Counter("sent_total", "", Label{"method", "ACK"}).Inc()
	m.Gauge("depth", "", func() float64 { return 7 })
	m.CounterFunc("kept_total", "", func() float64 { return 5 })
	m.Histogram("wait_seconds", "", []time.Duration{time.Second}).Observe(time.Second / 2)
	expectShown(t, m,
		"depth 7", "kept_total 5",
		"sent_total method=ACK node=gw1 transport=sip 1", "sent_total method=MESSAGE node=gw1 transport=sip 3",
		"wait_seconds 1 in 0.5s")
}

func TestSameNameAndLabelsAreTheSameCounter(t *testing.T) {
	m := NewMetrics()
	m.Counter("a_total", "", Label{"x", "1"}, Label{"y", "2"}).Inc()
	m.Counter("a_total", "", Label{"y", "2"}, Label{"x", "1"}).Inc()
	m.Histogram("b_seconds", "", []time.Duration{1}).Observe(0)
	m.Histogram("b_seconds", "", []time.Duration{1}).Observe(0)
	m.Gauge("c", "", func() float64 { return 1 })
	m.Gauge("c", "", func() float64 { return 2 }) // the later function
	expectShown(t, m, "a_total x=1 y=2 2", "b_seconds 2 in 0s", "c 2")
}

func TestAScopeTakesItsOwnAway(t *testing.T) {
	m := NewMetrics()
	m.Counter("stays_total", "").Inc()
	first := m.Scope(Label{"transport", "sip"})
	counted := first.Counter("sent_total", "")
	first.Close()
	counted.Inc() // does no harm
	expectShown(t, m, "stays_total 1")
}

// TestSuccessor opens an instance before the one that it replaces is closed, as
// a reload may: the later one's series are shown, and stay.
func TestSuccessor(t *testing.T) {
	m := NewMetrics()
	old, next := m.Scope(Label{"transport", "sip"}), m.Scope(Label{"transport", "sip"})
	old.Counter("sent_total", "").Add(10)
	old.Gauge("flows", "", func() float64 { return 10 })
	next.Counter("sent_total", "").Add(1)
	next.Gauge("flows", "", func() float64 { return 1 })
	expectShown(t, m, "flows transport=sip 1", "sent_total transport=sip 1")
	old.Close()
	expectShown(t, m, "flows transport=sip 1", "sent_total transport=sip 1")
	next.Close()
	expectShown(t, m)
}

func TestNilMetricsCountNothing(t *testing.T) {
	var m *Metrics
	scope := m.Scope(Label{"a", "b"})
	scope.Counter("a_total", "").Inc()
	scope.CounterFunc("b_total", "", func() float64 { return 1 })
	scope.Gauge("c", "", func() float64 { return 1 })
	scope.Histogram("d_seconds", "", []time.Duration{time.Second}).Observe(time.Minute)
	scope.Close()
	expectShown(t, m)
}

func TestHistogram(t *testing.T) {
	h := newHistogram([]time.Duration{time.Millisecond, 10 * time.Millisecond, time.Second})
	if q := h.Quantile(0.5); !math.IsNaN(q) {
		t.Errorf("of nothing the median is %g", q)
	}
	for _, d := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 10*time.Millisecond + 1} {
		h.Observe(d)
	}
	sum, count, upTo := h.read()
	if fmt.Sprintf("%.9f %d %v", sum, count, upTo) != "0.013000001 4 map[0.001:2 0.01:3 1:4]" {
		t.Errorf("%.9f %d %v", sum, count, upTo)
	}
	for part, want := range map[float64]float64{0.5: 0.001, 0.75: 0.01, 0.76: 1, 1: 1} {
		if got := h.Quantile(part); got != want {
			t.Errorf("quantile %g: %g, want %g", part, got, want)
		}
	}
	h.Observe(time.Hour)
	if got := h.Quantile(1); !math.IsInf(got, 1) {
		t.Errorf("beyond the last bound: %g", got)
	}
}

// TestMetricsFromManyGoroutines is for the race detector: scopes register,
// count, are looked at and close at once.
func TestMetricsFromManyGoroutines(t *testing.T) {
	m := NewMetrics()
	shared := m.Scope(Label{"z", "1"}, Label{"a", "2"}) // not in order
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 50 {
				own := m.Scope(Label{"instance", fmt.Sprint(i)})
				own.Counter("own_total", "").Inc()
				shared.Counter("shared_total", "").Inc()
				shared.Gauge("gauge", "", func() float64 { return 1 })
				shown(m)
				own.Close()
			}
		})
	}
	group.Wait()
	if first := shared.labels[0].Name; first != "z" {
		t.Errorf("a scope's own labels were sorted: the first is %s", first)
	}
	expectShown(t, m, "gauge a=2 z=1 1", "shared_total a=2 z=1 400")
}

func TestCountingDoesNotAllocate(t *testing.T) {
	m := NewMetrics()
	c, h := m.Counter("a_total", ""), m.Histogram("b_seconds", "", []time.Duration{1, 2, 3})
	if n := testing.AllocsPerRun(100, func() { c.Inc(); h.Observe(2) }); n > 0 {
		t.Errorf("%g allocations", n)
	}
}

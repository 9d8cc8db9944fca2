package plugin

import (
	"slices"
	"testing"
)

// values reads all counters and gauges.
func values(m *Metrics) (list []float64) {
	for _, s := range m.Series() {
		list = append(list, s.Value())
	}
	return list
}

// An instance and the one that takes its place have the same series for a
// while: the later one counts, and if it goes first, the earlier one again.
func TestMetricsOfTwoOwners(t *testing.T) {
	m := NewMetrics()
	want := func(when string, list ...float64) {
		t.Helper()
		if got := values(m); !slices.Equal(got, list) {
			t.Errorf("%s: %v, want %v", when, got, list)
		}
	}
	register := func(n uint64) *Metrics {
		scope := m.Scope(Label{"transport", "sip"})
		scope.Counter("packets_total", "").Add(n)
		scope.Counter("packets_total", "").Add(n) // the same one
		scope.Gauge("version", "", func() float64 { return 0 })
		scope.Gauge("version", "", func() float64 { return float64(n) })
		return scope
	}
	first := register(1)
	want("one", 2, 1)
	second := register(2)
	want("two", 4, 2)
	second.Close()
	want("put back", 2, 1)
	third := register(3)
	first.Close()
	want("exchanged", 6, 3)
	third.Close()
	want("none")
}

// Closing a scope closes those within it, and nothing beside it; what comes too
// late isn't shown.
func TestMetricsWithinAScope(t *testing.T) {
	m := NewMetrics()
	instance, other := m.Scope(Label{"transport", "sip"}), m.Scope(Label{"transport", "trunk"})
	listener := instance.Scope(Label{"network", "tcp"})
	for i, scope := range []*Metrics{m, instance, listener, other} {
		scope.Counter("packets_total", "").Add(uint64(i))
	}
	instance.Close()
	if got := values(m); !slices.Equal(got, []float64{0, 3}) {
		t.Errorf("after its end: %v", got)
	}
	late := listener.Counter("late_total", "")
	late.Inc()
	listener.Histogram("late_seconds", "", nil).Observe(1)
	instance.Scope().Gauge("late", "", func() float64 { return 1 })
	if got := values(m); len(got) != 2 || late.Value() != 1 {
		t.Errorf("what came too late: %v", got)
	}
}

// Who comes after somebody who has ended goes on with his counters, and has
// gauges of its own.
func TestMetricsOfSuccessors(t *testing.T) {
	m := NewMetrics()
	book, other := m.Scope(Label{"section", "book"}), m.Scope(Label{"section", "other"})
	for term := range 3 {
		book.Counter("terms_total", "").Inc()
		book.Histogram("term_seconds", "", nil).Observe(1)
		book.Gauge("version", "", func() float64 { return float64(term) })
		book.CounterFunc("kept_elsewhere_total", "", func() float64 { return 9 })
		other.Gauge("version", "", func() float64 { return 7 })
		_, observed, _ := m.Series()[1].Buckets()
		if len(m.Series()) != 5 || observed != uint64(term+1) || m.Series()[2].Value() != float64(term+1) || m.Series()[3].Value() != float64(term) {
			t.Fatalf("term %d: %d series, %d observed", term, len(m.Series()), observed)
		}
		book.Retire()
		if left := m.Series(); len(left) != 3 || left[1].Value() != float64(term+1) || left[2].Value() != 7 {
			t.Errorf("after term %d: %d series", term, len(left))
		}
	}
	(*Metrics)(nil).Retire()
}

package engine_test

import (
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// wantCounts checks series; -1: there is none.
func (m *member) wantCounts(when string, want map[string]float64) {
	m.t.Helper()
	for series, value := range want {
		name, labels, _ := strings.Cut(series, " ")
		if got := m.count(name, strings.Fields(labels)...); got != value {
			m.t.Errorf("node %s, %s: %s is %v, want %v", m.name, when, series, got, value)
		}
	}
}

// What is counted goes on from one term to the next, and is there on a standby.
// What only an active node can know isn't shown without one.
func TestCountersOutliveTerms(t *testing.T) {
	disk := memory.NewDisk()
	a, b := join(t, disk, "a", true), join(t, disk, "b", false)
	b.wantCounts("before its first term", map[string]float64{
		"messages_accepted_total in": 0, "delivery_attempts_total taken trunk": 0, "delivery_repeats_total": 0,
		"storage_commits_total": 0, "message_seconds": 0, "storage_failing": 0, "seen_submissions": 0,
		"spool_messages": -1, "bindings": -1, "undecided_messages": -1,
	})
	a.works("first")
	a.wantCounts("as the active one", map[string]float64{"messages_accepted_total in": 1, "books_total books accounts": 1, "books books accounts": 1, "undecided_messages": 0})

	change := func(version int) {
		t.Helper()
		c := a.config(a.itself, set(accounts, settings{Version: version}), add(a.world, "more", settings{}))
		if _, err := a.Reload(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	change(2)
	a.works("second")
	a.wantCounts("after a reload", map[string]float64{
		"messages_accepted_total in": 2, "message_seconds": 2, "messages_received_total more": 0, "books_total books accounts": 2, "undecided_messages": 0,
	})
	a.knows("b")
	if status, text := a.handOver(""); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	b.plays(true)
	a.plays(false)
	a.wantCounts("as a standby", map[string]float64{
		"messages_accepted_total in": 2, "message_seconds": 2, "spool_messages": -1, "books_total books accounts": 2, "books books accounts": -1,
	})
	if _, text := a.call("GET", "/v1/status"); !strings.Contains(text, `"accepted":2`) || strings.Contains(text, "waiting") {
		t.Errorf("a standby counts %s", text)
	}
	b.works("third")
	a.knows("b")
	if status, text := b.handOver(`{"to":"a"}`); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	a.plays(true)
	a.works("fourth")
	a.wantCounts("when it is back", map[string]float64{"messages_accepted_total in": 3, "books_total books accounts": 3})
	if _, text := a.call("GET", "/v1/status"); !strings.Contains(text, `"accepted":3`) || !strings.Contains(text, `"waiting":0`) {
		t.Errorf("it counts %s", text)
	}
}

// storage_failing is for alerts: it tells of a storage that gives no lease, too.
func TestStorageFailsOnAStandby(t *testing.T) {
	disk := memory.NewDisk()
	a, b := join(t, disk, "a", true), join(t, disk, "b", false)
	for _, m := range []*member{b, a} {
		m.line.cut.Store(true)
		m.eventually("its storage fails", func() bool { return m.count("storage_failing") == 1 })
		m.line.cut.Store(false)
		m.eventually("it is back", func() bool { return m.count("storage_failing") == 0 })
	}
}

// count what a plugin of the books counts, from one term to the next.
func countBook(env plugin.Env) {
	env.Metrics.Counter("books_total", "").Inc()
	env.Metrics.Gauge("books", "", func() float64 { return 1 })
}

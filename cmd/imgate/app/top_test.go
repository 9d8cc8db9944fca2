package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "github.com/charmbracelet/bubbletea"
)

// metricsAfter is a page of a server that has run for so many seconds and took
// a hundred messages in each.
func metricsAfter(start, seconds int) string {
	n := 100 * seconds
	return fmt.Sprintf(`# TYPE process_start_time_seconds gauge
process_start_time_seconds %d
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total %f
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.23456789e+08
# TYPE go_goroutines gauge
go_goroutines 57
# TYPE imgate_build_info gauge
imgate_build_info{goversion="go1.26",revision="abc",version="v1.2.3"} 1
# TYPE imgate_messages_received_total counter
imgate_messages_received_total{transport="sip"} %d
imgate_messages_received_total{transport="smpp"} 7
# TYPE imgate_messages_accepted_total counter
imgate_messages_accepted_total %d
# TYPE imgate_messages_refused_total counter
imgate_messages_refused_total{transport="sip",reason="rejected"} %d
imgate_messages_refused_total{transport="sip",reason="overloaded"} 5
imgate_messages_refused_total{transport="smpp",reason="rejected"} 0
# TYPE imgate_messages_ended_total counter
imgate_messages_ended_total{transport="sip",service="default",outcome="delivered",reason=""} %d
imgate_messages_ended_total{transport="sip",service="default",outcome="failed",reason="expired"} 3
# TYPE imgate_delivery_attempts_total counter
imgate_delivery_attempts_total{transport="sip",outcome="delivered"} %d
# TYPE imgate_storage_commits_total counter
imgate_storage_commits_total %d
# TYPE imgate_policy_decision_seconds histogram
imgate_policy_decision_seconds_bucket{le="0.0001"} %d
imgate_policy_decision_seconds_bucket{le="0.001"} %d
imgate_policy_decision_seconds_bucket{le="+Inf"} %d
imgate_policy_decision_seconds_sum 1
imgate_policy_decision_seconds_count %d
# TYPE imgate_storage_commit_seconds histogram
imgate_storage_commit_seconds_bucket{le="0.001"} 0
imgate_storage_commit_seconds_bucket{le="+Inf"} %d
imgate_storage_commit_seconds_sum 1
imgate_storage_commit_seconds_count %d
# TYPE imgate_spool_messages gauge
imgate_spool_messages 12345
# TYPE imgate_spool_oldest_age_seconds gauge
imgate_spool_oldest_age_seconds 192.4
# TYPE imgate_lanes gauge
imgate_lanes 120
# TYPE imgate_lanes_asleep gauge
imgate_lanes_asleep 10
# TYPE imgate_bindings gauge
imgate_bindings 1234
# TYPE imgate_sip_connections gauge
imgate_sip_connections{instance="sip",network="tcp"} 12
# TYPE imgate_spool_quarantined gauge
imgate_spool_quarantined %d
`, start, float64(seconds)*0.83, n, n-n/100, n/100, n/2, n, 40*seconds, n/2, n-n/50, n, n, n, n, seconds/10)
}

const began = 1_767_323_045 // seconds since 1970: when the server started

// sightAfter is what is seen of that server.
func sightAfter(t *testing.T, start, seconds int, reasons ...string) *sight {
	t.Helper()
	s, err := parseScrape([]byte(metricsAfter(start, seconds)), time.Unix(int64(start+seconds), 0))
	if err != nil {
		t.Fatal(err)
	}
	return &sight{scrape: s, node: "gw1", address: "127.0.0.1:8060", reasons: reasons}
}

func happen(t *testing.T, m *top, events ...tea.Msg) tea.Cmd {
	t.Helper()
	var cmd tea.Cmd
	for _, event := range events {
		var next tea.Model
		if next, cmd = m.Update(event); next != m {
			t.Fatalf("it becomes %v", next)
		}
	}
	return cmd
}

func TestTopFrames(t *testing.T) {
	a, b, c := sightAfter(t, began, 5), sightAfter(t, began, 6), sightAfter(t, began, 7)
	alarming := sightAfter(t, began, 32, "standby")
	for _, f := range []struct {
		name   string
		events []tea.Msg
	}{
		{"begin", nil},
		{"first", []tea.Msg{looked{sight: a}}},
		{"running", []tea.Msg{looked{sight: a}, looked{sight: b}, looked{sight: c}}},
		{"wide", []tea.Msg{tea.WindowSizeMsg{Width: 200, Height: 60}, looked{sight: a}, looked{sight: c}}},
		{"narrow", []tea.Msg{tea.WindowSizeMsg{Width: 40, Height: 50}, looked{sight: a}, looked{sight: c}}},
		{"low", []tea.Msg{tea.WindowSizeMsg{Width: 80, Height: 5}, looked{sight: a}, looked{sight: c}}},
		{"gone", []tea.Msg{looked{sight: a}, looked{sight: b}, looked{err: errors.New("no server answers at 127.0.0.1:8060")}}},
		{"never-there", []tea.Msg{looked{err: errors.New("no server answers at 127.0.0.1:8060")}}},
		{"restarted", []tea.Msg{looked{sight: c}, looked{err: errors.New("no")}, looked{sight: sightAfter(t, began+60, 1)}}},
		{"alarming", []tea.Msg{looked{sight: a}, looked{sight: alarming}}},
	} {
		t.Run(f.name, func(t *testing.T) {
			m := newTop(t.Context(), nil, false)
			happen(t, m, f.events...)
			view := m.View()
			golden(t, "top-"+f.name+".golden", view+"\n")
			lines := strings.Split(view, "\n")
			for _, line := range lines {
				if utf8.RuneCountInString(line) > m.width {
					t.Errorf("wider than %d: %q", m.width, line)
				}
			}
			if len(lines) > m.height {
				t.Errorf("%d lines, of %d", len(lines), m.height)
			}
		})
	}
}

func TestTopAtEverySize(t *testing.T) {
	m := newTop(t.Context(), nil, true)
	happen(t, m, looked{sight: sightAfter(t, began, 5)}, looked{sight: sightAfter(t, began, 6, "draining")})
	for width := range 100 {
		for height := range 40 {
			happen(t, m, tea.WindowSizeMsg{Width: width, Height: height})
			if lines := strings.Count(m.View(), "\n") + 1; lines > max(height, 1) {
				t.Fatalf("%dx%d: %d lines", width, height, lines)
			}
		}
	}
}

func TestTopKeysAndLooks(t *testing.T) {
	m := newTop(t.Context(), func(context.Context) (*sight, error) { return nil, errors.New("no") }, true)
	for _, key := range []tea.KeyMsg{{Type: tea.KeyRunes, Runes: []rune("q")}, {Type: tea.KeyCtrlC}, {Type: tea.KeyEsc}} {
		if cmd := happen(t, m, key); cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%s doesn't quit", key)
		}
	}
	if cmd := happen(t, m, tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("x")}); cmd != nil {
		t.Error("any key does something")
	}
	if l, ok := m.Init()().(looked); !ok || l.err == nil {
		t.Error("it doesn't begin by looking")
	}
	if cmd := happen(t, m, looked{err: errors.New("no")}); cmd == nil {
		t.Error("it doesn't try again")
	}
	if cmd := happen(t, m, dueToLook{}); cmd == nil {
		t.Error("it doesn't look when it is time")
	}
	if !strings.Contains(m.View(), "\x1b[1;31mnot reachable") {
		t.Errorf("no colour: %q", m.View())
	}
	for n := range 100 {
		happen(t, m, looked{sight: sightAfter(t, began, n)})
	}
	if len(m.seen) != latencyWindow+1 {
		t.Errorf("%d looks are kept", len(m.seen))
	}
}

// TestTopProgram runs it as a program, without a terminal, until somebody
// presses q, and until its context ends.
func TestTopProgram(t *testing.T) {
	s := sightAfter(t, began, 5)
	see := func(context.Context) (*sight, error) { return s, nil }
	var out bytes.Buffer
	if err := topLive(t.Context(), strings.NewReader("q"), &out, newTop(t.Context(), see, false)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancelling := func(context.Context) (*sight, error) {
		cancel()
		return s, nil
	}
	if err := topLive(ctx, nil, &out, newTop(ctx, cancelling, false)); err != nil {
		t.Error(err)
	}
	if text := out.String(); strings.Count(text, "\x1b[?1049h") != strings.Count(text, "\x1b[?1049l") {
		t.Error("it leaves the terminal in its alternate screen")
	}
}

// statusServer is a node whose metrics grow.
func statusServer(ready int, body string) http.Handler {
	looks := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(ready)
		fmt.Fprint(w, body)
	})
	mux.HandleFunc(metricsPath, func(w http.ResponseWriter, _ *http.Request) {
		looks++
		page := metricsAfter(began, 4+looks)
		if strings.Contains(body, `"standby"`) {
			page = regexp.MustCompile(`(?m)^(# TYPE )?imgate_spool.*\n`).ReplaceAllString(page, "")
		}
		fmt.Fprint(w, page)
	})
	return mux
}

func TestTopOnce(t *testing.T) {
	for _, flag := range []string{"--once", "--output=text"} {
		got := against(t, statusServer(200, `{"status":"ready"}`), "top", flag)
		if got.status != exitOK || got.err != "" || !strings.Contains(got.out, "MESSAGES") || strings.Contains(got.out, "\x1b") {
			t.Errorf("%+v", got)
		}
	}
	if got := against(t, statusServer(200, "{}"), "top"); got.status != exitUsage || !strings.Contains(got.err, "this is no terminal: say --once") {
		t.Errorf("%+v", got)
	}
	if got := against(t, http.NotFoundHandler(), "top", "--once"); got.status != exitError || got.out != "" {
		t.Errorf("%+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	see := func(context.Context) (*sight, error) {
		cancel()
		return sightAfter(t, began, 5), nil
	}
	if err := topOnce(ctx, &bytes.Buffer{}, see, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	for name, server := range map[string]http.Handler{
		"ready":   statusServer(200, `{"status":"ready"}`),
		"standby": statusServer(503, `{"status":"not ready","reasons":["standby"]}`),
	} {
		got := against(t, server, "status")
		if got.status != exitOK || got.err != "" {
			t.Errorf("%+v", got)
		}
		golden(t, "status-"+name+".txt", withoutUptime(got.out))
	}
	got := against(t, statusServer(200, `{}`), "status", "--output", "json")
	for _, want := range []string{`"node":"gw1","version":"v1.2.3","ready":true`, `"spool":{"messages":12345,"oldest_age_seconds":192,"quarantined":0}`, `"refused":{"overloaded":5,"rejected":5}`, `"ended":{"delivered":250,"failed":3}`} {
		if !strings.Contains(got.out, want) || strings.Count(got.out, "\n") != 1 {
			t.Errorf("%s lacks %s", got.out, want)
		}
	}
	if got := against(t, statusServer(200, "<html>"), "status"); got.status != exitError || !strings.Contains(got.err, "can't be read") {
		t.Errorf("%+v", got)
	}
}

// withoutUptime leaves out the line that depends on the clock.
func withoutUptime(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "up ") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func TestQuantile(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		buckets []bucket
		part    float64
		want    estimate
	}{
		{nil, 0.5, estimate{}},
		{[]bucket{{1, 0}, {inf, 0}}, 0.5, estimate{}},
		{[]bucket{{1, 10}, {inf, 10}}, 0.5, estimate{500 * time.Millisecond, true, false}},
		{[]bucket{{1, 0}, {3, 10}, {inf, 10}}, 0.5, estimate{2 * time.Second, true, false}},
		{[]bucket{{1, 50}, {2, 99}, {inf, 100}}, 0.99, estimate{2 * time.Second, true, false}},
		{[]bucket{{1, 50}, {2, 90}, {inf, 100}}, 0.99, estimate{2 * time.Second, true, true}},
		{[]bucket{{inf, 10}}, 0.5, estimate{0, true, true}},
	} {
		if got := quantile(c.buckets, c.part); got != c.want {
			t.Errorf("%v at %v: %v, want %v", c.buckets, c.part, got, c.want)
		}
	}
}

// A counter that goes back began anew: the term ended and another began.
func TestRatesAfterANewTerm(t *testing.T) {
	before, now := sightAfter(t, began, 100), sightAfter(t, began, 4)
	now.at = before.at.Add(2 * time.Second)
	if got := now.rate(before.scrape, "imgate_messages_received_total", "transport", "sip"); got != 200 {
		t.Errorf("%v", got)
	}
	if q := now.quantiles(before.scrape, []float64{0.25}, "imgate_policy_decision_seconds"); q[0].duration != 50*time.Microsecond {
		t.Errorf("%v", q)
	}
	if got := before.rate(before.scrape, "imgate_messages_received_total"); got != 0 {
		t.Errorf("%v", got)
	}
}

func FuzzScrape(f *testing.F) {
	f.Add([]byte(metricsAfter(began, 5)), []byte(metricsAfter(began, 6)))
	f.Add([]byte("imgate_lanes 1\n"), []byte("imgate_lanes{a=\"b\"} NaN\n"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		m := newTop(t.Context(), nil, false)
		for n, content := range [][]byte{first, second} {
			s, err := parseScrape(content, time.Unix(began+int64(n), 0))
			if err != nil {
				return
			}
			m.take(looked{sight: &sight{scrape: s}})
		}
		for line := range strings.SplitSeq(m.View(), "\n") {
			if utf8.RuneCountInString(line) > m.width {
				t.Errorf("%q", line)
			}
		}
	})
}

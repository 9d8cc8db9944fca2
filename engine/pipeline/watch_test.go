package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// value adds up the series of a name, or those that have all these labels too.
func value(m *plugin.Metrics, name string, labels ...plugin.Label) (sum float64) {
	for _, s := range m.Series() {
		has := func(l plugin.Label) bool { return slices.Contains(s.Labels, l) }
		if s.Name != name || slices.ContainsFunc(labels, func(l plugin.Label) bool { return !has(l) }) {
			continue
		}
		if s.Kind == plugin.KindHistogram {
			_, count, _ := s.Buckets()
			sum += float64(count)
			continue
		}
		sum += s.Value()
	}
	return sum
}

func label(name, value string) plugin.Label { return plugin.Label{Name: name, Value: value} }

func TestMetrics(t *testing.T) {
	metrics := plugin.NewMetrics()
	inBubble(t, charged(), func(p *pipeline.Parts) { p.Metrics = metrics }, func(t *testing.T, s *solo) {
		_, release := everyState(t, s)
		wantRefusal(t, s.door.submit("alice", "?", "x"), message.UnknownRecipient, false)
		wantRefusal(t, s.door.submit("alice", "bob", string(make([]byte, 300<<10))), message.TooLarge, false)
		time.Sleep(time.Minute)
		for _, c := range []struct {
			name   string
			labels []plugin.Label
			want   float64
		}{
			{"messages_received_total", []plugin.Label{label("transport", "door")}, 8},
			{"messages_accepted_total", []plugin.Label{label("transport", "door")}, 6},
			{"messages_refused_total", []plugin.Label{label("transport", "door"), label("reason", "unknown-recipient")}, 1},
			{"messages_refused_total", nil, 2},
			{"messages_ended_total", []plugin.Label{label("transport", "door"), label("service", "test"), label("outcome", "delivered"), label("reason", "")}, 1},
			{"messages_ended_total", []plugin.Label{label("outcome", "failed"), label("reason", "declined")}, 1},
			{"messages_ended_total", nil, 2},
			{"delivery_attempts_total", []plugin.Label{label("outcome", "taken")}, 2},
			{"delivery_attempts_total", []plugin.Label{label("outcome", "refused")}, 2},
			{"delivery_attempt_seconds", []plugin.Label{label("transport", "door")}, 4},
			{"policy_decision_seconds", nil, 7},
			{"charging_authorize_seconds", nil, 6},
			{"message_seconds", nil, 2},
			{"messages_quarantined_total", nil, 1},
			{"spool_messages", nil, 4},
			{"spool_quarantined", nil, 1},
			{"spool_handed_over", nil, 1},
			{"spool_oldest_age_seconds", nil, 60},
			{"lanes", nil, 2},
			{"lanes_asleep", nil, 1},
			{"bindings", nil, 1},
			{"settle_queue", nil, 0},
			{"undecided_messages", nil, 0},
			{"records_settled_total", nil, 3},
		} {
			if got := value(metrics, c.name, c.labels...); got != c.want {
				t.Errorf("%s %v is %v, want %v", c.name, c.labels, got, c.want)
			}
		}
		snapshot := s.Snapshot()
		for key, want := range map[string]int64{"submitted": 8, "accepted": 6, "refused": 2, "delivered": 1, "failed": 1, "waiting": 4} {
			if snapshot[key] != want {
				t.Errorf("the snapshot says %d %s, want %d", snapshot[key], key, want)
			}
		}
		release()
	})
}

// TestServicesAreBounded: their names come from policies.
func TestServicesAreBounded(t *testing.T) {
	metrics := plugin.NewMetrics()
	synctest.Test(t, func(t *testing.T) {
		policy := &manyServices{}
		s := alone(t, memory.Open(memory.NewDisk()), policy, func(p *pipeline.Parts) { p.Metrics = metrics })
		for i := range 1500 {
			s.send(t, "alice", "bob", fmt.Sprint(i))
		}
		services := map[string]bool{}
		for _, series := range metrics.Series() {
			for _, l := range series.Labels {
				if l.Name == "service" {
					services[l.Value] = true
				}
			}
		}
		if len(services) != 1001 || value(metrics, "messages_ended_total", label("service", "other")) != 500 {
			t.Errorf("%d services have series", len(services))
		}
	})
}

// manyServices is a policy with a service for each message.
type manyServices struct{ n int }

func (p *manyServices) Decide(context.Context, plugin.Question, plugin.Supply) (plugin.Plan, error) {
	p.n++
	plan := plugin.DefaultPlan()
	plan.Service, plan.Processing = fmt.Sprint("service", p.n), plugin.Discard
	return plan, nil
}

// witness notes the steps of each message, by its text.
type witness struct {
	mu    sync.Mutex
	steps map[string][]plugin.Step
	panic bool
}

func (w *witness) Packet(*plugin.Packet) {}
func (w *witness) Close() error          { return nil }

func (w *witness) Step(s *plugin.Step) {
	if w.panic {
		panic("an observer that panics")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key := s.Message.Peer
	w.steps[key] = append(w.steps[key], *s)
}

func (w *witness) names(body string) (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.steps[body] {
		names = append(names, string(s.Name))
	}
	return names
}

func TestSteps(t *testing.T) {
	w := &witness{steps: map[string][]plugin.Step{}}
	observers := &plugin.Observers{}
	observers.Use([]plugin.Observer{w})
	inBubble(t, charged(), func(p *pipeline.Parts) { p.Observers = observers }, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		s.Cancel(t.Context(), ids[spool.StateWaiting])
		s.Report(t.Context(), "door", "peer", plugin.Status{Delivered: true})
		first(t, s.door.submit("alice", "?", "x", func(a *plugin.Arrival) { a.Message.Peer = "refused" }))
		release()
		s.door.take = taken
		s.Requeue(t.Context(), ids[spool.StateQuarantined])
		synctest.Wait()
		for body, want := range map[string]string{
			"waiting":     "received decided authorized stored waiting failed",
			"sending":     "received decided authorized stored attempted delivered",
			"quarantined": "received decided authorized stored attempted quarantined requeued attempted delivered",
			"handed-over": "received decided authorized stored attempted handed-over delivered",
			"failed":      "received decided authorized stored attempted failed",
			"refused":     "received decided refused",
		} {
			if got := strings.Join(w.names(body), " "); got != want {
				t.Errorf("%s: %s\nwant %s", body, got, want)
			}
		}
		attempt := w.steps["quarantined"][7]
		if attempt.Transport != "door" || attempt.Peer != "phone" || attempt.Attempt != 2 || attempt.Call == "" || attempt.Ended.Before(attempt.Began) {
			t.Errorf("the attempt is %+v", attempt)
		}
		if decided := w.steps["failed"][1]; decided.Service != "test" {
			t.Errorf("decided by %q", decided.Service)
		}
		if failed := w.steps["failed"][5]; failed.Reason != message.Declined {
			t.Errorf("failed because %q", failed.Reason)
		}
	})
}

func TestObserverThatPanicsHarmsNothing(t *testing.T) {
	observers := &plugin.Observers{}
	observers.Use([]plugin.Observer{&witness{panic: true}})
	var log bytes.Buffer
	change := func(p *pipeline.Parts) {
		p.Observers, p.Log = observers, slog.New(slog.NewTextHandler(&log, nil))
	}
	inBubble(t, charged(), change, func(t *testing.T, s *solo) {
		s.door.register(t.Context(), "bob", "phone")
		id := s.send(t, "alice", "bob", "hello")
		if v := s.state(t, id); v.State != spool.StateDelivered {
			t.Errorf("it is %s", v.State)
		}
	})
	if n := strings.Count(log.String(), "an observer panicked"); n != 1 {
		t.Errorf("said %d times: %s", n, &log)
	}
}

func TestLimits(t *testing.T) {
	metrics := plugin.NewMetrics()
	var log bytes.Buffer
	limits := func(p *pipeline.Parts) {
		p.Limits = pipeline.Limits{Messages: 5, PerRecipient: 3, Contacts: 2}
		p.Metrics, p.Log = metrics, slog.New(slog.NewTextHandler(&log, nil))
	}
	inBubble(t, charged(), limits, func(t *testing.T, s *solo) {
		for i := range 3 {
			s.send(t, "alice", "bob", fmt.Sprint(i))
		}
		for i := range 4 {
			wantRefusal(t, s.door.submit("alice", "bob", fmt.Sprint("more", i)), message.LimitReached, true)
		}
		s.send(t, "alice", "carol", "x")
		s.door.take = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{PeerIDs: []string{"p"}}, nil
		}
		s.door.register(t.Context(), "dave", "phone")
		s.send(t, "alice", "dave", "handed over, and still counted")
		wantRefusal(t, s.door.submit("alice", "erin", "x"), message.Overloaded, true)
		if err := s.door.register(t.Context(), "erin", "a", "b", "c"); reason(err) != message.LimitReached {
			t.Errorf("three contacts: %v", err)
		}
	})
	got := map[string]float64{
		"recipient": value(metrics, "messages_refused_total", label("reason", "limit-reached")),
		"in all":    value(metrics, "messages_refused_total", label("reason", "overloaded")),
		"contacts":  value(metrics, "registrations_refused_total", label("transport", "door"), label("reason", "limit-reached")),
	}
	if want := map[string]float64{"recipient": 4, "in all": 1, "contacts": 1}; !maps.Equal(got, want) {
		t.Errorf("counted %v", got)
	}
	if n := strings.Count(log.String(), "\n"); n != 3 {
		t.Errorf("%d lines, want one for each limit:\n%s", n, &log)
	}
}

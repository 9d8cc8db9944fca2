//go:build cluster

package main_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	readyEvery   = 50 * time.Millisecond
	metricsEvery = 200 * time.Millisecond
)

// watch asks all nodes all the time whether they are ready, and what they have
// counted.
type watch struct {
	c    *cluster
	stop context.CancelFunc
	all  sync.WaitGroup

	mu        sync.Mutex
	stretches [][]*stretch // by node
	counts    []*counts    // by node
	fences    []fence
}

// stretch is when a node said each time that it is ready.
type stretch struct {
	node   *node
	looks  []look
	ended  bool
	begins time.Time
}

// look is one question: at some moment between its ends the answer was true.
type look struct{ asked, told time.Time }

// counts are of one node, over all its processes. The engine's counters begin
// anew with each term; what a node counts between the last look and its end
// isn't seen.
type counts struct {
	life                 int64
	repeats, lastRepeats float64
	joined, lastJoined   float64
}

// fence is what a node said that took itself for the active one.
type fence struct {
	look
	node   *node
	number float64
}

func newWatch(c *cluster) *watch {
	ctx, stop := context.WithCancel(c.t.Context())
	w := &watch{c: c, stop: stop, stretches: make([][]*stretch, len(c.nodes)), counts: make([]*counts, len(c.nodes))}
	for i, n := range c.nodes {
		w.counts[i] = &counts{}
		w.all.Go(func() { every(ctx, readyEvery, func() { w.lookAt(i, n) }) })
		w.all.Go(func() { every(ctx, metricsEvery, func() { w.count(i, n) }) })
	}
	c.t.Cleanup(w.end)
	return w
}

// end may be called twice.
func (w *watch) end() {
	w.stop()
	w.all.Wait()
}

// every asks other processes again and again.
func every(ctx context.Context, interval time.Duration, ask func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ask()
		}
	}
}

// hasty asks a process that may be frozen.
var hasty = http.Client{Timeout: 500 * time.Millisecond}

func isReady(admin string) bool {
	answer, err := hasty.Get("http://" + admin + "/readyz")
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (w *watch) lookAt(i int, n *node) {
	asked := time.Now()
	ready := isReady(n.admin)
	told := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.stretches[i]
	current := len(list) - 1
	if !ready {
		if current >= 0 {
			list[current].ended = true
		}
		return
	}
	if current < 0 || list[current].ended {
		list = append(list, &stretch{node: n, begins: told})
		w.stretches[i], current = list, len(list)-1
	}
	list[current].looks = append(list[current].looks, look{asked, told})
}

// covers tells whether a node was ready all through a look at another one.
func (s *stretch) covers(l look) bool {
	return !l.asked.Before(s.looks[0].told) && !l.told.After(s.looks[len(s.looks)-1].asked)
}

// count reads what a node has counted so far.
func (w *watch) count(i int, n *node) {
	asked, life := time.Now(), n.life.Load()
	answer, err := hasty.Get("http://" + n.admin + "/metrics")
	if err != nil {
		return
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counts[i]
	if c.life != life {
		c.life, c.lastRepeats, c.lastJoined = life, 0, 0
	}
	c.repeats += grown(&c.lastRepeats, sumOf(string(page), "imgate_delivery_repeats_total"))
	c.joined += grown(&c.lastJoined, sumOf(string(page), "imgate_messages_joined_total"))
	if sumOf(string(page), "imgate_node_active") == 1 {
		w.fences = append(w.fences, fence{look{asked, time.Now()}, n, sumOf(string(page), "imgate_lease_fence")})
	}
}

// grown tells by how much a counter has grown that may have begun anew.
func grown(last *float64, now float64) float64 {
	by := now - *last
	if by < 0 {
		by = now
	}
	*last = now
	return by
}

// sumOf adds up the series of a metric that have some labels.
func sumOf(page, name string, labels ...string) (sum float64) {
	for line := range strings.Lines(page) {
		rest, found := strings.CutPrefix(line, name)
		if !found || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		if slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(rest, label) }) {
			continue
		}
		fields := strings.Fields(line)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err == nil {
			sum += value
		}
	}
	return sum
}

// repeats is how many deliveries may have been made before, as the nodes say,
// and how many submissions they knew as repeats.
func (w *watch) repeats() (deliveries, submissions int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.counts {
		deliveries += int(c.repeats)
		submissions += int(c.joined)
	}
	return deliveries, submissions
}

// check: no two nodes were ready at one moment. A look at one that lies
// between two looks at another one, which was ready all along, proves it.
func (w *watch) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, mine := range w.stretches {
		for j, others := range w.stretches {
			if i != j {
				checkApart(t, mine, others)
			}
		}
	}
	checkFences(t, w.fences)
}

// checkFences: once a node is active with a fence, no other is with an older
// one, nor with the same.
func checkFences(t *testing.T, fences []fence) {
	t.Helper()
	slices.SortFunc(fences, func(a, b fence) int { return a.told.Compare(b.told) })
	var newest fence
	for _, f := range fences {
		if f.number == 0 || f.node != newest.node && f.number <= newest.number && f.asked.After(newest.told) {
			t.Errorf("node %s is active at %s with fence %.0f, after another was with %.0f", f.node.name, f.told.Format(clock), f.number, newest.number)
		}
		if f.number > newest.number {
			newest = f
		}
	}
}

func checkApart(t *testing.T, mine, others []*stretch) {
	t.Helper()
	for _, s := range mine {
		for _, other := range others {
			for _, l := range other.looks {
				if s.covers(l) {
					t.Errorf("nodes %s and %s are both ready at %s; %s is from %s on", s.node.name, other.node.name, l.told.Format(clock), s.node.name, s.begins.Format(clock))
				}
			}
		}
	}
}

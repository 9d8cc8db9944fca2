package client

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// gate is an engine that does what a test tells it.
type gate struct {
	plugin.Gate // what isn't here is never asked for

	mu        sync.Mutex
	ready     chan struct{}
	reachable int
	arrivals  []plugin.Arrival
	reports   []reported
	inactive  *message.Failure
	refused   error                          // by Accepted
	report    func(id string, try int) error // nil: it is taken
	tries     map[string]int
	news      chan struct{} // closed when something came
}

type reported struct {
	id     string
	status plugin.Status
}

func newGate() *gate {
	return &gate{ready: make(chan struct{}), tries: map[string]int{}, news: make(chan struct{})}
}

func (g *gate) Ready() { close(g.ready) }

func (g *gate) Reachable() { g.note(func() { g.reachable++ }) }

func (g *gate) Active() *message.Failure {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inactive
}

func (g *gate) becomes(inactive *message.Failure) { g.note(func() { g.inactive = inactive }) }

func (g *gate) note(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	close(g.news)
	g.news = make(chan struct{})
}

func (g *gate) Submit(a plugin.Arrival) plugin.Ticket {
	t := ticket{}
	g.note(func() {
		g.arrivals = append(g.arrivals, a)
		t.err = g.refused
	})
	return t
}

type ticket struct {
	plugin.Ticket
	err error
}

func (t ticket) Accepted(context.Context) (plugin.Answer, error) { return plugin.Answer{}, t.err }

func (g *gate) Report(_ context.Context, id string, s plugin.Status) (err error) {
	g.note(func() {
		g.tries[id]++
		if g.report != nil {
			err = g.report(id, g.tries[id])
		}
		if err == nil {
			g.reports = append(g.reports, reported{id, s})
		}
	})
	return err
}

// soon is how long something may take that takes milliseconds.
const soon = 10 * time.Second

// await waits until something is so. It is asked with the lock held.
func (g *gate) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(soon)
	for {
		g.mu.Lock()
		ok, news := is(), g.news
		g.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("not within %s: %s", soon, what)
		}
	}
}

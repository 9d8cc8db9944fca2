package standby

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// line is a node's way to the storage, in the test's hands.
type line struct {
	plugin.Leases
	mu     sync.Mutex
	cut    error         // what every call returns
	hangs  bool          // calls wait for the end of their context
	freeze time.Duration // the next Renew takes so long, whatever its context says
}

func (l *line) pass(ctx context.Context) error {
	l.mu.Lock()
	cut, hangs := l.cut, l.hangs
	l.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return cut
}

// change lets a test do what it wants with the line.
func (l *line) change(f func(*line)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
}

func (l *line) Acquire(ctx context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	if err := l.pass(ctx); err != nil {
		return 0, err
	}
	return l.Leases.Acquire(ctx, node, ttl)
}

func (l *line) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	l.mu.Lock()
	frozen := l.freeze
	l.freeze = 0
	l.mu.Unlock()
	if frozen > 0 {
		time.Sleep(frozen)
		ctx = context.WithoutCancel(ctx)
	}
	if err := l.pass(ctx); err != nil {
		return err
	}
	return l.Leases.Renew(ctx, f, ttl)
}

func (l *line) Release(ctx context.Context, f plugin.Fence) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	return l.Leases.Release(ctx, f)
}

func (l *line) Handover(ctx context.Context, f plugin.Fence, to string, ttl time.Duration) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	return l.Leases.Handover(ctx, f, to, ttl)
}

func (l *line) Lease(ctx context.Context) (plugin.Lease, error) {
	if err := l.pass(ctx); err != nil {
		return plugin.Lease{}, err
	}
	return l.Leases.Lease(ctx)
}

func (l *line) Attend(ctx context.Context, node, note string) ([]plugin.Attendant, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	return l.Leases.Attend(ctx, node, note)
}

// node is a member at work.
type node struct {
	*Member
	t       *testing.T
	line    *line
	metrics *plugin.Metrics
	log     *buffer

	began chan Term
	ended chan time.Time
	fail  chan error // what the next term returns at once
	waits chan error
	heir  string
	rests time.Duration // how long its term takes to end
	stop  context.CancelFunc
	done  chan error
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// join runs a member on a disk.
func join(t *testing.T, disk *memory.Disk, name string) *node {
	ctx, stop := context.WithCancel(t.Context())
	n := &node{
		log: &buffer{}, t: t, line: &line{Leases: memory.Open(disk)}, metrics: plugin.NewMetrics(), stop: stop, done: make(chan error, 1),
		began: make(chan Term, 1000), ended: make(chan time.Time, 1000), fail: make(chan error, 1), waits: make(chan error, 10_000),
	}
	log := slog.New(slog.NewTextHandler(n.log, nil))
	n.Member = New(n.line, name, log, n.metrics, Roles{
		Standby: func(err error) { n.waits <- err },
		Heir:    func() string { return n.heir },
		Active: func(ctx context.Context, term Term) error {
			n.began <- term
			defer func() { n.ended <- time.Now() }()
			select {
			case err := <-n.fail:
				return err
			case <-ctx.Done():
				time.Sleep(n.rests)
				return nil
			}
		},
	})
	go func() { n.done <- n.Run(ctx) }()
	return n
}

func (n *node) end() {
	n.t.Helper()
	n.stop()
	if err := <-n.done; err != nil {
		n.t.Errorf("ends with %v", err)
	}
}

// says checks that a line of the log was written, and how often.
func (n *node) says(times int, text string) {
	n.t.Helper()
	synctest.Wait()
	if got := strings.Count(n.log.String(), text); got != times {
		n.t.Errorf("%q stands %d times in the log, want %d:\n%s", text, got, times, n.log.String())
	}
}

// within checks that a term begins soon enough.
func (n *node) within(limit time.Duration, what string) Term {
	n.t.Helper()
	select {
	case term := <-n.began:
		return term
	case <-time.After(limit + time.Millisecond):
		n.t.Fatalf("%s: no term begins within %v:\n%s", what, limit, n.log.String())
	}
	return Term{}
}

func counted(m *plugin.Metrics, name, role string, why Reason) float64 {
	for _, s := range m.Series() {
		if s.Name == name && len(s.Labels) == 2 && s.Labels[0].Value == string(why) && s.Labels[1].Value == role {
			return s.Value()
		}
	}
	return -1
}

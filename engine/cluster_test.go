package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// promised is five times what is promised of a take-over after a death.
const promised = 25 * time.Second

// line is a node's way to a storage that others use too.
type line struct {
	plugin.Storage
	cut    atomic.Bool   // every call fails
	freeze chan struct{} // Renew waits until it is closed; nil: it doesn't
	frozen atomic.Bool   // whether it does from now on
	held   sync.RWMutex  // Apply waits for it
	hangs  atomic.Bool   // Apply waits until its caller gives up
	stuck  chan struct{} // told when one does
	gaveUp chan error    // told why its caller gave up
}

// hold makes each Apply wait, whatever its context says, or lets it go.
func (l *line) hold(on bool) {
	if on {
		l.held.Lock()
		return
	}
	l.held.Unlock()
}

var errCut = errors.New("the cable is cut")

func (l *line) broken() error {
	if l.cut.Load() {
		return errCut
	}
	return nil
}

func (l *line) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	l.held.RLock()
	defer l.held.RUnlock()
	if l.hangs.Load() {
		l.stuck <- struct{}{}
		<-ctx.Done()
		l.gaveUp <- ctx.Err()
		return ctx.Err()
	}
	if err := l.broken(); err != nil {
		return err
	}
	return l.Storage.Apply(ctx, f, changes)
}

func (l *line) Acquire(ctx context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	if err := l.broken(); err != nil {
		return 0, err
	}
	return l.Storage.Acquire(ctx, node, ttl)
}

func (l *line) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	if l.frozen.Load() {
		<-l.freeze
	}
	if err := l.broken(); err != nil {
		return err
	}
	return l.Storage.Renew(ctx, f, ttl)
}

func (l *line) Release(ctx context.Context, f plugin.Fence) error {
	if err := l.broken(); err != nil {
		return err
	}
	return l.Storage.Release(ctx, f)
}

func (l *line) Lease(ctx context.Context) (plugin.Lease, error) {
	if err := l.broken(); err != nil {
		return plugin.Lease{}, err
	}
	return l.Storage.Lease(ctx)
}

func (l *line) Attend(ctx context.Context, node, note string) ([]plugin.Attendant, error) {
	if err := l.broken(); err != nil {
		return nil, err
	}
	return l.Storage.Attend(ctx, node, note)
}

// member is a node of a cluster, with a network of its own.
type member struct {
	*node
	name    string
	line    *line
	roles   chan bool
	metrics *plugin.Metrics
	itself  func(*engine.Config) // makes a configuration this node's
}

// join runs a node on a disk and waits until it has a role.
func join(t *testing.T, disk *memory.Disk, name string, active bool, change ...func(*engine.Config)) *member {
	t.Helper()
	m := &member{
		node:    &node{t: t, world: newWorld(t), disk: disk, dir: t.TempDir(), done: make(chan error, 1), log: &syncBuffer{}},
		name:    name,
		line:    &line{Storage: memory.Open(disk), freeze: make(chan struct{}), stuck: make(chan struct{}), gaveUp: make(chan error)},
		roles:   make(chan bool, 1000),
		metrics: plugin.NewMetrics(),
	}
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	storage := onStorage(func() plugin.Storage { return m.line })
	m.itself = func(c *engine.Config) {
		c.Node = name
		storage(c)
		for _, f := range change {
			f(c)
		}
	}
	config := m.config(m.itself)
	options := engine.Options{Role: func(active bool) { m.roles <- active }, Metrics: m.metrics, Version: "v" + name}
	m.Engine = engine.New(config, slog.New(slog.NewTextHandler(m.log, nil)), options)
	go func() { m.done <- m.Run(ctx, func(string) {}) }()
	t.Cleanup(func() {
		m.end()
		if t.Failed() {
			t.Logf("log:\n%s", m.log.text())
		}
	})
	m.plays(active)
	m.admin = m.address()
	return m
}

// plays waits until the node has a role.
func (m *member) plays(active bool) {
	m.t.Helper()
	select {
	case got := <-m.roles:
		if got != active {
			m.t.Fatalf("its role is active=%t", got)
		}
	case <-time.After(promised):
		m.t.Fatalf("it doesn't become active=%t", active)
	}
}

// address finds the admin API: other nodes are told.
func (m *member) address() (found string) {
	m.t.Helper()
	m.eventually("the others are told", func() bool {
		all, err := memory.Open(m.disk).Attend(m.t.Context(), "", "")
		if err != nil {
			m.t.Fatal(err)
		}
		for _, a := range all {
			var note struct{ Version, Admin string }
			if json.Unmarshal([]byte(a.Note), &note) == nil && note.Version == "v"+m.name {
				found = note.Admin
			}
		}
		return found != ""
	})
	return found
}

// cluster is what a node tells of all.
func (m *member) cluster() (c engine.Cluster) {
	m.t.Helper()
	status, text := m.call("GET", "/v1/cluster")
	if err := json.Unmarshal([]byte(text), &c); err != nil || status != 200 {
		m.t.Fatalf("%d %s: %v", status, text, err)
	}
	return c
}

// knows waits until a node knows that others are ready.
func (m *member) knows(others ...string) {
	m.t.Helper()
	m.eventually("the others are known", func() bool {
		for _, n := range m.cluster().Nodes {
			if i := slices.Index(others, n.Node); i >= 0 && n.Ready {
				others = slices.Delete(slices.Clone(others), i, i+1)
			}
		}
		return len(others) == 0
	})
}

// handOver asks for a handover.
func (m *member) handOver(body string) (int, string) {
	m.t.Helper()
	return m.send("POST", "/v1/cluster/handover", body)
}

func (m *member) count(name string, labels ...string) float64 {
	for _, s := range m.metrics.Series() {
		var values []string
		for _, l := range s.Labels {
			values = append(values, l.Value)
		}
		if s.Name == name && slices.Equal(values, labels) {
			if s.Kind == plugin.KindHistogram {
				_, count, _ := s.Buckets()
				return float64(count)
			}
			return s.Value()
		}
	}
	return -1
}

func TestHandover(t *testing.T) {
	disk := memory.NewDisk()
	a := join(t, disk, "a", true)
	if status, text := a.handOver(""); status != 409 || text != `{"error":"no other node is ready to take over: there is none"}` {
		t.Errorf("%d %s", status, text)
	}
	b, c := join(t, disk, "b", false), join(t, disk, "c", false)
	a.knows("b", "c")
	b.knows("a", "c")
	tellsElsewhere(t, b, "a", a.admin)

	for body, want := range map[string]string{
		`{"to":"ghost"}`: `{"error":"there is no node ghost"}`,
		`{"to":"a"}`:     `{"error":"node a is the active one already"}`,
	} {
		if status, text := a.handOver(body); status != 409 || text != want {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	for _, body := range []string{"b", `{"to":1}`, strings.Repeat(" ", 2000)} {
		if status, text := a.handOver(body); status != 400 {
			t.Errorf("%.20s: %d %s", body, status, text)
		}
	}

	// What is under way isn't waited for: the next node sends it again.
	c.world.note(silence)
	if err := a.world.at("in").say(t.Context(), "a", "b", silence); err != nil {
		t.Fatal(err)
	}
	a.eventually("it is under way", func() bool { return a.world.count(silence) > 0 })
	began := time.Now()
	status, text := a.handOver(`{"to":"c"}`)
	if status != 200 || !strings.HasPrefix(text, `{"to":"c","took_seconds":`) {
		t.Fatalf("%d %s", status, text)
	}
	c.plays(true)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the handover took %v", took)
	}
	c.eventually("what was under way arrives", func() bool { return c.world.deliveries(silence) == 1 })
	a.plays(false)
	a.knows("c")
	tellsElsewhere(t, a, "c", c.admin)
	c.works("after the handover")
	for m, want := range map[*member]map[string]float64{
		a: {"node_active": 0, "lease_fence": 2, "takeover_seconds": 1, "cluster_nodes_ready": 2, "lease_errors_total": 0},
		c: {"node_active": 1, "lease_fence": 2, "takeover_seconds": 1},
	} {
		for name, value := range want {
			m.eventually(name, func() bool { return m.count(name) == value })
		}
	}
	if a.count("role_changes_total", "start", "active") != 1 || a.count("role_changes_total", "handover", "standby") != 1 ||
		c.count("role_changes_total", "start", "standby") != 1 || c.count("role_changes_total", "handover", "active") != 1 {
		t.Error("changes of roles aren't counted as they were")
	}
	for m, want := range map[*member]string{
		a: "no longer the active node: it hands over to node c",
		b: "this node is a standby: node c is active",
		c: "takes over: node a hands over",
	} {
		m.eventually(want, func() bool { return strings.Count(m.log.text(), want) == 1 })
	}
}

// tellsElsewhere checks what a standby answers.
func tellsElsewhere(t *testing.T, m *member, active, admin string) {
	t.Helper()
	want := "standby: node " + active + " is active; its admin API is at " + admin
	m.eventually("it knows who is active", func() bool {
		_, text := m.call("GET", "/v1/messages")
		return text == want
	})
	for path, status := range map[string]int{"/v1/messages": 503, "/v1/accounts": 503, "/v1/status": 200, "/v1/watch": 200, "/healthz": 200} {
		if got, text := m.call("GET", path); got != status || status == 503 && text != want {
			t.Errorf("%s: %d %s", path, got, text)
		}
	}
	if status, text := m.handOver(""); status != 503 || text != `{"error":"`+want+`"}` {
		t.Errorf("%d %s", status, text)
	}
	if status, text := m.call("GET", "/readyz"); status != 503 || text != "not ready: standby: node "+active+" is active" {
		t.Errorf("%d %s", status, text)
	}
	c := m.cluster()
	if c.Active != active || c.State != plugin.LeaseHeld || c.LeftSeconds <= 0 || c.Node == active {
		t.Errorf("%+v", c)
	}
	for _, n := range c.Nodes {
		if n.Self != (n.Node == c.Node) || (n.Role == "active") != (n.Node == active) || !n.Ready || len(n.Reasons) > 0 || n.Since.IsZero() {
			t.Errorf("%+v", n)
		}
	}
}

// A node that loses sight of the storage stops, and another goes on with what it
// had accepted. When it is back it is a standby.
func TestActiveNodeIsCutOff(t *testing.T) {
	disk := memory.NewDisk()
	a := join(t, disk, "a", true)
	b := join(t, disk, "b", false)
	b.world.note(silence)
	if err := a.world.at("in").say(t.Context(), "a", "b", silence); err != nil {
		t.Fatal(err)
	}
	a.line.cut.Store(true)
	b.plays(true)
	b.eventually("what it had accepted arrives", func() bool { return b.world.deliveries(silence) == 1 })
	a.plays(false)
	if f := a.world.at("in").gate.Active(); f == nil || f.Reason != message.StorageDown {
		t.Errorf("at its door: %v", f)
	}
	if status, text := a.call("GET", "/v1/cluster"); status != 503 || text != "storage-down: the cable is cut" {
		t.Errorf("%d %s", status, text)
	}
	a.line.cut.Store(false)
	a.eventually("it is a standby", func() bool {
		f := a.world.at("in").gate.Active()
		return f != nil && f.Reason == message.Standby
	})
	b.works("afterwards")
	if log := b.log.text(); !strings.Contains(log, "takes over: node a didn't renew its lease, which ran out ") {
		t.Error("it doesn't say why")
	}
}

// A node that loses its lease while the storage hangs doesn't wait for what it
// writes, and is there for the next lease.
func TestLosesItsLeaseWhileItWrites(t *testing.T) {
	a := join(t, memory.NewDisk(), "a", true)
	a.line.hangs.Store(true)
	told := make(chan error, 1)
	go func() { told <- a.world.at("in").say(t.Context(), "a", "b", "stuck") }()
	<-a.line.stuck
	a.line.hangs.Store(false)
	a.line.cut.Store(true)
	if err := <-a.line.gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("it was given up: %v", err)
	}
	if err := <-told; err == nil {
		t.Error("it is accepted by a storage that hangs")
	}
	a.plays(false)
	a.line.cut.Store(false)
	a.plays(true)
	a.works("afterwards")
}

// A node that stands still for longer than its lease lasts does nothing when it
// wakes, although it hasn't noticed yet.
func TestActiveNodeStandsStill(t *testing.T) {
	disk := memory.NewDisk()
	a := join(t, disk, "a", true)
	b := join(t, disk, "b", false)
	a.line.frozen.Store(true)
	b.plays(true)
	in := a.world.at("in")
	if f := in.gate.Active(); f == nil || f.Reason != message.Standby || !f.Temporary {
		t.Errorf("at its door: %v", f)
	}
	if err := in.say(t.Context(), "a", "b", "too late"); err == nil {
		t.Error("it takes a message")
	}
	if status, text := a.call("GET", "/readyz"); status != 503 || !strings.HasPrefix(text, "not ready: standby") {
		t.Errorf("%d %s", status, text)
	}
	close(a.line.freeze)
	a.plays(false)
	if log := a.log.text(); strings.Count(log, "no longer the active node: this node stood still for ") != 1 {
		t.Error("it doesn't say so")
	}
	b.works("meanwhile")
}

// A node that stops lets one go on that is ready.
func TestStopHandsOver(t *testing.T) {
	disk := memory.NewDisk()
	a := join(t, disk, "a", true)
	b := join(t, disk, "b", false)
	a.knows("b")
	b.world.note(silence)
	if err := a.world.at("in").say(t.Context(), "a", "b", silence); err != nil {
		t.Fatal(err)
	}
	a.eventually("it is under way", func() bool { return a.world.count(silence) > 0 })
	began := time.Now()
	a.stop()
	b.plays(true)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the other takes over after %v", took)
	}
	b.eventually("what was under way arrives", func() bool { return b.world.deliveries(silence) == 1 })
	a.end()
	b.eventually("it has left", func() bool { return len(b.cluster().Nodes) == 1 })
	if log := b.log.text(); !strings.Contains(log, "takes over: node a hands over") {
		t.Error("it isn't handed over")
	}
}

// Nothing is left behind when roles change.
func TestRoleChangesLeaveNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	disk := memory.NewDisk()
	from, to := join(t, disk, "a", true), join(t, disk, "b", false)
	for range 8 {
		from.knows(to.name)
		if status, text := from.handOver(""); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		to.plays(true)
		from.plays(false)
		from, to = to, from
	}
	to.end()
	from.end()
	from.eventually("all ends that was begun", func() bool { return runtime.NumGoroutine() <= before })
}

// A storage learns how the tables read of all that is configured.
func TestStorageIsGivenSheets(t *testing.T) {
	var got []string
	w := newWorld(t)
	sheet := plugin.Sheet{Table: "accounts", Name: "accounts"}
	c := w.config(memory.NewDisk(), t.TempDir(), func(c *engine.Config) {
		c.Accounts.Plugin, c.Charging.Plugin = c.Accounts.Plugin.Showing(sheet), c.Charging.Plugin.Showing(sheet, plugin.Sheet{Table: "cdrs"})
		c.Storage = instance("storage", plugin.DefineStorage("memory", "", settings{}, func(_ context.Context, env plugin.Env, _ settings) (plugin.Storage, error) {
			for _, s := range env.Sheets {
				got = append(got, s.Table)
			}
			return nil, errCut
		}), settings{})
	})
	if err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{}).Run(t.Context(), func(string) {}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	for _, want := range []string{"messages", "history", "books/accounts", "books/cdrs"} {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != want })); n != 1 {
			t.Errorf("%s is there %d times: %v", want, n, got)
		}
	}
}

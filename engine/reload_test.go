package engine_test

import (
	"context"
	"errors"
	"fmt"
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

// Changes to a configuration.

func trunk(w *world, s settings) func(*engine.Config) {
	return func(c *engine.Config) { c.Transports[1] = w.transport("trunk", s) }
}

func add(w *world, name string, s settings) func(*engine.Config) {
	return func(c *engine.Config) { c.Transports = append(c.Transports, w.transport(name, s)) }
}

func set(key func(*engine.Config) *engine.Instance, s settings) func(*engine.Config) {
	return func(c *engine.Config) { key(c).Settings = &s }
}

func policy(c *engine.Config) *engine.Instance   { return &c.Policy }
func accounts(c *engine.Config) *engine.Instance { return &c.Accounts }
func storage(c *engine.Config) *engine.Instance  { return &c.Storage }
func observer(c *engine.Config) *engine.Instance { return &c.Observers[0] }

func TestReload(t *testing.T) {
	w := newWorld(t)
	metrics := plugin.NewMetrics()
	n := start(t, w, engine.Options{Metrics: metrics})
	n.works("before")
	version := func(transport string) float64 {
		for _, s := range metrics.Series() {
			if s.Name == "radio_version" && slices.Contains(s.Labels, plugin.Label{Name: "transport", Value: transport}) {
				return s.Value()
			}
		}
		return -1
	}
	for i, c := range []struct {
		name    string
		change  []func(*engine.Config)
		changed []string
		terms   int // how many begin
	}{
		{name: "nothing"},
		{name: "a transport", change: []func(*engine.Config){trunk(w, settings{Version: 2})}, changed: []string{"transports.trunk"}},
		{name: "its address", change: []func(*engine.Config){trunk(w, settings{Listen: "t2", Version: 3})}, changed: []string{"transports.trunk"}},
		{
			name: "another transport", change: []func(*engine.Config){trunk(w, settings{Listen: "t2", Version: 3}), add(w, "zweite", settings{})},
			changed: []string{"transports.zweite"}, terms: 1,
		},
		{
			name: "back", changed: []string{"transports.trunk", "transports.zweite"}, terms: 1,
		},
		{name: "the policy", change: []func(*engine.Config){set(policy, settings{Version: 2})}, changed: []string{"policy"}},
		{name: "the observer", change: []func(*engine.Config){set(observer, settings{Version: 2})}, changed: []string{"observers.watch", "policy"}},
		{name: "no observer", change: []func(*engine.Config){func(c *engine.Config) { c.Observers = nil }}, changed: []string{"observers.watch"}},
		{name: "an observer", changed: []string{"observers.watch"}},
		{name: "the accounts", change: []func(*engine.Config){set(accounts, settings{Version: 2})}, changed: []string{"accounts"}, terms: 1},
		{
			name:    "limits",
			change:  []func(*engine.Config){func(c *engine.Config) { c.Limits.Contacts, c.Retention = 3, time.Hour }},
			changed: []string{"accounts", "limits", "retention"}, terms: 1,
		},
		{
			name:    "limits alone",
			change:  []func(*engine.Config){func(c *engine.Config) { c.Limits.Messages, c.Retention = 30, 2*time.Hour }},
			changed: []string{"limits", "retention"}, // Contacts has its default again
		},
		{
			name:    "how long notifications live",
			change:  []func(*engine.Config){func(c *engine.Config) { c.Limits.Messages, c.Retention, c.Notifications = 30, 2*time.Hour, time.Hour }},
			changed: []string{"imdn"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, terms, policies := w.at("in"), w.count("accounts"), w.count("policy")
			changed, err := n.Reload(t.Context(), n.config(c.change...))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(changed, c.changed) {
				t.Errorf("changed %v, want %v", changed, c.changed)
			}
			if w.at("in") != in {
				t.Error("a transport that didn't change was closed")
			}
			if began := w.count("accounts") - terms; began != c.terms {
				t.Errorf("%d terms began, want %d", began, c.terms)
			}
			anew := slices.Contains(c.changed, "policy") || slices.Contains(c.changed, "transports.zweite")
			if opened := w.count("policy") - policies; (opened == 1) != anew || opened > 1 {
				t.Errorf("the source of the policies was opened %d times", opened)
			}
			n.works(fmt.Sprint("after ", i))
			if got := version("in"); got != 0 {
				t.Errorf("the metrics of a transport that didn't change: version %v", got)
			}
		})
	}
	if got := version("zweite"); got != -1 {
		t.Error("metrics of a transport that is gone")
	}
	if w.at("t2") != nil || w.at("zweite") != nil {
		t.Error("transports that are gone still listen")
	}
	if log := n.log.text(); strings.Count(log, "configuration reloaded") != 13 || strings.Contains(log, "was not reloaded") {
		t.Errorf("log:\n%s", log)
	}
}

// A reload that fails leaves everything as it was, and says which key is why.
func TestReloadThatFails(t *testing.T) {
	w := newWorld(t)
	n := start(t, w, engine.Options{})
	for i, c := range []struct {
		name   string
		change []func(*engine.Config)
		want   string
		same   bool // nothing was closed at all
	}{
		{
			name: "what takes a restart", same: true,
			change: []func(*engine.Config){func(c *engine.Config) { c.Node, c.DataDir, c.AdminListen = "x", "y", "z" }, set(storage, settings{Version: 2})},
			want: "c.yaml(node): node: it can't change while the server runs: restart it\n" +
				"c.yaml(data_dir): data_dir: it can't change while the server runs: restart it\n" +
				"c.yaml(admin.listen): admin.listen: it can't change while the server runs: restart it\n" +
				"c.yaml(storage): storage: it can't change while the server runs: restart it",
		},
		{
			name: "an address that is taken", change: []func(*engine.Config){trunk(w, settings{Listen: "in"})},
			want: "c.yaml(transports.trunk): transports.trunk: listen on in: address already in use",
		},
		{
			name: "one of several", change: []func(*engine.Config){trunk(w, settings{Version: 2}), add(w, "zweite", settings{Listen: "in"})},
			want: "c.yaml(transports.zweite): transports.zweite: listen on in: address already in use",
		},
		{
			name: "a transport that can't be opened", change: []func(*engine.Config){trunk(w, settings{Broken: true})}, same: true,
			want: `c.yaml(transports.trunk): transports.trunk: transport plugin "radio": broken on purpose`,
		},
		{
			name: "a policy", change: []func(*engine.Config){trunk(w, settings{Version: 2}), set(policy, settings{Broken: true})}, same: true,
			want: `c.yaml(policy): policy: policy plugin "judge": broken on purpose`,
		},
		{
			name: "an observer", change: []func(*engine.Config){trunk(w, settings{Version: 2}), set(observer, settings{Broken: true})}, same: true,
			want: `c.yaml(observers.watch): observers.watch: observer plugin "watch": broken on purpose`,
		},
		{
			name: "a route that is taken", change: []func(*engine.Config){trunk(w, settings{Version: 2}), set(observer, settings{Route: "GET /status"})},
			want: `c.yaml(observers): observers: admin: route "GET /v1/status": it is taken already, or no pattern of net/http`,
		},
		{
			name: "accounts", change: []func(*engine.Config){trunk(w, settings{Version: 2}), set(accounts, settings{Broken: true}), set(observer, settings{Version: 7})},
			want: `c.yaml(accounts): accounts: accounts plugin "books": broken on purpose`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, out := w.at("in"), w.at("trunk")
			changed, err := n.Reload(t.Context(), n.config(c.change...))
			if err == nil || err.Error() != c.want || changed != nil {
				t.Errorf("%v, %v; want\n%s", changed, err, c.want)
			}
			if w.at("in") != in || c.same && w.at("trunk") != out {
				t.Error("a transport was closed for nothing")
			}
			n.works(fmt.Sprint("after ", i))
			if status, text := n.call("GET", "/v1/watch"); status != 200 || text != "0" {
				t.Errorf("the observer's route: %d %s", status, text)
			}
			if status, text := n.call("GET", "/v1/accounts"); status != 200 || text != "0" {
				t.Errorf("the accounts' route: %d %s", status, text)
			}
			if changed, err := n.Reload(t.Context(), n.config()); err != nil || len(changed) > 0 {
				t.Errorf("the old configuration isn't in force: %v, %v", changed, err)
			}
		})
	}
}

// A peer that doesn't answer holds a new term up for a moment only. Its message
// goes on in the next one.
func TestSilentPeerAndANewTerm(t *testing.T) {
	w := newWorld(t)
	n := start(t, w, engine.Options{})
	if err := w.at("in").say(t.Context(), "a", "nobody", silence); err != nil {
		t.Fatal(err)
	}
	n.eventually("an attempt", func() bool { return w.count(silence) == 1 })
	began := time.Now()
	if _, err := n.Reload(t.Context(), n.config(set(accounts, settings{Version: 2}))); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("for %v nobody was served", took)
	}
	n.eventually("the next attempt", func() bool { return w.deliveries(silence) == 1 })
	n.works("to others")
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	var n *node
	var mu sync.Mutex
	var next []func(*engine.Config)
	var garbage error
	say := func(err error, change ...func(*engine.Config)) {
		mu.Lock()
		defer mu.Unlock()
		garbage, next = err, change
	}
	n = start(t, w, engine.Options{Load: func() (engine.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		return n.config(next...), garbage
	}})
	for _, c := range []struct {
		err    error
		change []func(*engine.Config)
		path   string
		status int
		want   string
	}{
		{path: "/v1/reload", status: 200, want: `{"changed":[]}`},
		{change: []func(*engine.Config){trunk(w, settings{Version: 2})}, path: "/v1/reload", status: 200, want: `{"changed":["transports.trunk"]}`},
		{err: errors.New("c.yaml:3: not valid YAML"), path: "/v1/reload", status: 422, want: "c.yaml:3: not valid YAML"},
		{change: []func(*engine.Config){trunk(w, settings{Listen: "in"})}, path: "/v1/reload", status: 422, want: "c.yaml(transports.trunk): transports.trunk: listen on in: address already in use"},
		{path: "/v1/reload?now=1", status: 400, want: `unknown parameter "now": expected none`},
	} {
		say(c.err, c.change...)
		if status, text := n.call("POST", c.path); status != c.status || text != c.want {
			t.Errorf("%d %s, want %d %s", status, text, c.status, c.want)
		}
	}
	n.works("after all")
}

func TestNothingToRefresh(t *testing.T) {
	n := start(t, newWorld(t), engine.Options{})
	if status, text := n.call("POST", "/v1/reload"); status != 422 || !strings.HasPrefix(text, "nothing to reload") {
		t.Errorf("%d %s", status, text)
	}
}

func TestReloadWaitsForItsTurnAndIsRefusedAtTheEnd(t *testing.T) {
	n := start(t, newWorld(t), engine.Options{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := n.Reload(t.Context(), n.config()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	n.end()
	_, err := n.Reload(context.Background(), n.config())
	if f, ok := errors.AsType[*message.Failure](err); !ok || f.Reason != message.Draining {
		t.Errorf("a node that has ended: %v", err)
	}
}

// A reload that comes before the node is up waits for it.
func TestReloadBeforeTheStart(t *testing.T) {
	w := newWorld(t)
	c := w.config(memory.NewDisk(), t.TempDir())
	e := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{})
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Reload(impatient, c); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	reloaded, done := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := e.Reload(t.Context(), c)
		reloaded <- err
	}()
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- e.Run(ctx, func(string) {}) }()
	err := <-reloaded
	stop()
	if err := errors.Join(err, <-done); err != nil {
		t.Error(err)
	}
}

// A decision that is under way ends with the policies that it began with.
func TestReloadDuringADecision(t *testing.T) {
	w := newWorld(t)
	w.deciding = make(chan struct{})
	n := start(t, w, engine.Options{})
	said := make(chan error, 1)
	go func() { said <- w.at("in").say(t.Context(), "a", "b", "slow") }()
	n.eventually("the policy is asked", func() bool { return w.watched.Load() > 0 })
	reloaded := make(chan error, 1)
	go func() {
		_, err := n.Reload(t.Context(), n.config(set(policy, settings{Version: 2})))
		reloaded <- err
	}()
	n.eventually("the new policy is open", func() bool { return w.count("policy") == 2 })
	close(w.deciding)
	if err := errors.Join(<-said, <-reloaded); err != nil {
		t.Fatal(err)
	}
}

// TestReloadUnderTraffic: everything that is said arrives, once, in order.
func TestReloadUnderTraffic(t *testing.T) {
	const reloads, talkers = 20, 8
	w := newWorld(t)
	n := start(t, w, engine.Options{Metrics: plugin.NewMetrics()})
	changes := [][]func(*engine.Config){
		{trunk(w, settings{Version: 1})},
		{add(w, "zweite", settings{})},
		{set(accounts, settings{Version: 1})},
		{set(policy, settings{Version: 1}), set(observer, settings{Version: 1})},
		{},
	}
	talking, hush := context.WithCancel(t.Context())
	said := make([]int, talkers)
	var accepted atomic.Int64
	var all sync.WaitGroup
	for talker := range talkers {
		all.Go(func() {
			for talking.Err() == nil {
				text := fmt.Sprintf("%d %d", talker, said[talker])
				said[talker]++
				n.insist(fmt.Sprint("from", talker), text)
				accepted.Add(1)
			}
		})
	}
	for i := range reloads {
		soFar := accepted.Load()
		n.eventually("traffic between two reloads", func() bool { return accepted.Load() > soFar+50 })
		if _, err := n.Reload(t.Context(), n.config(changes[i%len(changes)]...)); err != nil {
			t.Error(err)
		}
	}
	hush()
	all.Wait()
	for talker, count := range said {
		last := fmt.Sprintf("%d %d", talker, count-1)
		n.eventually(last+" arrives", func() bool { return w.deliveries(last) > 0 })
	}
	n.end()
	for talker, count := range said {
		for i := range count {
			text := fmt.Sprintf("%d %d", talker, i)
			if got := w.deliveries(text); got != 1 {
				t.Errorf("%q arrived %d times", text, got)
			}
			if order := w.order[fmt.Sprintf("from%d b", talker)]; i < len(order) && order[i] != text {
				t.Errorf("%q arrived when %q was due", order[i], text)
			}
		}
	}
	t.Logf("%v messages", said)
}

// insist repeats a submission until it is accepted, as a peer would.
func (n *node) insist(from, text string) {
	ctx, cancel := context.WithTimeout(n.t.Context(), testWait)
	defer cancel()
	for {
		err := n.world.at("in").say(ctx, from, "b", text)
		if err == nil {
			return
		}
		if f, ok := errors.AsType[*message.Failure](err); !ok || !f.Temporary || ctx.Err() != nil {
			n.t.Errorf("%s: %v", text, err)
			return
		}
		time.Sleep(time.Millisecond) // a peer's pause
	}
}

func TestReloadsLeaveNoGoroutines(t *testing.T) {
	w := newWorld(t)
	n := start(t, w, engine.Options{})
	reload := func(version int) {
		if _, err := n.Reload(t.Context(), n.config(trunk(w, settings{Version: version}), set(accounts, settings{Version: version}))); err != nil {
			t.Fatal(err)
		}
	}
	// A pipeline delivers before all of its goroutines have begun: the highest of
	// several counts has them all.
	before := 0
	for i := range 5 {
		reload(i + 1)
		n.works(fmt.Sprint("first ", i))
		before = max(before, runtime.NumGoroutine())
	}
	for i := range 5 {
		reload(i + 6)
		n.works(fmt.Sprint("again ", i))
	}
	n.eventually("all goroutines end", func() bool { return runtime.NumGoroutine() <= before+2 })
}

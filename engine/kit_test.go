package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
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

// testWait bounds every wait of these tests; it is far more than any needs.
const testWait = 20 * time.Second

// world is what the plugins of a node share with the test: a network without
// sockets, and notes of what was opened and closed.
type world struct {
	t *testing.T

	mu       sync.Mutex
	bound    map[string]*radio // by address
	arrived  map[string]int    // how often each text was delivered
	order    map[string][]string
	opened   map[string]int // by kind
	watched  atomic.Int64
	deciding chan struct{} // if not nil, policies wait for it
	binding  chan struct{} // if not nil, radios that have a version wait for it
	opening  chan struct{} // if not nil, policies that are opened wait for it
}

func newWorld(t *testing.T) *world {
	return &world{t: t, bound: map[string]*radio{}, arrived: map[string]int{}, order: map[string][]string{}, opened: map[string]int{}}
}

func (w *world) note(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened[kind]++
}

func (w *world) count(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened[kind]
}

func (w *world) at(address string) *radio {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bound[address]
}

func (w *world) deliveries(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.arrived[text]
}

// settings are those of every plugin of these tests.
type settings struct {
	Listen  string
	Version int
	Route   string // of an observer, besides its own
	Broken  bool   // opening fails
}

// Validate is plugin.Config.
func (settings) Validate() error { return nil }

func (s settings) check() error {
	if s.Broken {
		return errors.New("broken on purpose")
	}
	return nil
}

// silence is a text that peers answer the second time.
const silence = "silence"

// radio is a transport that takes an address of the world's network.
type radio struct {
	world    *world
	settings settings
	gate     plugin.Gate
	sending  atomic.Int64
	packets  *plugin.Counter
}

func (w *world) radio(_ context.Context, env plugin.Env, s settings) (plugin.Transport, error) {
	w.note("radio")
	env.Metrics.Gauge("radio_version", "Which it is.", func() float64 { return float64(s.Version) })
	return &radio{world: w, settings: s, packets: env.Metrics.Counter("radio_packets_total", "What it has sent.")}, s.check()
}

// Serve is plugin.Transport.
func (r *radio) Serve(ctx context.Context, gate plugin.Gate) error {
	if r.settings.Version > 0 && r.world.binding != nil {
		<-r.world.binding
	}
	if err := r.bind(gate); err != nil {
		return err
	}
	gate.Ready()
	<-ctx.Done()
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	delete(r.world.bound, r.settings.Listen)
	if n := r.sending.Load(); n > 0 {
		r.world.t.Errorf("%s is closed under %d sends", r.settings.Listen, n)
	}
	return nil
}

func (r *radio) bind(gate plugin.Gate) error {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	if r.world.bound[r.settings.Listen] != nil {
		return fmt.Errorf("listen on %s: address already in use", r.settings.Listen)
	}
	r.world.bound[r.settings.Listen] = r
	r.gate = gate
	return nil
}

// Send is plugin.Transport.
func (r *radio) Send(ctx context.Context, m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
	if string(m.Body) == silence && r.world.count(silence) == 0 {
		r.world.note(silence)
		<-ctx.Done()
		return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "silence")
	}
	r.sending.Add(1)
	defer r.sending.Add(-1)
	r.packets.Inc()
	text := string(m.Body)
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	if r.world.bound[r.settings.Listen] != r {
		r.world.t.Errorf("%q is sent through a radio that is closed", text)
	}
	r.world.arrived[text]++
	pair := m.From.User + " " + m.Recipient.User
	r.world.order[pair] = append(r.world.order[pair], text)
	return plugin.Receipt{Final: true}, nil
}

// say submits a message and returns what became of the submission.
func (r *radio) say(ctx context.Context, from, to, text string) error {
	sender := address(from)
	_, err := r.gate.Submit(plugin.Arrival{
		Message: &message.Message{From: sender, Recipient: address(to), ContentType: "text/plain", Body: []byte(text), Hops: 70, Peer: "test"},
		Account: plugin.Account{ID: from, Identities: []message.Address{sender}},
		Key:     text,
	}).Accepted(ctx)
	return err
}

func address(user string) message.Address { return message.Address{User: user, Host: "example.com"} }

// judge is a policy: everything goes through the trunk.
type judge struct {
	world    *world
	settings settings
}

func (w *world) judge(_ context.Context, _ plugin.Env, s settings) (plugin.PolicySource, error) {
	w.note("policy")
	if w.opening != nil {
		<-w.opening
	}
	return plugin.Always(fmt.Sprint(s.Version), &judge{world: w, settings: s}), s.check()
}

// Decide is plugin.Policy.
func (j *judge) Decide(context.Context, plugin.Question, plugin.Supply) (plugin.Plan, error) {
	if j.world.deciding != nil {
		<-j.world.deciding
	}
	plan := plugin.DefaultPlan()
	plan.Service, plan.Transports, plan.Answer = fmt.Sprint("v", j.settings.Version), []string{"trunk"}, plugin.AnswerAccepted
	plan.Retry.Backoff = []time.Duration{time.Second}
	return plan, nil
}

// watch is an observer with a route.
type watch struct {
	world  *world
	closed atomic.Bool
}

func (w *world) watch(_ context.Context, env plugin.Env, s settings) (plugin.Observer, error) {
	w.note("observer")
	env.Admin.Handle("GET /watch", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, s.Version) })
	if s.Route != "" {
		env.Admin.Handle(s.Route, func(http.ResponseWriter, *http.Request) {})
	}
	return &watch{world: w}, s.check()
}

// Packet is plugin.Observer.
func (o *watch) Packet(*plugin.Packet) { o.seen() }

// Step is plugin.Observer.
func (o *watch) Step(*plugin.Step) { o.seen() }

func (o *watch) seen() {
	o.world.watched.Add(1)
	if o.closed.Load() {
		o.world.t.Error("a closed observer is told something")
	}
}

// Close is plugin.Observer.
func (o *watch) Close() error {
	o.closed.Store(true)
	return nil
}

// books knows everybody and charges nothing.
type books struct{}

func (w *world) accounts(_ context.Context, env plugin.Env, s settings) (plugin.Accounts, error) {
	w.note("accounts")
	countBook(env)
	env.Admin.Handle("GET /accounts", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, s.Version) })
	return books{}, s.check()
}

func (w *world) charging(_ context.Context, _ plugin.Env, s settings) (plugin.Charging, error) {
	return books{}, s.check()
}

func (books) Verify(context.Context, plugin.Credentials) (plugin.Account, error) {
	return plugin.Account{}, message.Fail(message.Unauthenticated, "not asked in these tests")
}

func (books) Lookup(_ context.Context, a message.Address) (plugin.Account, error) {
	return plugin.Account{}, message.Fail(message.UnknownRecipient, "%s isn't ours", a)
}

func (books) Authorize(context.Context, plugin.Request) (plugin.Authorization, error) {
	return plugin.Authorization{}, nil
}

func (books) Settle(context.Context, []plugin.Record) ([]plugin.Change, error) { return nil, nil }
func (books) Close() error                                                     { return nil }

// config is a configuration with two transports, "in" and "trunk", and one
// observer; change may alter it.
func (w *world) config(disk *memory.Disk, dir string, change ...func(*engine.Config)) engine.Config {
	open := func(context.Context, plugin.Env, settings) (plugin.Storage, error) { return memory.Open(disk), nil }
	c := engine.Config{
		Node: "test", DataDir: dir, AdminListen: "127.0.0.1:0",
		Storage:    instance("storage", plugin.DefineStorage("memory", "", settings{}, open), settings{}),
		Policy:     instance("policy", plugin.DefinePolicy("judge", "", settings{}, w.judge), settings{}),
		Accounts:   instance("accounts", plugin.DefineAccounts("books", "", settings{}, w.accounts), settings{}),
		Charging:   instance("charging", plugin.DefineCharging("books", "", settings{}, w.charging), settings{}),
		Observers:  []engine.Instance{w.observer("watch", settings{})},
		Transports: []engine.Instance{w.transport("in", settings{}), w.transport("trunk", settings{})},
		Place:      func(key string) string { return "c.yaml(" + key + ")" },
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func (w *world) transport(name string, s settings) engine.Instance {
	if s.Listen == "" {
		s.Listen = name
	}
	return instance(name, plugin.DefineTransport("radio", "", settings{}, w.radio), s)
}

func (w *world) observer(name string, s settings) engine.Instance {
	return instance(name, plugin.DefineObserver("watch", "", settings{}, w.watch), s)
}

func instance(name string, d plugin.Definition, s settings) engine.Instance {
	return engine.Instance{Name: name, Plugin: d, Settings: &s}
}

// node is an engine at work.
type node struct {
	*engine.Engine
	t     *testing.T
	world *world
	disk  *memory.Disk
	dir   string
	admin string
	stop  context.CancelFunc
	done  chan error
	log   *syncBuffer
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

// start runs a node and waits until it takes traffic.
func start(t *testing.T, w *world, options engine.Options, change ...func(*engine.Config)) *node {
	t.Helper()
	n := &node{t: t, world: w, disk: memory.NewDisk(), dir: t.TempDir(), done: make(chan error, 1), log: &syncBuffer{}}
	ctx, stop := context.WithCancel(t.Context())
	n.stop = stop
	n.Engine = engine.New(n.config(change...), slog.New(slog.NewTextHandler(n.log, nil)), options)
	up := make(chan string, 1)
	go func() { n.done <- n.Run(ctx, func(admin string) { up <- admin }) }()
	select {
	case n.admin = <-up:
	case err := <-n.done:
		t.Fatalf("the node ended: %v", err)
	case <-time.After(testWait):
		t.Fatal("the node doesn't start")
	}
	t.Cleanup(func() {
		n.end()
		if t.Failed() {
			t.Logf("log:\n%s", n.log.text())
		}
	})
	return n
}

func (n *node) config(change ...func(*engine.Config)) engine.Config {
	return n.world.config(n.disk, n.dir, change...)
}

// end stops the node and checks that it ends in order.
func (n *node) end() {
	n.t.Helper()
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	select {
	case err := <-n.done:
		if err != nil {
			n.t.Errorf("the node ended: %v", err)
		}
	case <-time.After(testWait):
		n.t.Error("the node doesn't end")
	}
}

// works checks that a message goes all the way.
func (n *node) works(text string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), testWait)
	defer cancel()
	if err := n.world.at("in").say(ctx, "a", "b", text); err != nil {
		n.t.Fatalf("%s: %v", text, err)
	}
	n.eventually(text+" arrives", func() bool { return n.world.deliveries(text) == 1 })
}

// eventually polls what other goroutines bring about.
func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(testWait); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("in vain: %s", what)
		}
	}
}

// call sends a request to the admin API. Of a refusal it returns what is wrong.
func (n *node) call(method, path string) (int, string) {
	n.t.Helper()
	status, text := n.send(method, path, "")
	var told struct{ Error string }
	if json.Unmarshal([]byte(text), &told) == nil && told.Error != "" {
		return status, told.Error
	}
	return status, text
}

// send sends a request to the admin API and returns the answer as it is.
func (n *node) send(method, path, body string) (int, string) {
	n.t.Helper()
	token, err := os.ReadFile(filepath.Join(n.dir, engine.TokenFile))
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.admin+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(text))
}

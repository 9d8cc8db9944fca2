package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// What a start fails of names its key, and where that stands.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w := newWorld(t)
	w.bound["taken"] = &radio{}
	for want, change := range map[string]func(*engine.Config){
		"c.yaml(transports.trunk): transports.trunk: listen on taken: address already in use": trunk(w, settings{Listen: "taken"}),
		`c.yaml(policy): policy: policy plugin "judge": broken on purpose`:                    set(policy, settings{Broken: true}),
		`c.yaml(accounts): accounts: accounts plugin "books": broken on purpose`:              set(accounts, settings{Broken: true}),
		`c.yaml(observers.watch): observers.watch: observer plugin "watch": broken`:           set(observer, settings{Broken: true}),
		`c.yaml(observers): observers: admin: route "GET /v1/status": it is taken already`:    set(observer, settings{Route: "GET /status"}),
		"c.yaml(admin.listen): admin.listen: admin: listen tcp " + taken.Addr().String():      func(c *engine.Config) { c.AdminListen = taken.Addr().String() },
		"c.yaml(data_dir): data_dir: mkdir /dev/null: not a directory":                        func(c *engine.Config) { c.DataDir = "/dev/null" },
	} {
		c := w.config(memory.NewDisk(), t.TempDir(), change)
		ctx, cancel := context.WithTimeout(t.Context(), testWait)
		err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{}).Run(ctx, func(string) { t.Error("it started") })
		cancel()
		key, ok := errors.AsType[*engine.KeyError](err)
		if !ok || !strings.HasPrefix(err.Error(), want) || !strings.HasPrefix(want, key.Place) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// broken is a storage that refuses writes while it is told to.
type broken struct {
	plugin.Storage
	refuses *atomic.Bool
}

func (b broken) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if b.refuses.Load() {
		return fmt.Errorf("disk full: %w", plugin.ErrNotApplied)
	}
	return b.Storage.Apply(ctx, f, changes)
}

func onStorage(open func() plugin.Storage) func(*engine.Config) {
	return func(c *engine.Config) {
		c.Storage = instance("storage", plugin.DefineStorage("memory", "", settings{},
			func(context.Context, plugin.Env, settings) (plugin.Storage, error) { return open(), nil }), settings{})
	}
}

func TestReadiness(t *testing.T) {
	w := newWorld(t)
	var refuses atomic.Bool
	disk := memory.NewDisk()
	n := start(t, w, engine.Options{}, onStorage(func() plugin.Storage { return broken{memory.Open(disk), &refuses} }))
	ready := func(status int, want string) func() bool {
		return func() bool {
			got, text := n.call("GET", "/readyz")
			return got == status && strings.Contains(text, want)
		}
	}
	n.eventually("ready", ready(200, "ready"))
	refuses.Store(true)
	if err := w.at("in").say(t.Context(), "a", "b", "refused"); err == nil {
		t.Error("accepted by a storage that refuses")
	}
	n.eventually("storage-down", ready(503, "not ready: storage-down"))
	refuses.Store(false)
	n.eventually("ready again", ready(200, "ready"))
	if err := n.Alive(); err != nil {
		t.Error(err)
	}
}

// A standby takes another configuration too, and works with it when it leads.
// unleased is a storage that gives no lease, and renews none, while it is told to.
type unleased struct {
	plugin.Storage
	refuses *atomic.Bool
}

func (u unleased) Acquire(ctx context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	if u.refuses.Load() {
		return 0, errors.New("the database is down")
	}
	return u.Storage.Acquire(ctx, node, ttl)
}

func (u unleased) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	if u.refuses.Load() {
		return errors.New("the database is down")
	}
	return u.Storage.Renew(ctx, f, ttl)
}

// A node that loses its lease because the storage fails says that, and not that
// it is a standby, at its doors too.
func TestLeaseLostToTheStorage(t *testing.T) {
	w := newWorld(t)
	var refuses atomic.Bool
	disk := memory.NewDisk()
	roles := make(chan bool, 10)
	n := start(t, w, engine.Options{Role: func(active bool) { roles <- active }}, onStorage(func() plugin.Storage { return unleased{memory.Open(disk), &refuses} }))
	if !<-roles {
		t.Fatal("it doesn't begin as the active one")
	}
	refuses.Store(true)
	if <-roles {
		t.Error("told twice that it is the active one")
	}
	status, text := n.call("GET", "/readyz")
	if status != 503 || !strings.HasPrefix(text, "not ready: storage-down: ") || !strings.HasSuffix(text, "the database is down") {
		t.Errorf("%d %s", status, text)
	}
	if _, text := n.call("GET", "/v1/status"); !strings.Contains(text, `"reasons":["storage-down"]`) {
		t.Error(text)
	}
	if f := w.at("in").gate.Active(); f == nil || f.Reason != message.StorageDown || !f.Temporary {
		t.Errorf("at the door: %v", f)
	}
	refuses.Store(false)
	if !<-roles {
		t.Error("it doesn't come back")
	}
	n.works("after all")
	if log := n.log.text(); strings.Count(log, "no longer the active node: the lease couldn't be renewed in time: the database is down") != 1 {
		t.Errorf("log:\n%s", log)
	}
}

func TestStandbyReloads(t *testing.T) {
	w := newWorld(t)
	disk := memory.NewDisk()
	shared := onStorage(func() plugin.Storage { return memory.Open(disk) })
	first := start(t, w, engine.Options{}, shared)

	other := newWorld(t)
	roles := make(chan bool, 10)
	second := &node{t: t, world: other, disk: disk, dir: t.TempDir(), done: make(chan error, 1), log: &syncBuffer{}}
	config := func(change ...func(*engine.Config)) engine.Config {
		return other.config(disk, second.dir, append([]func(*engine.Config){func(c *engine.Config) { c.Node = "second" }, shared}, change...)...)
	}
	ctx, stop := context.WithCancel(t.Context())
	second.stop = stop
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second.admin = listener.Addr().String()
	listener.Close()
	at := func(c *engine.Config) { c.AdminListen = second.admin }
	second.Engine = engine.New(config(at), slog.New(slog.NewTextHandler(second.log, nil)), engine.Options{Role: func(active bool) { roles <- active }})
	go func() { second.done <- second.Run(ctx, func(string) {}) }()
	t.Cleanup(second.end)
	if <-roles {
		t.Fatal("two nodes are active")
	}
	for path, want := range map[string]int{"/readyz": 503, "/healthz": 200, "/v1/messages": 503, "/v1/status": 200, "/v1/watch": 200, "/v1/accounts": 503} {
		if status, text := second.call("GET", path); status != want {
			t.Errorf("%s on a standby: %d %s", path, status, text)
		}
	}
	if _, text := second.call("GET", "/readyz"); text != "not ready: standby: node test is active" {
		t.Error(text)
	}
	changed, err := second.Reload(t.Context(), config(at, trunk(other, settings{Listen: "elsewhere"}), set(accounts, settings{Version: 3})))
	if err != nil || !slices.Equal(changed, []string{"accounts", "transports.trunk"}) {
		t.Fatalf("%v, %v", changed, err)
	}
	first.end()
	if !<-roles {
		t.Fatal("the standby stays one")
	}
	if status, text := second.call("GET", "/v1/accounts"); status != 200 || text != "3" {
		t.Errorf("%d %s", status, text)
	}
	second.works("hello")
}

func TestStatusAndMessages(t *testing.T) {
	n := start(t, newWorld(t), engine.Options{Version: "v1.2.3"})
	n.works("hello")
	if status, text := n.call("GET", "/v1/status"); status != 200 || !strings.HasPrefix(text, `{"node":"test","version":"v1.2.3","ready":true,"reasons":[],"counts":{"accepted":1,`) {
		t.Errorf("%d %s", status, text)
	}
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/v1/messages?nonsense=1", 400, `unknown parameter "nonsense": expected one of state, from, to, service, transport, after, limit`},
		{"GET", "/v1/messages?state=lost", 400, `parameter "state": expected one of [waiting sending quarantined handed-over delivered failed discarded scheduled]`},
		{"GET", "/v1/messages?state=waiting&state=failed", 400, `parameter "state": expected one value`},
		{"GET", "/v1/messages?from=", 400, `parameter "from": expected one value`},
		{"GET", "/v1/messages?from=a@b@c", 400, `parameter "from": not an address`},
		{"GET", "/v1/messages?to=@", 400, `parameter "to": not an address`},
		{"GET", "/v1/messages?after=x", 400, `parameter "after":`},
		{"GET", "/v1/messages?limit=0", 400, `parameter "limit": expected a number from 1 to 1000`},
		{"GET", "/v1/messages?limit=1001", 400, `parameter "limit": expected a number from 1 to 1000`},
		{"GET", "/v1/messages?%zz", 400, "the query can't be read"},
		{"GET", "/v1/messages/x", 400, ""},
		{"GET", "/v1/messages/0190b0e0-0000-7000-8000-000000000000", 404, "there is no message"},
		{"GET", "/v1/messages/0190b0e0-0000-7000-8000-000000000000?x=1", 400, `unknown parameter "x"`},
		{"POST", "/v1/messages/0190b0e0-0000-7000-8000-000000000000/cancel", 404, "there is no message"},
		{"POST", "/v1/messages/0190b0e0-0000-7000-8000-000000000000/requeue", 404, "there is no message"},
		{"GET", "/v1/quarantine", 404, ""},
		{"GET", "/v1/status?x=1", 400, `unknown parameter "x": expected none`},
	} {
		if status, text := n.call(c.method, c.path); status != c.status || !strings.HasPrefix(text, c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, status, text, c.status, c.want)
		}
	}
}

func TestPagesAndRoutesOfOthers(t *testing.T) {
	w := newWorld(t)
	n := &node{t: t, world: w, disk: memory.NewDisk(), dir: t.TempDir(), done: make(chan error, 1), log: &syncBuffer{}}
	ctx, stop := context.WithCancel(t.Context())
	n.stop = stop
	n.Engine = engine.New(n.config(), slog.New(slog.NewTextHandler(n.log, nil)), engine.Options{})
	n.HandleOpen("/metrics", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "counted") })
	n.Handle("GET /description", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "described") })
	up := make(chan string, 1)
	go func() { n.done <- n.Run(ctx, func(admin string) { up <- admin }) }()
	n.admin = <-up
	t.Cleanup(n.end)
	answer, err := http.Get("http://" + n.admin + "/metrics")
	if err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
	if status, text := n.call("GET", "/v1/description"); status != 200 || text != "described" {
		t.Errorf("%d %s", status, text)
	}
	if got := n.Routes(); !slices.Contains(got, "GET /v1/description") || !slices.Contains(got, "GET /v1/watch") || !slices.Contains(got, "GET /v1/accounts") {
		t.Errorf("routes %v", got)
	}
}

func TestDoorThatFailsEndsTheNode(t *testing.T) {
	n := &node{t: t, world: newWorld(t), disk: memory.NewDisk(), dir: t.TempDir()}
	fails := make(chan struct{})
	c := n.config(func(c *engine.Config) {
		c.Transports[0] = instance("in", plugin.DefineTransport("failing", "", settings{},
			func(context.Context, plugin.Env, settings) (plugin.Transport, error) {
				return failing{fails: fails}, nil
			}), settings{})
	})
	done := make(chan error, 1)
	go func() {
		done <- engine.New(c, slog.New(slog.DiscardHandler), engine.Options{}).Run(t.Context(), func(string) { close(fails) })
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "transports.in: the cable is cut") {
			t.Error(err)
		}
	case <-time.After(testWait):
		t.Error("the node doesn't end")
	}
}

// failing is a transport that fails when it is told to.
type failing struct {
	plugin.Transport
	fails chan struct{}
}

func (f failing) Serve(_ context.Context, gate plugin.Gate) error {
	gate.Ready()
	<-f.fails
	return errors.New("the cable is cut")
}

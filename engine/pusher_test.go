package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// alarms are the pushers of a test: what they were asked, by version and account.
type alarms struct {
	*world
	mu    sync.Mutex
	woken []string
}

// alarm is one of them. One of version 3 waits as long as it may.
type alarm struct {
	all     *alarms
	version int
	inside  atomic.Int64
	closed  atomic.Bool
}

func (a *alarms) open(_ context.Context, _ plugin.Env, s settings) (plugin.Pusher, error) {
	a.note("push")
	return &alarm{all: a, version: s.Version}, s.check()
}

func (a *alarms) count(text string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.woken {
		if t == text {
			n++
		}
	}
	return n
}

// Wake is plugin.Pusher.
func (a *alarm) Wake(ctx context.Context, s plugin.Sleeper) error {
	a.inside.Add(1)
	defer a.inside.Add(-1)
	if a.closed.Load() {
		a.all.t.Error("a closed pusher is called")
	}
	a.all.mu.Lock()
	a.all.woken = append(a.all.woken, fmt.Sprint(a.version, " ", s.Account))
	a.all.mu.Unlock()
	if a.version == 3 {
		<-ctx.Done()
		return message.FailForNow(message.Unavailable, "cut off")
	}
	return nil
}

// Keep is plugin.Pusher.
func (a *alarm) Keep() time.Duration { return time.Hour }

// Close is plugin.Pusher.
func (a *alarm) Close() error {
	if a.inside.Load() > 0 || a.closed.Swap(true) {
		a.all.t.Error("a pusher is closed that is called, or is closed already")
	}
	a.all.note("push closed")
	return nil
}

// people are accounts of everybody, who are reached where they register.
type people struct {
	books
}

func (people) Lookup(_ context.Context, a message.Address) (plugin.Account, error) {
	return plugin.Account{ID: a.User, Identities: []message.Address{a}}, nil
}

// toApp is a policy: everything goes to those who register.
type toApp struct{}

func (toApp) Decide(context.Context, plugin.Question, plugin.Supply) (plugin.Plan, error) {
	plan := plugin.DefaultPlan()
	plan.Service, plan.Transports = "test", []string{"app"}
	return plan, nil
}

// withApps is a node with a registrar.
func withApps(a *alarms) func(*engine.Config) {
	return func(c *engine.Config) {
		open := func(context.Context, plugin.Env, settings) (plugin.Accounts, error) {
			a.note("accounts")
			return people{}, nil
		}
		c.Accounts = instance("accounts", plugin.DefineAccounts("people", "", settings{}, open), settings{})
		policy := func(context.Context, plugin.Env, settings) (plugin.PolicySource, error) {
			return plugin.Always("1", toApp{}), nil
		}
		c.Policy = instance("policy", plugin.DefinePolicy("to-app", "", settings{}, policy), settings{})
		app := plugin.DefineTransport("radio", "", settings{}, a.radio).AsRegistrar()
		c.Transports = append(c.Transports, instance("app", app, settings{Listen: "app"}))
	}
}

func push(a *alarms, s settings) func(*engine.Config) {
	return func(c *engine.Config) {
		c.Push = instance("push", plugin.DefinePush("alarm", "", settings{}, a.open), s)
	}
}

// sleeps registers somebody's app and lets its flow end.
func (n *node) sleeps(user string) {
	n.t.Helper()
	gate := n.world.at("app").gate
	_, err := gate.Register(n.t.Context(), plugin.Registration{
		Account: plugin.Account{ID: user, Identities: []message.Address{address(user)}}, AOR: address(user), CallID: "c", CSeq: 1,
		Bindings: []plugin.Binding{{
			Contact: "sip:app", Flow: "of " + user, Expires: time.Now().Add(time.Hour), Push: plugin.Push{Provider: "fcm", ID: user},
		}},
	})
	if err == nil {
		err = gate.Lost(n.t.Context(), "of "+user)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.world.at("in").say(n.t.Context(), "alice", user, "to "+user); err != nil {
		n.t.Fatal(err)
	}
}

// TestPusherIsExchanged: the other doors and the term go on, and who was to be
// woken meanwhile is, by who comes after.
func TestPusherIsExchanged(t *testing.T) {
	a := &alarms{world: newWorld(t)}
	n := start(t, a.world, engine.Options{}, withApps(a), push(a, settings{Version: 1}))
	n.sleeps("bob")
	n.eventually("bob is woken", func() bool { return a.count("1 bob") == 1 })
	app, terms := a.at("app"), a.world.count("accounts")
	reload := func(change ...func(*engine.Config)) {
		t.Helper()
		changed, err := n.Reload(t.Context(), n.config(append([]func(*engine.Config){withApps(a)}, change...)...))
		if err != nil || !slices.Equal(changed, []string{"push"}) {
			t.Fatalf("changed %v, %v", changed, err)
		}
	}
	reload(push(a, settings{Version: 3}))
	n.sleeps("carol")
	n.eventually("carol is called", func() bool { return a.count("3 carol") == 1 })
	began := time.Now()
	reload(push(a, settings{Version: 2})) // while that call is under way
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the exchange took %v", took)
	}
	n.sleeps("dave")
	n.eventually("dave is woken", func() bool { return a.count("2 dave") == 1 })
	n.eventually("carol's call is made again", func() bool { return a.count("2 carol") == 1 })

	_, err := n.Reload(t.Context(), n.config(withApps(a), push(a, settings{Broken: true})))
	if want := `c.yaml(push): push: push plugin "alarm": broken on purpose`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	n.sleeps("eve")
	n.eventually("the one before is still there", func() bool { return a.count("2 eve") == 1 })

	reload() // no push any more
	n.sleeps("frank")
	if closed := a.world.count("push closed"); closed != 3 {
		t.Errorf("%d were closed", closed)
	}
	if a.at("app") != app || a.world.count("accounts") != terms {
		t.Error("a door was closed, or another term began")
	}
	if a.count("2 bob") > 0 || a.count("2 frank") > 0 {
		t.Errorf("woken: %q", a.woken)
	}
	reload(push(a, settings{Version: 4}))
	n.end()
	if opened, closed := a.world.count("push"), a.world.count("push closed"); opened != 5 || closed != 4 {
		t.Errorf("%d were opened, one of them in vain, and %d closed", opened, closed)
	}
}

// TestWokenAppGetsItsMessage: it registers and has it.
func TestWokenAppGetsItsMessage(t *testing.T) {
	a := &alarms{world: newWorld(t)}
	n := start(t, a.world, engine.Options{}, withApps(a), push(a, settings{Version: 1}))
	n.sleeps("bob")
	n.eventually("bob is woken", func() bool { return a.count("1 bob") == 1 })
	_, err := a.at("app").gate.Register(t.Context(), plugin.Registration{
		Account: plugin.Account{ID: "bob", Identities: []message.Address{address("bob")}}, AOR: address("bob"), CallID: "c", CSeq: 2,
		Bindings: []plugin.Binding{{Contact: "sip:app", Flow: "another", Expires: time.Now().Add(time.Hour)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.eventually("the message arrives", func() bool { return a.deliveries("to bob") == 1 })
}

func TestPusherThatDoesNotOpen(t *testing.T) {
	a := &alarms{world: newWorld(t)}
	c := a.config(memory.NewDisk(), t.TempDir(), withApps(a), push(a, settings{Broken: true}))
	err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{}).Run(t.Context(), func(string) {})
	if want := `c.yaml(push): push: push plugin "alarm": broken on purpose`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

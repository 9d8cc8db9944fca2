package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/plugins/memory"
)

// reload gives a node other books, so that a term ends and another begins.
func (m *member) reload(version int, change ...func(*engine.Config)) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), testWait)
	defer cancel()
	_, err := m.Reload(ctx, m.config(append(change, m.itself, set(accounts, settings{Version: version}))...))
	return err
}

// What happens while a reload holds a term up: the reload ends all the same, and
// another node goes on.
func TestWhileAReloadHoldsUp(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*testing.T, *member)
		stays   bool // the node is there afterwards
	}{
		"the lease is lost": {func(_ *testing.T, a *member) { a.line.cut.Store(true) }, true},
		"a handover": {func(t *testing.T, a *member) {
			if status, text := a.handOver(""); status != 503 {
				t.Errorf("%d %s", status, text)
			}
			a.line.cut.Store(true)
		}, true},
		"a stop": {func(_ *testing.T, a *member) { a.stop() }, false},
		"a stop as the lease is lost": {func(_ *testing.T, a *member) {
			a.line.cut.Store(true)
			a.stop()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			disk := memory.NewDisk()
			a, b := join(t, disk, "a", true), join(t, disk, "b", false)
			a.knows("b")
			opened := a.world.count("radio")
			a.world.binding = make(chan struct{})
			reloaded := make(chan error, 1)
			go func() { reloaded <- a.reload(2, trunk(a.world, settings{Version: 2})) }()
			a.eventually("a term is held up", func() bool {
				return a.world.count("radio") > opened && a.count("undecided_messages") == -1
			})
			c.happens(t, a)
			if c.stays {
				b.plays(true)
			}
			close(a.world.binding)
			select {
			case err := <-reloaded:
				if c.stays && err != nil {
					t.Error(err)
				}
			case <-time.After(testWait):
				t.Fatal("the reload doesn't end")
			}
			a.line.cut.Store(false)
			if !c.stays {
				b.plays(true)
				a.end()
				b.works("after the stop")
				return
			}
			b.works("meanwhile")
			b.knows("a")
			if status, text := b.handOver(""); status != 200 {
				t.Fatalf("%d %s", status, text)
			}
			a.eventually("it is back", func() bool { return a.count("node_active") == 1 })
			a.works("with the new configuration")
			if _, text := a.call("GET", "/v1/accounts"); text != "2" {
				t.Errorf("the books are those of version %s", text)
			}
		})
	}
}

// A standby whose policy is compiling takes over all the same, and takes the new
// configuration afterwards.
func TestTakesOverWhileItReloads(t *testing.T) {
	disk := memory.NewDisk()
	a, b := join(t, disk, "a", true), join(t, disk, "b", false)
	opened := b.world.count("policy")
	b.world.opening = make(chan struct{})
	reloaded := make(chan error, 1)
	go func() { reloaded <- b.reload(2, set(policy, settings{Version: 2})) }()
	b.eventually("it compiles", func() bool { return b.world.count("policy") > opened })
	a.end()
	b.plays(true)
	close(b.world.opening)
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	if _, text := b.call("GET", "/v1/accounts"); text != "2" {
		t.Errorf("the books are those of version %s", text)
	}
	b.works("afterwards")
}

// The lease is handed over to a node that this one hasn't heard of for long.
func TestHandsOverToNewcomer(t *testing.T) {
	disk := memory.NewDisk()
	a := join(t, disk, "a", true)
	for _, name := range []string{"b", "c", "d"} {
		next := join(t, disk, name, false)
		next.knows(name)
		if status, text := a.handOver(`{"to":"` + name + `"}`); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		next.plays(true)
		a = next
	}
}

// A term that doesn't come to rest keeps a node from taking over, and the others
// are told.
func TestNotReadyWhileItsTermEnds(t *testing.T) {
	disk := memory.NewDisk()
	a, b := join(t, disk, "a", true), join(t, disk, "b", false)
	a.world.note(silence)
	a.line.hold(true)
	if err := a.world.at("in").say(quick(t), "a", "b", "held up"); err == nil {
		t.Error("it is accepted by a storage that hangs")
	}
	a.line.cut.Store(true)
	b.plays(true)
	a.line.cut.Store(false)
	b.eventually("it isn't ready", func() bool {
		for _, n := range b.cluster().Nodes {
			if n.Node == "a" {
				return !n.Ready && len(n.Reasons) == 1 && n.Reasons[0] == "draining"
			}
		}
		return false
	})
	a.line.hold(false)
	b.knows("a")
}

// quick is a context that ends soon.
func quick(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

//go:build cluster

package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// frozenFor is how long a node stands still: far longer than its lease.
	frozenFor = 30 * time.Second
	// databaseDown and databaseFrozen are how long the database is away.
	databaseDown   = 3 * time.Second
	databaseFrozen = 5 * time.Second
	usualChaos     = 20 * time.Second // CHAOS says otherwise
)

// TestClusterOfTwo: two nodes on one PostgreSQL, and whatever happens to them
// while 200 messages a second are sent, to recipients of whom half are there.
// Nothing is lost, nothing is charged twice, and what arrives twice is counted.
func TestClusterOfTwo(t *testing.T) {
	g := newRig(t, 2, usualRate)
	c := g.cluster

	for range 2 {
		active := c.active()
		g.fault("node "+active.name+" is killed", afterDeath, func() { c.kill(active); c.awaitActive(active) })
		c.start(active)
		c.awaitActive(active)
	}
	g.freezeAndThaw()
	for range 2 {
		g.handOver()
	}
	for range 2 {
		active := c.active()
		g.fault("node "+active.name+" is stopped", afterStop, func() { c.shut(active); c.awaitActive(active) })
		c.start(active)
		c.awaitActive(active)
	}
	g.fault(fmt.Sprintf("the database is down for %v", databaseDown), databaseDown+afterDeath, func() {
		c.crashDatabase()
		time.Sleep(databaseDown) // the length of the fault
		c.healDatabase()
	})
	g.fault(fmt.Sprintf("the database is frozen for %v", databaseFrozen), databaseFrozen+afterDeath, func() {
		c.freezeDatabase()
		time.Sleep(databaseFrozen)
		c.healDatabase()
	})
	g.finish()
}

// freezeAndThaw lets the active node stand still until its lease is another's.
// When it wakes it may write nothing, says so and becomes a standby.
func (g *rig) freezeAndThaw() {
	g.t.Helper()
	c := g.cluster
	asleep := c.active()
	woken := time.Now().Add(frozenFor)
	g.fault("node "+asleep.name+" is frozen", afterDeath, func() { c.freeze(asleep); c.awaitActive(asleep) })
	time.Sleep(time.Until(woken)) // the length of the fault
	g.fault("node "+asleep.name+" is thawed", afterStop, func() {
		before := len(asleep.said())
		c.thaw(asleep)
		c.await("node "+asleep.name+" says that it isn't active any more", func() bool {
			return strings.Contains(asleep.said()[before:], `msg="no longer the active node`)
		})
		c.awaitActive(asleep)
		c.checkRefuses(newPhone(g.t, "from000", c.addresses(), nil), asleep)
	})
}

// handOver lets the active node hand over. Whom it has over TCP it sends away:
// they would hear of nothing.
func (g *rig) handOver() {
	g.t.Helper()
	c := g.cluster
	active := c.active()
	before := active.dismissed()
	g.fault("node "+active.name+" hands over", afterStop, func() { c.handOver(active, ""); c.awaitActive(active) })
	c.await("who is connected to node "+active.name+" leaves it", func() bool {
		return active.dismissed()-before == streams
	})
}

// TestClusterOfThree: two of three nodes die, one after the other, and one that
// is named takes over.
func TestClusterOfThree(t *testing.T) {
	g := newRig(t, 3, usualRate)
	c := g.cluster
	for range 2 {
		active := c.active()
		g.fault("node "+active.name+" is killed", afterDeath, func() { c.kill(active); c.awaitActive(active) })
	}
	last := c.active()
	g.fault("the others come back", afterStop, c.startAll)
	if c.active() != last {
		t.Errorf("node %s is active, although %s was", c.active().name, last.name)
	}
	for _, to := range c.nodes {
		if to == last {
			continue
		}
		from := c.active()
		g.fault("node "+from.name+" hands over to "+to.name, afterStop, func() { c.handOver(from, to.name); c.awaitActive(from) })
		if c.active() != to {
			t.Errorf("node %s is active, and not %s", c.active().name, to.name)
		}
	}
	g.finish()
}

// TestClusterChaos does to three nodes and their database what comes to mind,
// without waiting until they have got over the last fault. CHAOS says for how
// long, and CHAOS_SEED repeats what was done, as far as that can be. CHAOS_RATE
// is how many messages a second are sent.
func TestClusterChaos(t *testing.T) {
	lasts, seed, rate := chaos(t)
	random := rand.New(rand.NewPCG(seed, 0))
	g := newRig(t, 3, rate)
	for began := time.Now(); time.Since(began) < lasts; {
		g.harm(random)
		time.Sleep(upTo(random, 4*time.Second)) // as it happens
		g.heal(random)
	}
	g.begin("all is well", afterDeath)
	g.cluster.startAll()
	g.calm()
	g.finish()
}

// harm does one thing that makes matters worse, if it can be done just now. How
// long a gap then is isn't promised: the next fault may be in it.
func (g *rig) harm(random *rand.Rand) {
	g.t.Helper()
	c, which := g.cluster, random.IntN(6)
	n := c.nodes[random.IntN(len(c.nodes))]
	if active := c.active(); active != nil && random.IntN(2) == 0 {
		n = active
	}
	switch {
	case which < 2 && c.trouble != "", which >= 2 && !n.runs():
	case which == 0:
		g.begin("the database crashes", time.Hour)
		c.crashDatabase()
	case which == 1:
		g.begin("the database is frozen", time.Hour)
		c.freezeDatabase()
	case which == 2:
		g.begin("node "+n.name+" is killed", time.Hour)
		c.kill(n)
	case which == 3:
		g.begin("node "+n.name+" is frozen", time.Hour)
		c.freeze(n)
	case which == 4:
		g.begin("node "+n.name+" is stopped", time.Hour)
		c.shut(n)
	case which == 5:
		g.begin("node "+n.name+" is to hand over", time.Hour)
		n.try("cluster", "handover") // it may be a standby, or the last one
	}
}

// heal brings back what isn't there, if luck will have it: first the database,
// without which no node starts.
func (g *rig) heal(random *rand.Rand) {
	g.t.Helper()
	c := g.cluster
	if c.trouble != "" && random.IntN(2) == 0 {
		g.begin("the database is back", time.Hour)
		c.healDatabase()
	}
	for _, n := range c.nodes {
		switch {
		case random.IntN(2) == 0:
		case n.process == nil && c.trouble == "":
			g.begin("node "+n.name+" is started", time.Hour)
			c.start(n)
		case n.frozen:
			g.begin("node "+n.name+" is thawed", time.Hour)
			c.thaw(n)
		}
	}
}

func upTo(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most))).Round(time.Millisecond)
}

func chaos(t *testing.T) (lasts time.Duration, seed uint64, rate int) {
	t.Helper()
	lasts, seed, rate = usualChaos, rand.Uint64(), usualRate
	var err error
	if text := os.Getenv("CHAOS"); text != "" {
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatalf("CHAOS: %v", err)
		}
	}
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CHAOS_SEED: %v", err)
		}
	}
	if text := os.Getenv("CHAOS_RATE"); text != "" {
		if rate, err = strconv.Atoi(text); err != nil || rate < 1 {
			t.Fatalf("CHAOS_RATE: expected a number of messages a second: %v", err)
		}
	}
	t.Logf("%v of chaos: CHAOS_SEED=%d", lasts, seed)
	return lasts, seed, rate
}

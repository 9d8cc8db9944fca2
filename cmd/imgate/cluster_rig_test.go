//go:build cluster

package main_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// What a fault may cost: five times what is promised.
const (
	afterDeath = 5 * 5 * time.Second // the lease runs out, and another node takes over
	afterStop  = 5 * time.Second     // the lease is given away
)

// quiet is between two faults.
const quiet = time.Second

// rig is a cluster with people who talk all the time, and somebody who watches.
type rig struct {
	t       *testing.T
	cluster *cluster
	traffic *traffic
	watch   *watch
	faults  []*fault
}

// fault is something that happens to the cluster.
type fault struct {
	name      string
	most      time.Duration // that nothing is taken, and nothing delivered
	at, until time.Time
}

func newRig(t *testing.T, nodes, rate int) *rig {
	t.Helper()
	c := newCluster(t, nodes)
	g := &rig{t: t, cluster: c, traffic: newTraffic(t, c, rate), watch: newWatch(c)}
	g.traffic.start()
	g.calm()
	return g
}

// fault does something to the cluster and waits until all is well.
func (g *rig) fault(name string, most time.Duration, do func()) {
	g.t.Helper()
	g.begin(name, most)
	do()
	g.calm()
}

func (g *rig) begin(name string, most time.Duration) {
	now := time.Now()
	if n := len(g.faults); n > 0 {
		g.faults[n-1].until = now
	}
	g.faults = append(g.faults, &fault{name: name, most: most, at: now})
	g.t.Logf("%s %s", now.Format(clock), name)
}

// calm waits until one node is active, nothing waits that could go, and all
// that was accepted for those who are registered has arrived.
func (g *rig) calm() {
	g.t.Helper()
	g.cluster.awaitActive(nil)
	g.cluster.await("nothing is late any more", func() bool { return !g.traffic.isLate(time.Now()) })
	now := time.Now()
	g.cluster.await("what was accepted arrives", func() bool { return g.traffic.hasDelivered(now) })
	g.cluster.checkStatus()
	time.Sleep(quiet) // one fault after the other
}

// finish ends the talk, has the others register and holds all that happened
// against what is promised.
func (g *rig) finish() {
	g.t.Helper()
	g.begin("the end", afterDeath)
	g.traffic.end()
	accepted := g.traffic.sent()
	began := time.Now()
	g.traffic.register(func(listener int) bool { return !isOnline(listener) })
	g.cluster.await("everything arrives", func() bool { return g.traffic.mail.distinct() >= len(accepted) })
	g.t.Logf("drained in %v", time.Since(began).Round(time.Millisecond))
	active := g.cluster.awaitActive(nil)
	g.cluster.await("everything is settled", func() bool {
		return active.metric("imgate_spool_messages") == 0 && sumOf(active.metrics(), "imgate_ledger_reservations_open") == 0
	})
	for i, n := range g.cluster.nodes {
		g.watch.count(i, n)
	}
	g.watch.end()
	r := g.traffic.mail.check(g.t, accepted)
	g.checkBooks(active, accepted, r)
	g.checkRepeats(accepted, r)
	g.watch.check(g.t)
	g.checkGaps(accepted)
	g.checkRoles()
}

// checkBooks: each message is charged once, and one that had to be sent anew as
// often as it is there.
func (g *rig) checkBooks(active *node, accepted map[string]sent, r receipt) {
	g.t.Helper()
	messages := len(accepted) + r.copies
	checkMoney(g.t, active.server, books{
		accounts: talkers + listeners, balance: 100_000 * plugin.Unit, messages: messages, most: messages,
	})
}

// checkRepeats: what arrived twice was counted by the nodes.
func (g *rig) checkRepeats(accepted map[string]sent, r receipt) {
	g.t.Helper()
	unsure := 0
	for _, s := range accepted {
		unsure += s.unsure
	}
	repeats, joined := g.watch.repeats()
	g.t.Logf("%d messages accepted, of them %d known as repeats; %d sent anew after a silence, %d of them are there twice", len(accepted), joined, unsure, r.copies)
	g.t.Logf("%d messages arrived, %d of them twice; the nodes counted %d deliveries that may be repeats", r.arrived, r.duplicates, repeats)
	if r.duplicates > repeats {
		g.t.Errorf("%d deliveries were made before, and only %d are counted", r.duplicates, repeats)
	}
	codes := map[int]int{}
	for _, p := range g.traffic.talkers {
		for code, n := range p.answers {
			codes[code] += n
		}
	}
	g.t.Logf("answers by code: %v", codes)
}

// checkGaps prints for how long nothing was taken and nothing delivered.
func (g *rig) checkGaps(accepted map[string]sent) {
	g.t.Helper()
	var taken []time.Time
	for _, s := range accepted {
		taken = append(taken, s.at)
	}
	arrived := g.traffic.mail.moments(func(body string) bool { return accepted[body].online })
	streamed := g.traffic.mail.moments(func(body string) bool { return accepted[body].stream })
	for _, f := range g.faults[:len(g.faults)-1] {
		submissions, deliveries := gap(taken, f), gap(arrived, f)
		g.t.Logf("%-45s nothing accepted for %7s, nothing delivered for %7s, over TCP for %7s", f.name, short(submissions), short(deliveries), short(gap(streamed, f)))
		if submissions > f.most || deliveries > f.most {
			g.t.Errorf("%s: nothing accepted for %s, nothing delivered for %s, want at most %s", f.name, short(submissions), short(deliveries), f.most)
		}
	}
}

func short(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// gap is the longest time between two moments that a fault has to do with.
func gap(moments []time.Time, f *fault) (longest time.Duration) {
	slices.SortFunc(moments, time.Time.Compare)
	first, _ := slices.BinarySearchFunc(moments, f.at, time.Time.Compare)
	if first == len(moments) {
		return math.MaxInt64 // nothing after it
	}
	for i := max(first, 1); i == first || i < len(moments) && moments[i].Before(f.until); i++ {
		longest = max(longest, moments[i].Sub(moments[i-1]))
	}
	return longest
}

// checkRoles: each change of a role is one line in the log of the process that
// still runs, and counted once.
func (g *rig) checkRoles() {
	g.t.Helper()
	for _, n := range g.cluster.nodes {
		said, page := n.said(), n.metrics()
		became := strings.Count(said, `msg="takes over: `) + strings.Count(said, `msg="takes the lease`)
		ceased := strings.Count(said, `msg="no longer the active node`)
		if counted := sumOf(page, "imgate_role_changes_total", `role="active"`); counted != float64(became) {
			g.t.Errorf("node %s became the active one %.0f times, and says so %d times", n.name, counted, became)
		}
		// A process may begin as a standby.
		if counted := sumOf(page, "imgate_role_changes_total", `role="standby"`) - float64(ceased); counted != 0 && counted != 1 {
			g.t.Errorf("node %s became a standby %.0f times more than it says, which is %d times", n.name, counted, ceased)
		}
	}
}

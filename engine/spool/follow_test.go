package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// counted counts the rows that are read, and fails when it is told to.
type counted struct {
	plugin.Storage
	read int
	fail bool
}

func (c *counted) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	rows, err := c.Storage.Scan(ctx, table, from, to, n)
	if c.fail && len(rows) > 0 {
		return nil, errors.New("the storage fails")
	}
	c.read += len(rows)
	return rows, err
}

// otherNode writes what an active node does of messages that end.
type otherNode struct {
	t       *testing.T
	storage plugin.Storage
	fence   plugin.Fence
	ids     message.Generator
}

func newOtherNode(t *testing.T, disk *memory.Disk) *otherNode {
	t.Helper()
	n := &otherNode{t: t, storage: memory.Open(disk)}
	var err error
	if n.fence, err = n.storage.Acquire(t.Context(), "other", time.Hour); err != nil {
		t.Fatal(err)
	}
	return n
}

// end is a message that ends at a time.
func (n *otherNode) end(key string, id message.ID, received, at time.Time) {
	n.t.Helper()
	s := Summary{
		ID: id, PublicID: message.NewPublicID(), State: StateDelivered, Received: received, Expiry: received.Add(time.Hour), Ended: at,
		Submission: DigestKey(key),
	}
	changes := []plugin.Change{s.Row()}
	seen := Seen{Digest: s.Submission, ID: id, PublicID: s.PublicID, At: received, Noted: at, State: plugin.OutcomeDelivered}
	if seen.Late() {
		changes = append(changes, seen.row())
	}
	if err := n.storage.Apply(n.t.Context(), n.fence, changes); err != nil {
		n.t.Fatal(err)
	}
}

// TestFollowerKnowsAll lets messages end at once, late and very late, on nodes
// whose clocks differ, while another node reads now and then. When that one
// takes over it knows each submission of the last ten minutes.
func TestFollowerKnowsAll(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { followRandomly(t, rand.New(rand.NewPCG(seed, 2))) })
	}
}

// waits is a message that ends later.
type waits struct {
	key          string
	id           message.ID
	received, at time.Time
}

// world is an active node's traffic, and the time.
type world struct {
	random   *rand.Rand
	now      time.Time
	skew     time.Duration // of the active node's clock
	active   *otherNode
	received map[string]time.Time
	due      []waits
}

func (w *world) clock() time.Time { return w.now.Add(w.skew) }

// goOn lets some time pass, in which messages come and end.
func (w *world) goOn(steps int) {
	for range steps {
		w.now = w.now.Add(time.Duration(w.random.IntN(200)) * time.Millisecond)
		w.receive()
		left := w.due[:0]
		for _, m := range w.due {
			if m.at.After(w.clock()) {
				left = append(left, m)
				continue
			}
			w.active.end(m.key, m.id, m.received, w.clock())
		}
		w.due = left
	}
}

func (w *world) receive() {
	took := time.Duration(w.random.IntN(int(promptly)))
	switch w.random.IntN(5) {
	case 0:
		took *= 10
	case 1:
		took *= 300
	}
	key, at := fmt.Sprint(len(w.received)), w.clock()
	w.received[key] = at
	w.due = append(w.due, waits{key, w.active.ids.New(at), at, at.Add(took)})
}

// handOver is another node, with another clock.
func (w *world) handOver() {
	w.skew = (clockSlack - time.Second) * time.Duration(w.random.IntN(3)-1) / 2
	w.active.ids = message.Generator{}
}

// busy goes on while somebody reads.
type busy struct {
	plugin.Storage
	world *world
}

func (b *busy) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	rows, err := b.Storage.Scan(ctx, table, from, to, n)
	b.world.goOn(b.world.random.IntN(20))
	return rows, err
}

func followRandomly(t *testing.T, random *rand.Rand) {
	disk := memory.NewDisk()
	w := &world{random: random, now: time.Unix(1_800_000_000, 0), active: newOtherNode(t, disk), received: map[string]time.Time{}}
	w.goOn(random.IntN(2000)) // it starts in the middle of it
	follower := NewSeenTable(&busy{memory.Open(disk), w})
	for range 250 {
		w.goOn(random.IntN(1 + random.IntN(40)))
		switch random.IntN(20) {
		case 0:
			w.handOver()
		case 1: // nothing comes for a while
			w.now = w.now.Add(time.Duration(random.IntN(120)) * time.Second)
		}
		if err := follower.CatchUp(t.Context(), w.now); err != nil {
			t.Fatal(err)
		}
	}
	w.goOn(random.IntN(80))
	follower.storage = memory.Open(disk) // it has the lease: nobody else writes
	if err := follower.CatchUp(t.Context(), w.now); err != nil {
		t.Fatal(err)
	}
	waiting := map[string]bool{}
	for _, m := range w.due {
		waiting[m.key] = true
	}
	checked := 0
	for key, at := range w.received {
		if w.now.Sub(at) >= SeenFor || waiting[key] {
			continue
		}
		checked++
		if _, ok := follower.Lookup(w.now, DigestKey(key)); !ok {
			t.Errorf("the submission %s of %s ago isn't known", key, w.now.Sub(at))
		}
	}
	if checked < 500 {
		t.Fatalf("only %d submissions were checked", checked)
	}
}

// TestFollowerReadsLittle: of ten minutes of traffic the last seconds alone are
// read again, and nothing once nothing has come for a while.
func TestFollowerReadsLittle(t *testing.T) {
	disk := memory.NewDisk()
	storage := &counted{Storage: memory.Open(disk)}
	follower, other := NewSeenTable(storage), newOtherNode(t, disk)
	now := time.Unix(1_800_000_000, 0)
	traffic := func(seconds int) {
		for range 20 * seconds {
			now = now.Add(50 * time.Millisecond)
			other.end(now.String(), other.ids.New(now), now, now)
		}
	}
	reads := func(what string, atMost int) {
		t.Helper()
		storage.read = 0
		if err := follower.CatchUp(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if storage.read > atMost {
			t.Errorf("%s: %d rows are read, at most %d are needed", what, storage.read, atMost)
		}
	}
	traffic(600)
	reads("the first time", 600*20+10*20)
	const slack = 20 * int((promptly+clockSlack)/time.Second) // messages
	for range 5 {
		traffic(4)
		reads("four seconds later", slack+2*4*20+2)
	}
	now = now.Add(time.Minute)
	reads("a minute later", slack+2*4*20+2)
	now = now.Add(seenKept)
	now = now.Add(time.Second)
	reads("when nothing comes", 0)
	traffic(2)
	reads("when something comes again", 2*2*20) // to find the end, and then all
}

// paused does something once, when it has returned a full page.
type paused struct {
	plugin.Storage
	then func()
}

func (p *paused) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	rows, err := p.Storage.Scan(ctx, table, from, to, n)
	if then := p.then; then != nil && len(rows) == n {
		p.then = nil
		then()
	}
	return rows, err
}

// TestFollowerReadsSlowly: what is written while it reads, where it has read
// already, is found by the next reading, although later writes were found by this one.
func TestFollowerReadsSlowly(t *testing.T) {
	disk := memory.NewDisk()
	storage := &paused{Storage: memory.Open(disk)}
	follower, other := NewSeenTable(storage), newOtherNode(t, disk)
	now := time.Unix(1_800_000_000, 0)
	other.end("first", other.ids.New(now), now, now)
	catchUp := func() {
		t.Helper()
		if err := follower.CatchUp(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	catchUp()
	now = now.Add(time.Second)
	received, id := now, other.ids.New(now)
	for i := range maxPage + firstPage {
		other.end(fmt.Sprint(i), other.ids.New(now), now, now)
	}
	storage.then = func() {
		now = now.Add(promptly)
		other.end("behind", id, received, now)
		now = now.Add(time.Minute)
		other.end("ahead", other.ids.New(now), now, now)
	}
	catchUp()
	if _, ok := follower.Lookup(now, DigestKey("ahead")); !ok || storage.then != nil {
		t.Fatal("the test doesn't show what it is to show")
	}
	catchUp()
	if _, ok := follower.Lookup(now, DigestKey("behind")); !ok {
		t.Error("what was written behind the reader isn't known")
	}
}

// TestFollowerReadsAgainAfterAnError: what a reading that failed has left out
// isn't lost.
func TestFollowerReadsAgainAfterAnError(t *testing.T) {
	disk := memory.NewDisk()
	storage := &counted{Storage: memory.Open(disk)}
	follower, other := NewSeenTable(storage), newOtherNode(t, disk)
	now := time.Unix(1_800_000_000, 0)
	other.end("a", other.ids.New(now), now, now)
	if err := follower.CatchUp(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		now = now.Add(time.Minute)
		other.end(fmt.Sprint(i), other.ids.New(now), now, now)
		storage.fail = true
		if err := follower.CatchUp(t.Context(), now); err == nil {
			t.Fatal("the storage doesn't fail")
		}
	}
	storage.fail = false
	if err := follower.CatchUp(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "0", "1", "2"} {
		if _, ok := follower.Lookup(now, DigestKey(key)); !ok {
			t.Errorf("submission %s isn't known", key)
		}
	}
}

// TestFollowerAfterItsLease: a node that was the active one reads what came
// after its own writes, and not these.
func TestFollowerAfterItsLease(t *testing.T) {
	disk := memory.NewDisk()
	storage := &counted{Storage: memory.Open(disk)}
	table, own := NewSeenTable(storage), newOtherNode(t, disk)
	now := time.Unix(1_800_000_000, 0)
	if err := table.CatchUp(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		now = now.Add(100 * time.Millisecond)
		own.end(fmt.Sprint(i), own.ids.New(now), now, now)
		table.Remember(now, Seen{Digest: DigestKey(fmt.Sprint(i)), At: now, State: plugin.OutcomeDelivered})
	}
	table.Wrote(now)
	other := newOtherNode(t, disk)
	received := now
	now = now.Add(30 * time.Second)
	other.end("late", other.ids.New(received), received, now)
	storage.read = 0
	if err := table.CatchUp(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if storage.read > 100 {
		t.Errorf("%d rows are read", storage.read)
	}
	for _, key := range []string{"0", "999", "late"} {
		if _, ok := table.Lookup(now, DigestKey(key)); !ok {
			t.Errorf("submission %s isn't known", key)
		}
	}
}

// TestFollowerOfAStorageThatHangs: what has waited for the storage for minutes
// is found when it is there at last, although nothing else came meanwhile.
func TestFollowerOfAStorageThatHangs(t *testing.T) {
	disk := memory.NewDisk()
	follower, other := NewSeenTable(memory.Open(disk)), newOtherNode(t, disk)
	now := time.Unix(1_800_000_000, 0)
	other.end("before", other.ids.New(now), now, now)
	ended := now.Add(time.Second)
	for range 60 {
		if err := follower.CatchUp(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		now = now.Add(4 * time.Second)
	}
	other.end("hung", other.ids.New(ended), ended, ended.Add(time.Second))
	if err := follower.CatchUp(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if _, ok := follower.Lookup(now, DigestKey("hung")); !ok {
		t.Error("what was written late isn't known")
	}
}

func BenchmarkCatchUp(b *testing.B) {
	disk := memory.NewDisk()
	storage := memory.Open(disk)
	fence, err := storage.Acquire(b.Context(), "node", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	var ids message.Generator
	now := time.Now()
	s := sampleSummary()
	for i := range 100_000 {
		s.ID, s.Received, s.Submission = ids.New(now), now, DigestKey(fmt.Sprint(i))
		if err := storage.Apply(b.Context(), fence, []plugin.Change{s.Row()}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := NewSeenTable(storage).read(b.Context(), now, now.Add(-time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/row")
}

package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// dying is a storage that dies at its k-th call: as with a crash, nothing
// reaches the disk from then on. late: the call that dies still gets there.
type dying struct {
	plugin.Storage
	left atomic.Int64
	late bool
	dead chan struct{}
}

var errDead = errors.New("the storage is dead")

func newDying(s plugin.Storage, k int, late bool) *dying {
	d := &dying{Storage: s, late: late, dead: make(chan struct{})}
	d.left.Store(int64(k))
	return d
}

// dies counts a call.
func (d *dying) dies() bool {
	left := d.left.Add(-1)
	if left == -1 {
		close(d.dead)
	}
	return left < 0
}

func (d *dying) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if d.dies() {
		if d.late && d.left.Load() == -1 {
			d.Storage.Apply(ctx, f, changes)
		}
		return errDead
	}
	return d.Storage.Apply(ctx, f, changes)
}

func (d *dying) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if d.dies() {
		return nil, errDead
	}
	return d.Storage.Scan(ctx, table, from, to, n)
}

func (d *dying) Acquire(ctx context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	if d.dies() {
		return 0, errDead
	}
	return d.Storage.Acquire(ctx, node, ttl)
}

// Renew isn't counted: it comes by the clock, not by what happens.
func (d *dying) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	if d.left.Load() < 0 {
		return errDead
	}
	return d.Storage.Renew(ctx, f, ttl)
}

// Release never comes: a crash releases nothing. The next node of the same
// name takes the lease all the same.
func (d *dying) Release(context.Context, plugin.Fence) error { return nil }

// TestCrash lets the storage die at each of its calls in turn. Then, on the
// same disk: what was acknowledged is delivered, and charged exactly once, or
// the operator has cancelled it, and it isn't charged unless that was done when
// it was accepted; there is a record of each, and its rate limit has counted it;
// what was refused is neither held nor charged.
func TestCrash(t *testing.T) {
	for _, s := range stores() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			disk := s.prepare(t)
			for _, late := range []bool{false, true} {
				crashAtEach(t, disk, late)
			}
		})
	}
}

// eachMoment charges messages when they say so.
func eachMoment() *testPolicy {
	policy := charged()
	policy.asked = func(q plugin.Question, more plugin.Supply, p *plugin.Plan) {
		p.Charging.When = momentOf(more.Text())
		p.Fallback = plugin.PlanFallback{Transports: []string{"trunk"}, Reasons: []message.Reason{message.Undelivered}}
		perSender(0, time.Hour)(q, more, p)
	}
	return policy
}

// momentOf is when a message is charged.
func momentOf(body string) plugin.ChargingMoment {
	switch {
	case strings.HasSuffix(body, "1"):
		return plugin.OnAcceptance
	case strings.HasSuffix(body, "2"):
		return plugin.OnDelivery
	}
	return plugin.OnHandover
}

// Messages whose next hop says later what became of them: one has arrived, the
// others haven't, and go by the fallback of their plans.
const (
	promised = "promised 2"
	broken   = "broken 0"
	broken2  = "broken 2"
)

// promises answers for the next hop, and has nothing else to say.
func promises(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	switch body := string(m.Body); body {
	case promised, broken, broken2:
		return plugin.Receipt{PeerIDs: []string{body}}, nil
	}
	return taken(m, r)
}

// keepsPromise reports what became of them.
func keepsPromise(ctx context.Context, door *testDoor) {
	for _, id := range []string{promised, broken, broken2} {
		_ = door.gate.Report(ctx, id, plugin.Status{Delivered: id == promised, Reason: message.Undelivered})
	}
}

// arrived lists what has arrived through a node's doors.
func arrived(d *testDoor) []string {
	bodies := slices.DeleteFunc(d.bodies(), func(body string) bool { return body == broken || body == broken2 })
	for len(d.trunk.sent) > 0 {
		bodies = append(bodies, <-d.trunk.sent)
	}
	return bodies
}

func crashAtEach(t *testing.T, disk maker, late bool) {
	for k := 0; k < 500 && !t.Failed(); k++ {
		survived := false
		t.Run(fmt.Sprintf("late=%t/call=%d", late, k), func(t *testing.T) { survived = crashAt(t, disk(t), k, late) })
		if survived {
			return
		}
	}
	t.Error("the run doesn't end")
}

// told is what callers of a node were told before its storage died.
type told struct {
	accepted  map[string]message.ID // by body
	refused   []string
	unknown   int             // neither
	cancelled map[string]bool // by body; false: whether it was isn't known
}

// crashAt runs until the storage dies, then takes over on what it left. It
// tells whether the storage survived the run.
func crashAt(t *testing.T, disk opener, k int, late bool) (survived bool) {
	storage := newDying(disk.open(t), k, late)
	before := newDoor()
	told := runUntilDeath(t, storage, before)
	select {
	case <-storage.dead:
	default:
		survived = true
	}

	after := newDoor()
	after.take = promises
	next := start(t, disk.open(t), after, eachMoment())
	if !next.started() {
		t.Fatalf("the next node doesn't start: %v", <-next.done)
	}
	for _, user := range []string{"online", "offline"} {
		if err := after.register(t.Context(), user, user); err != nil {
			t.Fatalf("register %s: %v", user, err)
		}
	}
	eventually(t, "everything that waits is delivered and settled", func() bool {
		for _, aside := range next.messages(t, spool.StateQuarantined) {
			next.call(t, "POST", "/v1/messages/"+aside.ID.String()+"/requeue", 204)
		}
		keepsPromise(t.Context(), after)
		return len(rows(t, next.storage, "parts")) == 0 && len(rows(t, next.storage, "messages")) == 0 && len(rows(t, next.storage, "outbox")) == 0
	})
	checkCount(t, next, told)
	checkBooks(t, next, append(arrived(before), arrived(after)...), told)
	if err := next.end(); err != nil {
		t.Errorf("the next node ends with %v", err)
	}
	return survived
}

// runUntilDeath sends messages to a recipient who is there and to one who
// isn't, and tells what became of them. Then the operator cancels and requeues.
func runUntilDeath(t *testing.T, storage *dying, door *testDoor) told {
	var sound atomic.Bool
	door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
		if strings.HasPrefix(string(m.Body), "poison") && !sound.Load() {
			return plugin.Receipt{}, message.Fail(message.Unbuildable, "x")
		}
		return promises(m, r)
	}
	k := start(t, storage, door, eachMoment())
	defer k.end() // it may well fail: its storage is dead
	said := told{accepted: map[string]message.ID{}, cancelled: map[string]bool{}}
	select {
	case <-k.up:
	case <-storage.dead:
		return said
	}
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	alive, end := storage.alive(ctx)
	defer end()
	door.register(alive, "online", "online") // whether it is kept doesn't matter
	submit := func(to, body string) {
		ticket := door.submit("sender", to, body)
		answer, err := ticket.Accepted(alive)
		switch {
		case errors.Is(err, plugin.ErrUnknown):
			said.unknown++
			return
		case err != nil:
			said.refused = append(said.refused, body)
			return
		}
		said.accepted[body] = answer.ID
		ticket.First(alive)
	}
	for i := range 3 {
		submit("online", fmt.Sprint("online ", i))
		submit("offline", fmt.Sprint("offline ", i))
	}
	for _, body := range []string{promised, broken, broken2} {
		submit("online", body)
	}
	keepsPromise(alive, door)
	said.submitParts(alive, door)
	submit("offline", "offline, cancelled")
	submit("offline", "offline, cancelled, paid 1")
	submit("online", "poison, cancelled")
	submit("online", "poison, requeued")
	sound.Store(true)
	for _, body := range []string{"offline, cancelled", "offline, cancelled, paid 1", "poison, cancelled"} {
		said.cancelled[body] = k.operate(storage, said.accepted[body], "cancel")
	}
	if k.operate(storage, said.accepted["poison, requeued"], "requeue") {
		eventually(t, "it is delivered, or the storage is dead", func() bool {
			return storage.left.Load() < 0 || slices.Contains(door.bodies(), "poison, requeued")
		})
	}
	return said
}

// submitParts sends a message in two parts. If only the first one is accepted, that
// is what arrives, once its time is over.
func (s *told) submitParts(alive context.Context, door *testDoor) {
	const first, second = "in two ", "parts 1"
	send := func(number uint8, body string) (plugin.Answer, error) {
		return door.submit("sender", "online", body, func(a *plugin.Arrival) {
			a.Part = &plugin.Part{Reference: 1, Total: 2, Number: number, Wait: time.Second}
		}).Accepted(alive)
	}
	answer, err := send(1, first)
	whole := first
	if err == nil {
		if _, err = send(2, second); err == nil {
			whole = first + second
		} else if !errors.Is(err, plugin.ErrUnknown) {
			whole, err = first+"[…]", nil
		}
	}
	switch {
	case errors.Is(err, plugin.ErrUnknown):
		s.unknown++
	case err != nil:
		s.refused = append(s.refused, whole)
	default:
		s.accepted[whole] = answer.ID
	}
}

// alive returns a context that ends soon after the storage has died: an answer
// that was on its way may come.
func (d *dying) alive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-d.dead:
			time.AfterFunc(100*time.Millisecond, cancel)
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// operate asks the node for a change to a message and tells whether it said
// that this was done.
func (k *kit) operate(storage *dying, id message.ID, change string) bool {
	ctx, cancel := context.WithTimeout(k.t.Context(), testWait)
	defer cancel()
	ctx, end := storage.alive(ctx)
	defer end()
	answer, err := k.ask(ctx, "POST", "/v1/messages/"+id.String()+"/"+change)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == 204
}

func checkBooks(t *testing.T, k *kit, delivered []string, said told) {
	t.Helper()
	paid := rows(t, k.storage, "test/paid")
	history := map[message.ID]pipeline.View{}
	for _, v := range k.messages(t, "") {
		history[v.ID] = v
	}
	for body, id := range said.accepted {
		sure, asked := said.cancelled[body]
		v := history[id]
		if cancelled := v.Reason == message.Cancelled; sure && !cancelled || cancelled && !asked {
			t.Errorf("%q was cancelled (asked %t, sure %t) and is %+v", body, asked, sure, v)
		} else if cancelled {
			if isPaid := paid[string(id[:])] == "\x01"; isPaid != (momentOf(body) == plugin.OnAcceptance) || slices.Contains(delivered, body) {
				t.Errorf("%q was cancelled, and delivered, or charged (%t)", body, isPaid)
			}
			continue
		}
		if !slices.Contains(delivered, body) {
			t.Errorf("%q was acknowledged and is lost", body)
		}
		if paid[string(id[:])] != "\x01" {
			t.Errorf("%q was delivered and not charged", body)
		}
		if v.State != spool.StateDelivered || v.Ended.IsZero() {
			t.Errorf("the record of %q is %+v", body, v)
		}
	}
	if holds := rows(t, k.storage, "test/holds"); len(holds) > 0 {
		t.Errorf("%d reservations stand for nothing", len(holds))
	}
	// What nobody was told of may be ours, or not.
	if most := len(said.accepted) + said.unknown; len(paid) > most || len(history) > most {
		t.Errorf("%d payments and %d records for %d messages and %d of which nobody was told", len(paid), len(history), len(said.accepted), said.unknown)
	}
	for _, body := range said.refused {
		if slices.Contains(delivered, body) {
			t.Errorf("%q was refused and delivered", body)
		}
	}
	inOrder(t, "online", delivered, said.accepted)
}

// checkCount: what was acknowledged was counted, and nothing that wasn't submitted.
func checkCount(t *testing.T, k *kit, said told) {
	t.Helper()
	counted := 0
	err := spool.New(k.storage, nil).Windows(t.Context(), func(w spool.Window) { counted += w.Count })
	if least, most := len(said.accepted), len(said.accepted)+len(said.refused)+said.unknown; err != nil || counted < least || counted > most {
		t.Errorf("%d messages were counted, %v; %d were acknowledged, and %d submitted", counted, err, least, most)
	}
}

// inOrder checks that each first delivery comes after those of the messages
// sent before it.
func inOrder(t *testing.T, to string, delivered []string, accepted map[string]message.ID) {
	t.Helper()
	last := -1
	for i := range 3 {
		body := fmt.Sprint(to, " ", i)
		if _, ok := accepted[body]; !ok {
			continue
		}
		at := slices.Index(delivered, body)
		if at < last {
			t.Errorf("%q was delivered before the one sent before it: %q", body, delivered)
		}
		last = max(last, at)
	}
}

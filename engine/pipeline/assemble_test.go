package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// part says that a message is one of several parts, awaited for a minute.
func part(reference uint16, total, number uint8) func(*plugin.Arrival) {
	return func(a *plugin.Arrival) {
		a.Part = &plugin.Part{Reference: reference, Total: total, Number: number, Wait: time.Minute}
	}
}

// lone runs a test with a pipeline on a memory, in a synctest bubble.
func lone(t *testing.T, policy plugin.Policy, f func(*testing.T, *solo)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, alone(t, memory.Open(memory.NewDisk()), policy, nil)) })
}

// history lists what has been decided upon.
func (s *solo) history(t *testing.T) []pipeline.View {
	t.Helper()
	synctest.Wait()
	page, err := s.List(t.Context(), pipeline.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(page.Messages, func(v pipeline.View) bool { return v.Service == "" && v.Ended.IsZero() })
}

// wantAccepted checks that a part is accepted, as one of the others' message.
func wantAccepted(t *testing.T, ticket plugin.Ticket, of plugin.Answer) plugin.Answer {
	t.Helper()
	answer, err := ticket.Accepted(t.Context())
	if err != nil || answer.PublicID == "" || answer.Within != 0 || of != (plugin.Answer{}) && answer != of {
		t.Fatalf("%+v, %v; want that of %+v", answer, err, of)
	}
	if o := ticket.First(t.Context()); o.State != plugin.OutcomeWaiting {
		t.Errorf("first it is %+v", o)
	}
	return answer
}

func TestPartsBecomeOneMessage(t *testing.T) {
	var asked []plugin.Question
	policy := charged()
	policy.asked = func(q plugin.Question, _ plugin.Supply, _ *plugin.Plan) { asked = append(asked, q) }
	lone(t, policy, func(t *testing.T, s *solo) {
		if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		answer := wantAccepted(t, s.door.submit("alice", "bob", "there", part(1, 3, 3)), plugin.Answer{})
		if n := len(rows(t, s.storage, "parts")); n != 1 {
			t.Errorf("%d parts are on disk", n)
		}
		wantAccepted(t, s.door.submit("alice", "bob", "hello \xed\xa0\xbd", part(1, 3, 1)), answer)
		last := s.door.submit("alice", "bob", "\xed\xb8\x80 ", part(1, 3, 2))
		after := s.door.submit("alice", "bob", "and this is next")
		wantAccepted(t, last, answer)
		wantOutcome(t, after, plugin.OutcomeDelivered)
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"hello 😀 there", "and this is next"}) {
			t.Errorf("%q", got)
		}
		if len(asked) != 2 || asked[0].Message.Missing != 0 || asked[0].Message.Size != len("hello 😀 there") || asked[0].Message.ID != answer.ID.String() {
			t.Errorf("%+v", asked)
		}
		wantAccepted(t, s.door.submit("alice", "bob", "there", part(1, 3, 3)), plugin.Answer{PublicID: answer.PublicID})
		views := s.history(t)
		if len(views) != 2 || views[0].ID != answer.ID || views[0].PublicID != answer.PublicID || views[0].Account != "alice" || len(rows(t, s.storage, "parts")) != 0 {
			t.Errorf("%+v", views)
		}
		if paid := rows(t, s.storage, "test/paid"); len(paid) != 2 || paid[string(answer.ID[:])] == "" {
			t.Errorf("paid: %q", paid)
		}
		counts := s.Snapshot()
		if counts["submitted"] != 1 || counts["accepted"] != 2 || counts["delivered"] != 2 || counts["joined"] != 0 {
			t.Errorf("%v", counts)
		}
	})
}

// TestPartsMissing: the policy says what becomes of what is there, also after a
// restart.
func TestPartsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		plan    func(*plugin.Plan)
		state   spool.StateName
		reason  message.Reason
		arrives []string
	}{
		"delivered": {func(*plugin.Plan) {}, spool.StateDelivered, "", []string{"[…]two[…]"}},
		"rejected": {func(p *plugin.Plan) {
			p.Processing, p.Reason = plugin.Reject, message.Declined
		}, spool.StateFailed, message.Declined, nil},
		"discarded": {func(p *plugin.Plan) { p.Processing = plugin.Discard }, spool.StateDiscarded, "", nil},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%t", name, restart), func(t *testing.T) {
				policy := charged()
				policy.asked = func(q plugin.Question, _ plugin.Supply, p *plugin.Plan) {
					if q.Message.Missing == 3 {
						c.plan(p)
					}
				}
				synctest.Test(t, func(t *testing.T) {
					disk := memory.NewDisk()
					s := alone(t, memory.Open(disk), policy, nil)
					if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
						t.Fatal(err)
					}
					answer := wantAccepted(t, s.door.submit("alice", "bob", "two", part(1, 4, 2)), plugin.Answer{})
					time.Sleep(50 * time.Second)
					if restart {
						s.stop()
						s = alone(t, memory.Open(disk), policy, nil)
					}
					time.Sleep(9 * time.Second)
					if views := s.history(t); len(views) != 0 {
						t.Fatalf("it isn't waited for the others: %+v", views)
					}
					time.Sleep(2 * time.Second)
					views := s.history(t)
					if len(views) != 1 || views[0].ID != answer.ID || views[0].State != c.state || views[0].Reason != c.reason || views[0].Ended.IsZero() || views[0].Service != "test" {
						t.Fatalf("%+v", views)
					}
					if got := s.door.bodies(); !slices.Equal(got, c.arrives) || len(rows(t, s.storage, "parts")) != 0 {
						t.Errorf("%q", got)
					}
					if paid := len(rows(t, s.storage, "test/paid")); paid != len(c.arrives) || len(rows(t, s.storage, "test/holds")) != 0 {
						t.Errorf("paid %d times", paid)
					}
				})
			})
		}
	}
}

// TestPartsRefusedForGood: the last one is refused; of the message there is a
// record.
func TestPartsRefusedForGood(t *testing.T) {
	policy := charged()
	policy.change = func(p *plugin.Plan) { p.Processing, p.Reason = plugin.Reject, message.Blocked }
	lone(t, policy, func(t *testing.T, s *solo) {
		answer := wantAccepted(t, s.door.submit("alice", "bob", "one", part(1, 2, 1)), plugin.Answer{})
		for range 2 {
			wantRefusal(t, s.door.submit("alice", "bob", "two", part(1, 2, 2)), message.Blocked, false)
		}
		views := s.history(t)
		if len(views) != 1 || views[0].ID != answer.ID || views[0].State != spool.StateFailed || views[0].Reason != message.Blocked || len(rows(t, s.storage, "parts")) != 0 {
			t.Errorf("%+v", views)
		}
	})
}

// TestPartsRefusedForNow: the last one isn't kept, and makes the message whole
// when it comes again. Each reservation has a key of its own.
func TestPartsRefusedForNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moody := &moody{Storage: memory.Open(memory.NewDisk())}
		s := alone(t, moody, charged(), nil)
		if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		answer := wantAccepted(t, s.door.submit("alice", "bob", "one", part(1, 2, 1)), plugin.Answer{})
		moody.ill.Store(true)
		go func() {
			time.Sleep(7 * time.Second)
			moody.ill.Store(false)
		}()
		wantRefusal(t, s.door.submit("alice", "bob", "two", part(1, 2, 2)), message.StorageDown, true)
		time.Sleep(3 * time.Second)
		if n := len(rows(t, s.storage, "parts")); n != 1 {
			t.Fatalf("%d parts are on disk", n)
		}
		wantAccepted(t, s.door.submit("alice", "bob", "two", part(1, 2, 2)), answer)
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"onetwo"}) {
			t.Errorf("%q", got)
		}
		paid := rows(t, s.storage, "test/paid")
		if len(paid) != 1 || paid[string(answer.ID[:])] != "" || len(rows(t, s.storage, "test/holds")) != 0 || len(rows(t, s.storage, "outbox")) != 0 {
			t.Errorf("paid %q: the first reservation was given back", paid)
		}
	})
}

// TestPartsGivenUp: after their time was over the policy never has a verdict.
func TestPartsGivenUp(t *testing.T) {
	var tries atomic.Int64
	policy := charged()
	policy.err = message.FailForNow(message.PolicyFailed, "x")
	policy.asked = func(plugin.Question, plugin.Supply, *plugin.Plan) { tries.Add(1) }
	lone(t, policy, func(t *testing.T, s *solo) {
		answer := wantAccepted(t, s.door.submit("alice", "bob", "one", part(1, 2, 1)), plugin.Answer{})
		time.Sleep(23 * time.Hour)
		if views := s.history(t); len(views) != 0 || tries.Load() < 23*12 {
			t.Fatalf("after %d tries: %+v", tries.Load(), views)
		}
		time.Sleep(time.Hour + 5*time.Minute)
		views := s.history(t)
		if len(views) != 1 || views[0].ID != answer.ID || views[0].State != spool.StateFailed || views[0].Reason != message.PolicyFailed || len(rows(t, s.storage, "parts")) != 0 {
			t.Errorf("%+v", views)
		}
	})
}

// TestPartsFromEverywhere: parts come over many binds at once, in any order, each
// twice. Every message arrives once, as it was.
func TestPartsFromEverywhere(t *testing.T) {
	const messages, total, binds = 300, 4, 8
	s := alone(t, memory.Open(memory.NewDisk()), charged(), nil)
	if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
		t.Fatal(err)
	}
	var all []int
	for i := range 2 * messages * total {
		all = append(all, i%(messages*total))
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var running sync.WaitGroup
	for bind := range binds {
		running.Go(func() {
			for i := bind; i < len(all); i += binds {
				reference, number := uint16(all[i]/total), all[i]%total
				ticket := s.door.submit("alice", "bob", fmt.Sprintf("%d.%d ", reference, number), part(reference, total, uint8(number+1)))
				if _, err := ticket.Accepted(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	var want []string
	for i := range messages {
		want = append(want, fmt.Sprintf("%d.0 %d.1 %d.2 %d.3 ", i, i, i, i))
	}
	eventually(t, "all arrive", func() bool { return len(s.door.bodies()) >= messages })
	got := s.door.bodies()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(rows(t, s.storage, "parts")) != 0 {
		t.Errorf("%d messages: %q", len(got), got)
	}
}

// TestPartsOfAnInstanceThatIsGone: the configuration has changed while others were
// awaited.
func TestPartsOfAnInstanceThatIsGone(t *testing.T) {
	for _, processing := range []plugin.Processing{plugin.Deliver, plugin.Discard, plugin.Reject} {
		synctest.Test(t, func(t *testing.T) {
			policy := charged()
			policy.also(func(p *plugin.Plan) { p.Processing = processing })
			disk := memory.NewDisk()
			s := alone(t, memory.Open(disk), policy, func(parts *pipeline.Parts) { parts.Doors["old"] = parts.Doors["door"] })
			s.door.gate = soloGate{s: s, instance: "old"}
			answer := wantAccepted(t, s.door.submit("alice", "bob", "one", part(1, 2, 1)), plugin.Answer{})
			s.stop()
			s = alone(t, memory.Open(disk), policy, nil)
			time.Sleep(time.Minute)
			if views := s.history(t); len(views) != 1 || views[0].ID != answer.ID || views[0].Transport != "old" {
				t.Errorf("%+v", views)
			}
		})
	}
}

func TestPartsThatCantBe(t *testing.T) {
	lone(t, charged(), func(t *testing.T, s *solo) {
		for name, c := range map[string]struct {
			change func(*plugin.Arrival)
			reason message.Reason
		}{
			"one":       {func(a *plugin.Arrival) { a.Part.Total = 1 }, message.Malformed},
			"none":      {func(a *plugin.Arrival) { a.Part.Number = 0 }, message.Malformed},
			"more":      {func(a *plugin.Arrival) { a.Part.Number = 4 }, message.Malformed},
			"no wait":   {func(a *plugin.Arrival) { a.Part.Wait = 0 }, message.Malformed},
			"long wait": {func(a *plugin.Arrival) { a.Part.Wait = 25 * time.Hour }, message.Malformed},
			"composing": {func(a *plugin.Arrival) { a.Message.ContentType = "application/im-iscomposing+xml" }, message.UnsupportedType},
			"a body":    {func(a *plugin.Arrival) { a.Message.Body = make([]byte, pipeline.MaxBody+1) }, message.TooLarge},
			"a sender":  {func(a *plugin.Arrival) { a.Message.From = address("carol") }, message.Forbidden},
		} {
			t.Log(name)
			wantRefusal(t, s.door.submit("alice", "bob", name, part(1, 3, 1), c.change), c.reason, false)
		}
		half := strings.Repeat("x", pipeline.MaxBody/2+1)
		wantAccepted(t, s.door.submit("alice", "bob", half, part(1, 3, 1)), plugin.Answer{})
		wantRefusal(t, s.door.submit("alice", "bob", half, part(1, 3, 2)), message.TooLarge, false)
	})
}

// crashParts are the messages of TestCrashWithParts, by their parts.
var crashParts = map[uint16][]string{
	1: {"first, ", "paid 1"}, 2: {"second, ", "longer, ", "paid 2"}, 3: {"is ", "rejected"}, 4: {"never ", "whole, ", "paid 0"}, 5: {"for who isn't ", "there 0"},
}

// crashed is what the peers of a pipeline were told before its storage died.
type crashed struct {
	accepted map[string]message.ID // parts by what they say
	refused  map[string]bool       // for now, each time
	unsure   map[string]bool       // at least once
	sent     map[string]bool
}

// TestCrashWithParts lets the storage die at each of its calls in turn, while
// parts come. Then, on the same disk, once all that wait has timed out: each part
// that was acknowledged is in exactly one message of which there is a record,
// and which was charged once, or not at all if it wasn't delivered; of what was
// refused nothing is there. If the peers repeat all that they have sent, what
// they said arrives whole.
func TestCrashWithParts(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, repeat := range []bool{false, true} {
			t.Run(fmt.Sprintf("late=%t/repeat=%t", late, repeat), func(t *testing.T) {
				t.Parallel()
				for k := 0; !t.Failed(); k++ {
					survived := false
					synctest.Test(t, func(t *testing.T) { survived = crashPartsAt(t, k, late, repeat) })
					if survived {
						t.Logf("it survives after %d calls", k)
						return
					}
				}
			})
		}
	}
}

// crashPolicy charges messages when they say so, and rejects one that is whole.
func crashPolicy() *testPolicy {
	policy := charged()
	policy.asked = func(q plugin.Question, more plugin.Supply, p *plugin.Plan) {
		p.Charging.When, p.Store = momentOf(more.Text()), 24*time.Hour
		if strings.HasSuffix(more.Text(), "rejected") {
			p.Processing = plugin.Reject
		}
	}
	return policy
}

func crashPartsAt(t *testing.T, k int, late, repeat bool) (survived bool) {
	disk := memory.NewDisk()
	storage := newDying(memory.Open(disk), k, late)
	said := crashed{map[string]message.ID{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
	var delivered []string
	if before, err := tryAlone(t, storage, crashPolicy(), nil); err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), testWait)
		before.door.register(ctx, "online", "phone") // whether it is kept doesn't matter
		cancel()
		for _, next := range []struct {
			reference uint16
			number    int
		}{{1, 2}, {4, 3}, {1, 1}, {2, 1}, {2, 1}, {2, 3}, {3, 1}, {3, 2}, {2, 2}, {2, 3}, {5, 1}, {4, 1}, {5, 2}} {
			said.send(t, before, next.reference, next.number)
		}
		synctest.Wait()
		survived = storage.left.Load() >= 0
		before.stop()
		delivered = before.door.bodies()
	}

	after := alone(t, memory.Open(disk), crashPolicy(), nil)
	for _, user := range []string{"online", "offline"} {
		if err := after.door.register(t.Context(), user, "phone"); err != nil {
			t.Fatal(err)
		}
	}
	if repeat {
		said.repeat(t, after)
	}
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	delivered = append(delivered, after.door.bodies()...)
	for _, table := range []string{"parts", "messages", "states", "outbox", "test/holds"} {
		if left := rows(t, after.storage, table); len(left) != 0 {
			t.Errorf("k=%d: %d rows are left in %s", k, len(left), table)
		}
	}
	said.check(t, k, after, delivered, repeat)
	after.stop()
	return survived
}

// send sends a part and notes what its peer is told.
func (c *crashed) send(t *testing.T, s *solo, reference uint16, number int) {
	bodies := crashParts[reference]
	body, to := bodies[number-1], "online"
	if reference == 5 {
		to = "offline"
	}
	c.sent[body] = true
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	answer, err := s.door.submit("sender", to, body, part(reference, uint8(len(bodies)), uint8(number))).Accepted(ctx)
	switch {
	case err == nil:
		c.accepted[body] = answer.ID
		delete(c.refused, body)
	case errors.Is(err, plugin.ErrUnknown):
		c.unsure[body] = true
		delete(c.refused, body)
	case message.AsFailure(err).Temporary && c.accepted[body].IsZero() && !c.unsure[body]:
		c.refused[body] = true
	}
}

// repeat sends everything again.
func (c *crashed) repeat(t *testing.T, s *solo) {
	for reference, bodies := range crashParts {
		for i, body := range bodies {
			if c.sent[body] {
				id := c.accepted[body]
				c.send(t, s, reference, i+1)
				if _, acknowledged := c.accepted[body]; acknowledged && !id.IsZero() {
					c.accepted[body] = id // it may be zero the second time
				}
			}
		}
	}
}

func (c *crashed) check(t *testing.T, k int, s *solo, delivered []string, repeat bool) {
	t.Helper()
	paid := rows(t, s.storage, "test/paid")
	records := map[message.ID]pipeline.View{}
	for _, v := range s.history(t) {
		records[v.ID] = v
		isPaid := paid[string(v.ID[:])] != ""
		if v.Ended.IsZero() || v.State != spool.StateDelivered && v.State != spool.StateFailed || isPaid != (v.State == spool.StateDelivered) {
			t.Errorf("k=%d: paid %t, and its record is %+v", k, isPaid, v)
		}
	}
	if len(paid) > len(records) || len(records) > len(crashParts) {
		t.Errorf("k=%d: %d payments, %d records", k, len(paid), len(records))
	}
	all := strings.Join(delivered, "|")
	for body, id := range c.accepted {
		v, recorded := records[id]
		if !recorded && !id.IsZero() || v.State == spool.StateDelivered && !strings.Contains(all, body) {
			t.Errorf("k=%d: %q was acknowledged, and its record is %+v; delivered were %q", k, body, v, delivered)
		}
	}
	for body := range c.refused {
		if strings.Contains(all, body) {
			t.Errorf("k=%d: %q was refused and delivered", k, body)
		}
	}
	for _, bodies := range crashParts {
		whole := strings.Join(bodies, "")
		arrives := repeat && !slices.ContainsFunc(bodies, func(body string) bool { return !c.sent[body] || body == "rejected" })
		if arrives && !slices.Contains(delivered, whole) {
			t.Errorf("k=%d: %q isn't among %q", k, whole, delivered)
		}
	}
}

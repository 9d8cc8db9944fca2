package pipeline_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// roundTrip is how long the peers of these tests take for an answer.
const roundTrip = 50 * time.Millisecond

// crowd counts how many messages are under way at once.
type crowd struct{ now, most, all atomic.Int64 }

func (c *crowd) take(context.Context, *message.Message, plugin.Route) (plugin.Receipt, error) {
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	time.Sleep(roundTrip)
	c.now.Add(-1)
	c.all.Add(1)
	return plugin.Receipt{Final: true}, nil
}

// binds registers contacts that take so many messages at once.
func (d *testDoor) binds(t testing.TB, user string, windows ...int) {
	t.Helper()
	r := plugin.Registration{Account: account(user), AOR: address(user), CallID: message.NewPublicID(), CSeq: 1, All: true}
	for i, window := range windows {
		contact := fmt.Sprint("esme", i)
		r.Bindings = append(r.Bindings, plugin.Binding{Contact: contact, Device: contact, Window: window, Expires: time.Now().Add(time.Hour)})
	}
	if _, err := d.gate.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// TestPace: a recipient gets as many messages at once as its devices take.
func TestPace(t *testing.T) {
	const senders = 2000
	for name, c := range map[string]struct {
		before, after []int // windows of its bindings
		restart       bool
		want          int64
	}{
		"doesn't say":           {before: []int{0}, want: 8},
		"nonsense":              {before: []int{-1}, want: 1},
		"one":                   {before: []int{1}, want: 1},
		"fewer than that":       {before: []int{3}, want: 3},
		"more":                  {before: []int{50}, want: 50},
		"beyond all bounds":     {before: []int{1 << 30}, want: plugin.MaxBindingWindow},
		"the greater of two":    {before: []int{0, 50}, want: 2 * 50}, // both get each message
		"rises":                 {before: []int{2}, after: []int{40}, want: 40},
		"falls":                 {before: []int{40}, after: []int{2}, want: 40},
		"read back":             {before: []int{20}, restart: true, want: 20},
		"it comes back":         {after: []int{30}, want: 30},
		"it comes back, silent": {after: []int{0}, want: 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				policy := &testPolicy{change: func(p *plugin.Plan) { p.Answer = plugin.AnswerAccepted }}
				s := alone(t, memory.Open(disk), policy, nil)
				if len(c.before) > 0 {
					s.door.binds(t, "bob", c.before...)
				}
				if c.restart {
					s = s.restart(t, disk, policy, nil)
				}
				var crowd crowd
				s.door.quiet, s.door.taking = true, crowd.take
				for i := range senders {
					if _, err := s.door.submit(fmt.Sprint("sender", i), "bob", "x").Accepted(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * roundTrip)
				if len(c.after) > 0 {
					s.door.binds(t, "bob", c.after...)
				}
				time.Sleep(senders * roundTrip)
				devices := int64(max(len(c.before), len(c.after)))
				if got := crowd.most.Load(); got != c.want || crowd.all.Load() != senders*devices {
					t.Errorf("%d at once, want %d; %d in all", got, c.want, crowd.all.Load())
				}
			})
		})
	}
}

// TestPaceOutside: a number that is a next hop's gets more than a phone would, and
// leaves workers to others.
func TestPaceOutside(t *testing.T) {
	inBubble(t, &testPolicy{change: func(p *plugin.Plan) { p.Transports = []string{"trunk"} }}, nil, func(t *testing.T, s *solo) {
		gate := make(chan string)
		s.door.trunk.sent = gate // nothing is taken until somebody reads
		const senders = 1000
		for i := range senders {
			s.door.submit(fmt.Sprint("sender", i), "?12345", "x")
		}
		synctest.Wait()
		if got := s.Snapshot(); got["waiting"] != senders {
			t.Fatalf("%v", got)
		}
		if n := s.Running(); n != 256 {
			t.Errorf("%d lanes are at work", n)
		}
		for range senders {
			<-gate
		}
	})
}

// BenchmarkOneRecipient: messages of many senders to an ESME that takes 50 at once
// and answers after 5 ms: 10,000 a second are possible.
func BenchmarkOneRecipient(b *testing.B) {
	policy := &testPolicy{change: func(p *plugin.Plan) { p.Answer = plugin.AnswerAccepted }}
	s := alone(b, nowhere{memory.Open(memory.NewDisk())}, policy, nil)
	s.door.binds(b, "esme", 50)
	s.door.quiet = true
	done := make(chan struct{}, 50)
	s.door.taking = func(context.Context, *message.Message, plugin.Route) (plugin.Receipt, error) {
		time.Sleep(roundTrip / 10)
		done <- struct{}{}
		return plugin.Receipt{Final: true}, nil
	}
	window := make(chan struct{}, 1000)
	go func() {
		for range done {
			<-window
		}
	}()
	for i := 0; b.Loop(); i++ {
		window <- struct{}{}
		s.door.submit(fmt.Sprint("sender", i%10_000), "esme", fmt.Sprint(i))
	}
}

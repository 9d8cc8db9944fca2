package loop

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Transport(t, func(plugintest.T) plugintest.TransportHarness {
		h := &room{peers: map[string]hearing{}, spoken: map[string]chan struct{}{}}
		return plugintest.TransportHarness{
			Open: h.open, Say: h.say, Route: h.route,
			Trusted: func(sender message.Address) plugin.Account {
				return plugin.Account{ID: sender.String(), Identities: []message.Address{sender}}
			},
		}
	})
}

// room is where a loop's peers are. Whoever sends through a loop is a peer that
// submits a message, and the gate is a peer that hears one; so the room stands
// between loop and gate and knows by the key which one an arrival is.
type room struct {
	loop *Loop

	mu     sync.Mutex
	peers  map[string]hearing       // by the address of a route, and by the key of what is sent to it
	spoken map[string]chan struct{} // by the key of what a peer says: told when it is submitted
}

type hearing func(plugintest.Heard) plugintest.Reply

func (r *room) open(t plugintest.T) plugin.Transport {
	opened, err := New(t.Context(), plugin.Env{Instance: "loop"}, Config{Depth: 16})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	r.loop = opened.(*Loop)
	return inRoom{r.loop, r}
}

// inRoom is a loop whose gate is the room's.
type inRoom struct {
	*Loop
	room *room
}

func (l inRoom) Serve(ctx context.Context, gate plugin.Gate) error {
	return l.Loop.Serve(ctx, door{gate, l.room})
}

func (l inRoom) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	l.room.mu.Lock()
	l.room.peers["loop "+route.Reference] = l.room.peers[route.Address]
	l.room.mu.Unlock()
	return l.Loop.Send(ctx, m, route)
}

// route makes a peer that hears what is sent to its address.
func (r *room) route(_ plugintest.T, hear func(plugintest.Heard) plugintest.Reply) plugin.Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	address := strconv.Itoa(len(r.peers))
	r.peers[address] = hear
	return plugin.Route{Transport: "loop", Address: address}
}

// say sends one message after the other, each as soon as the one before it was
// submitted or answered: only then it is certain which comes first.
func (r *room) say(ctx context.Context, messages ...plugintest.Said) []plugintest.Reply {
	replies := make([]plugintest.Reply, len(messages))
	var sending sync.WaitGroup
	for i, s := range messages {
		route := plugin.Route{Reference: s.From.User + "-" + s.ID}
		spoken, answered := r.expect("loop "+route.Reference), make(chan struct{})
		m := &message.Message{From: s.To, Recipient: s.From, ContentType: s.ContentType, Body: s.Body, Hops: 10}
		sending.Go(func() {
			defer close(answered)
			_, err := r.loop.Send(ctx, m, route)
			replies[i] = replyOf(err)
		})
		select {
		case <-spoken:
		case <-answered:
		}
	}
	sending.Wait()
	return replies
}

func (r *room) expect(key string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	spoken := make(chan struct{}, 1)
	r.spoken[key] = spoken
	return spoken
}

func replyOf(err error) plugintest.Reply {
	f := message.AsFailure(err)
	switch {
	case err == nil:
		return plugintest.Taken
	case f.Reason == message.NoAnswer, errors.Is(err, plugin.ErrUnknown): // it will be sent again
		return plugintest.Silence
	case f.Reason.OfNode():
		return plugintest.Elsewhere
	case f.Temporary:
		return plugintest.Later
	}
	return plugintest.Refused
}

// door is the gate as the loop sees it.
type door struct {
	plugin.Gate
	room *room
}

func (d door) Submit(a plugin.Arrival) plugin.Ticket {
	d.room.mu.Lock()
	hear, spoken := d.room.peers[a.Key], d.room.spoken[a.Key]
	d.room.mu.Unlock()
	if hear != nil {
		return echo{a, hear}
	}
	ticket := d.Gate.Submit(a)
	select {
	case spoken <- struct{}{}:
	default: // nobody waits for it any more
	}
	return ticket
}

// echo is the ticket of what a peer hears.
type echo struct {
	arrival plugin.Arrival
	hear    hearing
}

func (e echo) Accepted(ctx context.Context) (plugin.Answer, error) {
	m, reply := e.arrival.Message, make(chan plugintest.Reply, 1)
	go func() {
		reply <- e.hear(plugintest.Heard{
			Reference: e.arrival.Key, From: m.Recipient, To: m.From,
			ContentType: m.ContentType, Body: m.Body, Headers: m.Headers,
		})
	}()
	select {
	case r := <-reply:
		return plugin.Answer{}, failureOf(r)
	case <-ctx.Done():
		return plugin.Answer{}, message.FailForNow(message.Internal, "%w", ctx.Err())
	}
}

func failureOf(r plugintest.Reply) error {
	switch r {
	case plugintest.Taken:
		return nil
	case plugintest.Refused:
		return message.Fail(message.Declined, "refused")
	}
	return message.FailForNow(message.Unavailable, "%s", r)
}

func (echo) First(context.Context) plugin.Outcome { return plugin.Outcome{} }

func TestLimits(t *testing.T) {
	for depth, valid := range map[int]bool{0: false, 1: true, 65536: true, 65537: false} {
		if err := (Config{Depth: depth}).Validate(); (err == nil) != valid {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
	l, err := New(t.Context(), plugin.Env{}, Config{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := func(hops uint8, reason message.Reason, temporary bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := l.Send(ctx, &message.Message{Hops: hops}, plugin.Route{})
		if f, ok := errors.AsType[*message.Failure](err); !ok || f.Reason != reason || f.Temporary != temporary {
			t.Errorf("%d hops: %v, want %s", hops, err, reason)
		}
	}
	want(0, message.TooManyHops, false)
	want(1, message.NoAnswer, true)   // takes the only place: nobody serves
	want(1, message.Overloaded, true) // no place left
}

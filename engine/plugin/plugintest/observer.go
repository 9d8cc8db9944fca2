package plugintest

import (
	"bytes"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// ObserverHarness is an observer under test, with whatever it tells of what it
// saw: a server, a file, an admin route.
type ObserverHarness struct {
	// Open opens the observer.
	Open func(t T) plugin.Observer
	// Read waits until what the observer was told is out, and returns all that
	// has come out so far as text, in which each packet appears with its Call,
	// or each step with its message's ID as String writes it. The case has told
	// it little, and nothing was jammed.
	Read func(t T) string
	// Jam makes whoever the observer talks to stop reading, for good. It is
	// called before anything is told. Nil: it talks to nobody.
	Jam func(t T)
}

// Observer checks a plugin against the contract of plugin.Observer.
func Observer(t *testing.T, harness func(T) ObserverHarness) {
	t.Helper()
	run(t, observerCases, harness)
}

var observerCases = []Case[ObserverHarness]{
	{"what it is told comes out", observerTells},
	{"what it was told of is the caller's again", observerKeepsNothing},
	{"many tell it at once", observerConcurrent},
	{"nobody waits for it, though nobody reads", observerNeverBlocks},
	{"its memory is bounded, though nobody reads", observerBounded},
	{"it closes in time, though nobody reads", observerClosesJammed},
	{"it leaves no goroutine behind", observerLeavesNothing},
}

// Limits of an observer.
const (
	// observerClose is how long Close may take.
	observerClose = 5 * time.Second
	// observerCalls is how many packets and steps must be told within
	// observerWithin: a hundred times what it takes if nobody waits.
	observerCalls  = 5_000
	observerWithin = 10 * time.Second
	// observerFew is what is told where only the end matters.
	observerFew = 1_000
	// observerOctets is what one case tells in all, observerMemory what may be
	// left of it.
	observerOctets = 96 << 20
	observerMemory = 32 << 20
)

// observerBench is a case at work.
type observerBench struct {
	T
	o     plugin.Observer
	ids   message.Generator
	now   time.Time
	close func() (error, bool) // false: it was still at it after observerClose
}

func newObserverBench(t T, h ObserverHarness) *observerBench {
	t.Helper()
	b := &observerBench{T: t, o: h.Open(t), now: time.Now()}
	b.close = sync.OnceValues(func() (error, bool) {
		done := make(chan error, 1)
		go func() { done <- b.o.Close() }()
		select {
		case err := <-done:
			return err, true
		case <-time.After(observerClose):
			return nil, false
		}
	})
	t.Cleanup(func() { b.close() })
	return b
}

// packet makes a packet; data is in it as it is.
func (b *observerBench) packet(call string, data []byte) *plugin.Packet {
	return &plugin.Packet{
		Time: b.now, Transport: "door", Protocol: "sip", Network: "udp", Call: call,
		Local:  netip.MustParseAddrPort("192.0.2.1:5060"),
		Remote: netip.MustParseAddrPort("198.51.100.7:5060"),
		Title:  [2]string{"MESSAGE", "sip:bob@b.example"},
		Data:   data,
	}
}

// step makes a step of a message of its own.
func (b *observerBench) step(name plugin.StepName, text []byte) *plugin.Step {
	return &plugin.Step{
		Name: name, Began: b.now, Ended: b.now.Add(time.Millisecond),
		Message: &message.Message{
			ID: b.ids.New(b.now), PublicID: message.NewPublicID(), Received: b.now,
			From:      message.Address{User: "alice", Host: "a.example"},
			Recipient: message.Address{User: "bob", Host: "b.example"},
			Transport: "door", Peer: "198.51.100.7:5060", ContentType: "text/plain", Body: text,
		},
		Call: "call-of-step", Transport: "door",
	}
}

// sipMessage is a request as it travels; call is told apart from others by it.
func sipMessage(call string) []byte {
	return []byte("MESSAGE sip:bob@b.example SIP/2.0\r\n" +
		"Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK" + call + "\r\n" +
		"From: <sip:alice@a.example>;tag=1\r\nTo: <sip:bob@b.example>\r\n" +
		"Call-ID: " + call + "\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\n" +
		"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
}

// tell tells of one packet, and of one message's usual steps, and returns what
// they are known by.
func (b *observerBench) tell(call string) (id message.ID) {
	b.o.Packet(b.packet(call, sipMessage(call)))
	received := b.step(plugin.StepReceived, []byte("hello"))
	received.Call = call
	b.o.Step(received)
	stored := *received
	stored.Name, stored.Call = plugin.StepStored, ""
	b.o.Step(&stored)
	return received.Message.ID
}

// expect wants what tell told of to have come out: packets or steps.
func (b *observerBench) expect(h ObserverHarness, call string, id message.ID) {
	b.Helper()
	if out := h.Read(b); !strings.Contains(out, call) && !strings.Contains(out, id.String()) {
		b.Errorf("it was told of the call %s and of the message %s; out came %q", call, id, out)
	}
}

func observerTells(t T, h ObserverHarness) {
	b := newObserverBench(t, h)
	b.expect(h, "call-1", b.tell("call-1"))
}

// observerKeepsNothing spoils what the observer was told of, as its owner does
// with the next packet.
func observerKeepsNothing(t T, h ObserverHarness) {
	b := newObserverBench(t, h)
	data := sipMessage("call-before")
	p := b.packet("call-before", data)
	s := b.step(plugin.StepStored, []byte("before"))
	b.o.Packet(p)
	b.o.Step(s)

	copy(data, bytes.Repeat([]byte("afterwards "), len(data)))
	*p = *b.packet("call-afterwards", data)
	p.Title = [2]string{"afterwards", "afterwards"}
	later := b.step(plugin.StepStored, []byte("afterwards"))
	later.Message.From.Host, later.Message.Recipient.Host = "afterwards.example", "afterwards.example"
	*s.Message = *later.Message
	s.Name, s.Transport, s.Call, s.Reason = plugin.StepRefused, "afterwards", "afterwards", "afterwards"

	out := h.Read(t)
	if strings.Contains(out, "afterwards") || strings.Contains(out, later.Message.ID.String()) {
		t.Errorf("what changed after the call came out: %q", out)
	}
}

func observerConcurrent(t T, h ObserverHarness) {
	const callers, times = 8, 50
	b := newObserverBench(t, h)
	panics := make(chan any, callers)
	start := make(chan struct{})
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			defer func() {
				if cause := recover(); cause != nil {
					panics <- cause
				}
			}()
			<-start
			for i := range times {
				b.tell(fmt.Sprintf("call-%d-%d", caller, i))
			}
		})
	}
	close(start)
	group.Wait()
	close(panics)
	for cause := range panics {
		t.Errorf("one of %d callers at once saw it panic: %v", callers, cause)
	}
}

// flood tells of so many packets and steps with so much data each, and stops
// when the time is over. It returns how many were told, or that a call doesn't
// return.
func (b *observerBench) flood(calls, octets int, within time.Duration) (told int, stuck bool) {
	stop := time.Now().Add(within)
	done := make(chan int, 1)
	go func() {
		n := 0
		for n < calls && time.Now().Before(stop) {
			text := bytes.Repeat([]byte("x"), octets)
			b.o.Packet(b.packet(fmt.Sprintf("call-%d", n), text))
			b.o.Step(b.step(plugin.StepStored, text))
			n++
		}
		done <- n
	}()
	select {
	case told = <-done:
		return told, false
	case <-time.After(within + moment):
		return 0, true
	}
}

func jam(t T, h ObserverHarness) {
	if h.Jam != nil {
		h.Jam(t)
	}
}

func observerNeverBlocks(t T, h ObserverHarness) {
	b := newObserverBench(t, h)
	jam(t, h)
	told, stuck := b.flood(observerCalls, 512, observerWithin)
	switch {
	case stuck:
		t.Errorf("a call didn't return within %s", observerWithin)
	case told < observerCalls:
		t.Errorf("within %s it could be told only %d times, want %d: somebody waited", observerWithin, told, observerCalls)
	}
}

func observerBounded(t T, h ObserverHarness) {
	const octets = 8 << 10
	b := newObserverBench(t, h)
	jam(t, h)
	before := heap()
	b.flood(observerOctets/octets, octets, soon)
	if left := heap() - before; left > observerMemory {
		t.Errorf("it was told %d MiB and holds %d MiB, at most %d are allowed", observerOctets>>20, left>>20, observerMemory>>20)
	}
	runtime.KeepAlive(b)
}

// heap is what is in use, in octets.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one finalised, and sync.Pool's victims
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func observerClosesJammed(t T, h ObserverHarness) {
	b := newObserverBench(t, h)
	jam(t, h)
	b.flood(observerFew, 8<<10, soon)
	if _, inTime := b.close(); !inTime {
		t.Errorf("Close didn't return within %s", observerClose)
	}
}

func observerLeavesNothing(t T, h ObserverHarness) {
	before := goroutines()
	b := newObserverBench(t, h)
	for i := range 10 {
		b.tell(fmt.Sprintf("call-%d", i))
	}
	h.Read(t)
	if err, _ := b.close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	expectNoneSince(t, before)
}

// expectNoneSince waits until all goroutines have ended that weren't there before.
func expectNoneSince(t T, before map[string]string) {
	t.Helper()
	left, end := startedSince(before), time.Now().Add(soon)
	for len(left) > 0 && time.Now().Before(end) {
		time.Sleep(time.Millisecond) // the last of them may be between its last word and its end
		left = startedSince(before)
	}
	for _, stack := range left {
		t.Errorf("after Close there is still %s", stack)
	}
}

// goroutines returns the stacks of all goroutines by their numbers.
func goroutines() map[string]string {
	buffer := make([]byte, 4<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	found := map[string]string{}
	for stack := range strings.SplitSeq(string(buffer), "\n\n") {
		number, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		found[number] = stack
	}
	return found
}

// startedSince returns the stacks of goroutines that weren't there before. Those
// of earlier cases may end meanwhile, so that counting proves nothing.
func startedSince(before map[string]string) (stacks []string) {
	for number, stack := range goroutines() {
		if _, ok := before[number]; !ok {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

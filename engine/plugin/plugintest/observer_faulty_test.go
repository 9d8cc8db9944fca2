package plugintest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// soundObserver keeps a line for each of the last packets and steps. What
// happens in its calls can be spoiled.
type soundObserver struct {
	packet func(*plugin.Packet)
	step   func(*plugin.Step)
	read   func() string
	close  func() error

	mu     sync.Mutex
	lines  []string
	jammed chan struct{} // closed when nobody reads any more
}

func newSoundObserver() *soundObserver { return &soundObserver{jammed: make(chan struct{})} }

func (o *soundObserver) Packet(p *plugin.Packet) {
	if o.packet != nil {
		o.packet(p)
	}
	o.keep(fmt.Sprintf("%s %s %s", p.Call, p.Title[0], p.Title[1]))
}

func (o *soundObserver) Step(s *plugin.Step) {
	if o.step != nil {
		o.step(s)
	}
	o.keep(fmt.Sprintf("%s %s", s.Message.ID, s.Name))
}

func (o *soundObserver) keep(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line)
	o.lines = o.lines[max(0, len(o.lines)-1_000):]
}

func (o *soundObserver) Close() error {
	if o.close != nil {
		return o.close()
	}
	return nil
}

func (o *soundObserver) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var spoiled string
	if o.read != nil {
		spoiled = o.read()
	}
	return strings.Join(o.lines, "\n") + spoiled
}

func (o *soundObserver) isJammed() bool {
	select {
	case <-o.jammed:
		return true
	default:
		return false
	}
}

// observers makes a harness around an observer that is new for each case.
func observers(spoil func(T, *soundObserver)) func(T) ObserverHarness {
	return func(t T) ObserverHarness {
		o := newSoundObserver()
		spoil(t, o)
		return ObserverHarness{
			Open: func(T) plugin.Observer { return o },
			Read: func(T) string { return o.all() },
			Jam:  func(T) { close(o.jammed) },
		}
	}
}

func soundly(T, *soundObserver) {}

// deafObserver has nothing to tell.
func deafObserver(T) ObserverHarness {
	o := newSoundObserver()
	return ObserverHarness{
		Open: func(T) plugin.Observer { return o },
		Read: func(T) string { return "" },
	}
}

// keepPacket reads packets when it is asked, not when it is told.
func keepPacket(_ T, o *soundObserver) {
	var last *plugin.Packet
	o.packet = func(p *plugin.Packet) {
		o.mu.Lock()
		defer o.mu.Unlock()
		last = p
	}
	o.read = func() string {
		if last == nil {
			return ""
		}
		return last.Call
	}
}

// keepData keeps the octets instead of a copy.
func keepData(_ T, o *soundObserver) {
	var data []byte
	o.packet = func(p *plugin.Packet) {
		o.mu.Lock()
		defer o.mu.Unlock()
		data = p.Data
	}
	o.read = func() string { return string(data) }
}

// keepStep reads steps when it is asked, not when it is told.
func keepStep(_ T, o *soundObserver) {
	var last *plugin.Step
	o.step = func(s *plugin.Step) {
		o.mu.Lock()
		defer o.mu.Unlock()
		last = s
	}
	o.read = func() string {
		if last == nil {
			return ""
		}
		return last.Message.ID.String() + last.Transport
	}
}

// keepMessage keeps the message of a step instead of what it says.
func keepMessage(t T, o *soundObserver) {
	keepStep(t, o)
	kept := o.step
	o.step = func(s *plugin.Step) {
		own := *s
		kept(&own)
	}
}

// beExclusive panics where two come at once. So that they do, the first of the
// suite's callers waits for the second.
func beExclusive(t T, o *soundObserver) {
	var inside, calls atomic.Int64
	second := make(chan struct{})
	o.packet = func(p *plugin.Packet) {
		if strings.Count(p.Call, "-") < 2 {
			return // the suite has several callers in that case only
		}
		defer inside.Add(-1)
		if inside.Add(1) > 1 {
			close(second)
			panic("two at once")
		}
		if calls.Add(1) == 1 {
			select {
			case <-second:
			case <-t.Context().Done():
			}
		}
	}
}

// waitForReaders waits where nobody reads, once its queue is full, until it is
// closed.
func waitForReaders(_ T, o *soundObserver) {
	closed := make(chan struct{})
	var calls atomic.Int64
	o.packet = func(*plugin.Packet) {
		if o.isJammed() && calls.Add(1) > observerFew {
			<-closed
		}
	}
	o.close = func() error {
		close(closed)
		return nil
	}
}

// keepEverything forgets nothing while nobody reads.
func keepEverything(_ T, o *soundObserver) {
	var all [][]byte
	o.packet = func(p *plugin.Packet) {
		if o.isJammed() {
			o.mu.Lock()
			defer o.mu.Unlock()
			all = append(all, bytes.Clone(p.Data))
		}
	}
}

// keepBodies keeps messages, which nobody changes: but they are large.
func keepBodies(_ T, o *soundObserver) {
	var all [][]byte
	o.step = func(s *plugin.Step) {
		if o.isJammed() {
			o.mu.Lock()
			defer o.mu.Unlock()
			all = append(all, s.Message.Body)
		}
	}
}

// waitInClose waits for a reader who won't come, unless it has to drop
// something anyway.
func waitInClose(t T, o *soundObserver) {
	var calls atomic.Int64
	o.packet = func(*plugin.Packet) { calls.Add(1) }
	o.close = func() error {
		if o.isJammed() && calls.Load() <= observerFew {
			<-t.Context().Done()
		}
		return nil
	}
}

// leaveGoroutine starts one that only the end of the case stops.
func leaveGoroutine(t T, o *soundObserver) {
	var once sync.Once
	o.packet = func(*plugin.Packet) {
		once.Do(func() { go func() { <-t.Context().Done() }() })
	}
}

// Not beside the others, which mostly wait: it weighs the heap, and counts goroutines.
func TestObserverMatrix(t *testing.T) {
	prove(t, observerCases, observers(soundly), []fault[ObserverHarness]{
		{"tells nothing", "what it is told comes out", deafObserver},
		{"keeps the packet", "what it was told of is the caller's again", observers(keepPacket)},
		{"keeps the octets", "what it was told of is the caller's again", observers(keepData)},
		{"keeps the step", "what it was told of is the caller's again", observers(keepStep)},
		{"keeps the message", "what it was told of is the caller's again", observers(keepMessage)},
		{"bears one caller at a time", "many tell it at once", observers(beExclusive)},
		{"waits for readers", "nobody waits for it, though nobody reads", observers(waitForReaders)},
		{"keeps everything", "its memory is bounded, though nobody reads", observers(keepEverything)},
		{"keeps bodies", "its memory is bounded, though nobody reads", observers(keepBodies)},
		{"waits in Close", "it closes in time, though nobody reads", observers(waitInClose)},
		{"leaves a goroutine", "it leaves no goroutine behind", observers(leaveGoroutine)},
		{"fails to close", "it leaves no goroutine behind",
			observers(func(_ T, o *soundObserver) { o.close = func() error { return errors.New("still busy") } })},
	})
}

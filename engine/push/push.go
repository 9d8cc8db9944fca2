// Package push has sleeping apps woken when messages wait for them: it asks the
// operator's push server, through a plugin.Pusher, once for all messages that wait
// for an app, and tries again what fails for now.
//
// It remembers in memory alone whom it has called: who takes over calls anew. It
// must not know what waits, nor where bindings are kept.
package push

import (
	"cmp"
	"container/heap"
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

const (
	workers  = 8
	maxCalls = 100_000 // that wait, or were made less than again ago
	callWait = 40 * time.Second
	// again is how long an app that was called may take to register, before it is
	// called once more because another message waits. The services of phones
	// deliver within seconds or keep a notification until the phone can be reached,
	// and slow down who sends more than a few in an hour.
	again = 10 * time.Minute
	// giveUp is how long an app is called that can't be for now.
	giveUp     = 10 * time.Minute
	complainAt = time.Minute
)

// pauses are those between tries. A push server may ask for longer ones.
var pauses = [...]time.Duration{5 * time.Second, 20 * time.Second, time.Minute, 3 * time.Minute}

// Measures are what is counted for as long as the process lives.
type Measures struct{ sent, failed, dropped *plugin.Counter }

// NewMeasures registers what is counted. metrics may be nil.
func NewMeasures(metrics *plugin.Metrics) *Measures {
	outcome := func(name string) *plugin.Counter {
		return metrics.Counter("push_wakes_total", "Wake-ups of sleeping apps: those that the push server took, those that it didn't, and those that were dropped because too many waited, in all or of one account.",
			plugin.Label{Name: "outcome", Value: name})
	}
	return &Measures{sent: outcome("sent"), failed: outcome("failed"), dropped: outcome("dropped")}
}

// Waker calls sleeping apps. Its methods may be called from any goroutine.
type Waker struct {
	pusher plugin.Pusher
	asleep func(plugin.Sleeper) bool
	count  *Measures
	log    *slog.Logger

	mu      sync.Mutex
	calls   map[app]*call
	due     queue         // of calls; one at work isn't in it
	changed chan struct{} // tells the scheduler that the first one may be another
	paces   paces

	failures   int // since complained
	complained time.Time
}

// app is one installation on one device.
type app struct {
	account string
	push    plugin.Push
}

func appOf(s plugin.Sleeper) app { return app{s.Account, s.Push} }

// call is a wake-up: to be made, or made and remembered for a while.
type call struct {
	sleeper plugin.Sleeper
	began   time.Time
	tries   int
	made    bool
	at      time.Time // when it is to be made, or forgotten
	index   int       // in the queue; -1: not in it
}

// New returns a waker that Run makes work. asleep tells whether an app still
// sleeps: it is asked before each call.
func New(pusher plugin.Pusher, asleep func(plugin.Sleeper) bool, count *Measures, log *slog.Logger) *Waker {
	return &Waker{pusher: pusher, asleep: asleep, count: count, log: log, calls: map[app]*call{}, changed: make(chan struct{}, 1), paces: paces{free: map[string]time.Time{}}}
}

// Wake has an app woken soon, unless that is under way or was done a while ago, or
// its account has asked for too many of late: then later, or not. It doesn't wait.
func (w *Waker) Wake(now time.Time, s plugin.Sleeper) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls[appOf(s)] != nil {
		return
	}
	if len(w.calls) >= maxCalls {
		w.count.dropped.Inc()
		w.complain(now, message.FailForNow(message.Overloaded, "%d apps are being woken", maxCalls))
		return
	}
	at, ok := w.paces.take(now, s.Account)
	if !ok {
		w.count.dropped.Inc()
		return
	}
	c := &call{sleeper: s, began: at, at: at, index: -1}
	w.calls[appOf(s)] = c
	w.put(c)
}

// Awake says that an app has registered, or has left: once it sleeps again it may
// be called again.
func (w *Waker) Awake(account string, p plugin.Push) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.calls[app{account, p}]; c != nil {
		w.forget(c)
	}
}

// Run makes the calls until ctx ends.
func (w *Waker) Run(ctx context.Context) {
	work := make(chan *call)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for c := range work {
				w.carryOut(ctx, c)
			}
		})
	}
	w.schedule(ctx, work)
	close(work)
	all.Wait()
}

// schedule hands out calls when their time comes.
func (w *Waker) schedule(ctx context.Context, work chan<- *call) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		c, wait := w.next(time.Now())
		if c != nil {
			select {
			case work <- c:
				continue
			case <-ctx.Done():
				return
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-w.changed:
		case <-ctx.Done():
			return
		}
	}
}

// next takes out the call that is to be made now, and forgets those that were made
// long enough ago. If there is none to make it tells how long to wait.
func (w *Waker) next(now time.Time) (_ *call, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.due) > 0 {
		c := w.due[0]
		if c.at.After(now) {
			return nil, c.at.Sub(now)
		}
		if !c.made {
			heap.Pop(&w.due)
			return c, 0
		}
		w.forget(c)
	}
	return nil, time.Hour
}

// carryOut makes a call. What the end of ctx cuts off is for who comes after.
func (w *Waker) carryOut(ctx context.Context, c *call) {
	if !w.wanted(c) {
		return
	}
	err := w.ask(ctx, c.sleeper)
	if ctx.Err() == nil {
		w.conclude(time.Now(), c, err)
	}
}

// wanted tells whether a call is still to be made: the app may have come by itself.
func (w *Waker) wanted(c *call) bool {
	asleep := w.asleep(c.sleeper)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls[appOf(c.sleeper)] != c {
		return false
	}
	if !asleep {
		w.forget(c)
	}
	return asleep
}

func (w *Waker) ask(ctx context.Context, s plugin.Sleeper) (err error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			w.log.Error("waking an app panicked", "account", s.Account, "reason", cause, "stack", string(debug.Stack()))
			err = message.Fail(message.Internal, "panic")
		}
	}()
	return w.pusher.Wake(ctx, s)
}

// conclude notes what became of a call: it is made again, or remembered for a while.
func (w *Waker) conclude(now time.Time, c *call, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.tries++
	pause, more := w.judge(now, c, err)
	if w.calls[appOf(c.sleeper)] != c {
		return // it has registered meanwhile
	}
	c.made, c.at = !more, now.Add(pause)
	w.put(c)
}

// judge counts a call that has ended, and tells whether and when there is another
// try.
func (w *Waker) judge(now time.Time, c *call, err error) (pause time.Duration, more bool) {
	if err == nil {
		w.count.sent.Inc()
		return again, false
	}
	f := message.AsFailure(err)
	w.complain(now, f)
	if f.Temporary && c.tries <= len(pauses) {
		pause = max(pauses[c.tries-1], f.RetryAfter)
		if now.Add(pause).Sub(c.began) < giveUp {
			return pause, true
		}
	}
	w.count.failed.Inc()
	return again, false
}

// complain tells the operator of failures, now and then. The lock is held.
func (w *Waker) complain(now time.Time, f *message.Failure) {
	w.failures++
	if now.Sub(w.complained) < complainAt {
		return
	}
	w.log.Warn("sleeping apps can't be woken", "failures", w.failures, "temporary", f.Temporary, "reason", f)
	w.failures, w.complained = 0, now
}

// put puts a call in its place. The lock is held.
func (w *Waker) put(c *call) {
	heap.Push(&w.due, c)
	if w.due[0] != c {
		return
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// forget ends a call. The lock is held.
func (w *Waker) forget(c *call) {
	delete(w.calls, appOf(c.sleeper))
	if c.index >= 0 {
		heap.Remove(&w.due, c.index)
	}
}

// queue is a heap of calls, the next one in front.
type queue []*call

func (q queue) Len() int { return len(q) }

// Less is heap.Interface.
func (q queue) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), q[i].began.Compare(q[j].began)) < 0
}

// Swap is heap.Interface.
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is heap.Interface.
func (q *queue) Push(x any) {
	c := x.(*call)
	c.index = len(*q)
	*q = append(*q, c)
}

// Pop is heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	c.index = -1
	return c
}

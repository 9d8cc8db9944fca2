package decide

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/imgate/imgate/engine/plugin"
)

// OPA looks at the time before each expression, and a single one can take
// longer than a message may wait: a comparison of two large documents, say. So
// workers evaluate, and who asks waits for them as long as promised and not
// longer. A worker that is late is left to end what it does; then it is there
// for others again. While maxLate of them are, nothing new is evaluated: they
// would take the processors from all else.
const (
	// answerWithin is when a decision is answered at the latest, but for a few
	// milliseconds until the processor is free: the promise is 100 ms.
	answerWithin = 90 * time.Millisecond
	// overrun is how much longer than its deadline an evaluation may take, if
	// the deadline leaves no more of answerWithin.
	overrun = 40 * time.Millisecond
	// leastGrace is how long an evaluation whose deadline has passed has at least
	// to notice, before it counts as one that can't be stopped.
	leastGrace = 20 * time.Millisecond
	// maxLate is how many evaluations that were given up may go on.
	maxLate = 4
	// minWorkers is how many there are on a machine of few processors, each of
	// which may run several in turn.
	minWorkers = 16
)

// answerLimit is how long a decision may take altogether, if its deadline is
// limit.
func answerLimit(limit time.Duration) time.Duration { return max(answerWithin, limit+overrun) }

// Workers are those of all policies of a source. They are goroutines that live
// as long as it does: a new one for each message would have to let its stack
// grow each time.
type Workers struct{ *crew }

// crew is what workers themselves know of each other.
type crew struct {
	busy chan struct{} // one for each worker that works, the late ones too
	late atomic.Int32  // those for whom nobody waits any more

	mu        sync.Mutex
	idle      []*worker
	dismissed bool
}

// NewWorkers returns workers, who go when nobody has them any more.
func NewWorkers() *Workers {
	c := &crew{busy: make(chan struct{}, max(minWorkers, runtime.GOMAXPROCS(0)))}
	ws := &Workers{c}
	runtime.AddCleanup(ws, (*crew).dismiss, c)
	return ws
}

// dismiss lets all workers go, each as soon as it has nothing to do.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
	for _, w := range c.idle {
		close(w.tasks)
	}
}

// task is a plan to be made.
type task struct {
	ctx      context.Context
	number   uint64 // of the worker's tasks
	service  *service
	document ast.Value
	options  []opa.EvalOption
	limit    time.Duration // of one try
	rest     time.Duration // of the time until the answer, from when a worker begins
}

// do makes a plan, and is back in time whatever it takes.
func (ws *Workers) do(t task) (plugin.Plan, error) {
	defer runtime.KeepAlive(ws)
	w, waited, err := ws.take(t.ctx, answerLimit(t.limit)-t.limit-leastGrace)
	if err != nil {
		return plugin.Plan{}, err
	}
	t.rest = answerLimit(t.limit) - waited
	w.begin(t)
	if inTime := <-w.ended; !inTime {
		return plugin.Plan{}, fmt.Errorf("no plan within %s, and what it does can't be stopped", answerLimit(t.limit))
	}
	plan, err := w.result()
	ws.put(w)
	return plan, err
}

var errMaxLate = fmt.Errorf("not evaluated: %d evaluations that were given up, since they took too long, can't be stopped and go on", maxLate)

// take returns a worker that has nothing to do, and how long that took.
func (c *crew) take(ctx context.Context, limit time.Duration) (*worker, time.Duration, error) {
	if c.late.Load() >= maxLate {
		return nil, 0, errMaxLate
	}
	select {
	case c.busy <- struct{}{}:
		return c.pick(), 0, nil
	default:
	}
	began := time.Now()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case c.busy <- struct{}{}:
		return c.pick(), time.Since(began), nil
	case <-timer.C:
		return nil, 0, fmt.Errorf("not evaluated: no worker was free within %s", limit)
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// pick returns the one that worked last, whose stack the processor may still
// have at hand, or a new one.
func (c *crew) pick() *worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.idle) - 1
	if last < 0 {
		w := &worker{crew: c, tasks: make(chan task), ended: make(chan bool, 1)}
		go w.work()
		return w
	}
	w := c.idle[last]
	c.idle = c.idle[:last]
	return w
}

// put takes a worker back.
func (c *crew) put(w *worker) {
	c.mu.Lock()
	c.idle = append(c.idle, w)
	if c.dismissed {
		close(w.tasks)
	}
	c.mu.Unlock()
	<-c.busy
}

// worker evaluates one plan after the other.
type worker struct {
	crew     *crew
	tasks    chan task
	ended    chan bool     // whether a task was done in time
	count    uint64        // of the tasks
	waited   atomic.Uint64 // the number of the task for which somebody waits; 0: none
	deadline *deadline     // for the next task; nil: none that can be used again

	plan plugin.Plan
	err  error
}

// begin gives it a task.
func (w *worker) begin(t task) {
	w.count++
	t.number = w.count
	w.waited.Store(t.number)
	w.tasks <- t
}

// result is for who waited; the worker keeps nothing of it.
func (w *worker) result() (plugin.Plan, error) {
	plan, err := w.plan, w.err
	w.plan, w.err = plugin.Plan{}, nil
	return plan, err
}

func (w *worker) work() {
	for t := range w.tasks {
		w.plan, w.err = w.make(t)
		if w.waited.CompareAndSwap(t.number, 0) {
			w.ended <- true
			continue
		}
		_, _ = w.result()
		w.crew.late.Add(-1)
		w.crew.put(w)
	}
}

// overdue is a task that has had its time.
type overdue struct {
	worker *worker
	number uint64
}

// giveUp lets who waits for it go, unless it was done.
func (o overdue) giveUp() {
	w, number := o.worker, o.number
	if w.waited.CompareAndSwap(number, 0) {
		w.crew.late.Add(1)
		w.ended <- false
	}
}

// make makes a service's plan within the limit. One that takes longer gets a
// second chance, if there is time: on a machine that is busy it may have waited
// most of it.
func (w *worker) make(t task) (plugin.Plan, error) {
	d := w.deadline
	if d == nil {
		d = &deadline{}
	}
	d.grace, d.late = t.rest-t.limit, overdue{w, t.number}
	plan, err := evaluateWithin(d, t)
	w.deadline = d
	if !d.stop() {
		w.deadline = nil
	}
	tries := "once"
	if topdown.IsCancel(err) && t.ctx.Err() == nil && time.Until(d.end) > t.limit+leastGrace {
		second := &deadline{}
		plan, err = evaluateWithin(second, t)
		second.stop()
		tries = "twice"
	}
	switch {
	case topdown.IsCancel(err) && t.ctx.Err() != nil:
		err = t.ctx.Err()
	case topdown.IsCancel(err):
		err = fmt.Errorf("no plan within %s, tried %s", t.limit, tries)
	}
	return plan, err
}

// evaluateWithin makes a plan. A fault in OPA costs one message.
func evaluateWithin(d *deadline, t task) (plan plugin.Plan, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			plan, err = plugin.Plan{}, fmt.Errorf("evaluation panicked: %v", fault)
		}
	}()
	d.start(t.ctx, t.limit)
	return t.service.plan(t.ctx, append(t.options, opa.EvalParsedInput(t.document), opa.EvalExternalCancel(d)))
}

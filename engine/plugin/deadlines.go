package plugin

import (
	"context"
	"sync"
	"time"
)

// deadlineGrain is how much longer than asked a shared deadline may last.
const deadlineGrain = time.Second

// Deadlines gives contexts for calls that are made thousands of times a second.
// They end after the wait, or up to a second later, or with their parent. All
// calls within that second share one: a timer for each of several calls would
// be a twentieth of what a message costs. It may be used from any goroutine.
type Deadlines struct {
	parent context.Context
	wait   time.Duration

	mu      sync.Mutex
	current context.Context
	until   time.Time // from then on a new one is needed
}

// NewDeadlines returns deadlines for calls that may each take that long.
func NewDeadlines(parent context.Context, wait time.Duration) *Deadlines {
	return &Deadlines{parent: parent, wait: wait}
}

// Context returns a context for a call that begins now.
func (d *Deadlines) Context(now time.Time) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil || !now.Before(d.until) {
		ctx, cancel := context.WithDeadline(d.parent, now.Add(d.wait+deadlineGrain))
		context.AfterFunc(ctx, cancel) // it ends by its deadline, or with its parent
		d.current, d.until = ctx, now.Add(deadlineGrain)
	}
	return d.current
}

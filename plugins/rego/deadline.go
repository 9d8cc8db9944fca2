package rego

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// deadline ends an evaluation: OPA asks it before each expression. It is used
// again for the next evaluation, so that one costs neither a goroutine nor an
// allocation.
type deadline struct {
	ctx    context.Context
	passed atomic.Bool
	timer  *time.Timer
}

// deadlines are those that nobody uses at present.
type deadlines struct{ idle sync.Pool }

// start returns a deadline that passes after limit, or when ctx ends.
func (ds *deadlines) start(ctx context.Context, limit time.Duration) *deadline {
	d, ok := ds.idle.Get().(*deadline)
	if !ok {
		d = &deadline{ctx: ctx}
		d.timer = time.AfterFunc(limit, d.Cancel)
		return d
	}
	d.ctx = ctx
	d.timer.Reset(limit)
	return d
}

// stop ends the use of d. One whose timer has fired is left to the garbage
// collector: its Cancel may yet be running.
func (ds *deadlines) stop(d *deadline) {
	if d.timer.Stop() {
		d.ctx = nil
		ds.idle.Put(d)
	}
}

// Cancel and Cancelled make it a topdown.Cancel.
func (d *deadline) Cancel() { d.passed.Store(true) }

// Cancelled tells OPA whether to stop.
func (d *deadline) Cancelled() bool { return d.passed.Load() || d.ctx.Err() != nil }

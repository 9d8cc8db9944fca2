package decide

import (
	"context"
	"sync/atomic"
	"time"
)

// deadline ends an evaluation: OPA asks it before each expression. It can be
// used again for the next evaluation, so that one costs neither a goroutine nor
// an allocation.
type deadline struct {
	ctx    context.Context
	grace  time.Duration // from when it passes until late is given up
	late   overdue       // no worker: nothing is
	end    time.Time     // of grace; known when it has passed
	passed atomic.Bool
	timer  *time.Timer
}

// start makes it pass after limit, or when ctx ends.
func (d *deadline) start(ctx context.Context, limit time.Duration) {
	d.ctx = ctx
	if d.timer == nil {
		d.timer = time.AfterFunc(limit, d.Cancel)
		return
	}
	d.timer.Reset(limit)
}

// stop ends the use of d, and tells whether it can be used again. One whose
// timer has fired can't: its Cancel may yet be running.
func (d *deadline) stop() (again bool) {
	if !d.timer.Stop() {
		return false
	}
	d.ctx, d.late = nil, overdue{}
	return true
}

// Cancel and Cancelled make it a topdown.Cancel.
func (d *deadline) Cancel() {
	if d.late.worker != nil {
		d.end = time.Now().Add(d.grace)
		time.AfterFunc(d.grace, d.late.giveUp)
	}
	d.passed.Store(true)
}

// Cancelled tells OPA whether to stop.
func (d *deadline) Cancelled() bool { return d.passed.Load() || d.ctx.Err() != nil }

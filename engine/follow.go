package engine

import (
	"context"
	"time"
)

// followEvery is how often a node that waits for the lease reads what the
// active one has written of submissions.
const followEvery = 4 * time.Second

// follow keeps up with the submissions that the active node has seen, so that
// few are left to be read when this one takes over, and with the policies that it
// puts in force, until unfollow is called.
// Both are called by the goroutine that leads.
func (e *Engine) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	e.book.Follow(ctx)
	ended := make(chan struct{})
	e.unfollow = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		ticker := time.NewTicker(followEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			// When the storage is gone, others say so; what isn't read now is read
			// when it is back.
			if err := e.seen.CatchUp(ctx, time.Now()); err != nil {
				e.log.Debug("reading submissions failed; it will be tried again", "reason", err)
			}
		}
	}()
}

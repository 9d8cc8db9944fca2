package sip

import "sync"

// maxIdle is how many waiters stay when there is nothing to wait for. Each keeps
// the stack that it has grown: that growth is what makes fresh goroutines
// expensive.
const maxIdle = 256

// waiters wait for what happens behind the gate, so that the workers of the
// sockets needn't. There are as many as exchanges are begun, which the wire
// limits.
type waiters struct {
	jobs    chan func()
	idle    chan struct{} // a token for each waiter that stays
	running sync.WaitGroup
}

func newWaiters() *waiters {
	return &waiters{jobs: make(chan func()), idle: make(chan struct{}, maxIdle)}
}

// run lets a waiter do a job. It never blocks.
func (w *waiters) run(job func()) {
	select {
	case w.jobs <- job:
	default:
		w.running.Go(func() { w.wait(job) })
	}
}

func (w *waiters) wait(job func()) {
	for {
		job()
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		next, ok := <-w.jobs
		<-w.idle
		if !ok {
			return
		}
		job = next
	}
}

// close waits for the jobs. No run may follow.
func (w *waiters) close() {
	close(w.jobs)
	w.running.Wait()
}

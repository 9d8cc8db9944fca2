package client

import "sync"

// maxIdle is how many reporters stay when there is nothing to report. Each keeps
// the stack that it has grown.
const maxIdle = 64

// reporters pass delivery receipts on, each of which waits for the disk: one
// after the other there would be as many a second as the disk can be waited for.
// There are as many as the windows of the binds allow.
type reporters struct {
	jobs    chan func()
	idle    chan struct{} // a token for each that stays
	running sync.WaitGroup
}

func newReporters() *reporters {
	return &reporters{jobs: make(chan func()), idle: make(chan struct{}, maxIdle)}
}

// run lets a reporter do a job. It never blocks.
func (r *reporters) run(job func()) {
	select {
	case r.jobs <- job:
	default:
		r.running.Go(func() { r.work(job) })
	}
}

func (r *reporters) work(job func()) {
	for {
		job()
		select {
		case r.idle <- struct{}{}:
		default:
			return
		}
		next, ok := <-r.jobs
		<-r.idle
		if !ok {
			return
		}
		job = next
	}
}

// close waits for the jobs. No run may follow.
func (r *reporters) close() {
	close(r.jobs)
	r.running.Wait()
}

package pipeline

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Bounds of settling.
const (
	maxSettle       = 512              // records in one call of charging
	maxUnsettled    = 100_000          // records in memory; more stay in the outbox on disk
	settleWait      = 30 * time.Second // for one call
	settleBackoff   = time.Second
	settleBackoffTo = time.Minute
)

// settler hands records to charging, one batch at a time, and removes them
// from the outbox together with what charging writes.
type settler struct {
	p *Pipeline

	mu       sync.Mutex
	queue    []plugin.Record
	overflow bool // the outbox holds records that the queue doesn't
	working  bool
	wake     chan struct{}
	// unsure are the records that Puts bring to the outbox, until it is known what
	// became of them and the queue has come to that: what a scan finds of them may
	// yet be taken back.
	unsure map[message.ID]bool
}

func (s *settler) init(p *Pipeline) {
	s.p = p
	s.wake = make(chan struct{}, 1)
	s.unsure = map[message.ID]bool{}
	s.overflow = true // what an earlier node left is on disk
}

// expect says that a Put brings a record to the outbox. add or release follows,
// unless this node stops being the active one.
func (s *settler) expect(key message.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsure[key] = true
}

// add takes a record that is in the outbox: one that the queue has no room for
// is read from there.
func (s *settler) add(r plugin.Record) {
	if !s.enqueue(r) {
		s.mu.Lock()
		s.overflow = true
		delete(s.unsure, r.Key)
		s.mu.Unlock()
	}
}

// release gives back the reservation of a message that wasn't accepted: it is in
// no outbox. If the queue has no room the reservation lapses by itself.
func (s *settler) release(r plugin.Record) {
	if !s.enqueue(r) {
		s.p.meter.unsettled.Inc()
	}
}

func (s *settler) enqueue(r plugin.Record) bool {
	s.mu.Lock()
	room := len(s.queue) < maxUnsettled
	if room {
		s.queue = append(s.queue, r)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return room
}

func (s *settler) queueLength() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// busy tells whether records wait or are being settled.
func (s *settler) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > 0 || s.working
}

func (s *settler) run() {
	for {
		batch, err := s.next()
		if s.p.ctx.Err() != nil {
			return // the outbox keeps what isn't settled
		}
		if err != nil {
			s.p.Log.Error("reading the outbox failed; it will be tried again", "reason", err)
			if !pause(s.p.ctx, settleBackoff) {
				return
			}
			continue
		}
		if len(batch) > 0 {
			if !s.settle(batch) {
				return
			}
			continue
		}
		select {
		case <-s.p.ctx.Done():
			return
		case <-s.wake:
		}
	}
}

// next takes a batch off the queue, or what is on disk once the queue is empty.
func (s *settler) next() ([]plugin.Record, error) {
	batch, scan := s.queued()
	if !scan {
		return batch, nil
	}
	// Not under the lock: the committer's goroutine takes it.
	records, err := s.p.Spool.Outbox(s.p.ctx, message.ID{}, maxSettle)
	s.mu.Lock()
	defer s.mu.Unlock()
	// A full page: there may be more. What this batch settles is gone by the
	// time of the next look.
	s.overflow = s.overflow || err != nil || len(records) == maxSettle
	records = slices.DeleteFunc(records, func(r plugin.Record) bool { return s.unsure[r.Key] })
	s.working = len(records) > 0
	return records, err
}

// queued takes a batch off the queue; scan: there is none, and the outbox may
// hold what the queue doesn't.
func (s *settler) queued() (batch []plugin.Record, scan bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), maxSettle)
	scan = n == 0 && s.overflow
	if scan {
		s.overflow = false
	}
	batch = s.queue[:n:n]
	s.queue = s.queue[n:]
	for i := range batch {
		delete(s.unsure, batch[i].Key)
	}
	s.working = n > 0 || scan
	return batch, scan
}

// settle repeats a batch until charging has taken it and it is on disk. It
// returns false when the pipeline ends.
func (s *settler) settle(batch []plugin.Record) bool {
	backoff := settleBackoff
	for {
		changes, err := s.call(batch)
		if err == nil {
			return s.written(batch, changes)
		}
		if s.p.ctx.Err() != nil {
			return false
		}
		s.p.meter.settleFailed.Inc()
		s.p.Log.Error("charging settles nothing; it will be tried again", "records", len(batch), "reason", err)
		if !pause(s.p.ctx, backoff) {
			return false
		}
		backoff = min(2*backoff, settleBackoffTo)
	}
}

func (s *settler) call(batch []plugin.Record) ([]plugin.Change, error) {
	ctx, cancel := context.WithTimeout(s.p.ctx, settleWait)
	defer cancel()
	return s.p.Charging.Settle(ctx, batch)
}

// written waits for the disk: records that come meanwhile make the next batch.
func (s *settler) written(batch []plugin.Record, changes []plugin.Change) bool {
	done := make(chan error, 1)
	s.p.Spool.Settled(batch, s.p.Tables.Own(changes), func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return false
		}
	case <-s.p.ctx.Done():
		return false // the outbox still has the batch
	}
	s.p.meter.settled.Add(uint64(len(batch)))
	return true
}

package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// slot is where a door stands, under the name of its instance: the pipeline
// knows the slot, and the door in it may be exchanged. What is to be sent
// meanwhile waits.
type slot struct {
	name    string
	holds   func() bool          // whether the lease is this node's
	current atomic.Pointer[door] // nil: it is being exchanged
	sends   atomic.Int64         // under way, or about to look for the door

	mu     sync.Mutex
	filled chan struct{} // closed when a door stands here again; nil: one does
}

func (e *Engine) newSlot(d *door) *slot {
	e.counting.messages.Know(d.instance.Name)
	return newSlot(d, e.member.Holds)
}

func newSlot(d *door, holds func() bool) *slot {
	s := &slot{name: d.instance.Name, holds: holds}
	s.current.Store(d)
	return s
}

// Serve is plugin.Transport: it serves the door that stands here.
func (s *slot) Serve(ctx context.Context, gate plugin.Gate) error {
	return s.current.Load().transport.Serve(ctx, gate)
}

// Send sends through the door that stands here.
func (s *slot) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	for {
		s.sends.Add(1)
		if d := s.current.Load(); d != nil {
			defer s.sends.Add(-1)
			if !s.holds() {
				return sentElsewhere(ctx)
			}
			return d.transport.Send(ctx, m, route)
		}
		s.sends.Add(-1)
		if err := s.await(ctx); err != nil {
			return plugin.Receipt{}, message.FailForNow(message.Unavailable, "the transport is being exchanged: %w", err)
		}
	}
}

// sentElsewhere is for what may not be sent, since another node may be sending
// it: the term is about to end. It waits for that, so that no attempt is counted
// that there wasn't.
func sentElsewhere(ctx context.Context) (plugin.Receipt, error) {
	<-ctx.Done()
	return plugin.Receipt{}, message.FailForNow(message.Standby, "this node is no longer the active one")
}

func (s *slot) await(ctx context.Context) error {
	s.mu.Lock()
	filled := s.filled
	s.mu.Unlock()
	if filled == nil {
		return nil
	}
	select {
	case <-filled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// vacate takes the door out. What is to be sent from now on waits.
func (s *slot) vacate() *door {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filled = make(chan struct{})
	return s.current.Swap(nil)
}

// drain waits until nothing is being sent through the door that was taken
// out, for as long as limit allows.
func (s *slot) drain(limit time.Duration) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for s.sends.Load() > 0 {
		select {
		case <-poll.C:
		case <-deadline.C:
			return
		}
	}
}

// fill puts a door in.
func (s *slot) fill(d *door) {
	s.current.Store(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filled != nil {
		close(s.filled)
		s.filled = nil
	}
}

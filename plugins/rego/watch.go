package rego

import (
	"context"
	"time"
)

// The watch looks at the files twice a second: what changes becomes visible as
// a change of names, sizes, times or inodes whichever way it is made.
const (
	watchEvery = 500 * time.Millisecond
	// quiet is for how long nothing may have changed before a change counts as
	// complete.
	quiet = time.Second
	// unquiet is after how long it is read all the same.
	unquiet = 10 * time.Second
)

// Watch is plugin.PolicySource.
func (s *policySource) Watch(ctx context.Context) error {
	if s.look == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	last, calm, restless := s.look(), time.Duration(0), time.Duration(0)
	for {
		if err := sleep(ctx, watchEvery); err != nil {
			return err
		}
		now := s.look()
		if s.known(now) {
			calm, restless = 0, 0
			last = now
			continue
		}
		restless += watchEvery
		calm += watchEvery
		if !now.equal(last) {
			calm, last = 0, now
		}
		if calm >= quiet || restless >= unquiet {
			return nil
		}
	}
}

// known tells whether a look shows what the last Read began with. Before there
// was one, the first look counts.
func (s *policySource) known(now look) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.read {
		s.seen, s.read = now, true
	}
	return now.equal(s.seen)
}

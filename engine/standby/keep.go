package standby

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// lostError is why a lease wasn't renewed in time.
type lostError struct {
	stood   time.Duration // for how long this node didn't run at all; 0: it did
	storage error         // of the last try to renew it; nil: the storage isn't to blame
}

// Error says what was the matter.
func (e *lostError) Error() string {
	if e.stood > 0 {
		return fmt.Sprintf("this node stood still for %s; its lease has run out", shown(e.stood))
	}
	return fmt.Sprintf("the lease couldn't be renewed in time: %v", e.storage)
}

// Unwrap returns the storage's error.
func (e *lostError) Unwrap() error { return e.storage }

// Lost tells whether a term's context has ended because the lease was lost: what
// is written from now on is in vain if another node has it.
func Lost(term context.Context) bool {
	cause := context.Cause(term)
	_, ranOut := errors.AsType[*lostError](cause)
	return ranOut || errors.Is(cause, plugin.ErrFenced)
}

// rest is how long before the lease runs out a term ends that couldn't renew
// it: what is under way comes to rest while the lease lasts.
const rest = renewEvery

// keep renews a lease until ctx ends. An error is why it can't any more: a
// *lostError, or plugin.ErrFenced.
func (m *Member) keep(ctx context.Context, t Term) error {
	valid, ran := t.Began.Add(TTL), time.Now()
	for wait := renewEvery; pause(ctx, wait); ran = time.Now() {
		var err error
		began := time.Now()
		if began.Before(valid) {
			err = m.renew(ctx, t, valid.Add(-rest))
		}
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case !now.Before(valid): // no wait and no call lasts that long
			return &lostError{stood: now.Sub(ran)}
		case errors.Is(err, plugin.ErrFenced):
			m.valid.Store(0)
			return err
		case err == nil:
			valid = began.Add(TTL)
			m.extend(began)
			wait = min(renewEvery, valid.Sub(now)/2)
			continue
		}
		m.meter.failed.Inc()
		wait = askEvery
		if !now.Add(rest).Before(valid) {
			return &lostError{storage: err}
		}
	}
	return nil
}

// renew tries once, until a moment at most.
func (m *Member) renew(ctx context.Context, t Term, until time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	_, err := call(ctx, func(ctx context.Context) (none struct{}, err error) {
		return none, m.leases.Renew(ctx, t.Fence, TTL)
	})
	return err
}

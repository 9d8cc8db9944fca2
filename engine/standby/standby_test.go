package standby

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// lease is a plugin.Leases in the test's hands.
type lease struct {
	mu       sync.Mutex
	holder   string
	fence    plugin.Fence
	ends     time.Time
	refuse   error // of Renew
	broken   error // of Acquire
	hang     bool  // Renew waits for the end of its context
	released int
}

func (l *lease) Acquire(_ context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, l.broken
	}
	if l.holder != "" && l.holder != node && time.Now().Before(l.ends) {
		return 0, plugin.ErrHeld
	}
	l.holder, l.ends = node, time.Now().Add(ttl)
	l.fence++
	return l.fence, nil
}

func (l *lease) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	if l.hangs() {
		<-ctx.Done()
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil || f != l.fence {
		return errors.Join(l.refuse, plugin.ErrFenced)
	}
	l.ends = time.Now().Add(ttl)
	return nil
}

func (l *lease) Release(context.Context, plugin.Fence) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released++
	l.holder = ""
	return nil
}

func (l *lease) Handover(context.Context, plugin.Fence, string, time.Duration) error { return nil }

func (l *lease) Lease(context.Context) (plugin.Lease, error) { return plugin.Lease{}, nil }

func (l *lease) Attend(context.Context, string, string) ([]plugin.Attendant, error) { return nil, nil }

func (l *lease) hangs() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hang
}

// change lets a test do what it wants with the lease.
func (l *lease) change(f func(*lease)) (ends time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
	return l.ends
}

// terms runs Run in the background and reports each term.
type terms struct {
	began chan plugin.Fence
	ended chan time.Time
	fail  chan error // what the next term returns at once
	waits chan error
	stop  context.CancelFunc
	done  chan error
}

func run(t *testing.T, l *lease) *terms {
	ctx, stop := context.WithCancel(t.Context())
	r := &terms{began: make(chan plugin.Fence, 100), ended: make(chan time.Time, 100), fail: make(chan error, 1), waits: make(chan error, 100), stop: stop, done: make(chan error, 1)}
	go func() {
		r.done <- Run(ctx, l, "me", slog.New(slog.DiscardHandler), Roles{Standby: func(why error) { r.waits <- why }, Active: func(ctx context.Context, f plugin.Fence) error {
			r.began <- f
			defer func() { r.ended <- time.Now() }()
			select {
			case err := <-r.fail:
				return err
			case <-ctx.Done():
				return nil
			}
		}})
	}()
	return r
}

func (r *terms) end(t *testing.T) {
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("ends with %v", err)
	}
}

func TestLeadsWhileItHoldsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lease{}
		r := run(t, l)
		if f := <-r.began; f != 1 {
			t.Errorf("fence %d", f)
		}
		time.Sleep(10 * TTL)
		synctest.Wait()
		if ends := l.change(func(*lease) {}); len(r.ended) != 0 || !time.Now().Before(ends) {
			t.Error("a lease that could be renewed was lost")
		}
		r.end(t)
		if l.released != 1 {
			t.Errorf("released %d times", l.released)
		}
	})
}

func TestWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l := &lease{holder: "other", ends: began.Add(10 * time.Second)}
		r := run(t, l)
		<-r.began
		if waited := time.Since(began); waited < 10*time.Second || waited > 10*time.Second+acquireEvery {
			t.Errorf("took over after %s", waited)
		}
		if why := <-r.waits; !errors.Is(why, plugin.ErrHeld) {
			t.Errorf("it waits because of %v", why)
		}
		r.end(t)
	})
}

func TestStopsWhenTheLeaseIsLost(t *testing.T) {
	for name, lose := range map[string]func(*lease){
		"fenced":     func(l *lease) { l.refuse = plugin.ErrFenced },
		"no storage": func(l *lease) { l.hang = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &lease{}
				r := run(t, l)
				<-r.began
				valid := l.change(lose)
				ended := <-r.ended
				if ended.After(valid) {
					t.Errorf("went on for %s after the lease had run out", ended.Sub(valid))
				}
				l.change(func(l *lease) { l.refuse, l.hang = nil, false })
				<-r.began // it tries again
				r.end(t)
			})
		})
	}
}

// A node that gets no lease says whether that is because of another node or of
// the storage, from the moment on at which its own is lost.
func TestSaysWhyItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lease{}
		r := run(t, l)
		<-r.began
		full := errors.New("disk full")
		l.change(func(l *lease) { l.hang, l.broken = true, full })
		<-r.ended
		if why := <-r.waits; !errors.Is(why, errLost) || !errors.Is(why, context.DeadlineExceeded) {
			t.Errorf("the lease is lost: %v", why)
		}
		if why := <-r.waits; !errors.Is(why, full) {
			t.Errorf("the storage fails: %v", why)
		}
		l.change(func(l *lease) { l.broken, l.hang, l.holder, l.ends = nil, false, "other", time.Now().Add(time.Second) })
		for why := range r.waits {
			if errors.Is(why, plugin.ErrHeld) {
				break
			}
		}
		<-r.began
		r.end(t)
	})
}

func TestFirstFailureEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, &lease{})
		broken := errors.New("broken")
		r.fail <- broken
		if err := <-r.done; !errors.Is(err, broken) {
			t.Errorf("ends with %v", err)
		}
	})
}

func TestLaterFailuresAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lease{}
		r := run(t, l)
		<-r.began
		l.change(func(l *lease) { l.refuse = plugin.ErrFenced })
		<-r.ended // a term that was
		l.change(func(l *lease) { l.refuse = nil })
		<-r.began
		down := errors.New("database down")
		r.fail <- down
		<-r.ended
		for why := range r.waits {
			if errors.Is(why, down) {
				break
			}
		}
		<-r.began
		r.end(t)
	})
}

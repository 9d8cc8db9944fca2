package gate

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// compileLimit is how long it may take to compile policies and to try them,
	// if nobody is in more of a hurry.
	compileLimit = 2 * time.Minute
	// lastWords is how much longer what was told to end may take to say why.
	lastWords = 2 * time.Second
)

var errEndless = errors.New("it doesn't end, and can't be stopped")

// Beside runs what should end with ctx, and leaves it alone if it doesn't: OPA's
// compiler can't be stopped. A panic comes back to who called, with its stack.
func Beside[T any](ctx context.Context, run func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, compileLimit, fmt.Errorf("not done within %s", compileLimit))
	defer cancel()
	type outcome struct {
		value T
		err   error
		fault any
	}
	ended := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if fault := recover(); fault != nil {
				o.fault = fmt.Sprintf("%v\n%s", fault, debug.Stack())
			}
			ended <- o
		}()
		o.value, o.err = run(ctx)
	}()
	back := func(o outcome) (T, error) {
		if o.fault != nil {
			panic(o.fault)
		}
		return o.value, o.err
	}
	select {
	case o := <-ended:
		return back(o)
	case <-ctx.Done():
	}
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case o := <-ended:
		return back(o)
	case <-timer.C:
		var none T
		return none, fmt.Errorf("%w: %w", context.Cause(ctx), errEndless)
	}
}

// Compiling lets one compilation run, and none beside one that doesn't end.
type Compiling struct {
	mu   sync.Mutex
	what string // empty: nothing is compiled
}

// Begin is called before one, and end after it.
func (c *Compiling) Begin(revision string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.what != "" {
		return fmt.Errorf("not compiled: the compilation of %s doesn't end, and nothing else is compiled while it goes on; a restart ends it", c.what)
	}
	c.what = fmt.Sprintf("revision %s, begun at %s,", revision, time.Now().Format(time.TimeOnly))
	return nil
}

// End is for a compilation that has ended: another may begin.
func (c *Compiling) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.what = ""
}

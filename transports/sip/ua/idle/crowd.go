package idle

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/transports/sip/ua"
)

const (
	expires = time.Hour
	// atOnce is how many are connected, or sent to, or parted with at the same time.
	atOnce = 64
	// joinWithin bounds how long one may take to connect and to register, and
	// arriveWithin how long a message may.
	joinWithin   = 40 * time.Second
	arriveWithin = 40 * time.Second
	// closeWithin bounds how long all may take to part: the rest ends with the
	// process.
	closeWithin = 10 * time.Second
	noteEvery   = 5 * time.Second
)

// crowd are all the clients.
type crowd struct {
	members []*member
	notes   io.Writer // progress, for a person
}

// member is one of them.
type member struct {
	config ua.Config
	agent  *ua.Agent // nil: not connected yet
	inbox  chan []byte
}

// newMember remembers one message, what came first.
func newMember(config ua.Config) *member {
	m := &member{inbox: make(chan []byte, 1)}
	config.Handle = func(in ua.Incoming) bool {
		select {
		case m.inbox <- in.Body:
		default:
		}
		return true
	}
	m.config = config
	return m
}

func (c *crowd) note(format string, args ...any) { fmt.Fprintf(c.notes, format+"\n", args...) }

// register connects and registers all. The first that fails ends it: others would
// for the same reason.
func (c *crowd) register(ctx context.Context) (time.Duration, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var joined atomic.Int64
	defer c.progress(&joined)()
	began := time.Now()
	each(ctx, len(c.members), func(i int) {
		if err := c.members[i].join(ctx); err != nil {
			stop(fmt.Errorf("client %d of %d: %w", i+1, len(c.members), err))
			return
		}
		joined.Add(1)
	})
	return time.Since(began), context.Cause(ctx)
}

// progress tells now and then how many have joined, until it is stopped.
func (c *crowd) progress(joined *atomic.Int64) (stop func()) {
	ticker, over := time.NewTicker(noteEvery), make(chan struct{})
	var noting sync.WaitGroup
	noting.Go(func() {
		for {
			select {
			case <-ticker.C:
				c.note("%d of %d registered", joined.Load(), len(c.members))
			case <-over:
				return
			}
		}
	})
	return func() {
		ticker.Stop()
		close(over)
		noting.Wait()
	}
}

func (m *member) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	var err error
	if m.agent, err = ua.Dial(ctx, m.config); err != nil {
		return err
	}
	_, err = m.agent.Register(ctx, expires)
	return err
}

// connected counts those whose connection still stands.
func (c *crowd) connected() (n int) {
	for _, m := range c.members {
		if m.agent.Connected() {
			n++
		}
	}
	return n
}

// greet sends a message to n of them, spread over all, each from the one before. It
// returns how many arrived, and why one didn't.
func (c *crowd) greet(ctx context.Context, n int) (arrived int, failed error) {
	var mu sync.Mutex
	each(ctx, n, func(i int) {
		to := i * len(c.members) / n
		from := (to + len(c.members) - 1) % len(c.members)
		err := c.members[from].greet(ctx, c.members[to])
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			arrived++
		} else if failed == nil {
			failed = fmt.Errorf("message to client %d: %w", to+1, err)
		}
	})
	return arrived, failed
}

// errOther: the message isn't what arrived.
var errOther = errors.New("another one arrived in its place")

func (m *member) greet(ctx context.Context, to *member) error {
	ctx, cancel := context.WithTimeout(ctx, arriveWithin)
	defer cancel()
	text := []byte(rand.Text())
	result, err := m.agent.Message(ctx, to.config.Address, "text/plain", text, ua.Options{})
	if err != nil {
		return err
	}
	if result.Code >= 300 {
		return errors.New(result.Words())
	}
	select {
	case body := <-to.inbox:
		if !bytes.Equal(body, text) {
			return errOther
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("answered %d, and never arrived: %w", result.Code, context.Cause(ctx))
	}
}

// close parts with all, also if ctx has ended. It doesn't wait for ever: a peer that
// hangs may have each take seconds.
func (c *crowd) close(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	parted := make(chan struct{})
	go func() {
		defer close(parted)
		each(ctx, len(c.members), func(i int) {
			if agent := c.members[i].agent; agent != nil {
				_ = agent.Close() // the process ends
			}
		})
	}()
	select {
	case <-parted:
	case <-ctx.Done():
	}
}

// each calls f for all numbers below n, a few at a time, until ctx ends.
func each(ctx context.Context, n int, f func(i int)) {
	turns := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-turns }()
			f(i)
		})
	}
	running.Wait()
}

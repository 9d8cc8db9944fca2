package plugintest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// soundPusher asks a server that is in it. What it does can be spoiled.
type soundPusher struct {
	wake  func(ctx context.Context, s plugin.Sleeper) error
	keep  func() time.Duration
	close func() error

	mu     sync.Mutex
	answer PushAnswer
	woken  []plugin.Sleeper
}

func (p *soundPusher) Wake(ctx context.Context, s plugin.Sleeper) error {
	if p.wake != nil {
		return p.wake(ctx, s)
	}
	return p.ask(ctx, s)
}

func (p *soundPusher) ask(ctx context.Context, s plugin.Sleeper) error {
	switch p.says() {
	case PushRefuses:
		return message.Fail(message.Undelivered, "refused")
	case PushFails:
		return message.FailForNow(message.Unavailable, "failed")
	case PushSilent:
		<-ctx.Done()
		return message.FailForNow(message.Unavailable, "no answer")
	}
	p.note(s)
	return nil
}

func (p *soundPusher) says() PushAnswer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answer
}

func (p *soundPusher) note(s plugin.Sleeper) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.woken = append(p.woken, s)
}

func (p *soundPusher) Keep() time.Duration {
	if p.keep != nil {
		return p.keep()
	}
	return time.Hour
}

func (p *soundPusher) Close() error {
	if p.close != nil {
		return p.close()
	}
	return nil
}

// pushers makes a harness around a pusher that is new for each case.
func pushers(spoil func(T, *soundPusher)) func(T) PushHarness {
	return func(t T) PushHarness {
		p := &soundPusher{answer: PushTakes}
		if spoil != nil {
			spoil(t, p)
		}
		return PushHarness{
			Open: func(T) plugin.Pusher { return p },
			Woken: func(T) []plugin.Sleeper {
				p.mu.Lock()
				defer p.mu.Unlock()
				return p.woken
			},
			Answer: func(_ T, a PushAnswer) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.answer = a
			},
		}
	}
}

func TestPushMatrix(t *testing.T) {
	// failing lets a pusher fail in other words.
	failing := func(change func(plugin.Sleeper, *message.Failure) error) func(T) PushHarness {
		return pushers(func(_ T, p *soundPusher) {
			p.wake = func(ctx context.Context, s plugin.Sleeper) error {
				err := p.ask(ctx, s)
				if f, ok := errors.AsType[*message.Failure](err); ok && p.says() != PushSilent {
					return change(s, f)
				}
				return err
			}
		})
	}
	prove(t, pushCases, pushers(nil), []fault[PushHarness]{
		{"keeps nothing", "it says how long to keep bindings", pushers(func(_ T, p *soundPusher) {
			p.keep = func() time.Duration { return 0 }
		})},
		{"keeps for ever", "it says how long to keep bindings", pushers(func(_ T, p *soundPusher) {
			p.keep = func() time.Duration { return plugin.MaxKeep + 1 }
		})},
		{"changes its mind", "it says how long to keep bindings", pushers(func(_ T, p *soundPusher) {
			var calls atomic.Int64
			p.keep = func() time.Duration { return time.Duration(calls.Add(1)) }
		})},
		{"shortens tokens", "who is to be woken is told as it is", pushers(func(_ T, p *soundPusher) {
			p.wake = func(ctx context.Context, s plugin.Sleeper) error {
				s.ID = s.ID[:3]
				return p.ask(ctx, s)
			}
		})},
		{"bears one caller at a time", "many are woken at once", pushers(func(t T, p *soundPusher) {
			var inside, calls atomic.Int64
			second := make(chan struct{})
			p.wake = func(ctx context.Context, s plugin.Sleeper) error {
				defer inside.Add(-1)
				if inside.Add(1) == 2 {
					close(second)
					panic("two at once")
				}
				// One that is alone has no other to wait for.
				if calls.Add(1) == 1 && s.Device != sleeper(0).Device {
					select {
					case <-second:
					case <-t.Context().Done():
					}
				}
				return p.ask(ctx, s)
			}
		})},
		{"tries for ever", "a refusal is final", failing(func(_ plugin.Sleeper, f *message.Failure) error {
			return message.FailForNow(f.Reason, "failed")
		})},
		{"gives up at once", "trouble is for now", failing(func(_ plugin.Sleeper, f *message.Failure) error {
			return message.Fail(f.Reason, "failed")
		})},
		{"wants the past", "trouble is for now", failing(func(_ plugin.Sleeper, f *message.Failure) error {
			if f.Temporary {
				f.RetryAfter = -time.Second
			}
			return f
		})},
		{"tells tokens", "its errors don't say what wakes an app", failing(func(s plugin.Sleeper, f *message.Failure) error {
			f.Err = fmt.Errorf("waking %s failed", s.ID)
			return f
		})},
		{"waits for an answer", "a call ends with its context", pushers(func(t T, p *soundPusher) {
			p.wake = func(_ context.Context, s plugin.Sleeper) error { return p.ask(t.Context(), s) }
		})},
		{"gives up when it is cut off", "a call ends with its context", pushers(func(_ T, p *soundPusher) {
			p.wake = func(ctx context.Context, s plugin.Sleeper) error {
				err := p.ask(ctx, s)
				if p.says() == PushSilent {
					return message.Fail(message.Unavailable, "no answer")
				}
				return err
			}
		})},
		{"leaves a goroutine", "it leaves no goroutine behind", pushers(func(t T, p *soundPusher) {
			var once sync.Once
			p.wake = func(ctx context.Context, s plugin.Sleeper) error {
				once.Do(func() { go func() { <-t.Context().Done() }() })
				return p.ask(ctx, s)
			}
		})},
		{"fails to close", "it leaves no goroutine behind", pushers(func(_ T, p *soundPusher) {
			p.close = func() error { return errors.New("still busy") }
		})},
	})
}

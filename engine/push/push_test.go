package push

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// server is a pusher and the apps that it wakes.
type server struct {
	mu    sync.Mutex
	calls []string // prids
	at    []time.Time
	say   func(ctx context.Context, n int) error // of the n-th call, from 1; nil: it takes all
	gone  map[string]bool                        // that don't sleep any more
}

func (s *server) Wake(ctx context.Context, a plugin.Sleeper) error {
	s.mu.Lock()
	s.calls, s.at = append(s.calls, a.ID), append(s.at, time.Now())
	n, say := len(s.calls), s.say
	s.mu.Unlock()
	if say == nil {
		return nil
	}
	return say(ctx, n)
}

func (s *server) Keep() time.Duration { return time.Hour }

func (s *server) Close() error { return nil }

func (s *server) asleep(a plugin.Sleeper) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.gone[a.ID]
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

func sleeper(id string) plugin.Sleeper {
	return plugin.Sleeper{Push: plugin.Push{Provider: "fcm", ID: id}, Account: "bob"}
}

// bench is a waker at work in a bubble.
type bench struct {
	*Waker
	t *testing.T
	s *server
	m *plugin.Metrics

	log bytes.Buffer
}

func at(t *testing.T, s *server, f func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, s: s, m: plugin.NewMetrics()}
		b.Waker = New(s, s.asleep, NewMeasures(b.m), slog.New(slog.NewTextHandler(&b.log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.Run(ctx)
		}()
		f(b)
		stop()
		<-done
	})
}

func (b *bench) wake(ids ...string) {
	for _, id := range ids {
		b.Wake(time.Now(), sleeper(id))
	}
	synctest.Wait()
}

func (b *bench) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) expect(calls int, outcomes string) {
	b.t.Helper()
	if n := b.s.count(); n != calls {
		b.t.Errorf("%d calls, want %d", n, calls)
	}
	var got []string
	for _, s := range b.m.Series() {
		if v := s.Value(); v > 0 {
			got = append(got, fmt.Sprint(s.Labels[0].Value, " ", v))
		}
	}
	if text := strings.Join(got, ", "); text != outcomes {
		b.t.Errorf("outcomes %q, want %q", text, outcomes)
	}
}

func TestOnceForAllMessages(t *testing.T) {
	at(t, &server{}, func(b *bench) {
		for range 100 {
			b.wake("a")
		}
		b.wake("b")
		b.expect(2, "sent 2")
		b.pass(again - time.Second)
		b.wake("a")
		b.expect(2, "sent 2")
		b.pass(2 * time.Second)
		b.expect(2, "sent 2") // nobody waits who came since
		b.wake("a", "a")
		b.expect(3, "sent 3")
	})
}

func TestRegisteredSleepsAnew(t *testing.T) {
	at(t, &server{}, func(b *bench) {
		b.wake("a")
		b.Awake("bob", sleeper("a").Push)
		b.Awake("bob", sleeper("unknown").Push)
		b.wake("a", "a")
		b.expect(2, "sent 2")
	})
}

// TestRetries: a temporary failure is tried again, and in the end given up.
func TestRetries(t *testing.T) {
	fails := func(context.Context, int) error { return message.FailForNow(message.Unavailable, "down") }
	at(t, &server{say: fails}, func(b *bench) {
		b.wake("a")
		for i, pause := range pauses {
			b.expect(1+i, "")
			b.pass(pause - time.Millisecond)
			b.expect(1+i, "")
			b.wake("a") // is under way
			b.pass(time.Millisecond)
		}
		b.expect(1+len(pauses), "failed 1")
		b.pass(again - time.Second)
		b.wake("a")
		b.expect(1+len(pauses), "failed 1")
		b.pass(2 * time.Second)
		b.wake("a")
		b.expect(2+len(pauses), "failed 1")
	})
}

func TestRetrySucceeds(t *testing.T) {
	say := func(_ context.Context, n int) error {
		if n == 1 {
			return &message.Failure{Reason: message.Unavailable, Temporary: true, RetryAfter: time.Minute}
		}
		return nil
	}
	at(t, &server{say: say}, func(b *bench) {
		b.wake("a")
		b.pass(time.Minute - time.Second)
		b.expect(1, "")
		b.pass(time.Second)
		b.expect(2, "sent 1")
	})
}

func TestFinalFailure(t *testing.T) {
	for name, say := range map[string]func(context.Context, int) error{
		"refused": func(context.Context, int) error { return message.Fail(message.Undelivered, "no") },
		"panic":   func(context.Context, int) error { panic("oops") },
		"too late": func(context.Context, int) error {
			return &message.Failure{Reason: message.Unavailable, Temporary: true, RetryAfter: giveUp}
		},
	} {
		t.Run(name, func(t *testing.T) {
			at(t, &server{say: say}, func(b *bench) {
				b.wake("a")
				b.pass(again - time.Second)
				b.wake("a")
				b.expect(1, "failed 1")
			})
		})
	}
}

// TestNotWokenInVain: an app that came by itself, or was deregistered, isn't woken.
func TestNotWokenInVain(t *testing.T) {
	fails := func(context.Context, int) error { return message.FailForNow(message.Unavailable, "down") }
	at(t, &server{say: fails, gone: map[string]bool{"gone": true}}, func(b *bench) {
		b.wake("gone", "a", "b")
		b.expect(2, "")
		b.s.mu.Lock()
		b.s.gone["a"] = true
		b.s.mu.Unlock()
		b.Awake("bob", sleeper("b").Push)
		b.pass(time.Hour)
		b.expect(2, "")
		if len(b.calls) != 0 || len(b.due) != 0 {
			t.Errorf("%d calls are remembered, %d are due", len(b.calls), len(b.due))
		}
	})
}

// TestSilentServer: no more calls than workers are under way, each for a while, and
// nobody who has an app woken waits.
func TestSilentServer(t *testing.T) {
	silent := func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return message.FailForNow(message.Unavailable, "silent")
	}
	at(t, &server{say: silent}, func(b *bench) {
		for i := range 20 {
			b.wake(fmt.Sprint(i))
		}
		b.expect(workers, "")
		b.pass(callWait)
		b.expect(2*workers, "")
		b.pass(time.Hour)
		if n := b.s.count(); n < 20*len(pauses) || n > 20*(1+len(pauses)) {
			t.Errorf("%d calls for 20 apps", n)
		}
		b.expect(b.s.count(), "failed 20")
	})
}

func TestBounded(t *testing.T) {
	at(t, &server{}, func(b *bench) {
		now := time.Now()
		for i := range maxCalls + 10 {
			s := sleeper("a")
			s.Account = fmt.Sprint(i)
			b.Wake(now, s)
		}
		synctest.Wait()
		b.expect(maxCalls, fmt.Sprintf("dropped 10, sent %d", maxCalls))
		b.pass(again)
		if len(b.calls) != 0 {
			t.Errorf("%d calls are remembered", len(b.calls))
		}
	})
}

// TestAccountCannotFlood: however often an account's apps register and vanish, and
// whatever they are called, the push server is asked a bounded number of times; it
// is the others' as before.
func TestAccountCannotFlood(t *testing.T) {
	at(t, &server{}, func(b *bench) {
		for i := range 1000 {
			b.wake(fmt.Sprint(i))
			b.Awake("bob", sleeper(fmt.Sprint(i)).Push)
		}
		b.expect(accountBurst, fmt.Sprintf("dropped %d, sent %d", 1000-accountBurst-int(giveUp/accountPause), accountBurst))
		other := sleeper("a")
		other.Account = "ann"
		b.Wake(time.Now(), other)
		b.pass(0)
		if n := b.s.count(); n != accountBurst+1 {
			t.Errorf("%d calls", n)
		}
		b.pass(giveUp + accountBurst*accountPause)
		b.wake("a")
		if n := b.s.count(); n != accountBurst+2 {
			t.Errorf("%d calls once all is forgiven", n)
		}
	})
}

// TestCallsOfAnAccountAreSpread: beyond its share an account's apps are called
// later, if they still sleep then.
func TestCallsOfAnAccountAreSpread(t *testing.T) {
	at(t, &server{}, func(b *bench) {
		for i := range accountBurst + 3 {
			b.wake(fmt.Sprint(i))
		}
		b.Awake("bob", sleeper(fmt.Sprint(accountBurst)).Push)
		for _, calls := range []int{0, 0, 1, 2, 2} {
			if n := b.s.count() - accountBurst; n != calls {
				t.Errorf("%d calls more, want %d", n, calls)
			}
			b.pass(accountPause)
		}
	})
}

func TestPacesAreForgotten(t *testing.T) {
	p := paces{free: map[string]time.Time{}}
	now := time.Now()
	for i := range 100_000 {
		p.take(now.Add(time.Duration(i)*accountPause/1000), fmt.Sprint(i))
	}
	if n := len(p.free); n > 3*fewAccounts {
		t.Errorf("%d accounts are remembered", n)
	}
}

// TestComplaints: a word a minute, and never about what wakes an app.
func TestComplaints(t *testing.T) {
	refuses := func(context.Context, int) error { return message.Fail(message.Undelivered, "push server answered 404") }
	at(t, &server{say: refuses}, func(b *bench) {
		for i := range 120 {
			s := sleeper(fmt.Sprint("token-", i))
			s.Account = fmt.Sprint("user-", i)
			b.Wake(time.Now(), s)
			b.pass(time.Second)
		}
		text := b.log.String()
		if lines := strings.Count(text, "\n"); lines != 2 || strings.Contains(text, "token") || !strings.Contains(text, "failures=60") {
			t.Errorf("%d lines:\n%s", lines, text)
		}
	})
}

// TestEndsWhileCalling: what is cut off is neither sent nor failed.
func TestEndsWhileCalling(t *testing.T) {
	silent := func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return message.FailForNow(message.Unavailable, "silent")
	}
	var after *bench
	at(t, &server{say: silent}, func(b *bench) {
		after = b
		b.wake("a")
	})
	after.expect(1, "")
}

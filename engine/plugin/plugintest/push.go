package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// PushAnswer is what a push server says.
type PushAnswer string

// The answers.
const (
	PushTakes   PushAnswer = "takes"   // it wakes whoever it is asked to; it does so at first
	PushRefuses PushAnswer = "refuses" // for good
	PushFails   PushAnswer = "fails"   // for now
	PushSilent  PushAnswer = "is silent"
)

// PushHarness is a pusher under test, with the push server that it asks.
type PushHarness struct {
	// Open opens the pusher.
	Open func(t T) plugin.Pusher
	// Woken returns those that the server was asked to wake, in any order.
	Woken func(t T) []plugin.Sleeper
	// Answer sets what the server says from now on.
	Answer func(t T, a PushAnswer)
}

// Push checks a plugin against the contract of plugin.Pusher.
func Push(t *testing.T, harness func(T) PushHarness) {
	t.Helper()
	run(t, pushCases, harness)
}

var pushCases = []Case[PushHarness]{
	{"it says how long to keep bindings", pushKeeps},
	{"who is to be woken is told as it is", pushTells},
	{"many are woken at once", pushConcurrent},
	{"a refusal is final", pushRefused},
	{"trouble is for now", pushFailed},
	{"its errors don't say what wakes an app", pushDiscreet},
	{"a call ends with its context", pushEnds},
	{"it leaves no goroutine behind", pushLeavesNothing},
}

// sleeper is one of many.
func sleeper(i int) plugin.Sleeper {
	return plugin.Sleeper{
		Push:    plugin.Push{Provider: "fcm", Param: "project & \"app\"", ID: fmt.Sprintf("prid-%d:äöü/+=", i)},
		Account: "1001", AOR: message.Address{User: "1001", Host: "example.com"}, Device: fmt.Sprintf("<urn:uuid:%d>", i),
	}
}

func openPusher(t T, h PushHarness) plugin.Pusher {
	t.Helper()
	p := h.Open(t)
	t.Cleanup(func() { p.Close() }) // a case that looks at it closes it itself
	return p
}

func pushKeeps(t T, h PushHarness) {
	p := openPusher(t, h)
	first := p.Keep()
	if first <= 0 || first > plugin.MaxKeep {
		t.Errorf("Keep is %v, want more than 0 and at most %v", first, plugin.MaxKeep)
	}
	if again := p.Keep(); again != first {
		t.Errorf("Keep was %v and is %v", first, again)
	}
}

func pushTells(t T, h PushHarness) {
	p := openPusher(t, h)
	want := sleeper(0)
	if err := p.Wake(t.Context(), want); err != nil {
		t.Errorf("Wake: %v", err)
	}
	if got := h.Woken(t); !slices.Equal(got, []plugin.Sleeper{want}) {
		t.Errorf("the server was asked to wake %+v, want %+v", got, want)
	}
}

func pushConcurrent(t T, h PushHarness) {
	const many = 32
	p := openPusher(t, h)
	errs := make(chan error, many)
	var group sync.WaitGroup
	for i := range many {
		group.Go(func() {
			defer func() {
				if cause := recover(); cause != nil {
					errs <- fmt.Errorf("panic: %v", cause)
				}
			}()
			errs <- p.Wake(t.Context(), sleeper(1+i))
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Errorf("one of %d calls at once: %v", many, err)
		}
	}
	woken := h.Woken(t)
	for i := range many {
		device := sleeper(1 + i).Device
		if !slices.ContainsFunc(woken, func(s plugin.Sleeper) bool { return s.Device == device }) {
			t.Errorf("of %d calls at once the one for %s didn't come", many, device)
		}
	}
}

// pushFailure is what a pusher says while the server says something else than yes.
func pushFailure(t T, h PushHarness, a PushAnswer) *message.Failure {
	t.Helper()
	p := openPusher(t, h)
	h.Answer(t, a)
	f, ok := errors.AsType[*message.Failure](p.Wake(t.Context(), sleeper(0)))
	if !ok {
		t.Fatalf("the server %s, and Wake doesn't return a *message.Failure", a)
	}
	return f
}

func pushRefused(t T, h PushHarness) {
	if f := pushFailure(t, h, PushRefuses); f.Temporary {
		t.Errorf("the server refuses for good, and the failure is temporary: %v", f)
	}
}

func pushFailed(t T, h PushHarness) {
	if f := pushFailure(t, h, PushFails); !f.Temporary || f.RetryAfter < 0 {
		t.Errorf("the server fails for now, and the failure is final, or over before now: %v", f)
	}
}

func pushDiscreet(t T, h PushHarness) {
	p := openPusher(t, h)
	for _, a := range []PushAnswer{PushRefuses, PushFails} {
		h.Answer(t, a)
		if err := p.Wake(t.Context(), sleeper(0)); err != nil && strings.Contains(err.Error(), "prid-0") {
			t.Errorf("the server %s, and the error has the app's token: %v", a, err)
		}
	}
}

func pushEnds(t T, h PushHarness) {
	p := openPusher(t, h)
	h.Answer(t, PushSilent)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Wake(ctx, sleeper(0)) }()
	select {
	case err := <-done:
		if err == nil || !message.AsFailure(err).Temporary {
			t.Errorf("the server is silent, and Wake returns %v", err)
		}
	case <-time.After(moment):
		t.Errorf("Wake doesn't return when its context has ended")
	}
}

func pushLeavesNothing(t T, h PushHarness) {
	before := goroutines()
	p := h.Open(t)
	if err := p.Wake(t.Context(), sleeper(0)); err != nil {
		t.Logf("Wake: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	expectNoneSince(t, before)
}

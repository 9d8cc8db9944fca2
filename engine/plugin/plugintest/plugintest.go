// Package plugintest holds the contract suites: what a plugin must pass to be
// one, a suite for each kind. A plugin's own test calls its kind's suite:
//
//	func TestContract(t *testing.T) {
//		plugintest.Storage(t, func(t plugintest.T) plugintest.StorageHarness { … })
//	}
//
// A case that no broken plugin fails proves nothing. So each case here has a
// deliberately broken plugin in this package's own tests that fails it and
// passes all others; the matrix is printed there.
package plugintest

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// T is what a case needs of a *testing.T. A broken plugin gets a recorder.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	TempDir() string
	Context() context.Context
}

// Case is one promise of a contract. H is the kind's harness: how to open the
// plugin under test.
type Case[H any] struct {
	Name string
	Run  func(t T, h H)
}

// caseDeadline bounds each case; a plugin that hangs fails.
const caseDeadline = 30 * time.Second

// run runs a suite against a plugin. harness is called once for each case, so
// that cases don't see each other's data.
func run[H any](t *testing.T, cases []Case[H], harness func(T) H) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if failures := attempt(t, c, harness); len(failures) > 0 {
				t.Errorf("the contract is broken:\n\t%s", strings.Join(failures, "\n\t"))
			}
		})
	}
}

// attempt runs one case and returns what it found.
func attempt[H any](t *testing.T, c Case[H], harness func(T) H) []string {
	ctx, cancel := context.WithTimeout(t.Context(), caseDeadline)
	defer cancel()
	r := &recorder{T: t, ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.cleanup()
		defer r.catch()
		c.Run(r, harness(r))
	}()
	select {
	case <-done:
	case <-time.After(caseDeadline + 5*time.Second):
		return []string{"hangs: it ignores the end of its context"}
	}
	return r.failures
}

// recorder notes failures instead of reporting them.
type recorder struct {
	*testing.T
	ctx      context.Context
	failures []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) catch() {
	if p := recover(); p != nil {
		r.Errorf("panics: %v", p)
	}
}

func (r *recorder) cleanup() {
	defer r.catch()
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

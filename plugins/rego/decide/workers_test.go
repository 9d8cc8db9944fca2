package decide

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

// stuck is a policy whose plans aren't made before release is closed, whatever
// OPA thinks of the time.
func stuck(t *testing.T, limit time.Duration, release <-chan struct{}) *Policy {
	t.Helper()
	p, err := loaded(t, limit, map[string]string{"a": regotest.Header + "plan.labels.peer := input.peer\n"})
	if err != nil {
		t.Fatal(err)
	}
	query, err := opa.New(opa.Query("waits(input)"), opa.Function1(
		&opa.Function{Name: "waits", Decl: ast.BuiltinMap["upper"].Decl},
		func(opa.BuiltinContext, *ast.Term) (*ast.Term, error) {
			<-release
			return ast.NewTerm(ast.NewArray()), nil
		},
	)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.services[0].query, p.options = &query, nil
	return p
}

func TestDecideWaitsNoLonger(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	p := stuck(t, 20*time.Millisecond, release)
	for range maxLate {
		began := time.Now()
		if got := failure(t, p, regotest.Typical()); !strings.Contains(got, "no plan within 90ms, and what it does can't be stopped") {
			t.Errorf("got %q", got)
		}
		if took := time.Since(began); took < answerWithin || took > 5*promised {
			t.Errorf("answered after %s", took)
		}
	}
	began := time.Now()
	if got := failure(t, p, regotest.Typical()); !strings.Contains(got, "4 evaluations that were given up") {
		t.Errorf("one too many: got %q", got)
	}
	if took := time.Since(began); took > answerWithin/2 {
		t.Errorf("refused after %s, want at once", took)
	}
}

func TestLateWorkersComeBack(t *testing.T) {
	release := make(chan struct{})
	p := stuck(t, time.Millisecond, release)
	other := mustLoad(t, map[string]string{"a": regotest.Header + "plan.labels.peer := input.peer\n"})
	other.workers = p.workers
	for range maxLate {
		failure(t, p, regotest.Typical())
	}
	if got := failure(t, other, regotest.Typical()); !strings.Contains(got, "given up") {
		t.Errorf("another revision: got %q", got)
	}
	close(release)
	for end := time.Now().Add(10 * time.Second); p.workers.late.Load() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("they are late forever")
		}
	}
	if plan := decide(t, other); plan.Labels["peer"] != regotest.Typical().Peer {
		t.Errorf("got %v", plan)
	}
	if n := len(p.workers.busy); n > maxLate {
		t.Errorf("%d workers are busy", n)
	}
}

// TestWaitForWorkers wants those who find all workers busy to wait, and not for
// ever.
func TestWaitForWorkers(t *testing.T) {
	p := mustLoad(t, map[string]string{"a": regotest.Header + "plan.labels.peer := input.peer\n"})
	ws := p.workers
	for range cap(ws.busy) {
		ws.busy <- struct{}{}
	}
	if _, _, err := ws.take(t.Context(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "no worker was free within 1ms") {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ws.take(ended, time.Hour); err != context.Canceled {
		t.Errorf("after the end of the context: %v", err)
	}
	time.AfterFunc(time.Millisecond, func() { <-ws.busy })
	if w, waited, err := ws.take(t.Context(), time.Hour); err != nil || waited <= 0 {
		t.Errorf("got %v, %v, %v", w, waited, err)
	}
}

func TestAnswerLimit(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{
		time.Millisecond:       90 * time.Millisecond,
		20 * time.Millisecond:  90 * time.Millisecond,
		100 * time.Millisecond: 140 * time.Millisecond,
		time.Second:            1040 * time.Millisecond,
	} {
		if got := answerLimit(limit); got != want {
			t.Errorf("%s: got %s, want %s", limit, got, want)
		}
	}
}

// TestOneTryOfLongOnes wants a long deadline to be met once, and not twice.
func TestOneTryOfLongOnes(t *testing.T) {
	p, err := loaded(t, 200*time.Millisecond, map[string]string{"a": regotest.Header + endless})
	if err != nil {
		t.Fatal(err)
	}
	if got := failure(t, p, regotest.Typical()); !strings.Contains(got, "no plan within ") || strings.Contains(got, "twice") {
		t.Errorf("got %q", got)
	}
}

// TestWorkersEnd wants the goroutines to end with the last policy.
func TestWorkersEnd(t *testing.T) {
	p := mustLoad(t, map[string]string{"a": regotest.Header + "plan.labels.peer := input.peer\n"})
	decide(t, p)
	w := p.workers.idle[0]
	if _, err := p.Decide(t.Context(), regotest.Typical(), plugin.Given{}); err != nil || p.workers.idle[0] != w {
		t.Fatalf("a second decision: %v, with another worker", err)
	}
	p = nil
	for end := time.Now().Add(10 * time.Second); ; runtime.GC() {
		select {
		case <-w.tasks:
			return // it is closed
		default:
		}
		if time.Now().After(end) {
			t.Fatal("the worker works on")
		}
	}
}

package plugintest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// decideLimit is how long a decision may take in a test, where it takes
// microseconds by design.
const decideLimit = 5 * time.Second

// PolicyHarness opens the policy under test.
type PolicyHarness struct {
	Open func(T) plugin.Policy
	Good func() plugin.Question // a new one at each call, always the same, with attributes of the sender; it has a verdict
	Bad  func() plugin.Question // a new one at each call, always the same; there is no verdict on it
}

// Policy runs the contract suite of policies. harness is called once for each case.
func Policy(t *testing.T, harness func(T) PolicyHarness) {
	t.Helper()
	run(t, policyCases, harness)
}

var policyCases = []Case[PolicyHarness]{
	{"one question has one plan, however many ask it at once", oneQuestionOnePlan},
	{"the plan says which service of which revision decided", planIsSigned},
	{"the plan is within the limits", planIsWithinLimits},
	{"no verdict is a temporary policy-failed", noVerdictIsTemporary},
	{"nothing is decided after the end of the context", endedContext},
	{"the question stays as it was", questionStays},
	{"the plan doesn't follow the question", planIsOnItsOwn},
	{"it closes", policyCloses},
}

// openPolicy opens the policy and closes it after the case.
func openPolicy(t T, h PolicyHarness) plugin.Policy {
	t.Helper()
	p := h.Open(t)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// verdict decides in time, or ends the case.
func verdict(t T, p plugin.Policy, q plugin.Question) plugin.Plan {
	t.Helper()
	plan, err := decideInTime(t.Context(), p, q)
	if err != nil {
		t.Fatalf("no verdict on a good question: %v", err)
	}
	return plan
}

// errUndecided is a decision that isn't there in time.
var errUndecided = errors.New("no decision within " + decideLimit.String())

// decideInTime doesn't wait for a policy that hangs.
func decideInTime(ctx context.Context, p plugin.Policy, q plugin.Question) (plan plugin.Plan, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		plan, err = p.Decide(ctx, q)
	}()
	select {
	case <-done:
		return plan, err
	case <-time.After(decideLimit):
		return plugin.Plan{}, errUndecided
	}
}

// sequentialQuestions is how often oneQuestionOnePlan asks before it asks concurrently.
const sequentialQuestions = 4

func oneQuestionOnePlan(t T, h PolicyHarness) {
	p := openPolicy(t, h)
	first := verdict(t, p, h.Good())
	for range sequentialQuestions - 1 {
		if again := verdict(t, p, h.Good()); !reflect.DeepEqual(again, first) {
			t.Fatalf("the same question got\n\t%+v\nand then\n\t%+v", first, again)
		}
	}
	plans, errs := [8]plugin.Plan{}, [8]error{}
	var group sync.WaitGroup
	for i := range plans {
		group.Go(func() { plans[i], errs[i] = decideInTime(t.Context(), p, h.Good()) })
	}
	group.Wait()
	for i, plan := range plans {
		switch {
		case errs[i] != nil:
			t.Errorf("one of %d callers at the same time got no verdict: %v", len(plans), errs[i])
		case !reflect.DeepEqual(plan, first):
			t.Errorf("one of %d callers at the same time got\n\t%+v\nwhere one alone got\n\t%+v", len(plans), plan, first)
		}
	}
}

func planIsSigned(t T, h PolicyHarness) {
	plan := verdict(t, openPolicy(t, h), h.Good())
	if plan.Service == "" {
		t.Errorf("the plan has no service")
	}
	if plan.Revision == "" {
		t.Errorf("the plan has no revision")
	}
}

func planIsWithinLimits(t T, h PolicyHarness) {
	plan := verdict(t, openPolicy(t, h), h.Good())
	for _, fault := range outsideLimits(plan.WithDefaults()) {
		t.Errorf("%s", fault)
	}
}

// outsideLimits says what is wrong with a complete plan.
func outsideLimits(p plugin.Plan) []string {
	var faults []string
	expect := func(ok bool, attribute, expected string, got any) {
		if !ok {
			faults = append(faults, fmt.Sprintf("%s: expected %s, got %v", attribute, expected, got))
		}
	}
	expect(slices.Contains([]plugin.Processing{plugin.Deliver, plugin.Reject, plugin.Discard}, p.Processing),
		"processing", "deliver, reject or discard", p.Processing)
	expect(slices.Contains(message.Reasons[:], p.Reason), "reason", "one of message.Reasons", p.Reason)
	expect(slices.Contains([]plugin.ChargingMode{plugin.ChargeNone, plugin.ChargeEvent}, p.Charging.Mode),
		"charging.mode", "none or event", p.Charging.Mode)
	expect(p.Charging.UnitSize >= 0, "charging.unit_size", "at least 0", p.Charging.UnitSize)
	expect(0 < p.Store && p.Store <= plugin.MaxStore, "store", fmt.Sprintf("at most %s", plugin.MaxStore), p.Store)
	expect(slices.Contains([]plugin.AnswerMode{plugin.AnswerAccepted, plugin.AnswerDelivered}, p.Answer),
		"answer", "accepted or delivered", p.Answer)
	expect(0 < p.Within && p.Within <= plugin.MaxWithin, "answer_within", fmt.Sprintf("at most %s", plugin.MaxWithin), p.Within)
	expect(len(p.Retry) <= plugin.MaxRetries, "retry", fmt.Sprintf("at most %d pauses", plugin.MaxRetries), len(p.Retry))
	expect(slices.Min(p.Retry) >= plugin.MinRetry, "retry", fmt.Sprintf("pauses of at least %s", plugin.MinRetry), p.Retry)
	expect(!slices.Contains(p.Transports, ""), "transports", "names", p.Transports)
	return faults
}

func noVerdictIsTemporary(t T, h PolicyHarness) {
	plan, err := decideInTime(t.Context(), openPolicy(t, h), h.Bad())
	if err == nil {
		t.Fatalf("a question without a verdict got the plan %+v", plan)
	}
	expectNoVerdict(t, err)
}

func expectNoVerdict(t T, err error) {
	t.Helper()
	f, ok := errors.AsType[*message.Failure](err)
	switch {
	case !ok:
		t.Errorf("the error is a %T, expected a *message.Failure: %v", err, err)
	case f.Reason != message.PolicyFailed:
		t.Errorf("the reason is %q, expected %q", f.Reason, message.PolicyFailed)
	case !f.Temporary:
		t.Errorf("the failure is final, expected a temporary one")
	case f.Err == nil:
		t.Errorf("the failure has no cause for the log")
	}
}

func endedContext(t T, h PolicyHarness) {
	p := openPolicy(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	plan, err := decideInTime(ctx, p, h.Good())
	if err == nil {
		t.Fatalf("the context had ended, and yet there is the plan %+v", plan)
	}
	expectNoVerdict(t, err)
}

func questionStays(t T, h PolicyHarness) {
	q := h.Good()
	if q.Sender.Attributes == nil {
		t.Fatalf("the harness's good question needs attributes of the sender")
	}
	verdict(t, openPolicy(t, h), q)
	if want := h.Good(); !reflect.DeepEqual(q, want) {
		t.Errorf("the question was\n\t%+v\nand is now\n\t%+v", want, q)
	}
}

// planIsOnItsOwn changes the question after the decision: a policy that hands
// out or keeps the question's table would show it.
func planIsOnItsOwn(t T, h PolicyHarness) {
	p := openPolicy(t, h)
	q := h.Good()
	plan := verdict(t, p, q)
	labels := maps.Clone(plan.Labels)
	for name := range q.Sender.Attributes {
		q.Sender.Attributes[name] = "changed afterwards"
	}
	q.Sender.Attributes["added"] = "afterwards"
	if !maps.Equal(plan.Labels, labels) {
		t.Errorf("the plan's labels were %v; after a change of the question they are %v", labels, plan.Labels)
	}
}

func policyCloses(t T, h PolicyHarness) {
	p := h.Open(t)
	verdict(t, p, h.Good())
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

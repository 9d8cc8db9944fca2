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
	// Asks tells whether the service that decides on Good asks for the text.
	Asks bool
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
	{"the text is asked for by those alone that need it", textIsAskedFor},
	{"counters are of the limits of the plan", countersAreOfLimits},
	{"no more is asked after the decision", supplyEnds},
	{"no verdict is a temporary policy-failed", noVerdictIsTemporary},
	{"nothing is decided after the end of the context", endedContext},
	{"the question stays as it was", questionStays},
	{"the plan doesn't follow the question", planIsOnItsOwn},
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
		plan, err = p.Decide(ctx, q, plugin.Given{})
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
	p := h.Open(t)
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
	plan := verdict(t, h.Open(t), h.Good())
	if plan.Service == "" {
		t.Errorf("the plan has no service")
	}
	if plan.Revision == "" {
		t.Errorf("the plan has no revision")
	}
}

func planIsWithinLimits(t T, h PolicyHarness) {
	plan := verdict(t, h.Open(t), h.Good())
	for _, fault := range outsideLimits(plan) {
		t.Errorf("%s", fault)
	}
}

// faults are what is wrong with a plan.
type faults []string

func (f *faults) expect(ok bool, attribute, expected string, got any) {
	if !ok {
		*f = append(*f, fmt.Sprintf("%s: expected %s, got %v", attribute, expected, got))
	}
}

// oneOf expects one of a few words.
func oneOf[W ~string](f *faults, attribute string, got W, words ...W) {
	f.expect(slices.Contains(words, got), attribute, fmt.Sprintf("one of %v", words), got)
}

// outsideLimits says what is wrong with a complete plan.
func outsideLimits(p plugin.Plan) []string {
	var f faults
	oneOf(&f, "processing", p.Processing, plugin.Deliver, plugin.Reject, plugin.Discard)
	oneOf(&f, "reason", p.Reason, message.Reasons[:]...)
	oneOf(&f, "forking", p.Forking, plugin.ForkParallel, plugin.ForkSequential)
	oneOf(&f, "devices", p.Devices, plugin.AnyDevice, plugin.AllDevices)
	oneOf(&f, "answer", p.Answer, plugin.AnswerAccepted, plugin.AnswerDelivered)
	f.expect(0 <= p.Store && p.Store <= plugin.MaxStore, "store", fmt.Sprintf("at most %s", plugin.MaxStore), p.Store)
	f.expect(0 < p.Within && p.Within <= plugin.MaxWithin, "answer_within", fmt.Sprintf("at most %s", plugin.MaxWithin), p.Within)
	f.expect(!slices.Contains(p.Transports, ""), "transports", "names", p.Transports)
	f.charging(p.Charging)
	f.expect(!p.ExternalRouting || p.Charging.Mode != plugin.ChargeNone, "external_routing", "a charging.mode, too", p.Charging.Mode)
	f.retry(p.Retry)
	f.expect(!slices.Contains(p.Fallback.Transports, ""), "fallback.transports", "names", p.Fallback.Transports)
	f.reasons("fallback.reasons", p.Fallback.Reasons)
	f.limits(p.Limits)
	return f
}

func (f *faults) charging(c plugin.PlanCharging) {
	oneOf(f, "charging.mode", c.Mode, plugin.ChargeNone, plugin.ChargeEvent)
	oneOf(f, "charging.when", c.When, plugin.OnAcceptance, plugin.OnHandover, plugin.OnDelivery)
	f.expect(c.UnitSize >= 0, "charging.unit_size", "at least 0", c.UnitSize)
	f.expect(0 <= c.Units && c.Units <= plugin.MaxUnits, "charging.units", fmt.Sprintf("0 to %d", plugin.MaxUnits), c.Units)
}

func (f *faults) retry(r plugin.PlanRetry) {
	f.expect(0 <= r.Attempts && r.Attempts <= plugin.MaxAttempts, "retry.attempts", fmt.Sprintf("0 to %d", plugin.MaxAttempts), r.Attempts)
	f.expect(0 < len(r.Backoff) && len(r.Backoff) <= plugin.MaxPauses, "retry.backoff", fmt.Sprintf("1 to %d pauses", plugin.MaxPauses), len(r.Backoff))
	for _, pause := range r.Backoff {
		f.expect(plugin.MinPause <= pause && pause <= plugin.MaxStore, "retry.backoff", fmt.Sprintf("pauses of %s to %s", plugin.MinPause, plugin.MaxStore), pause)
	}
	f.reasons("retry.reasons", r.Reasons)
	oneOf(f, "retry.unknown", r.Unknown, plugin.UnknownRetry, plugin.UnknownFallback, plugin.UnknownFail)
}

func (f *faults) reasons(attribute string, reasons []message.Reason) {
	for _, r := range reasons {
		oneOf(f, attribute, r, message.Reasons[:]...)
	}
}

// The bounds of a Limit's texts, in octets.
const (
	maxLimitName = 64
	maxLimitKey  = 1024
)

func (f *faults) limits(limits []plugin.Limit) {
	f.expect(len(limits) <= plugin.MaxLimits, "limits", fmt.Sprintf("at most %d", plugin.MaxLimits), len(limits))
	keys := map[string]bool{}
	for _, l := range limits {
		f.expect(l.Name != "" && len(l.Name) <= maxLimitName, "limits", fmt.Sprintf("a name of 1 to %d octets", maxLimitName), l.Name)
		f.expect(l.Key != "" && len(l.Key) <= maxLimitKey, "limits."+l.Name, fmt.Sprintf("a key of 1 to %d octets", maxLimitKey), len(l.Key))
		f.expect(l.Count >= 0, "limits."+l.Name, "a count of at least 0", l.Count)
		f.expect(plugin.MinWindow <= l.Per && l.Per <= plugin.MaxWindow, "limits."+l.Name, fmt.Sprintf("a window of %s to %s", plugin.MinWindow, plugin.MaxWindow), l.Per)
		f.expect(!keys[l.Key], "limits."+l.Name, "a key of its own", l.Key)
		keys[l.Key] = true
	}
}

// supply is a Supply that notes what is asked of it.
type supply struct {
	mu    sync.Mutex
	texts int
	asked []plugin.Limit
	over  bool // the decision has been made
	late  int  // how often it was asked all the same
}

func (s *supply) note(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		s.late++
	}
	what()
}

// Text is plugin.Supply.
func (s *supply) Text() string {
	s.note(func() { s.texts++ })
	return "the text"
}

// Count is plugin.Supply.
func (s *supply) Count(l plugin.Limit) int {
	s.note(func() { s.asked = append(s.asked, l) })
	return 0
}

func (s *supply) end() (texts, late int, asked []plugin.Limit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return s.texts, s.late, slices.Clone(s.asked)
}

// supplied decides, and notes what that needed.
func supplied(t T, h PolicyHarness) (plugin.Plan, *supply) {
	t.Helper()
	s := &supply{}
	plan, err := h.Open(t).Decide(t.Context(), h.Good(), s)
	if err != nil {
		t.Fatalf("no verdict on a good question: %v", err)
	}
	return plan, s
}

func textIsAskedFor(t T, h PolicyHarness) {
	_, s := supplied(t, h)
	if texts, _, _ := s.end(); texts > 0 && !h.Asks {
		t.Errorf("the text was taken, and the service doesn't ask for it")
	}
}

func countersAreOfLimits(t T, h PolicyHarness) {
	plan, s := supplied(t, h)
	_, _, asked := s.end()
	for _, l := range asked {
		if !slices.Contains(plan.Limits, l) {
			t.Errorf("it asked for the counter %+v, which isn't a limit of the plan: %+v", l, plan.Limits)
		}
	}
}

// lateness is how long a policy has for asking too late.
const lateness = 50 * time.Millisecond

func supplyEnds(t T, h PolicyHarness) {
	_, s := supplied(t, h)
	s.end()
	time.Sleep(lateness)
	if _, late, _ := s.end(); late > 0 {
		t.Errorf("it asked for more %d times after its decision", late)
	}
}

func noVerdictIsTemporary(t T, h PolicyHarness) {
	plan, err := decideInTime(t.Context(), h.Open(t), h.Bad())
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
	p := h.Open(t)
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
	verdict(t, h.Open(t), q)
	if want := h.Good(); !reflect.DeepEqual(q, want) {
		t.Errorf("the question was\n\t%+v\nand is now\n\t%+v", want, q)
	}
}

// planIsOnItsOwn changes the question after the decision: a policy that hands
// out or keeps the question's table would show it.
func planIsOnItsOwn(t T, h PolicyHarness) {
	p := h.Open(t)
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

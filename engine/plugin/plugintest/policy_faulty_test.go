package plugintest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// soundPolicy labels a message with its sender's attributes. What it is about
// to return can be spoiled.
type soundPolicy struct {
	ignoresContext bool
	asks           func(plugin.Supply) // besides
	unlimited      bool
	spoil          func(q plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error)
}

func (s *soundPolicy) Decide(ctx context.Context, q plugin.Question, more plugin.Supply) (plugin.Plan, error) {
	if s.asks != nil {
		s.asks(more)
	}
	plan, err := s.decide(ctx, q)
	if err == nil && !s.unlimited {
		plan.Limits = []plugin.Limit{soundLimit}
		more.Count(soundLimit)
	}
	if s.spoil == nil {
		return plan, err
	}
	return s.spoil(q, plan, err)
}

func (s *soundPolicy) decide(ctx context.Context, q plugin.Question) (plugin.Plan, error) {
	if err := ctx.Err(); err != nil && !s.ignoresContext {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "not decided: %w", err)
	}
	if q.Recipient.Domain == "" {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "no service matches")
	}
	plan := plugin.DefaultPlan()
	plan.Service, plan.Revision, plan.Labels = "all", "1", maps.Clone(q.Sender.Attributes)
	return plan, nil
}

func goodQuestion() plugin.Question {
	return plugin.Question{
		Sender:    plugin.QuestionSender{Account: "1001", Attributes: map[string]string{"tariff": "default"}},
		Recipient: plugin.QuestionRecipient{User: "1002", Domain: "sip.example.com"},
	}
}

// policies makes a harness around a policy that is new for each case.
func policies(open func() plugin.Policy) func(T) PolicyHarness {
	return func(T) PolicyHarness {
		return PolicyHarness{
			Open: func(T) plugin.Policy { return open() },
			Good: goodQuestion,
			Bad:  func() plugin.Question { return plugin.Question{} },
		}
	}
}

// spoiledPolicy makes a harness around a policy whose verdicts are spoiled.
func spoiledPolicy(spoil func(plugin.Question, plugin.Plan) plugin.Plan) func(T) PolicyHarness {
	return policies(func() plugin.Policy {
		return &soundPolicy{spoil: func(q plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error) {
			if err != nil {
				return plan, err
			}
			return spoil(q, plan), nil
		}}
	})
}

// soundLimit is a limit of the sound policy's plans.
var soundLimit = plugin.Limit{Name: "per_sender", Key: "all per_sender 1001", Count: 10, Per: time.Minute}

// limited makes a harness around a policy with other limits.
func limited(limits ...plugin.Limit) func(T) PolicyHarness {
	return policies(func() plugin.Policy {
		return &soundPolicy{unlimited: true, spoil: func(_ plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error) {
			plan.Limits = limits
			return plan, err
		}}
	})
}

// askingPolicy makes a harness around a policy that asks for more than it needs.
func askingPolicy(asks func(plugin.Supply)) func(T) PolicyHarness {
	return policies(func() plugin.Policy { return &soundPolicy{asks: asks} })
}

// failingPolicy makes a harness around a policy that says otherwise why there is no
// verdict on a message; at the end of the context it says it rightly.
func failingPolicy(fail func() (plugin.Plan, error)) func(T) PolicyHarness {
	return policies(func() plugin.Policy {
		return &soundPolicy{spoil: func(_ plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error) {
			if err == nil || errors.Is(err, context.Canceled) {
				return plan, err
			}
			return fail()
		}}
	})
}

// countingPolicy labels a message with the number of decisions so far.
func countingPolicy() plugin.Policy {
	var decisions atomic.Int64
	return &soundPolicy{spoil: func(_ plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error) {
		if err == nil {
			plan.Labels["decision"] = strconv.FormatInt(decisions.Add(1), 10)
		}
		return plan, err
	}}
}

// exclusivePolicy fails the second of two callers at the same time. So that there
// are two, the first of those that the suite lets come together waits.
func exclusivePolicy() plugin.Policy {
	var decisions atomic.Int64
	second := make(chan struct{})
	return &soundPolicy{spoil: func(_ plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error) {
		switch decisions.Add(1) {
		case sequentialQuestions + 1:
			<-second
		case sequentialQuestions + 2:
			close(second)
			return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "busy with another question")
		}
		return plan, err
	}}
}

func TestPolicyMatrix(t *testing.T) {
	prove(t, policyCases, policies(func() plugin.Policy { return &soundPolicy{} }), []fault[PolicyHarness]{
		{"counts its decisions", "one question has one plan, however many ask it at once", policies(countingPolicy)},
		{"fails beside another caller", "one question has one plan, however many ask it at once", policies(exclusivePolicy)},
		{"doesn't name the service", "the plan says which service of which revision decided",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Service = ""; return p })},
		{"doesn't name the revision", "the plan says which service of which revision decided",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Revision = ""; return p })},
		{"stores for ever", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Store = plugin.MaxStore + 1; return p })},
		{"waits for the outcome for ever", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Within = plugin.MaxWithin + 1; return p })},
		{"retries without a pause", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Retry.Backoff = []time.Duration{0}; return p })},
		{"retries too often", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan {
				p.Retry.Backoff = slices.Repeat([]time.Duration{time.Minute}, plugin.MaxPauses+1)
				return p
			})},
		{"has a processing of its own", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Processing = "forward"; return p })},
		{"charges when it likes", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Charging.When = "later"; return p })},
		{"charges for nothing", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Charging.Units = plugin.MaxUnits + 1; return p })},
		{"routes what isn't authorised", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.ExternalRouting = true; return p })},
		{"tries for ever", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan {
				p.Retry.Attempts = plugin.MaxAttempts + 1
				return p
			})},
		{"tries for a reason of its own", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan {
				p.Retry.Reasons = []message.Reason{"tired"}
				return p
			})},
		{"doesn't say what follows silence", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Retry.Unknown = ""; return p })},
		{"falls back to nowhere", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan { p.Fallback.Transports = []string{""}; return p })},
		{"falls back for a reason of its own", "the plan is within the limits",
			spoiledPolicy(func(_ plugin.Question, p plugin.Plan) plugin.Plan {
				p.Fallback.Reasons = []message.Reason{"tired"}
				return p
			})},
		{"has too many limits", "the plan is within the limits", limited(slices.Repeat([]plugin.Limit{soundLimit}, plugin.MaxLimits+1)...)},
		{"has a limit twice", "the plan is within the limits", limited(soundLimit, soundLimit)},
		{"limits without a key", "the plan is within the limits", limited(plugin.Limit{Name: "x", Per: time.Minute})},
		{"limits for ever", "the plan is within the limits", limited(plugin.Limit{Name: "x", Key: "x", Per: plugin.MaxWindow + 1})},
		{"counts below zero", "the plan is within the limits", limited(plugin.Limit{Name: "x", Key: "x", Count: -1, Per: time.Minute})},
		{"reads every text", "the text is asked for by those alone that need it", askingPolicy(func(more plugin.Supply) { more.Text() })},
		{"counts what isn't limited", "counters are of the limits of the plan",
			askingPolicy(func(more plugin.Supply) { more.Count(plugin.Limit{Name: "other", Key: "other", Per: time.Hour}) })},
		{"counts afterwards", "no more is asked after the decision",
			askingPolicy(func(more plugin.Supply) { time.AfterFunc(lateness/2, func() { more.Count(soundLimit) }) })},
		{"decides what it can't", "no verdict is a temporary policy-failed",
			failingPolicy(func() (plugin.Plan, error) { return plugin.Plan{Service: "all", Revision: "1"}, nil })},
		{"refuses for good", "no verdict is a temporary policy-failed",
			failingPolicy(func() (plugin.Plan, error) { return plugin.Plan{}, message.Fail(message.PolicyFailed, "no") })},
		{"refuses with another reason", "no verdict is a temporary policy-failed",
			failingPolicy(func() (plugin.Plan, error) { return plugin.Plan{}, message.FailForNow(message.Rejected, "no") })},
		{"refuses with a plain error", "no verdict is a temporary policy-failed",
			failingPolicy(func() (plugin.Plan, error) { return plugin.Plan{}, errors.New("no") })},
		{"refuses without a cause", "no verdict is a temporary policy-failed",
			failingPolicy(func() (plugin.Plan, error) {
				return plugin.Plan{}, &message.Failure{Reason: message.PolicyFailed, Temporary: true}
			})},
		{"ignores the context", "nothing is decided after the end of the context",
			policies(func() plugin.Policy { return &soundPolicy{ignoresContext: true} })},
		{"changes the sender's attributes", "the question stays as it was",
			spoiledPolicy(func(q plugin.Question, p plugin.Plan) plugin.Plan { q.Sender.Attributes["seen"] = "yes"; return p })},
		{"hands out the sender's attributes", "the plan doesn't follow the question",
			spoiledPolicy(func(q plugin.Question, p plugin.Plan) plugin.Plan { p.Labels = q.Sender.Attributes; return p })},
	})
}

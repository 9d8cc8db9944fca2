package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// phone is a way to a device.
type phone struct {
	contact, device string
	q               int
}

func (s *solo) registerPhones(t *testing.T, user string, phones ...phone) {
	t.Helper()
	r := plugin.Registration{Account: account(user), AOR: address(user), CallID: message.NewPublicID(), CSeq: 1}
	for _, phone := range phones {
		r.Bindings = append(r.Bindings, plugin.Binding{
			Contact: phone.contact, Device: phone.device, RegID: phone.contact, Q: phone.q, Expires: time.Now().Add(time.Hour),
		})
	}
	if _, err := s.door.gate.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// forking is a plan that tries devices in turn.
func forking(unknown plugin.UnknownOutcome) *testPolicy {
	policy := charged()
	policy.also(func(p *plugin.Plan) {
		p.Forking, p.Retry.Unknown, p.Retry.Attempts = plugin.ForkSequential, unknown, 1
	})
	return policy
}

// TestSequentialForking: what each device says, after how many seconds, and which are
// tried when. Devices a and b are liked best; c has two ways, of which the better one
// counts; d comes last.
func TestSequentialForking(t *testing.T) {
	const silent = 32 * time.Second
	type answers map[string]any // a time.Duration: it takes it then; an error
	busy, declined := message.FailForNow(message.Busy, "x"), message.Fail(message.Declined, "x")
	phones := []phone{{"d", "d", 100}, {"c1", "c", 200}, {"a", "a", 1000}, {"c2", "c", 500}, {"b", "b", 1000}}
	for _, c := range []struct {
		name    string
		unknown plugin.UnknownOutcome
		answers answers
		want    string // contact@second
		outcome plugin.OutcomeState
	}{
		{"the first takes it", "retry", answers{"a": time.Duration(0)}, "a@0 b@0", plugin.OutcomeDelivered},
		{"one of the first takes it late", "retry", answers{"a": busy, "b": 4 * time.Second}, "a@0 b@0", plugin.OutcomeDelivered},
		{"the first are busy, or don't want it", "retry", answers{"a": busy, "b": declined}, "a@0 b@0 c2@0", plugin.OutcomeDelivered},
		{"one doesn't answer", "retry", answers{"a": silent, "b": declined}, "a@0 b@0 c2@5", plugin.OutcomeDelivered},
		{"it answers after its turn", "retry", answers{"a": 7 * time.Second, "b": declined, "c2": silent, "d": silent}, "a@0 b@0 c2@5", plugin.OutcomeDelivered},
		{"the last one gets all the time", "retry", answers{"a": busy, "b": busy, "c2": silent, "d": 20 * time.Second}, "a@0 b@0 c2@0 d@5", plugin.OutcomeDelivered},
		{"it may have it", "fail", answers{"a": silent, "b": busy}, "a@0 b@0", plugin.OutcomeFailed},
		{"it may have it, and by the fallback", "fallback", answers{"a": silent, "b": busy}, "a@0 b@0", plugin.OutcomeFailed},
		{"it hasn't got it", "fail", answers{"a": busy, "b": declined}, "a@0 b@0 c2@0", plugin.OutcomeDelivered},
		{"nobody wants it", "retry", answers{"a": declined, "b": declined, "c2": declined, "d": declined}, "a@0 b@0 c2@0 d@0", plugin.OutcomeFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := alone(t, memory.Open(memory.NewDisk()), forking(c.unknown), nil)
				s.registerPhones(t, "bob", phones...)
				began := time.Now()
				var mu sync.Mutex
				var tried []string
				s.door.taking = func(ctx context.Context, _ *message.Message, r plugin.Route) (plugin.Receipt, error) {
					mu.Lock()
					tried = append(tried, fmt.Sprintf("%s@%.0f", r.Binding.Contact, time.Since(began).Seconds()))
					mu.Unlock()
					switch answer := c.answers[r.Binding.Contact].(type) {
					case error:
						return plugin.Receipt{}, answer
					case time.Duration:
						if time.Sleep(answer); answer == silent {
							return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "x")
						}
					}
					return plugin.Receipt{Final: true}, nil
				}
				ticket := s.door.submit("alice", "bob", "hello")
				time.Sleep(2 * time.Minute)
				o, err := first(t, ticket)
				mu.Lock()
				defer mu.Unlock()
				slices.SortFunc(tried, func(a, b string) int {
					return strings.Compare(a[strings.Index(a, "@"):]+a, b[strings.Index(b, "@"):]+b)
				})
				if got := strings.Join(tried, " "); got != c.want || err != nil || o.State != c.outcome {
					t.Errorf("tried %s, want %s; %+v, %v", got, c.want, o, err)
				}
			})
		})
	}
}

// TestSequentialForkingEnds: however many groups there are, all of it takes no longer
// than one attempt may.
func TestSequentialForkingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, memory.Open(memory.NewDisk()), forking(plugin.UnknownRetry), nil)
		var phones []phone
		for i := range 30 {
			phones = append(phones, phone{fmt.Sprint(i), fmt.Sprint(i), i})
		}
		s.registerPhones(t, "bob", phones...)
		var mu sync.Mutex
		tried := map[string]bool{}
		s.door.taking = func(ctx context.Context, _ *message.Message, r plugin.Route) (plugin.Receipt, error) {
			mu.Lock()
			tried[r.Binding.Contact] = true
			mu.Unlock()
			<-ctx.Done()
			return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "x")
		}
		began := time.Now()
		o := s.door.submit("alice", "bob", "hello").First(t.Context())
		mu.Lock()
		defer mu.Unlock()
		if took := time.Since(began); o.State != plugin.OutcomeFailed || took > 42*time.Second || len(tried) != len(phones) {
			t.Errorf("%+v after %s, %d were tried", o, took, len(tried))
		}
	})
}

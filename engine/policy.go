package engine

import (
	"context"
	"sync"

	"github.com/imgate/imgate/engine/plugin"
)

// verdicts is a policy that is open.
type verdicts struct {
	plugin.Policy
	metrics *plugin.Metrics
}

func (v *verdicts) close() error {
	v.metrics.Close()
	return v.Policy.Close()
}

func (e *Engine) openPolicy(ctx context.Context, c Config) (*verdicts, error) {
	env := e.env(c.Policy)
	policy, err := plugin.Open[plugin.Policy](ctx, c.Policy.Plugin, env, c.Policy.Settings)
	if err != nil {
		env.Metrics.Close()
		return nil, c.wrong(c.Policy.Key(), err)
	}
	return &verdicts{policy, env.Metrics}, nil
}

// judge decides with the policy that is in force just now.
type judge struct {
	mu sync.RWMutex // held for reading while a policy decides
	by *verdicts
}

// exchange puts another policy in force and returns the one before, which
// decides nothing any more.
func (j *judge) exchange(by *verdicts) *verdicts {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.by
	j.by = by
	return before
}

// Decide is plugin.Policy.
func (j *judge) Decide(ctx context.Context, q plugin.Question) (plugin.Plan, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.by.Decide(ctx, q)
}

// Close is plugin.Policy. Whoever exchanges policies closes them.
func (j *judge) Close() error { return nil }

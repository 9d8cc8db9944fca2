// Package rego decides about messages with domain service policies written in
// Rego and evaluated by OPA. It finds the service for a message, evaluates its
// plan and checks that it is one. It must not know what happens to a message
// afterwards: it sees a question and returns a plan.
package rego

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/policies"
)

//go:generate go run ./schemagen -dir ../../policies/schema

// Plugin is the policy plugin "rego".
var Plugin = plugin.DefinePolicy("rego", "decides with domain service policies in Rego (OPA)",
	Config{Deadline: 20 * time.Millisecond}, New)

// Config says where the policies are.
type Config struct {
	// Dir holds policies (*.rego, but for *_test.rego) and their data (*.json,
	// *.yaml). Empty: the policies built in.
	Dir string `yaml:"dir" doc:"the directory of the policies, *.rego, and of their data; default: the policies built in"`
	// Deadline is how long one decision may take, 1 ms to 1 s. OPA looks at it
	// before each expression, so that a single large builtin may pass it.
	Deadline time.Duration `yaml:"deadline" doc:"how long one decision may take, 1ms to 1s"`
}

// Validate reports values out of range.
func (c Config) Validate() error {
	if c.Deadline < time.Millisecond || c.Deadline > time.Second {
		return &plugin.InvalidKey{Key: "deadline", Expected: "a duration from 1ms to 1s"}
	}
	return nil
}

// policy decides by one revision of the policies.
type policy struct {
	services  []*service
	matcher   *matcher
	revision  string
	options   []opa.EvalOption
	limit     time.Duration
	deadlines deadlines
}

// New reads and compiles the policies. It returns every error it finds, each
// with its place.
func New(ctx context.Context, env plugin.Env, config Config) (plugin.Policy, error) {
	fsys, room := fs.FS(policies.Files), "policies"
	if config.Dir != "" {
		fsys, room = os.DirFS(config.Dir), config.Dir
	}
	p, errs := load(ctx, fsys, room, config.Deadline)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	env.Log.Info("policies loaded", "room", room, "revision", p.revision, "services", len(p.services))
	return p, nil
}

// load makes a policy of a directory. A mistake found early hides those that
// only later steps can see.
func load(ctx context.Context, fsys fs.FS, room string, limit time.Duration) (*policy, []error) {
	language, err := newLanguage()
	if err != nil {
		return nil, []error{err}
	}
	source, errs := readSource(fsys, room)
	modules, parseErrs := language.parse(source.policies)
	declared, declareErrs := declarations(modules)
	if errs = slices.Concat(errs, parseErrs, declareErrs); len(parseErrs) > 0 {
		return nil, errs // half a policy would compile to errors of its own
	}
	compiled, compileErrs := language.compile(ctx, modules, source.data)
	if errs = append(errs, compileErrs...); len(errs) > 0 {
		return nil, errs
	}
	ready, errs := prepareAll(ctx, declared, compiled)
	matcher, conflicts := buildMatcher(ready)
	if errs = append(errs, conflicts...); len(errs) > 0 {
		return nil, errs
	}
	return &policy{
		services: ready, matcher: matcher, revision: source.revision,
		options: compiled.options, limit: limit,
	}, nil
}

// prepareAll returns the services, ready for use.
func prepareAll(ctx context.Context, declared []*declaration, c *compiled) (ready []*service, errs []error) {
	ctx, cancel := context.WithTimeout(ctx, matchDeadline)
	defer cancel()
	if len(declared) == 0 {
		return nil, []error{errors.New("no service: expected a package imgate.services.NAME")}
	}
	for _, d := range declared {
		s, err := d.prepare(ctx, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ready = append(ready, s)
	}
	return ready, errs
}

// Decide makes the plan of the service that matches the recipient. Plans share
// what is the same in all of them: nobody may change a list or a table in one.
func (p *policy) Decide(ctx context.Context, q plugin.Question) (plugin.Plan, error) {
	if err := ctx.Err(); err != nil {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "not decided: %w", err)
	}
	s := p.matcher.service(q.Recipient)
	if s == nil {
		return plugin.Plan{}, unmatched(q.Recipient)
	}
	plan, err := p.recall(ctx, s, &q)
	if err != nil {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "service %q: %w", s.name, err)
	}
	plan.Service, plan.Revision = s.name, p.revision
	return plan.WithDefaults(), nil
}

// unmatched is for a recipient whom no service matches. If it is one of ours,
// the operator has forgotten something: the message may come again. Anybody
// else is simply nobody we know, and no fault of the policies: else each
// subscriber could raise an alarm with an address of their choice.
func unmatched(r plugin.QuestionRecipient) *message.Failure {
	if r.Local {
		return message.FailForNow(message.PolicyFailed, "no service matches domain %q", r.Domain)
	}
	return message.Fail(message.UnknownRecipient, "not one of ours, and no service matches domain %q", r.Domain)
}

// recall makes a service's plan, unless it made the same before.
func (p *policy) recall(ctx context.Context, s *service, q *plugin.Question) (plugin.Plan, error) {
	if s.memo == nil {
		return p.plan(ctx, s, q)
	}
	situation := s.memo.situation(q)
	if plan, ok := s.memo.recall(situation); ok {
		return plan, nil
	}
	plan, err := p.plan(ctx, s, q)
	if err == nil {
		s.memo.remember(situation, plan)
	}
	return plan, err
}

// plan makes a service's plan within the limit. One that takes longer gets a
// second chance: on a machine that is busy it may have waited most of the time.
func (p *policy) plan(ctx context.Context, s *service, q *plugin.Question) (plugin.Plan, error) {
	document := input(q)
	plan, err := p.evaluate(ctx, s, document)
	if topdown.IsCancel(err) && ctx.Err() == nil {
		plan, err = p.evaluate(ctx, s, document)
	}
	switch {
	case topdown.IsCancel(err) && ctx.Err() != nil:
		err = ctx.Err()
	case topdown.IsCancel(err):
		err = fmt.Errorf("no plan within %s, twice", p.limit)
	}
	return plan, err
}

// evaluate makes a plan within the limit. A fault in OPA costs one message.
func (p *policy) evaluate(ctx context.Context, s *service, document ast.Value) (plan plugin.Plan, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			plan, err = plugin.Plan{}, fmt.Errorf("evaluation panicked: %v", fault)
		}
	}()
	d := p.deadlines.start(ctx, p.limit)
	defer p.deadlines.stop(d)
	return s.plan(ctx, append(p.options, opa.EvalParsedInput(document), opa.EvalExternalCancel(d)))
}

// Close has nothing to do: all that a policy holds is memory.
func (p *policy) Close() error { return nil }

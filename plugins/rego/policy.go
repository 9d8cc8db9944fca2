package rego

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// policy decides by one revision of the policies.
type policy struct {
	services  []*service
	matcher   *matcher
	revision  string
	options   []opa.EvalOption
	limit     time.Duration
	deadlines deadlines
	compiled  *compiled // for explanations
	doubts    []string
}

// environment is what is known of the node that the policies are for.
type environment struct {
	transports []string // the names that a plan may deliver through; nil: unknown
}

// load makes a policy of a directory. A mistake found early hides those that
// only later steps can see.
func load(ctx context.Context, s source, limit time.Duration, env environment) (*policy, []error) {
	language, err := newLanguage()
	if err != nil {
		return nil, []error{err}
	}
	modules, parseErrs := language.parse(s.policies)
	declared, declareErrs := declarations(modules)
	errs := slices.Concat(parseErrs, declareErrs, rowsReadAsData(modules))
	if len(parseErrs) > 0 {
		return nil, errs // half a policy would compile to errors of its own
	}
	compiled, compileErrs := language.compile(ctx, modules, s.data)
	if errs = append(errs, compileErrs...); len(errs) > 0 {
		return nil, errs
	}
	ready, errs := prepareAll(ctx, declared, compiled)
	if len(errs) > 0 {
		return nil, errs // rows would name services that are wrong, and not missing
	}
	matcher, errs := buildMatcher(ready, allRows(ready, s.rows))
	if errs = append(errs, unmatchable(ready, matcher)...); len(errs) > 0 {
		return nil, errs
	}
	return &policy{
		services: ready, matcher: matcher, revision: s.revision,
		options: compiled.options, limit: limit,
		compiled: compiled, doubts: strangeTransports(declared, env),
	}, nil
}

// rowsReadAsData reports where policies look for the rows in the data document.
func rowsReadAsData(modules map[string]*ast.Module) (errs []error) {
	rows := ast.DefaultRootRef.Append(ast.StringTerm(domainsName))
	for _, path := range sortedKeys(modules) {
		ast.WalkRefs(modules[path], func(r ast.Ref) bool {
			if r.HasPrefix(rows) {
				errs = append(errs, fmt.Errorf("%s: data.%s is not there for policies: the row that matched is input.match, and its attributes input.match.attributes", position(r[0].Location), domainsName))
			}
			return false
		})
	}
	return errs
}

// allRows returns the rows of the packages, and those of the data files.
func allRows(services []*service, data []row) []row {
	var rows []row
	for _, s := range services {
		rows = append(rows, s.rows...)
	}
	return append(rows, data...)
}

// unmatchable reports services that nothing leads to. m is nil if that can't be
// known.
func unmatchable(services []*service, m *matcher) []error {
	if m == nil {
		return nil
	}
	used := map[*service]bool{}
	for _, c := range m.claims {
		used[c.service] = true
	}
	var errs []error
	for _, s := range services {
		if !used[s] && len(s.rows) == 0 {
			errs = append(errs, fmt.Errorf("service %q has no match, and no row of a data file names it: expected %s", s.name, documents["match"]))
		}
	}
	return errs
}

// strangeTransports reports transports that plans name and that this node
// doesn't have.
func strangeTransports(declared []*declaration, env environment) (doubts []string) {
	if env.transports == nil {
		return nil
	}
	for _, d := range declared {
		for _, first := range d.plan {
			for rule := first; rule != nil; rule = rule.Else {
				doubts = append(doubts, env.strangeIn(rule)...)
			}
		}
	}
	return doubts
}

func (e environment) strangeIn(rule *ast.Rule) (doubts []string) {
	var plan plugin.Plan
	if constantPart(rule.Head, &plan) != nil {
		return nil
	}
	for _, name := range slices.Concat(plan.Transports, plan.Fallback.Transports) {
		if !slices.Contains(e.transports, name) {
			doubts = append(doubts, fmt.Sprintf("%s: there is no transport %q here, there are %s", position(rule.Location), name, words(e.transports)))
		}
	}
	return doubts
}

// prepareAll returns the services, ready for use.
func prepareAll(ctx context.Context, declared []*declaration, c *compiled) (ready []*service, errs []error) {
	ctx, cancel := context.WithTimeout(ctx, matchDeadline)
	defer cancel()
	if len(declared) == 0 {
		return nil, []error{errors.New("no service: expected a package imgate.services.NAME")}
	}
	for _, d := range declared {
		s, wrong := d.prepare(ctx, c)
		if len(wrong) > 0 {
			errs = append(errs, wrong...)
			continue
		}
		ready = append(ready, s)
	}
	return ready, errs
}

// Decide makes the plan of the service that matches the recipient. Plans share
// what is the same in all of them: nobody may change a list or a table in one.
func (p *policy) Decide(ctx context.Context, q plugin.Question, more plugin.Supply) (plugin.Plan, error) {
	if err := ctx.Err(); err != nil {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "not decided: %w", err)
	}
	m := matter{Question: &q, claim: p.matcher.find(&q.Recipient)}
	if m.claim == nil {
		return plugin.Plan{}, unmatched(q.Recipient)
	}
	s := m.claim.service
	limits := s.supply(&m, more)
	plan, err := p.recall(ctx, s, &m)
	if err != nil {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "service %q: %w", s.name, err)
	}
	plan.Service, plan.Revision, plan.Limits = s.name, p.revision, limits
	return plan, nil
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
func (p *policy) recall(ctx context.Context, s *service, m *matter) (plugin.Plan, error) {
	if s.memo == nil {
		return p.plan(ctx, s, m)
	}
	situation := s.memo.situation(m)
	if plan, ok := s.memo.recall(situation); ok {
		return plan, nil
	}
	plan, err := p.plan(ctx, s, m)
	if err == nil {
		s.memo.remember(situation, plan)
	}
	return plan, err
}

// plan makes a service's plan within the limit. One that takes longer gets a
// second chance: on a machine that is busy it may have waited most of the time.
func (p *policy) plan(ctx context.Context, s *service, m *matter) (plugin.Plan, error) {
	if s.query == nil {
		return s.constant, nil
	}
	document := s.document.input(m)
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

// warnings is what will work, and not as it might be expected to.
func (p *policy) warnings() []string { return p.doubts }

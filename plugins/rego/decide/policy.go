// Package decide makes plans: it compiles policies with OPA, in a language that is
// bounded, evaluates them for one question after the other, and reads what they
// say. The ways of a policy:
//
//   - Load: compile.go and bounds.go (what policies may call), weight.go and
//     weigh.go (what compiling them may take), service.go and limits.go (what a
//     package says once and for all), planner.go (what is left for each message),
//     nearly.go (what was probably meant).
//   - Policy.Decide: input.go (the document input), memo.go (plans that needn't be
//     made again), workers.go and deadline.go (how long it may take), guard.go and
//     split.go (how large a step may be), decode.go and plan.go (from a document to
//     a plan).
//   - Policy.Explain: the same for people; fault.go puts OPA's errors into their words.
//
// It must not know where policies come from, nor what is done with a plan.
package decide

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/match"
	"github.com/imgate/imgate/plugins/rego/source"
)

// Policy decides by one revision of the policies.
type Policy struct {
	services []*service
	matcher  *match.Matcher
	Revision string
	options  []opa.EvalOption
	limit    time.Duration
	workers  *Workers
	compiled *Compiled // for explanations
	doubts   []string
}

// Environment is what a source knows of the node that the policies are for.
type Environment struct {
	Transports []string // the names that a plan may deliver through; nil: unknown
	Workers    *Workers // who evaluate them; nil: some of their own
}

func (e Environment) crew() *Workers {
	if e.Workers == nil {
		return NewWorkers()
	}
	return e.Workers
}

// Load makes a policy of a directory. A mistake found early hides those that
// only later steps can see.
func Load(ctx context.Context, s source.Source, limit time.Duration, env Environment) (*Policy, []error) {
	language, err := NewLanguage()
	if err != nil {
		return nil, []error{err}
	}
	modules, parseErrs := language.Parse(s.Policies)
	declared, declareErrs := declarations(modules)
	errs := slices.Concat(parseErrs, declareErrs, rowsReadAsData(modules))
	if len(parseErrs) > 0 {
		return nil, errs // half a policy would compile to errors of its own
	}
	compiled, compileErrs := language.compile(ctx, modules, s.Data)
	if errs = append(errs, compileErrs...); len(errs) > 0 {
		return nil, errs
	}
	stray := strayPlans(modules, compiled)
	if len(declared) == 0 {
		return nil, noService(stray)
	}
	ready, errs := prepareAll(ctx, declared, compiled)
	if len(errs) > 0 {
		return nil, errs // rows would name services that are wrong, and not missing
	}
	p := &Policy{
		services: ready, Revision: s.Revision,
		options: compiled.options, limit: limit, workers: env.crew(),
		compiled: compiled, doubts: slices.Concat(strangeTransports(declared, env), nearlyDocuments(declared, compiled), stray),
	}
	if p.matcher, errs = match.Build(p.ServiceNames(), allRows(ready, s.Rows)); len(errs) > 0 {
		return nil, errs // a row that is wrong may be the one that a service lacks
	}
	if errs = unmatchable(ready, p.matcher); len(errs) > 0 {
		return nil, errs
	}
	return p, nil
}

// rowsReadAsData reports where policies look for the rows in the data document.
func rowsReadAsData(modules map[string]*ast.Module) (errs []error) {
	rows := ast.DefaultRootRef.Append(ast.StringTerm(source.DomainsName))
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		ast.WalkRefs(modules[path], func(r ast.Ref) bool {
			if r.HasPrefix(rows) {
				errs = append(errs, fmt.Errorf("%s: data.%s is not there for policies: the row that matched is input.match, and its attributes input.match.attributes", Position(r[0].Location), source.DomainsName))
			}
			return false
		})
	}
	return errs
}

// allRows returns the rows of the packages, and those of the data files.
func allRows(services []*service, data []match.Row) []match.Row {
	var rows []match.Row
	for _, s := range services {
		rows = append(rows, s.rows...)
	}
	return append(rows, data...)
}

// unmatchable reports services that nothing leads to.
func unmatchable(services []*service, m *match.Matcher) []error {
	used := make([]bool, len(services))
	for _, c := range m.Claims {
		used[c.Number] = true
	}
	var errs []error
	for i, s := range services {
		if !used[i] && len(s.rows) == 0 {
			errs = append(errs, fmt.Errorf("%s: service %q has no match, and no row of a data file names it: expected %s", s.place, s.name, documents["match"]))
		}
	}
	return errs
}

// strangeTransports reports lists of transports of which this node has none, and
// names that are nearly one that it has. Else a list may name what other nodes
// have: what isn't here is passed over.
func strangeTransports(declared []*declaration, env Environment) (doubts []string) {
	if env.Transports == nil {
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

func (e Environment) strangeIn(rule *ast.Rule) (doubts []string) {
	var plan plugin.Plan
	if constantPart(rule.Head, &plan) != nil {
		return nil
	}
	for _, list := range [][]string{plan.Transports, plan.Fallback.Transports} {
		someHere := slices.ContainsFunc(list, e.has)
		for _, name := range list {
			if !e.has(name) && (!someHere || e.nearlyHas(name)) {
				doubts = append(doubts, fmt.Sprintf("%s: there is no transport %q here, there are %s", Position(rule.Location), name, words(e.Transports)))
			}
		}
	}
	return doubts
}

func (e Environment) has(transport string) bool { return slices.Contains(e.Transports, transport) }

// nearlyHas tells whether a name may be a slip of a transport's.
func (e Environment) nearlyHas(name string) bool {
	return slices.ContainsFunc(e.Transports, func(transport string) bool {
		return levenshtein.ComputeDistance(name, transport) <= min(farthest, len(name)/2)
	})
}

// noService reports the packages that were probably meant to be one.
func noService(stray []string) []error {
	if len(stray) == 0 {
		return []error{errors.New("no service: expected a package imgate.services.NAME")}
	}
	errs := make([]error, len(stray))
	for i, doubt := range stray {
		errs[i] = errors.New(doubt)
	}
	return errs
}

// prepareAll returns the services, ready for use.
func prepareAll(ctx context.Context, declared []*declaration, c *Compiled) (ready []*service, errs []error) {
	ctx, cancel := context.WithTimeoutCause(ctx, matchDeadline, fmt.Errorf("not done within %s", matchDeadline))
	defer cancel()
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
func (p *Policy) Decide(ctx context.Context, q plugin.Question, more plugin.Supply) (plugin.Plan, error) {
	if err := ctx.Err(); err != nil {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "not decided: %w", err)
	}
	m := matter{Question: &q, claim: p.matcher.Find(&q.Recipient)}
	if m.claim == nil {
		return plugin.Plan{}, unmatched(q.Recipient)
	}
	s := p.services[m.claim.Number]
	limits := s.supply(&m, more)
	plan, err := p.recall(ctx, s, &m)
	if err != nil {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "service %q: %w", s.name, err)
	}
	plan.Service, plan.Revision, plan.Limits = s.name, p.Revision, limits
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
func (p *Policy) recall(ctx context.Context, s *service, m *matter) (plugin.Plan, error) {
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

// plan makes a service's plan.
func (p *Policy) plan(ctx context.Context, s *service, m *matter) (plugin.Plan, error) {
	if s.query == nil {
		return s.constant, nil
	}
	return p.workers.do(task{ctx: ctx, service: s, document: s.document.input(m), options: p.options, limit: p.limit})
}

// ServiceNames returns the names of the services, in order.
func (p *Policy) ServiceNames() []string {
	names := make([]string, len(p.services))
	for i, s := range p.services {
		names[i] = s.name
	}
	return names
}

// Candidates is match.Matcher's.
func (p *Policy) Candidates(r plugin.QuestionRecipient) []match.Candidate {
	return p.matcher.Candidates(r)
}

// Warnings is what will work, and not as it might be expected to.
func (p *Policy) Warnings() []string { return p.doubts }

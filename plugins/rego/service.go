package rego

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// services is the package that domain service policies are in.
var services = ast.MustParseRef("data.imgate.services")

// serviceName is what a service may be called; reports and metrics show it.
var serviceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)

const (
	// matchDeadline is for all the matches of a policy: a match may go through
	// a data file of many thousand domains.
	matchDeadline = 10 * time.Second
	maxPriority   = 1_000_000
)

// service is a domain service policy, ready for use.
type service struct {
	name  string
	match match
	*planner
}

// match says which messages a service decides about.
type match struct {
	at       string // file:line
	domains  []domainPattern
	prefixes []string // without "+"; at least one, which may be ""
	priority int
}

// declaration is a service as its files have it.
type declaration struct {
	name  string
	match []*ast.Rule
	plan  []*ast.Rule
}

// declarations finds the services and checks the heads of their rules: a name
// that a plan doesn't have is noticed here, and not by the first message.
func declarations(modules map[string]*ast.Module) ([]*declaration, []error) {
	found := map[string]*declaration{}
	var errs []error
	for _, file := range slices.Sorted(maps.Keys(modules)) {
		module := modules[file]
		name, ours, err := packageName(module.Package)
		if err != nil {
			errs = append(errs, err)
		}
		if !ours || err != nil {
			continue
		}
		if found[name] == nil {
			found[name] = &declaration{name: name}
		}
		for _, rule := range module.Rules {
			errs = append(errs, found[name].add(rule)...)
		}
	}
	var all []*declaration
	for _, name := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[name])
		errs = append(errs, found[name].check()...)
	}
	return all, errs
}

// packageName returns the name of the service that a package is. Packages
// outside imgate are the operator's own libraries.
func packageName(p *ast.Package) (name string, ours bool, err error) {
	if len(p.Path) < 2 || p.Path[1].Value.Compare(ast.String(reserved)) != 0 {
		return "", false, nil
	}
	if len(p.Path) == len(services)+1 && p.Path.HasPrefix(services) {
		if s, ok := p.Path[len(services)].Value.(ast.String); ok && serviceName.MatchString(string(s)) {
			return string(s), true, nil
		}
	}
	return "", true, fmt.Errorf("%s: expected package imgate.services.NAME, or a package outside imgate; a NAME is a letter, then letters, digits, _ and -", position(p.Location))
}

// add takes a rule of the service's package.
func (d *declaration) add(rule *ast.Rule) []error {
	switch rule.Head.Ref()[0].Value {
	case ast.Var("match"):
		d.match = append(d.match, rule)
	case ast.Var("plan"):
		d.plan = append(d.plan, rule)
		return checkPlanRules(rule)
	}
	return nil // the operator's own
}

// check wants one match, as one document, and a plan.
func (d *declaration) check() []error {
	var errs []error
	if len(d.plan) == 0 {
		errs = append(errs, fmt.Errorf(`service %q has no plan: expected rules such as plan.processing := "deliver"`, d.name))
	}
	switch len(d.match) {
	case 0:
		errs = append(errs, fmt.Errorf(`service %q has no match: expected match := {"domains": ["*"], "prefixes": [], "priority": 0}`, d.name))
	case 1:
		errs = append(errs, checkMatchRule(d.match[0])...)
	default:
		first, second := d.match[0].Location, d.match[1].Location
		errs = append(errs, fmt.Errorf("%s: service %q has a match already, at %s: expected one", position(second), d.name, position(first)))
	}
	return errs
}

func checkMatchRule(rule *ast.Rule) []error {
	head := rule.Head
	if len(head.Ref()) > 1 || len(head.Args) > 0 || head.RuleKind() == ast.MultiValue || rule.Default || rule.Else != nil {
		return []error{fmt.Errorf(`%s: expected one document, match := {"domains": …, "prefixes": …, "priority": …}`, position(rule.Location))}
	}
	return nil
}

// prepare evaluates what is the same for each message and prepares the rest.
func (d *declaration) prepare(ctx context.Context, c *compiled) (*service, error) {
	s := &service{name: d.name}
	var err error
	if s.match, err = d.evaluateMatch(ctx, c); err != nil {
		return nil, fmt.Errorf("%s: %w", position(d.match[0].Location), err)
	}
	if s.planner, err = d.newPlanner(ctx, c); err != nil {
		return nil, err
	}
	return s, nil
}

func (d *declaration) ref(rule string) ast.Ref {
	return services.Append(ast.StringTerm(d.name)).Append(ast.StringTerm(rule))
}

func (d *declaration) evaluateMatch(ctx context.Context, c *compiled) (match, error) {
	ref := d.ref("match")
	if l := c.inputOf(ref); l != nil {
		return match{}, fmt.Errorf("match: expected a document that is the same for each message, %s reads the input", position(l))
	}
	value, err := c.constant(ctx, ref)
	if err != nil {
		return match{}, fmt.Errorf("match: %w", err)
	}
	if value == nil {
		return match{}, errors.New("match: expected a document, it is undefined")
	}
	m := match{at: position(d.match[0].Location)}
	if err := matchAttributes.decode(value, &m); err != nil {
		return match{}, at("match", err)
	}
	if err := m.complete(); err != nil {
		return match{}, err
	}
	return m, nil
}

var matchAttributes = attributes[match]{
	"domains": func(m *match, v ast.Value) (err error) {
		m.domains, err = list(v, maxRows, func(v ast.Value) (domainPattern, error) { return parseText(v, parseDomain) })
		return err
	},
	"prefixes": func(m *match, v ast.Value) (err error) {
		m.prefixes, err = list(v, maxRows, func(v ast.Value) (string, error) { return parseText(v, parsePrefix) })
		return err
	},
	"priority": func(m *match, v ast.Value) (err error) {
		m.priority, err = integer(v, -maxPriority, maxPriority)
		return err
	},
}

func parseText[T any](v ast.Value, parse func(string) (T, error)) (T, error) {
	s, ok := v.(ast.String)
	if !ok {
		var none T
		return none, unexpected("text", v)
	}
	return parse(string(s))
}

// complete fills in what the document left out: any domain for a service with
// prefixes, any number or none for one with domains.
func (m *match) complete() error {
	if len(m.domains) == 0 && len(m.prefixes) == 0 {
		return errors.New(`match: expected domains, prefixes or both; "domains": ["*"] takes everything`)
	}
	if len(m.domains) == 0 {
		m.domains = []domainPattern{{kind: anyPattern, text: "*"}}
	}
	if len(m.prefixes) == 0 {
		m.prefixes = []string{""}
	}
	return nil
}

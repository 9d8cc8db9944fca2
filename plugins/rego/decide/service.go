package decide

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/match"
	"github.com/imgate/imgate/plugins/rego/source"
)

// services is the package that domain service policies are in.
var services = ast.MustParseRef("data.imgate.services")

// matchDeadline is for all the matches of a policy: a match may go through a data
// file of many thousand domains.
const matchDeadline = 10 * time.Second

// service is a domain service policy, ready for use.
type service struct {
	name   string
	place  string      // of its package
	rows   []match.Row // of its match
	limits []limit     // in the order of their names
	asks   bool        // for the text
	text   bool        // reads it, too
	*planner
}

// matchDocument says which messages a service decides about.
type matchDocument struct {
	domains  []match.DomainPattern
	prefixes []string // without "+"
	priority int
}

// declaration is a service as its files have it.
type declaration struct {
	name      string
	place     string                 // of its package, in the first file
	documents map[string][]*ast.Rule // that are the same for each message
	plan      []*ast.Rule
	own       map[string]*ast.Rule // what else the package has: the first rule of each name
}

// documents are those that a service may have besides its plan, and how one
// looks.
var documents = map[string]string{
	"match":  `match := {"domains": ["*"], "prefixes": [], "priority": 0}`,
	"asks":   `asks := ["text"]`,
	"limits": `limits := {"per_sender": {"key": "sender.account", "count": 10, "per": "1m"}}`,
}

// askable is what a service may ask for.
var askable = []string{"text"}

// declarations finds the services and checks the heads of their rules: a name
// that a plan doesn't have is noticed here, and not by the first message.
func declarations(modules map[string]*ast.Module) ([]*declaration, []error) {
	found := map[string]*declaration{}
	var errs []error
	for _, file := range slices.Sorted(maps.Keys(modules)) {
		module := modules[file]
		name, ours, err := PackageName(module.Package)
		if err != nil {
			errs = append(errs, err)
		}
		if !ours || err != nil {
			continue
		}
		if found[name] == nil {
			found[name] = &declaration{name: name, place: Position(module.Package.Location), documents: map[string][]*ast.Rule{}, own: map[string]*ast.Rule{}}
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

// PackageName returns the name of the service that a package is. Packages
// outside imgate are the operator's own libraries.
func PackageName(p *ast.Package) (name string, ours bool, err error) {
	if len(p.Path) < 2 || p.Path[1].Value.Compare(ast.String(source.Reserved)) != 0 {
		return "", false, nil
	}
	if len(p.Path) == len(services)+1 && p.Path.HasPrefix(services) {
		if s, ok := p.Path[len(services)].Value.(ast.String); ok && match.ServiceName.MatchString(string(s)) {
			return string(s), true, nil
		}
	}
	return "", true, fmt.Errorf("%s: expected package imgate.services.NAME, or a package outside imgate; a NAME is a letter, then letters, digits, _ and -", Position(p.Location))
}

// add takes a rule of the service's package.
func (d *declaration) add(rule *ast.Rule) []error {
	name, _ := rule.Head.Ref()[0].Value.(ast.Var)
	if name == "plan" {
		d.plan = append(d.plan, rule)
		return checkPlanRules(rule)
	}
	if _, ours := documents[string(name)]; ours {
		d.documents[string(name)] = append(d.documents[string(name)], rule)
	} else if d.own[string(name)] == nil {
		d.own[string(name)] = rule
	}
	return nil
}

// check wants a plan, and each document at most once and in one piece.
func (d *declaration) check() []error {
	var errs []error
	if len(d.plan) == 0 {
		errs = append(errs, fmt.Errorf(`%s: service %q has no plan: expected rules such as plan.processing := "deliver"`, d.place, d.name))
	}
	for _, name := range slices.Sorted(maps.Keys(d.documents)) {
		rules := d.documents[name]
		if len(rules) > 1 {
			first, second := rules[0].Location, rules[1].Location
			errs = append(errs, fmt.Errorf("%s: service %q has %s already, at %s: expected it once", Position(second), d.name, name, Position(first)))
			continue
		}
		errs = append(errs, checkDocumentRule(name, rules[0])...)
	}
	return errs
}

func checkDocumentRule(name string, rule *ast.Rule) []error {
	head := rule.Head
	if len(head.Ref()) > 1 || len(head.Args) > 0 || head.RuleKind() == ast.MultiValue || rule.Default || rule.Else != nil {
		return []error{fmt.Errorf("%s: expected one document, %s", Position(rule.Location), documents[name])}
	}
	return nil
}

// prepare evaluates what is the same for each message and prepares the rest.
func (d *declaration) prepare(ctx context.Context, c *Compiled) (*service, []error) {
	s := &service{name: d.name, place: d.place}
	errs := slices.Concat(
		d.evaluate(ctx, c, "match", func(v ast.Value) (err error) { s.rows, err = d.matchRows(v); return err }),
		d.evaluate(ctx, c, "limits", func(v ast.Value) (err error) { s.limits, err = decodeLimits(d.name, v); return err }),
		d.evaluate(ctx, c, "asks", func(v ast.Value) error {
			asked, err := list(len(askable), `["text"]`, oneOf(askable))(v)
			s.asks = len(asked) > 0
			return err
		}),
	)
	if len(errs) > 0 {
		return nil, errs
	}
	if errs := d.checkReads(c, s); len(errs) > 0 {
		return nil, errs
	}
	var err error
	if s.planner, err = d.newPlanner(ctx, c); err != nil {
		return nil, []error{err}
	}
	s.text = s.asks && s.reads("message.text")
	for i := range s.limits {
		s.limits[i].read = s.reads("counters." + s.limits[i].Name)
	}
	return s, nil
}

func (d *declaration) ref(rule string) ast.Ref {
	return services.Append(ast.StringTerm(d.name)).Append(ast.StringTerm(rule))
}

// evaluate reads a document that is the same for each message, if the service
// has it.
func (d *declaration) evaluate(ctx context.Context, c *Compiled, name string, read func(ast.Value) error) []error {
	rules := d.documents[name]
	if len(rules) == 0 {
		return nil
	}
	value, err := d.constant(ctx, c, name)
	if err == nil {
		err = read(value)
	}
	if err != nil {
		return []error{placed(rules[0].Location, err, func(err error) error { return at(name, err) })}
	}
	return nil
}

func (d *declaration) constant(ctx context.Context, c *Compiled, name string) (ast.Value, error) {
	if l := c.InputOf(d.ref(name)); l != nil {
		return nil, fmt.Errorf("expected a document that is the same for each message, %s reads the input", Position(l))
	}
	value, err := c.constant(ctx, d.ref(name))
	if err == nil && value == nil {
		err = errors.New("expected a document, it is undefined")
	}
	return value, err
}

// matchRows returns the rows that a match stands for.
func (d *declaration) matchRows(v ast.Value) ([]match.Row, error) {
	var m matchDocument
	if err := matchAttributes.decode(v, &m); err != nil {
		return nil, err
	}
	if len(m.domains) == 0 && len(m.prefixes) == 0 {
		return nil, errNoMatch
	}
	if len(m.domains) == 0 {
		m.domains = []match.DomainPattern{{Kind: match.AnyPattern, Text: "*"}}
	}
	if len(m.prefixes) == 0 {
		m.prefixes = match.AnyNumber
	}
	place := Position(d.documents["match"][0].Location)
	rows := make([]match.Row, len(m.domains))
	for i, domain := range m.domains {
		rows[i] = match.Row{
			Service: d.name, Domain: domain, Prefixes: m.prefixes, Priority: m.priority,
			Attributes: match.NoAttributes, Place: place,
		}
	}
	return rows, nil
}

var errNoMatch = errors.New(`expected domains, prefixes or both; "domains": ["*"] takes everything`)

var matchAttributes = attributes[matchDocument]{
	"domains":  valueOf(func(m *matchDocument) *[]match.DomainPattern { return &m.domains }, list(match.MaxRows, `["sip.example.com"]`, parsed(match.ParseDomain))),
	"prefixes": valueOf(func(m *matchDocument) *[]string { return &m.prefixes }, list(match.MaxRows, `["4420"]`, parsed(match.ParsePrefix))),
	"priority": valueOf(func(m *matchDocument) *int { return &m.priority }, integer(-match.MaxPriority, match.MaxPriority)),
}

// parsed reads text that has a syntax.
func parsed[T any](parse func(string) (T, error)) func(ast.Value) (T, error) {
	return func(v ast.Value) (T, error) {
		s, ok := v.(ast.String)
		if !ok {
			var none T
			return none, unexpected("text", v)
		}
		return parse(string(s))
	}
}

// checkReads wants the plan to read only those counters that the service
// declares, and the text only if it asks for it.
func (d *declaration) checkReads(c *Compiled, s *service) []error {
	var errs []error
	c.walkInput(d.ref("plan"), func(rule *ast.Rule, read ast.Ref) {
		if err := s.checkRead(inputPath(read)); err != nil {
			errs = append(errs, fmt.Errorf("%s: input.%s: %w", Position(cmp.Or(read[0].Location, rule.Location)), inputPath(read), err))
		}
	})
	return errs
}

func (s *service) checkRead(path string) error {
	if within(path, "message.text") && !s.asks {
		return fmt.Errorf("service %q doesn't ask for the text: write %s", s.name, documents["asks"])
	}
	rest, ok := strings.CutPrefix(path, "counters.")
	if !ok {
		return nil
	}
	name, _, _ := strings.Cut(rest, ".")
	if slices.ContainsFunc(s.limits, func(l limit) bool { return l.Name == name }) {
		return nil
	}
	if len(s.limits) == 0 {
		return fmt.Errorf("service %q declares no limits: write %s", s.name, documents["limits"])
	}
	declared := make([]string, len(s.limits))
	for i, l := range s.limits {
		declared[i] = l.Name
	}
	return fmt.Errorf("service %q has no such limit, expected one of %s", s.name, words(declared))
}

// supply fills in what is only for services that want it, and returns the
// limits that the message is counted by.
func (s *service) supply(m *matter, more plugin.Supply) []plugin.Limit {
	m.Message.Text, m.Counters = nil, nil
	if s.text {
		text := more.Text()
		m.Message.Text = &text
	}
	if len(s.limits) == 0 {
		return nil
	}
	m.Counters = make(map[string]int, len(s.limits))
	limits := make([]plugin.Limit, len(s.limits))
	for i := range s.limits {
		limits[i] = s.limits[i].of(m)
		if s.limits[i].read {
			m.Counters[limits[i].Name] = more.Count(limits[i])
		}
	}
	return limits
}

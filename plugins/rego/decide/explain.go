package decide

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/match"
)

const (
	explainLimit = 5 * time.Second // a trace costs ten times what the decision does
	maxSpoken    = 1000            // rules that are remembered of one
)

// Explanation is how a plan came about.
type Explanation struct {
	Plan       plugin.Plan
	Service    string // that decided; empty: none
	Candidates []match.Candidate
	Spoke      []Spoken // in the order of their places
	Default    []string // the attributes of which nobody said anything
}

// Spoken is a rule that had a say: its body was true.
type Spoken struct {
	Place string // file:line
	Rule  string // its name in its package; with the package if it isn't the service's
	Title string // of its METADATA
	Value string // as in Rego
}

// Explain decides, and tells how. It is for people: it takes many times as long
// as Decide. The error is Decide's; what is known all the same is in the
// explanation.
func (p *Policy) Explain(ctx context.Context, q plugin.Question, more plugin.Supply) (Explanation, error) {
	e := Explanation{Candidates: p.Candidates(q.Recipient)}
	plan, failure := p.Decide(ctx, q, more)
	e.Plan = plan
	m := matter{Question: &q, claim: p.matcher.Find(&q.Recipient)}
	if m.claim == nil {
		return e, failure
	}
	s := p.services[m.claim.Number]
	e.Service = s.name
	s.supply(&m, more)
	w := &witness{service: services.Append(ast.StringTerm(s.name)), annotations: p.compiled.Compiler.GetAnnotationSet()}
	value, err := p.trace(ctx, w, &m)
	e.Spoke = w.spoke()
	if err == nil {
		e.Default = unsaid(value)
	}
	return e, cmp.Or(failure, err)
}

// trace evaluates the whole plan while a witness looks on.
func (p *Policy) trace(ctx context.Context, w *witness, m *matter) (value ast.Value, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("evaluation panicked: %v", fault)
		}
	}()
	query, err := p.compiled.prepare(ctx, w.service.Append(ast.StringTerm("plan")).String())
	if err != nil {
		return nil, err
	}
	d := &deadline{}
	d.start(ctx, explainLimit)
	defer d.stop()
	return evaluate(ctx, query, append(p.options,
		opa.EvalParsedInput(wholeInput.input(m)), opa.EvalExternalCancel(d), opa.EvalQueryTracer(w)))
}

// unsaid returns the attributes that a plan's document doesn't have.
func unsaid(value ast.Value) (names []string) {
	said, _ := value.(ast.Object)
	for _, name := range slices.Sorted(maps.Keys(planAttributes)) {
		var of *ast.Term
		if said != nil {
			of = said.Get(ast.StringTerm(name))
		}
		if of == nil {
			names = append(names, name)
			continue
		}
		for _, part := range planAttributes[name].parts {
			if of.Get(ast.StringTerm(part)) == nil {
				names = append(names, name+"."+part)
			}
		}
	}
	return names
}

// witness notes the rules whose bodies are true. It is a topdown.QueryTracer.
type witness struct {
	service     ast.Ref
	annotations *ast.AnnotationSet
	heard       []testimony
}

type testimony struct {
	Spoken
	location *ast.Location
}

// Enabled is topdown.QueryTracer.
func (w *witness) Enabled() bool { return len(w.heard) < maxSpoken }

// Config is topdown.QueryTracer.
func (w *witness) Config() topdown.TraceConfig { return topdown.TraceConfig{PlugLocalVars: true} }

// TraceEvent is topdown.QueryTracer.
func (w *witness) TraceEvent(e topdown.Event) {
	rule, ok := e.Node.(*ast.Rule)
	if !ok || e.Op != topdown.ExitOp || len(w.heard) >= maxSpoken {
		return
	}
	said := Spoken{
		Place: Position(rule.Location),
		Rule:  w.name(rule, e.Locals),
		Title: w.title(rule),
	}
	if rule.Head.Value != nil {
		said.Value = plugged(ast.NewTerm(rule.Head.Value.Value), e.Locals).String()
	}
	w.heard = append(w.heard, testimony{said, rule.Location})
}

// name is what a rule is called in its own package, or from elsewhere.
func (w *witness) name(rule *ast.Rule, locals *ast.ValueMap) string {
	head := plugged(ast.NewTerm(rule.Head.Ref()), locals).String()
	of := rule.Module.Package.Path
	if rule.Head.Key != nil && rule.Head.RuleKind() == ast.MultiValue {
		head += " contains " + plugged(rule.Head.Key, locals).String()
	}
	if of.Equal(w.service) {
		return head
	}
	return of.String() + "." + head
}

// title returns the title of a rule's METADATA, or of all rules of its name.
func (w *witness) title(rule *ast.Rule) string {
	for _, a := range rule.Annotations {
		if a.Title != "" {
			return a.Title
		}
	}
	if a := w.annotations.GetDocumentScope(rule.Ref().GroundPrefix()); a != nil {
		return a.Title
	}
	return ""
}

// plugged returns a term with values in place of its variables.
func plugged(term *ast.Term, locals *ast.ValueMap) *ast.Term {
	if locals == nil || term.IsGround() {
		return term
	}
	filled, err := ast.TransformVars(term.Copy(), func(v ast.Var) (ast.Value, error) {
		if value := locals.Get(v); value != nil && value.IsGround() {
			return value, nil
		}
		return v, nil
	})
	if value, ok := filled.(ast.Value); ok && err == nil {
		return ast.NewTerm(value)
	}
	return term
}

// spoke returns what was heard, in the order of the places, each once.
func (w *witness) spoke() []Spoken {
	slices.SortStableFunc(w.heard, func(a, b testimony) int {
		return cmp.Or(
			strings.Compare(a.location.File, b.location.File),
			cmp.Compare(a.location.Row, b.location.Row),
			strings.Compare(a.Rule, b.Rule),
			strings.Compare(a.Value, b.Value),
		)
	})
	said := make([]Spoken, len(w.heard))
	for i, t := range w.heard {
		said[i] = t.Spoken
	}
	return slices.Compact(said)
}

package rego

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/imgate/imgate/engine/plugin"
)

// planner makes a service's plans. Attributes that don't depend on the message
// are evaluated when the policies are loaded: in most services that is most of
// them, and each would cost 2 µs a message.
type planner struct {
	constant plugin.Plan // shared by all plans, never changed
	// query is what remains for each message: a list with the values of
	// attributes, each in a list of its own that is empty where the attribute
	// is undefined. Nil attributes: the whole plan, in one.
	query      *opa.PreparedEvalQuery // nil: nothing remains
	attributes []string
	memo       *memo // nil: each plan is made anew
}

// newPlanner tells the constant attributes from those that depend on the message.
func (d *declaration) newPlanner(ctx context.Context, c *compiled) (*planner, error) {
	p := &planner{}
	if d.isOneDocument() {
		return p, p.prepare(ctx, c, d.ref("plan"))
	}
	var variable []ast.Ref
	for _, name := range d.attributes() {
		ref := d.ref("plan").Append(ast.StringTerm(name))
		if c.inputOf(ref) != nil {
			p.attributes = append(p.attributes, name)
			variable = append(variable, ref)
			continue
		}
		if err := p.fold(ctx, c, name, ref); err != nil {
			return p, fmt.Errorf("%s: %w", position(d.rule(name).Location), err)
		}
	}
	if len(variable) == 0 {
		return p, nil
	}
	return p, p.prepare(ctx, c, variable...)
}

// isOneDocument tells whether there is a rule plan := {…}.
func (d *declaration) isOneDocument() bool {
	return slices.ContainsFunc(d.plan, func(r *ast.Rule) bool { return len(r.Head.Ref()) == 1 })
}

// attributes returns the names that the plan's rules begin with, once each.
func (d *declaration) attributes() []string {
	var names []string
	for _, rule := range d.plan {
		names = append(names, attributeOf(rule))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// rule returns the first of an attribute's rules.
func (d *declaration) rule(attribute string) *ast.Rule {
	i := slices.IndexFunc(d.plan, func(r *ast.Rule) bool { return attributeOf(r) == attribute })
	return d.plan[i]
}

// attributeOf returns the attribute that a rule is about. checkPlanHead has
// seen that there is one.
func attributeOf(rule *ast.Rule) string { return string(rule.Head.Ref()[1].Value.(ast.String)) }

// fold evaluates an attribute once and for all.
func (p *planner) fold(ctx context.Context, c *compiled, name string, ref ast.Ref) error {
	value, err := c.constant(ctx, ref)
	if err == nil && value != nil {
		err = planAttributes[name](&p.constant, value)
	}
	if err != nil {
		return at("plan", at(name, err))
	}
	return nil
}

// prepare makes the query for what remains.
func (p *planner) prepare(ctx context.Context, c *compiled, refs ...ast.Ref) error {
	values := make([]string, len(refs))
	for i, ref := range refs {
		values[i] = fmt.Sprintf("[value | value := %s]", ref)
	}
	query, err := c.prepare(ctx, "["+strings.Join(values, ", ")+"]")
	p.query = &query
	p.memo = newMemo(c.inputPaths(refs))
	return err
}

// plan makes the plan for a message.
func (p *planner) plan(ctx context.Context, options []opa.EvalOption) (plugin.Plan, error) {
	if p.query == nil {
		return p.constant, nil
	}
	values, err := evaluate(ctx, *p.query, options)
	if err != nil {
		return plugin.Plan{}, err
	}
	if p.attributes == nil {
		return wholePlan(values.(*ast.Array).Elem(0).Value.(*ast.Array))
	}
	plan := p.constant
	for i, name := range p.attributes {
		value := values.(*ast.Array).Elem(i).Value.(*ast.Array)
		if value.Len() == 0 {
			continue
		}
		if err := planAttributes[name](&plan, value.Elem(0).Value); err != nil {
			return plugin.Plan{}, at("plan", at(name, err))
		}
	}
	return plan, nil
}

func wholePlan(value *ast.Array) (plugin.Plan, error) {
	if value.Len() == 0 {
		return plugin.Plan{}, errors.New("plan is undefined")
	}
	return decodePlan(value.Elem(0).Value)
}

// checkPlanRules checks the head of a plan's rule and of what follows else.
func checkPlanRules(rule *ast.Rule) []error {
	var errs []error
	for ; rule != nil; rule = rule.Else {
		if err := checkPlanHead(rule.Head); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", position(rule.Location), err))
		}
	}
	return errs
}

// checkPlanHead refuses what could never be a part of a plan, whatever the message.
func checkPlanHead(head *ast.Head) error {
	if len(head.Args) > 0 {
		return errors.New("plan: expected attributes, not a function")
	}
	if head.RuleKind() == ast.MultiValue {
		return fmt.Errorf("%s: expected a value, not a set, which has no order: write %s := [\"…\"]", head.Ref(), head.Ref())
	}
	path := head.Ref()[1:]
	if !head.Ref().IsGround() || !ast.IsConstant(head.Value.Value) {
		return checkPlanPath(path)
	}
	document := head.Value
	for _, name := range slices.Backward(path) {
		document = ast.ObjectTerm(ast.Item(name, document))
	}
	_, err := decodePlan(document.Value)
	return err
}

// checkPlanPath checks the names of an attribute whose value isn't known yet.
func checkPlanPath(path ast.Ref) error {
	if len(path) == 0 {
		return nil
	}
	attribute, ok := path[0].Value.(ast.String)
	if !ok {
		return fmt.Errorf("plan: expected the name of an attribute, one of %s", planAttributes)
	}
	if planAttributes[string(attribute)] == nil {
		return at("plan", at(string(attribute), planAttributes.unknown()))
	}
	if attribute != "charging" || len(path) == 1 {
		return nil
	}
	part, ok := path[1].Value.(ast.String)
	if !ok || chargingAttributes[string(part)] == nil {
		return at("plan", at("charging", at(path[1].String(), chargingAttributes.unknown())))
	}
	return nil
}

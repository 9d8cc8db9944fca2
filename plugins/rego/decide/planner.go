package decide

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/imgate/imgate/engine/plugin"
)

// planner makes a service's plans, piece by piece. Pieces that don't depend on
// the message are evaluated when the policies are loaded: in most services that
// is most of them, and each would cost 2 µs a message.
type planner struct {
	constant plugin.Plan // shared by all plans, never changed
	// query is what remains for each message: a list with the values of
	// pieces, each in a list of its own that is empty where the piece is
	// undefined. Nil pieces: the whole plan, in one.
	query    *opa.PreparedEvalQuery // nil: nothing remains
	pieces   []piece
	paths    map[string]bool // of the input, that the query reads
	document field           // what the query needs of the input
	memo     *memo           // nil: each plan is made anew
}

// piece is what is evaluated apart: an attribute, or a part of one if all of its
// rules are about parts: plan.charging.mode. Evaluating a whole object costs
// several times as much as its parts.
type piece struct {
	attribute string
	part      string // empty: the whole attribute
}

// set stores the value of a piece in a plan. Its error names the piece.
func (p piece) set(plan *plugin.Plan, v ast.Value) error { return p.wrong(p.store(plan, v)) }

func (p piece) store(plan *plugin.Plan, v ast.Value) error {
	if p.part == "" {
		return planAttributes[p.attribute].set(plan, v)
	}
	return planAttributes[p.attribute].setPart(plan, p.part, v)
}

// wrong puts the name of the piece before what is wrong with its value.
func (p piece) wrong(err error) error {
	if err != nil && p.part != "" {
		err = at(p.part, err)
	}
	if err != nil {
		err = at("plan", at(p.attribute, err))
	}
	return err
}

// below returns the reference to the piece of a plan.
func (p piece) below(plan ast.Ref) ast.Ref {
	ref := plan.Append(ast.StringTerm(p.attribute))
	if p.part != "" {
		ref = ref.Append(ast.StringTerm(p.part))
	}
	return ref
}

// reads tells whether the query looks at a path of the input.
func (p *planner) reads(path string) bool {
	for read := range p.paths {
		if within(path, read) || within(read, path) {
			return true
		}
	}
	return false
}

// newPlanner tells the constant attributes from those that depend on the message.
func (d *declaration) newPlanner(ctx context.Context, c *Compiled) (*planner, error) {
	p := &planner{constant: plugin.DefaultPlan()}
	if d.isOneDocument() {
		return p, p.prepare(ctx, c, d.ref("plan"))
	}
	var variable []ast.Ref
	for _, part := range d.pieces() {
		ref := part.below(d.ref("plan"))
		if c.InputOf(ref) != nil {
			p.pieces = append(p.pieces, part)
			variable = append(variable, ref)
			continue
		}
		if err := p.fold(ctx, c, part, ref); err != nil {
			return p, placed(d.rule(part).Location, err, part.wrong)
		}
	}
	if len(variable) == 0 {
		return p, d.checkConstant(&p.constant)
	}
	return p, p.prepare(ctx, c, variable...)
}

// checkConstant wants the attributes of a plan that never changes to go together.
func (d *declaration) checkConstant(plan *plugin.Plan) error {
	err := checkPlan(plan)
	if err == nil {
		return nil
	}
	place := d.plan[0]
	if wrong, ok := errors.AsType[*attributeError](err); ok {
		name, _, _ := strings.Cut(wrong.path, ".")
		place = cmp.Or(d.rule(piece{attribute: name}), place)
	}
	return fmt.Errorf("%s: %w", Position(place.Location), at("plan", err))
}

// isOneDocument tells whether there is a rule plan := {…}.
func (d *declaration) isOneDocument() bool {
	return slices.ContainsFunc(d.plan, func(r *ast.Rule) bool { return len(r.Head.Ref()) == 1 })
}

// pieces returns what the plan's rules are about, in the order of the names.
func (d *declaration) pieces() []piece {
	whole := map[string]bool{} // attributes with a rule that is not about a part
	for _, rule := range d.plan {
		if p := pieceOf(rule); p.part == "" {
			whole[p.attribute] = true
		}
	}
	all := map[piece]bool{}
	for _, rule := range d.plan {
		p := pieceOf(rule)
		if whole[p.attribute] {
			p.part = ""
		}
		all[p] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b piece) int {
		return cmp.Or(strings.Compare(a.attribute, b.attribute), strings.Compare(a.part, b.part))
	})
}

// rule returns the first rule about a piece, or about a part of it; nil if there
// is none.
func (d *declaration) rule(p piece) *ast.Rule {
	for _, rule := range d.plan {
		of := pieceOf(rule)
		if of == p || p.part == "" && of.attribute == p.attribute {
			return rule
		}
	}
	return nil
}

// pieceOf returns what a rule is about. checkPlanHead has seen that there is an
// attribute.
func pieceOf(rule *ast.Rule) piece {
	path := rule.Head.Ref()[1:]
	p := piece{attribute: string(path[0].Value.(ast.String))}
	if len(path) > 1 {
		part, _ := path[1].Value.(ast.String)
		p.part = string(part)
	}
	return p
}

// fold evaluates a piece once and for all.
func (p *planner) fold(ctx context.Context, c *Compiled, part piece, ref ast.Ref) error {
	value, err := c.constant(ctx, ref)
	if err != nil || value == nil {
		return err
	}
	return part.store(&p.constant, value)
}

// prepare makes the query for what remains.
func (p *planner) prepare(ctx context.Context, c *Compiled, refs ...ast.Ref) error {
	values := make([]string, len(refs))
	for i, ref := range refs {
		values[i] = fmt.Sprintf("[value | value := %s]", ref)
	}
	query, err := c.prepare(ctx, "["+strings.Join(values, ", ")+"]")
	p.query = &query
	p.paths = c.inputPaths(refs)
	p.document = wholeInput.read(p.paths)
	p.memo = newMemo(p.paths)
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
	if p.pieces == nil {
		return wholePlan(values.(*ast.Array).Elem(0).Value.(*ast.Array))
	}
	plan := p.constant
	for i, part := range p.pieces {
		value := values.(*ast.Array).Elem(i).Value.(*ast.Array)
		if value.Len() == 0 {
			continue
		}
		if err := part.set(&plan, value.Elem(0).Value); err != nil {
			return plugin.Plan{}, err
		}
	}
	if err := checkPlan(&plan); err != nil {
		return plugin.Plan{}, at("plan", err)
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
			errs = append(errs, fmt.Errorf("%s: %w", Position(rule.Location), err))
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
	if err := planAttributes.check(head.Ref()[1:]); err != nil {
		return at("plan", err)
	}
	if err := constantPart(head, &plugin.Plan{}); err != nil {
		return at("plan", err)
	}
	return nil
}

// constantPart stores what a rule's head says of a plan, if that is written in it.
func constantPart(head *ast.Head, plan *plugin.Plan) error {
	if !head.Ref().IsGround() || head.Value == nil || !ast.IsConstant(head.Value.Value) {
		return nil
	}
	document := head.Value
	for _, name := range slices.Backward(head.Ref()[1:]) {
		document = ast.ObjectTerm(ast.Item(name, document))
	}
	return planAttributes.decode(document.Value, plan)
}

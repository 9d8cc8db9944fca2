package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown/cache"

	"github.com/imgate/imgate/policies"
)

const (
	maxCompileErrors = 100   // shown at once
	maxCached        = 1_000 // patterns that builtins keep compiled; they may come from the input
)

// language is the Rego that policies are written in: version 1, the builtins
// of the allow-list, input as the schema has it.
type language struct {
	capabilities *ast.Capabilities
	schemas      *ast.SchemaSet
	bounds       map[string]bound // of builtins, by their names
}

func newLanguage() (language, error) {
	capabilities, err := allowed()
	if err != nil {
		return language{}, err
	}
	text, err := fs.ReadFile(policies.Files, policies.QuestionSchema)
	if err != nil {
		return language{}, err
	}
	var question any
	if err := json.Unmarshal(text, &question); err != nil {
		return language{}, fmt.Errorf("%s: %w", policies.QuestionSchema, err)
	}
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.SchemaRootRef, question) // the root: input in every package
	return language{capabilities: capabilities, schemas: schemas, bounds: boundsOf(capabilities)}, nil
}

// allowed returns OPA's capabilities without the builtins that are not on our
// list, without a network and without what is not yet in Rego 1.
func allowed() (*ast.Capabilities, error) {
	list, err := fs.ReadFile(policies.Files, policies.Builtins)
	if err != nil {
		return nil, err
	}
	all := ast.CapabilitiesForThisVersion()
	known := map[string]*ast.Builtin{}
	for _, b := range all.Builtins {
		known[b.Name] = b
	}
	capabilities := &ast.Capabilities{
		Features: []string{ast.FeatureRegoV1, ast.FeatureKeywordsInRefs, ast.FeatureTemplateStrings},
		AllowNet: []string{},
	}
	for line := range strings.Lines(string(list)) {
		name, _, _ := strings.Cut(line, "#")
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if known[name] == nil {
			return nil, fmt.Errorf("%s: OPA has no builtin %q", policies.Builtins, name)
		}
		capabilities.Builtins = append(capabilities.Builtins, known[name])
	}
	return capabilities, nil
}

// parse returns the modules by path, and every syntax error of every file.
func (l language) parse(files []file) (map[string]*ast.Module, []error) {
	options := ast.ParserOptions{Capabilities: l.capabilities, ProcessAnnotation: true, RegoVersion: ast.RegoV1}
	modules := map[string]*ast.Module{}
	var errs []error
	for _, f := range files {
		module, err := ast.ParseModuleWithOpts(f.path, string(f.text), options)
		switch {
		case err != nil:
			errs = append(errs, inWords(err)...)
		case module == nil:
			errs = append(errs, fmt.Errorf("%s: expected a package, the file is empty", f.path))
		default:
			modules[f.path] = module
			errs = append(errs, immodest(module)...)
		}
	}
	return modules, errs
}

// immodest finds numbers and texts that no builtin should be given.
func immodest(module *ast.Module) []error {
	var errs []error
	ast.WalkTerms(module, func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Number:
			if !isModest(string(v)) {
				errs = append(errs, fmt.Errorf("%s: %w", position(t.Location), errImmodest))
			}
		case ast.String:
			if len(v) > maxText {
				errs = append(errs, fmt.Errorf("%s: expected texts of at most %d octets", position(t.Location), maxText))
			}
		}
		return false
	})
	return errs
}

// compiler returns one that is as strict as OPA can be.
func (l language) compiler() *ast.Compiler {
	return l.withBounds(ast.NewCompiler().
		WithCapabilities(l.capabilities).
		WithDefaultRegoVersion(ast.RegoV1).
		WithSchemas(l.schemas).
		WithStrict(true).
		SetErrorLimit(maxCompileErrors))
}

// compiled is a policy's rules and its data, neither of which ever changes.
type compiled struct {
	compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction // to read; never ended, it goes with the store
	options  []opa.EvalOption    // of every evaluation
	builtins []func(*opa.Rego)   // of every query
}

func (l language) compile(ctx context.Context, modules map[string]*ast.Module, data map[string]any) (*compiled, []error) {
	store := newStore(data)
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, []error{err}
	}
	compiler := l.compiler().WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn))
	if compiler.Compile(modules); compiler.Failed() {
		return nil, inWords(compiler.Errors)
	}
	return &compiled{compiler: compiler, store: store, txn: txn, options: evalOptions(ctx, txn), builtins: l.boundedFunctions()}, nil
}

// newStore holds data as values that are ready to be evaluated.
func newStore(data map[string]any) storage.Store {
	return inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(false))
}

// prepare returns a query that is ready to be evaluated many times.
func (c *compiled) prepare(ctx context.Context, query string) (opa.PreparedEvalQuery, error) {
	return opa.New(append(c.builtins[:len(c.builtins):len(c.builtins)],
		opa.Query(query),
		opa.SetRegoVersion(ast.RegoV1),
		opa.Compiler(c.compiler),
		opa.Store(c.store),
		opa.Transaction(c.txn),
		opa.StrictBuiltinErrors(true),
	)...).PrepareForEval(ctx)
}

// evaluate returns the value of a query, nil if it is undefined.
func evaluate(ctx context.Context, query opa.PreparedEvalQuery, options []opa.EvalOption) (ast.Value, error) {
	results, err := query.Eval(ctx, options...)
	if err != nil || len(results) == 0 {
		return nil, err
	}
	return results[0].Expressions[0].Value.(ast.Value), nil
}

// constant returns the value of what doesn't depend on the input, nil if it is
// undefined.
func (c *compiled) constant(ctx context.Context, ref ast.Ref) (ast.Value, error) {
	query, err := c.prepare(ctx, ref.String())
	if err != nil {
		return nil, err
	}
	return evaluate(ctx, query, append(c.options, opa.EvalParsedInput(ast.NewObject())))
}

// evalOptions keep values as they are, measure nothing, and share compiled
// patterns between evaluations.
func evalOptions(ctx context.Context, txn storage.Transaction) []opa.EvalOption {
	entries := maxCached
	patterns := cache.NewInterQueryValueCache(ctx, &cache.Config{
		InterQueryBuiltinValueCache: cache.InterQueryBuiltinValueCacheConfig{MaxNumEntries: &entries},
	})
	return slices.Clip([]opa.EvalOption{
		opa.EvalTransaction(txn),
		opa.EvalMetrics(metrics.NoOp()),
		opa.EvalGenerateJSON(func(t *ast.Term, _ *opa.EvalContext) (any, error) { return t.Value, nil }),
		opa.EvalInterQueryBuiltinValueCache(patterns),
	})
}

// inputOf returns where the rules at or below ref, or those that they depend
// on, read the input; nil if they don't.
func (c *compiled) inputOf(ref ast.Ref) *ast.Location {
	var found *ast.Location
	c.walkInput(ref, func(rule *ast.Rule, _ ast.Ref) {
		if found == nil {
			found = rule.Location
		}
	})
	return found
}

// inputPaths returns what they read of it.
func (c *compiled) inputPaths(refs []ast.Ref) map[string]bool {
	paths := map[string]bool{}
	for _, ref := range refs {
		c.walkInput(ref, func(_ *ast.Rule, read ast.Ref) { paths[inputPath(read)] = true })
	}
	return paths
}

// walkInput calls f for each reference to the input in the rules at or below
// ref, and in those that they depend on.
func (c *compiled) walkInput(ref ast.Ref, f func(*ast.Rule, ast.Ref)) {
	seen := map[*ast.Rule]bool{}
	rules := c.compiler.GetRules(ref)
	for len(rules) > 0 {
		rule := rules[len(rules)-1]
		rules = rules[:len(rules)-1]
		if seen[rule] {
			continue
		}
		seen[rule] = true
		ast.WalkRefs(rule, func(r ast.Ref) bool {
			if r.HasPrefix(ast.InputRootRef) {
				f(rule, r)
			}
			return false
		})
		for other := range c.compiler.Graph.Dependencies(rule) {
			rules = append(rules, other.(*ast.Rule))
		}
	}
}

// inWords returns OPA's errors one by one, as an operator can read them.
func inWords(err error) []error {
	all, ok := errors.AsType[ast.Errors](err)
	if !ok {
		return []error{err}
	}
	all = slices.Clone(all)
	all.Sort()
	errs := make([]error, len(all))
	for i, e := range all {
		errs[i] = fmt.Errorf("%s: %s", position(e.Location), describe(e))
	}
	return errs
}

// position returns "file:line".
func position(l *ast.Location) string {
	if l == nil {
		return "policy"
	}
	return fmt.Sprintf("%s:%d", l.File, l.Row)
}

func describe(e *ast.Error) string {
	if name, ok := strings.CutPrefix(e.Message, "undefined function "); ok && ast.BuiltinMap[name] != nil {
		return fmt.Sprintf("%s is not available to policies: they may call what policies/%s lists", name, policies.Builtins)
	}
	if ref, ok := e.Details.(*ast.RefErrInvalidDetail); ok && len(ref.OneOf) > 0 {
		return fmt.Sprintf("%v: there is no %v, expected one of %s", ref.Ref, ref.Ref[ref.Pos], join(ref.OneOf))
	}
	if e.Details == nil {
		return e.Message
	}
	return e.Message + "\n\t" + strings.Join(e.Details.Lines(), "\n\t")
}

func join(values []ast.Value) string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = strings.Trim(v.String(), `"`)
	}
	return strings.Join(names, ", ")
}

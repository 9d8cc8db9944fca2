package decide

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

	"github.com/imgate/imgate/plugins/rego/source"
	"github.com/imgate/imgate/policies"
)

const (
	maxCompileErrors = 100   // shown at once
	maxCached        = 1_000 // patterns that builtins keep compiled; they may come from the input
)

// Language is the Rego that policies are written in: version 1, the builtins
// of the allow-list, input as the schema has it.
type Language struct {
	capabilities *ast.Capabilities
	schemas      *ast.SchemaSet
	bounds       map[string]bound // of builtins, by their names
}

// NewLanguage returns it. An error is a fault of what is built in.
func NewLanguage() (Language, error) {
	capabilities, err := allowed()
	if err != nil {
		return Language{}, err
	}
	text, err := fs.ReadFile(policies.Files, policies.QuestionSchema)
	if err != nil {
		return Language{}, err
	}
	var question any
	if err := json.Unmarshal(text, &question); err != nil {
		return Language{}, fmt.Errorf("%s: %w", policies.QuestionSchema, err)
	}
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.SchemaRootRef, question) // the root: input in every package
	return Language{capabilities: capabilities, schemas: schemas, bounds: boundsOf(capabilities)}, nil
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

// Parse returns the modules by path, and every syntax error of every file.
func (l Language) Parse(files []source.File) (map[string]*ast.Module, []error) {
	options := ast.ParserOptions{Capabilities: l.capabilities, ProcessAnnotation: true, RegoVersion: ast.RegoV1}
	modules := map[string]*ast.Module{}
	var errs []error
	for _, f := range files {
		module, err := ast.ParseModuleWithOpts(f.Path, string(f.Text), options)
		switch {
		case err != nil:
			errs = append(errs, InWords(err)...)
		case module == nil:
			errs = append(errs, fmt.Errorf("%s: %s", f.Path, emptyFile))
		default:
			modules[f.Path] = module
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
			if !source.IsModest(string(v)) {
				errs = append(errs, fmt.Errorf("%s: %w", Position(t.Location), errImmodest))
			}
		case ast.String:
			if len(v) > source.MaxText {
				errs = append(errs, fmt.Errorf("%s: expected texts of at most %d octets", Position(t.Location), source.MaxText))
			}
		}
		return false
	})
	return errs
}

// Compiler returns one that is as strict as OPA can be.
func (l Language) Compiler() *ast.Compiler {
	return withWeights(l.withBounds(ast.NewCompiler().
		WithCapabilities(l.capabilities).
		WithDefaultRegoVersion(ast.RegoV1).
		WithSchemas(l.schemas).
		WithStrict(true).
		SetErrorLimit(maxCompileErrors)))
}

// Compiled is a policy's rules and its data, neither of which ever changes.
type Compiled struct {
	Compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction // to read; never ended, it goes with the store
	options  []opa.EvalOption    // of every evaluation
	builtins []func(*opa.Rego)   // of every query
}

func (l Language) compile(ctx context.Context, modules map[string]*ast.Module, data map[string]any) (*Compiled, []error) {
	store := NewStore(data)
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, []error{err}
	}
	compiler := l.Compiler().WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn))
	if compiler.Compile(modules); compiler.Failed() {
		return nil, InWords(compiler.Errors)
	}
	return &Compiled{Compiler: compiler, store: store, txn: txn, options: evalOptions(ctx, txn), builtins: l.boundedFunctions()}, nil
}

// NewStore holds data as values that are ready to be evaluated.
func NewStore(data map[string]any) storage.Store {
	return inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(false))
}

// prepare returns a query that is ready to be evaluated many times.
func (c *Compiled) prepare(ctx context.Context, query string) (opa.PreparedEvalQuery, error) {
	return opa.New(append(c.builtins[:len(c.builtins):len(c.builtins)],
		opa.Query(query),
		opa.SetRegoVersion(ast.RegoV1),
		opa.Compiler(c.Compiler),
		opa.Store(c.store),
		opa.Transaction(c.txn),
		opa.StrictBuiltinErrors(true),
	)...).PrepareForEval(ctx)
}

// evaluate returns the value of a query, nil if it is undefined.
func evaluate(ctx context.Context, query opa.PreparedEvalQuery, options []opa.EvalOption) (ast.Value, error) {
	results, err := query.Eval(ctx, options...)
	if err != nil || len(results) == 0 {
		return nil, Fault(err)
	}
	return results[0].Expressions[0].Value.(ast.Value), nil
}

// constant returns the value of what doesn't depend on the input, nil if it is
// undefined.
func (c *Compiled) constant(ctx context.Context, ref ast.Ref) (ast.Value, error) {
	query, err := c.prepare(ctx, ref.String())
	if err != nil {
		return nil, err
	}
	value, err := evaluate(ctx, query, append(c.options, opa.EvalParsedInput(ast.NewObject())))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return value, err
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

// InputOf returns where the rules at or below ref, or those that they depend
// on, read the input; nil if they don't.
func (c *Compiled) InputOf(ref ast.Ref) *ast.Location {
	var found *ast.Location
	c.walkInput(ref, func(rule *ast.Rule, _ ast.Ref) {
		if found == nil {
			found = rule.Location
		}
	})
	return found
}

// inputPaths returns what they read of it.
func (c *Compiled) inputPaths(refs []ast.Ref) map[string]bool {
	paths := map[string]bool{}
	for _, ref := range refs {
		c.walkInput(ref, func(_ *ast.Rule, read ast.Ref) { paths[inputPath(read)] = true })
	}
	return paths
}

// walkInput calls f for each reference to the input in the rules at or below
// ref, and in those that they depend on.
func (c *Compiled) walkInput(ref ast.Ref, f func(*ast.Rule, ast.Ref)) {
	seen := map[*ast.Rule]bool{}
	rules := c.Compiler.GetRules(ref)
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
		for other := range c.Compiler.Graph.Dependencies(rule) {
			rules = append(rules, other.(*ast.Rule))
		}
	}
}

// InWords returns OPA's errors one by one, as an operator can read them.
func InWords(err error) []error {
	all, ok := errors.AsType[ast.Errors](err)
	if one, isOne := errors.AsType[*ast.Error](err); !ok && isOne {
		all, ok = ast.Errors{one}, true
	}
	if !ok {
		return []error{err}
	}
	all = slices.Clone(all)
	all.Sort()
	all = slices.CompactFunc(all, repeats)
	errs := make([]error, len(all))
	for i, e := range all {
		errs[i] = fmt.Errorf("%s: %s", Position(e.Location), describe(e))
	}
	return errs
}

// repeats tells whether the parser, which may try a text in two ways, says of a
// place the same again.
func repeats(again, e *ast.Error) bool {
	return Position(again.Location) == Position(e.Location) && strings.HasPrefix(again.Message, e.Message)
}

// Position returns "file:line".
func Position(l *ast.Location) string {
	switch {
	case l == nil:
		return "policy"
	case l.Row == 0: // an empty file has no line
		return l.File
	}
	return fmt.Sprintf("%s:%d", l.File, l.Row)
}

const (
	expectedPackage = "expected package imgate.services.NAME first"
	emptyFile       = expectedPackage + ", the file is empty"
)

func describe(e *ast.Error) string {
	switch e.Message {
	case "empty module":
		return emptyFile
	case "package expected":
		return expectedPackage
	}
	if name, ok := unsafeWord(e); ok {
		return fmt.Sprintf("%s (a text needs quotes: %q)", e.Message, name)
	}
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

// unsafeWord returns the name of a variable without a value: often it is a text
// whose quotes were forgotten.
func unsafeWord(e *ast.Error) (name string, ok bool) {
	rest, ok := strings.CutPrefix(e.Message, "var ")
	name, isUnsafe := strings.CutSuffix(rest, " is unsafe")
	return name, ok && isUnsafe && !strings.HasPrefix(name, "_")
}

func join(values []ast.Value) string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = strings.Trim(v.String(), `"`)
	}
	return strings.Join(names, ", ")
}

// Package rego decides about messages with domain service policies written in
// Rego and evaluated by OPA. It must not know what happens to a message
// afterwards: it sees a question and returns a plan. Its rooms, each of which
// knows only those before it:
//
//   - match: which service a recipient is for
//   - source: where policies come from: a directory, a signed bundle
//   - decide: compiling policies, and making plans
//   - gate: tests, coverage and a report, before policies decide
//   - tools: the commands imgate policy …
//
// sipfile reads a SIP message for the tools; schemagen writes policies/schema.
package rego

import (
	"context"
	"errors"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/gate"
	"github.com/imgate/imgate/plugins/rego/source"
	"github.com/imgate/imgate/plugins/rego/tools"
)

//go:generate go run ./schemagen -dir ../../policies/schema

// Plugin is the policy plugin "rego".
var Plugin = plugin.DefinePolicy("rego", "decides with domain service policies in Rego (OPA)",
	source.Defaults(), New).With(tools.Commands()...)

// policySource is plugin.PolicySource for a room.
type policySource struct {
	config    source.Config
	env       decide.Environment
	watcher   *source.Watcher
	compiling gate.Compiling
}

// New opens the source. What it holds is looked at by Read.
func New(_ context.Context, env plugin.Env, config source.Config) (plugin.PolicySource, error) {
	return &policySource{config: config, env: decide.Environment{Transports: env.Transports, Workers: decide.NewWorkers()}, watcher: source.NewWatcher(config)}, nil
}

// Read is plugin.PolicySource.
func (s *policySource) Read(ctx context.Context) (plugin.Bundle, error) {
	s.watcher.Begin()
	files, err := source.Read(ctx, s.config)
	if err != nil {
		return plugin.Bundle{}, err
	}
	return source.Pack(files)
}

// Watch is plugin.PolicySource.
func (s *policySource) Watch(ctx context.Context) error { return s.watcher.Wait(ctx) }

// Compile is plugin.PolicySource.
func (s *policySource) Compile(ctx context.Context, b plugin.Bundle) (plugin.Policy, plugin.PolicyReport, error) {
	files, err := source.Unpack(b)
	if err != nil {
		return nil, plugin.PolicyReport{}, err
	}
	unpacked, errs := source.New(source.RoomName(s.config), files)
	if len(errs) > 0 {
		return nil, plugin.PolicyReport{}, errors.Join(errs...)
	}
	if err := s.compiling.Begin(b.Revision); err != nil {
		return nil, plugin.PolicyReport{}, err
	}
	tried, err := gate.Beside(ctx, func(ctx context.Context) (gate.Verdict, error) {
		defer s.compiling.End()
		return gate.Compile(ctx, unpacked, s.config, s.env)
	})
	if err != nil {
		return nil, plugin.PolicyReport{}, err
	}
	return tried.Policy, tried.Report, nil
}

// MaxAge is plugin.PolicySource.
func (s *policySource) MaxAge() time.Duration { return s.config.MaxAge }

// Close is plugin.PolicySource.
func (s *policySource) Close() error { return nil }

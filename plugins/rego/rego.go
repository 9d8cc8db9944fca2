// Package rego decides about messages with domain service policies written in
// Rego and evaluated by OPA. It reads them from a directory or a signed bundle,
// tries them, finds the service for a message, evaluates its plan and checks
// that it is one. It must not know what happens to a message afterwards: it sees
// a question and returns a plan.
package rego

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/policies"
)

//go:generate go run ./schemagen -dir ../../policies/schema

// Plugin is the policy plugin "rego".
var Plugin = plugin.DefinePolicy("rego", "decides with domain service policies in Rego (OPA)",
	Config{Deadline: 20 * time.Millisecond, MaxAge: 720 * time.Hour, Bundle: BundleConfig{Algorithm: "RS256"}}, New).With(commands()...)

// Config says where the policies are, and what is expected of them.
type Config struct {
	// Dir holds policies (*.rego), their tests (*_test.rego) and their data
	// (*.json, *.yaml), directories below it too. Neither Dir nor Bundle: the
	// policies built in.
	Dir    string       `yaml:"dir" doc:"the directory of the policies, *.rego, with their tests and data; it is watched; default: the policies built in"`
	Bundle BundleConfig `yaml:"bundle" doc:"a signed OPA bundle in place of a directory"`
	// Deadline is how long one decision may take, 1 ms to 1 s. OPA looks at it
	// before each expression.
	Deadline time.Duration `yaml:"deadline" doc:"how long one decision may take, 1ms to 1s"`
	// Coverage is how much of the policies their tests must reach, in percent
	// of the lines; 0: nothing.
	Coverage float64 `yaml:"coverage" doc:"how much of the policies their tests must reach before they are put in force, in percent of the lines, 0 to 100"`
	// MaxAge is plugin.PolicySource's.
	MaxAge time.Duration `yaml:"max_age" doc:"for how long, at a start or a take-over, the last good policies stand in for broken ones, 0s to 8760h; 0s: not at all"`
}

// BundleConfig is an OPA bundle: an archive (tar.gz) with a signature.
type BundleConfig struct {
	File      string `yaml:"file" doc:"the bundle, a tar.gz made by opa build and signed; it is watched"`
	Key       string `yaml:"key" doc:"the public key in PEM, or the secret of HS256, HS384 and HS512, such as !file /run/secrets/policies"`
	KeyFile   string `yaml:"key_file" doc:"the file that holds it, in place of key; it is watched"`
	KeyID     string `yaml:"key_id" doc:"the id of the key that the signature must name; default: whatever it names"`
	Algorithm string `yaml:"algorithm" doc:"how it is signed: ES256, ES384, ES512, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384 or RS512"`
	Scope     string `yaml:"scope" doc:"the scope that the signature must have; default: none"`
}

const maxMaxAge = 8760 * time.Hour

// Validate reports values out of range.
func (c Config) Validate() error {
	var errs []error
	invalid := func(wrong bool, key, expected string) {
		if wrong {
			errs = append(errs, &plugin.InvalidKey{Key: key, Expected: expected})
		}
	}
	b := c.Bundle
	invalid(c.Deadline < time.Millisecond || c.Deadline > time.Second, "deadline", "a duration from 1ms to 1s")
	invalid(!(c.Coverage >= 0 && c.Coverage <= 100), "coverage", "a number from 0 to 100")
	invalid(c.MaxAge < 0 || c.MaxAge > maxMaxAge, "max_age", "a duration from 0s to 8760h")
	invalid(c.Dir != "" && b.File != "", "bundle.file", "nothing, since there is a dir: policies come from one or the other")
	invalid(b.File == "" && b.Key+b.KeyFile+b.KeyID+b.Scope != "", "bundle.file", "the bundle that the other keys are about")
	invalid(b.File != "" && b.Key == "" && b.KeyFile == "", "bundle.key_file", "the key that the bundle is signed with: without one, anybody's policies would decide")
	invalid(b.Key != "" && b.KeyFile != "", "bundle.key_file", "nothing, since there is a key: it is one or the other")
	invalid(b.File != "" && !knownAlgorithm(b.Algorithm), "bundle.algorithm", "one of "+algorithmNames())
	return errors.Join(errs...)
}

// policySource is plugin.PolicySource for a room.
type policySource struct {
	config Config
	env    environment
	look   func() look // nil: what is built in, which never changes

	mu   sync.Mutex
	seen look // when the last Read began
	read bool // whether there was one
}

// New opens the source. What it holds is looked at by Read.
func New(_ context.Context, env plugin.Env, config Config) (plugin.PolicySource, error) {
	return &policySource{config: config, env: environment{transports: env.Transports}, look: watched(config)}, nil
}

// watched returns how to look at what a configuration names.
func watched(config Config) func() look {
	switch {
	case config.Bundle.File != "":
		return config.Bundle.look
	case config.Dir != "":
		return directoryRoom(config.Dir).look
	}
	return nil
}

// Read is plugin.PolicySource.
func (s *policySource) Read(ctx context.Context) (plugin.Bundle, error) {
	s.remember()
	files, err := openFiles(ctx, s.config)
	if err != nil {
		return plugin.Bundle{}, err
	}
	return pack(files)
}

// remember keeps what Watch compares with.
func (s *policySource) remember() {
	if s.look == nil {
		return
	}
	seen := s.look()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen, s.read = seen, true
}

// Compile is plugin.PolicySource.
func (s *policySource) Compile(ctx context.Context, b plugin.Bundle) (plugin.Policy, plugin.PolicyReport, error) {
	files, err := unpack(b)
	if err != nil {
		return nil, plugin.PolicyReport{}, err
	}
	unpacked, errs := newSource(roomName(s.config), files)
	if len(errs) > 0 {
		return nil, plugin.PolicyReport{}, errors.Join(errs...)
	}
	p, report, err := compileSource(ctx, unpacked, s.config, s.env)
	if err != nil {
		return nil, plugin.PolicyReport{}, err
	}
	return p, report, nil
}

// MaxAge is plugin.PolicySource.
func (s *policySource) MaxAge() time.Duration { return s.config.MaxAge }

// Close is plugin.PolicySource.
func (s *policySource) Close() error { return nil }

// openSource reads what a configuration names.
func openSource(ctx context.Context, config Config) (source, error) {
	files, err := openFiles(ctx, config)
	if err != nil {
		return source{}, err
	}
	s, errs := newSource(roomName(config), files)
	return s, errors.Join(errs...)
}

// roomName is what messages call the place of the policies.
func roomName(config Config) string {
	switch {
	case config.Bundle.File != "":
		return config.Bundle.File
	case config.Dir != "":
		return config.Dir
	}
	return "policies"
}

func openFiles(ctx context.Context, config Config) ([]file, error) {
	switch {
	case config.Bundle.File != "":
		return config.Bundle.read(ctx, time.Now())
	case config.Dir != "":
		return directoryRoom(config.Dir).read(ctx)
	}
	return builtIn()
}

// builtIn returns the policies that decide where nothing is configured.
func builtIn() ([]file, error) {
	files := make([]file, len(policies.Default))
	for i, name := range policies.Default {
		text, err := fs.ReadFile(policies.Files, name)
		if err != nil {
			return nil, fmt.Errorf("policies: %w", err)
		}
		files[i] = file{path: name, text: text}
	}
	return files, nil
}

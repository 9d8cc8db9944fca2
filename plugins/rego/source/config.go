package source

import (
	"cmp"
	"errors"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Config says where the policies are, and what is expected of them.
type Config struct {
	// Dir holds policies (*.rego), their tests (*_test.rego) and their data
	// (*.json, *.yaml), directories below it too. Neither Dir nor Bundle: the
	// policies built in.
	Dir    string       `yaml:"dir" doc:"the directory of the policies, *.rego, with their tests and data; it is watched; default: the policies built in"`
	Bundle BundleConfig `yaml:"bundle" doc:"a signed OPA bundle in place of a directory"`
	// Deadline is how long one decision may take, 1 ms to 1 s. A decision that
	// can't be stopped, since OPA looks at the time before each expression alone,
	// is given up 90 ms after its beginning, or 40 ms after a longer deadline.
	Deadline time.Duration `yaml:"deadline" doc:"how long one decision may take, 1ms to 1s"`
	// Coverage is how much of the policies their tests must reach, in percent
	// of the lines; 0: nothing.
	Coverage float64 `yaml:"coverage" doc:"how much of the policies their tests must reach before they are put in force, in percent of the lines, 0 to 100"`
	// MaxAge is plugin.PolicySource's.
	MaxAge time.Duration `yaml:"max_age" doc:"for how long, at a start or a take-over, the last good policies stand in for broken ones, 0s to 8760h; 0s: not at all"`
}

// Defaults are the settings where nothing is configured.
func Defaults() Config {
	return Config{Deadline: 20 * time.Millisecond, MaxAge: 720 * time.Hour, Bundle: BundleConfig{Algorithm: "RS256"}}
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

const MaxMaxAge = 8760 * time.Hour

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
	invalid(c.MaxAge < 0 || c.MaxAge > MaxMaxAge, "max_age", "a duration from 0s to 8760h")
	invalid(c.Dir != "" && b.File != "", "bundle.file", "nothing, since there is a dir: policies come from one or the other")
	invalid(b.File == "" && b.Key+b.KeyFile+b.KeyID+b.Scope != "", "bundle.file", "the bundle that the other keys are about")
	invalid(b.File != "" && b.Key == "" && b.KeyFile == "", "bundle.key_file", "the key that the bundle is signed with: without one, anybody's policies would decide")
	invalid(b.Key != "" && b.KeyFile != "", "bundle.key_file", "nothing, since there is a key: it is one or the other")
	invalid(b.File != "" && !knownAlgorithm(b.Algorithm), "bundle.algorithm", "one of "+algorithmNames())
	return errors.Join(errs...)
}

// IsBuiltIn tells whether the policies are those that are built in.
func (c Config) IsBuiltIn() bool { return c.Dir == "" && c.Bundle.File == "" }

// Named is what a source is called in messages.
func (c Config) Named() string { return cmp.Or(c.Bundle.File, c.Dir, "the policies built in") }

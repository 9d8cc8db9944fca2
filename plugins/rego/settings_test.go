package rego

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

func TestConfigRefuses(t *testing.T) {
	defaults := func() Config { return *Plugin.NewConfig().(*Config) }
	if err := defaults().Validate(); err != nil {
		t.Fatalf("the defaults are invalid: %v", err)
	}
	for key, changes := range map[string][]func(*Config){
		"deadline": {
			func(c *Config) { c.Deadline = 0 }, func(c *Config) { c.Deadline = time.Microsecond },
			func(c *Config) { c.Deadline = 2 * time.Second },
		},
		"coverage": {
			func(c *Config) { c.Coverage = -1 }, func(c *Config) { c.Coverage = 101 }, func(c *Config) { c.Coverage = math.NaN() },
		},
		"max_age": {
			func(c *Config) { c.MaxAge = -1 }, func(c *Config) { c.MaxAge = maxMaxAge + 1 },
		},
		"bundle.file": {
			func(c *Config) { c.Dir, c.Bundle.File, c.Bundle.Key = "a", "b", "c" },
			func(c *Config) { c.Bundle.Key = "c" }, func(c *Config) { c.Bundle.Scope = "c" },
		},
		"bundle.key_file": {
			func(c *Config) { c.Bundle.File = "b" },
			func(c *Config) { c.Bundle.File, c.Bundle.Key, c.Bundle.KeyFile = "b", "c", "d" },
		},
		"bundle.algorithm": {
			func(c *Config) { c.Bundle.File, c.Bundle.Key, c.Bundle.Algorithm = "b", "c", "none" },
		},
	} {
		for i, change := range changes {
			config := defaults()
			change(&config)
			invalid, ok := errors.AsType[*plugin.InvalidKey](config.Validate())
			if !ok || invalid.Key != key || invalid.Expected == "" {
				t.Errorf("%s, %d: got %v", key, i, config.Validate())
			}
		}
	}
}

// What one node has read another compiles, wherever its own files are.
func TestBundlesGoFromNodeToNode(t *testing.T) {
	here := opened(t, Config{Dir: roomOf(t, map[string]string{"a.rego": anyService, "d.yaml": "n: 1\n"})})
	there := opened(t, Config{Dir: "/nowhere"})
	b, err := here.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, report, err := there.Compile(t.Context(), b); err != nil || p == nil || len(report.Services) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	broken := opened(t, Config{Dir: roomOf(t, map[string]string{"a.rego": "package a\n\nx := := 1\n"})})
	if b, err = broken.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err = there.Compile(t.Context(), b)
	wants(t, err, "/nowhere/a.rego:3: ")
	b.Revision = "other"
	_, _, err = there.Compile(t.Context(), b)
	wants(t, err, "bundle other: its content is that of ")
	if there.MaxAge() != 0 || there.Close() != nil {
		t.Error("a source without an age")
	}
}

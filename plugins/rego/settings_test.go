package rego

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/plugins/rego/source"
)

func TestConfigRefuses(t *testing.T) {
	defaults := func() source.Config { return *Plugin.NewConfig().(*source.Config) }
	if err := defaults().Validate(); err != nil {
		t.Fatalf("the defaults are invalid: %v", err)
	}
	for key, changes := range map[string][]func(*source.Config){
		"deadline": {
			func(c *source.Config) { c.Deadline = 0 }, func(c *source.Config) { c.Deadline = time.Microsecond },
			func(c *source.Config) { c.Deadline = 2 * time.Second },
		},
		"coverage": {
			func(c *source.Config) { c.Coverage = -1 }, func(c *source.Config) { c.Coverage = 101 }, func(c *source.Config) { c.Coverage = math.NaN() },
		},
		"max_age": {
			func(c *source.Config) { c.MaxAge = -1 }, func(c *source.Config) { c.MaxAge = source.MaxMaxAge + 1 },
		},
		"bundle.file": {
			func(c *source.Config) { c.Dir, c.Bundle.File, c.Bundle.Key = "a", "b", "c" },
			func(c *source.Config) { c.Bundle.Key = "c" }, func(c *source.Config) { c.Bundle.Scope = "c" },
		},
		"bundle.key_file": {
			func(c *source.Config) { c.Bundle.File = "b" },
			func(c *source.Config) { c.Bundle.File, c.Bundle.Key, c.Bundle.KeyFile = "b", "c", "d" },
		},
		"bundle.algorithm": {
			func(c *source.Config) { c.Bundle.File, c.Bundle.Key, c.Bundle.Algorithm = "b", "c", "none" },
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
	here := opened(t, source.Config{Dir: regotest.RoomOf(t, map[string]string{"a.rego": regotest.AnyService, "d.yaml": "n: 1\n"})})
	there := opened(t, source.Config{Dir: "/nowhere"})
	b, err := here.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, report, err := there.Compile(t.Context(), b); err != nil || p == nil || len(report.Services) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	broken := opened(t, source.Config{Dir: regotest.RoomOf(t, map[string]string{"a.rego": "package a\n\nx := := 1\n"})})
	if b, err = broken.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err = there.Compile(t.Context(), b)
	regotest.Wants(t, err, "/nowhere/a.rego:3: ")
	b.Revision = "other"
	_, _, err = there.Compile(t.Context(), b)
	regotest.Wants(t, err, "bundle other: its content is that of ")
	if there.MaxAge() != 0 || there.Close() != nil {
		t.Error("a source without an age")
	}
}

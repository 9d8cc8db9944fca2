package plugintest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// fault is a plugin that is broken in one way.
type fault[H any] struct {
	name    string // what is wrong with it
	breaks  string // the case that must notice, and no other
	harness func(T) H
}

// prove runs each case against each fault and checks that a fault fails
// exactly its own case, that a sound plugin fails none, and that no case is
// without a fault. It prints the matrix.
func prove[H any](t *testing.T, cases []Case[H], sound func(T) H, faults []fault[H]) {
	t.Helper()
	faults = append([]fault[H]{{name: "sound", harness: sound}}, faults...)
	var matrix strings.Builder
	fmt.Fprintf(&matrix, "%-44s", "broken plugin \\ case")
	for i := range cases {
		fmt.Fprintf(&matrix, " %2d", i+1)
	}
	for _, f := range faults {
		fmt.Fprintf(&matrix, "\n%-44s", f.name)
		for _, c := range cases {
			failures := attempt(t, c, f.harness)
			fmt.Fprintf(&matrix, "  %s", mark(failures))
			if noticed := len(failures) > 0; noticed != (c.Name == f.breaks) {
				t.Errorf("plugin %q, case %q: failed=%t, want %t %q", f.name, c.Name, noticed, !noticed, failures)
			}
		}
	}
	for i, c := range cases {
		fmt.Fprintf(&matrix, "\n%2d: %s", i+1, c.Name)
		if !slices.ContainsFunc(faults, func(f fault[H]) bool { return f.breaks == c.Name }) {
			t.Errorf("case %q has no plugin that breaks it", c.Name)
		}
	}
	t.Logf("\n%s", matrix.String())
}

func mark(failures []string) string {
	if len(failures) > 0 {
		return "X"
	}
	return "."
}

package rego

import (
	"log/slog"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/source"
)

// opened opens a source of policies.
func opened(t testing.TB, config source.Config) plugin.PolicySource {
	t.Helper()
	if config.Deadline == 0 {
		config.Deadline = time.Second
	}
	s, err := New(t.Context(), plugin.Env{Log: slog.New(slog.DiscardHandler)}, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

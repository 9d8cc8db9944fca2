package rego

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// service is a policy that takes everything.
const anyService = `package imgate.services.a

match := {"domains": ["*"]}

plan.store := "1h"
`

// roomOf makes a directory of the given files.
func roomOf(t testing.TB, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, texts)
	return dir
}

// put writes files, long enough ago to be read at once.
func put(t testing.TB, dir string, texts map[string]string) {
	t.Helper()
	for name, text := range texts {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		long := time.Now().Add(-time.Minute)
		if err := os.Chtimes(name, long, long); err != nil {
			t.Fatal(err)
		}
	}
}

// opened opens a source of policies.
func opened(t testing.TB, config Config) plugin.PolicySource {
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

// sourceOf is a source of the given files.
func sourceOf(t testing.TB, texts map[string]string) (source, error) {
	t.Helper()
	return openSource(t.Context(), Config{Dir: roomOf(t, texts)})
}

func wants(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("there is no error, want %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got\n%v\nwant in it\n%s", err, part)
		}
	}
}

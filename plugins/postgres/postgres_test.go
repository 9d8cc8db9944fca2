package postgres

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

func TestContract(t *testing.T) {
	server := postgrestest.Start(t)
	schemas := new(atomic.Int64)
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("relations of their own %t", own), func(t *testing.T) {
			plugintest.Storage(t, func(plugintest.T) plugintest.StorageHarness {
				c := Config{URL: server.URL(), Schema: fmt.Sprintf("case_%d", schemas.Add(1))}
				env := plugin.Env{Log: quiet()}
				if own {
					env.Sheets = []plugin.Sheet{{Table: "spool"}, {Table: "a/b"}, {Table: "a"}}
				}
				return plugintest.StorageHarness{Open: func(t plugintest.T) plugin.Storage {
					s, err := New(t.Context(), env, c)
					if err != nil {
						t.Fatalf("open: %v", err)
					}
					return s
				}}
			})
		})
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func openAt(t testing.TB, env plugin.Env, url string) *storage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := New(ctx, env, Config{URL: url, Schema: "imgate"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*storage)
}

// TestAgainstMap compares the storage with a map over random changes of keys
// that meet often, within an Apply and between them.
func TestAgainstMap(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet(), Sheets: []plugin.Sheet{{Table: "own"}}}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	random := rand.New(rand.NewPCG(1, 2))
	tables := map[string]map[string]string{"own": {}, "shared": {}, "another": {}}
	names := slices.Sorted(maps.Keys(tables))
	for range 60 {
		changes := make([]plugin.Change, random.IntN(40))
		for i := range changes {
			c := row(names[random.IntN(len(names))], strconv.Itoa(random.IntN(30)), strconv.Itoa(random.Int()))
			if random.IntN(3) == 0 {
				c.Value = nil
				delete(tables[c.Table], string(c.Key))
			} else {
				tables[c.Table][string(c.Key)] = string(c.Value)
			}
			changes[i] = c
		}
		apply(t, s, f, changes...)
	}
	for name, want := range tables {
		rows, err := s.Scan(t.Context(), name, nil, nil, 100)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, r := range rows {
			got[string(r.Key)] = string(r.Value)
		}
		if !maps.Equal(got, want) {
			t.Errorf("table %s is %v, want %v", name, got, want)
		}
	}
}

package pipeline_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
	"github.com/imgate/imgate/plugins/pebble"
	"github.com/imgate/imgate/plugins/postgres"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// store is a storage that we ship.
type store struct {
	name string
	// prepare starts what its disks need, until the test ends.
	prepare func(testing.TB) maker
}

// maker makes an empty disk.
type maker func(testing.TB) opener

// opener opens a storage on a disk. What it opened before is closed by then,
// unless it is memory or PostgreSQL.
type opener func() (plugin.Storage, error)

func stores() []store {
	return []store{{"memory", prepareMemory}, {"pebble", preparePebble}, {"postgres", preparePostgres}}
}

func prepareMemory(testing.TB) maker {
	return func(testing.TB) opener {
		disk := memory.NewDisk()
		return func() (plugin.Storage, error) { return memory.Open(disk), nil }
	}
}

func preparePebble(testing.TB) maker {
	return func(t testing.TB) opener {
		env := storeEnv()
		env.DataDir = t.TempDir()
		return func() (plugin.Storage, error) { return pebble.New(t.Context(), env, pebble.Config{}) }
	}
}

// preparePostgres starts one server: each disk is a schema of its own.
func preparePostgres(t testing.TB) maker {
	server, disks := postgrestest.Start(t, "fsync=off"), 0
	return func(t testing.TB) opener {
		disks++
		config := postgres.Config{URL: server.URL(), Schema: fmt.Sprint("disk", disks)}
		return func() (plugin.Storage, error) { return postgres.New(t.Context(), storeEnv(), config) }
	}
}

func storeEnv() plugin.Env {
	return plugin.Env{Node: "test", Log: slog.New(slog.DiscardHandler), Sheets: spool.Sheets()}
}

// open opens a storage that is closed when the test ends, unless a node has
// closed it by then.
func (o opener) open(t testing.TB) plugin.Storage {
	t.Helper()
	s, err := o()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

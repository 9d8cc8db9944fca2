package engine_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// historian counts how often the records of messages are read.
type historian struct {
	plugin.Storage
	reads atomic.Int32
}

func (h *historian) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if table == "history" {
		h.reads.Add(1)
	}
	return h.Storage.Scan(ctx, table, from, to, n)
}

// TestSubmissionsAreHandedOn: the next term of a lease knows which submissions
// were seen, without reading any.
func TestSubmissionsAreHandedOn(t *testing.T) {
	w := newWorld(t)
	storage := &historian{Storage: memory.Open(memory.NewDisk())}
	onIt := func(c *engine.Config) {
		c.Storage = instance("storage", plugin.DefineStorage("memory", "", settings{}, func(context.Context, plugin.Env, settings) (plugin.Storage, error) {
			return storage, nil
		}), settings{})
	}
	n := start(t, w, engine.Options{}, onIt)
	n.works("said once")
	reads, terms := storage.reads.Load(), w.count("accounts")
	if _, err := n.Reload(t.Context(), n.config(onIt, set(accounts, settings{Version: 2}))); err != nil {
		t.Fatal(err)
	}
	if w.count("accounts") == terms || storage.reads.Load() != reads {
		t.Errorf("%d terms began and read the history %d times", w.count("accounts")-terms, storage.reads.Load()-reads)
	}
	if err := w.at("in").say(t.Context(), "a", "b", "said once"); err != nil {
		t.Fatal(err)
	}
	n.works("and something else")
	if times := w.deliveries("said once"); times != 1 {
		t.Errorf("a submission that was repeated is delivered %d times", times)
	}
}

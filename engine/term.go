package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// drainWait is how long messages that are under way may take to come to rest
// when a node stops.
const drainWait = 5 * time.Second

// term is the time during which this node is the active one: everything whose
// memory must not be older than the disk is opened when it begins and closed
// when it ends.
type term struct {
	committer *spool.Committer
	accounts  plugin.Accounts
	verifying sync.RWMutex // held for reading while accounts is asked from a door
	closed    bool         // guarded by verifying
	charging  plugin.Charging
	pipeline  *pipeline.Pipeline
}

// serveTerm works until ctx ends. plugin.ErrFenced: another node has taken over.
func (e *Engine) serveTerm(ctx context.Context, fence plugin.Fence) error {
	t := &term{committer: spool.NewCommitter(e.storage, fence, e.log)}
	// Writers end before the committer does: it has a context of its own.
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriting()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)

	var committing sync.WaitGroup
	var fenced error
	committing.Go(func() {
		if fenced = t.committer.Run(writing); fenced != nil {
			end(fenced)
		}
	})
	err := e.work(ctx, t)
	stopWriting()
	committing.Wait()
	return errors.Join(err, fenced)
}

// work opens what a term needs, carries messages until ctx ends, and closes.
func (e *Engine) work(ctx context.Context, t *term) error {
	began := time.Now()
	routes := e.admin.StartTerm()
	defer e.admin.EndTerm()
	if err := e.openBooks(ctx, t, routes); err != nil {
		return err
	}
	// What is under way may end in peace: the pipeline's context outlives ctx
	// until it is drained.
	t.pipeline = e.newPipeline(context.WithoutCancel(ctx), t)
	if err := t.pipeline.Restore(ctx); err != nil {
		return errors.Join(err, t.close())
	}
	snapshot := t.pipeline.Snapshot()
	e.log.Info("takes traffic", "waiting", snapshot["waiting"], "bindings", snapshot["bindings"], "took", time.Since(began).Round(time.Millisecond))

	var running sync.WaitGroup
	running.Go(t.pipeline.Run)
	e.term.Store(t)
	e.announce.Do(func() { e.started(e.admin.Addr()) })
	<-ctx.Done()
	e.term.Store(nil)
	t.pipeline.Drain(drainWait)
	running.Wait()
	return t.close()
}

func (e *Engine) openBooks(ctx context.Context, t *term, routes plugin.Admin) (err error) {
	shared := &plugin.Shared{}
	t.accounts, err = plugin.Open[plugin.Accounts](ctx, e.config.Accounts.Plugin, e.bookEnv(e.config.Accounts, t, routes, shared), e.config.Accounts.Settings)
	if err != nil {
		return err
	}
	t.charging, err = plugin.Open[plugin.Charging](ctx, e.config.Charging.Plugin, e.bookEnv(e.config.Charging, t, routes, shared), e.config.Charging.Settings)
	if err != nil {
		return errors.Join(err, t.accounts.Close())
	}
	return nil
}

func (e *Engine) bookEnv(i Instance, t *term, routes plugin.Admin, shared *plugin.Shared) plugin.Env {
	env := e.env(i)
	env.Tables = spool.NewTables(i.Plugin.Name, e.storage, t.committer)
	env.Admin, env.Shared = routes, shared
	return env
}

func (e *Engine) newPipeline(ctx context.Context, t *term) *pipeline.Pipeline {
	doors := make(map[string]pipeline.Door, len(e.doors))
	for _, d := range e.doors {
		doors[d.instance.Name] = pipeline.Door{
			Transport: d.transport, Plugin: d.instance.Plugin.Name, Registrar: d.instance.Plugin.Registrar,
		}
	}
	return pipeline.New(ctx, pipeline.Parts{
		Policy: e.policy, Accounts: t.accounts, Charging: t.charging,
		Tables: spool.NewTables(e.config.Charging.Plugin.Name, e.storage, t.committer),
		Doors:  doors,
		Spool:  spool.New(e.storage, t.committer), Seen: spool.NewSeenTable(e.storage, t.committer),
		Locations: spool.NewLocations(e.storage, t.committer), Log: e.log,
	})
}

// verify asks accounts for a door, which doesn't know when a term ends.
func (t *term) verify(ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
	t.verifying.RLock()
	defer t.verifying.RUnlock()
	if t.closed {
		return plugin.Account{}, message.FailForNow(message.Standby, "this node is no longer the active one")
	}
	return t.accounts.Verify(ctx, c)
}

func (t *term) close() error {
	t.verifying.Lock()
	defer t.verifying.Unlock()
	t.closed = true
	return errors.Join(t.charging.Close(), t.accounts.Close())
}

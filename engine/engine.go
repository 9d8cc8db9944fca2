// Package engine runs the gateway: it opens the plugins in order, lets this
// node become the active one, runs the pipeline while it is, and closes
// everything in reverse. It knows plugins only by their contract.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/standby"
)

// TokenFile is where the admin API's token is, below the data directory.
const TokenFile = "admin.token"

// Config is a checked configuration.
type Config struct {
	Node        string
	DataDir     string
	Storage     Instance
	Policy      Instance
	Accounts    Instance
	Charging    Instance
	Transports  []Instance
	AdminListen string
}

// Instance is a plugin with its settings, as Definition.NewConfig returned and
// the operator filled them in.
type Instance struct {
	Name     string // of a transport: its key in the configuration; else its kind
	Plugin   plugin.Definition
	Settings plugin.Config
}

// Engine is a node at work.
type Engine struct {
	config  Config
	log     *slog.Logger
	started func(string)

	admin   *admin.Server
	storage plugin.Storage
	policy  plugin.Policy
	doors   []*door

	draining atomic.Bool
	term     atomic.Pointer[term] // nil: this node isn't the active one
	announce sync.Once
}

// Run runs a node until ctx ends, then lets it come to rest; nil means that it
// ended as it should. started is called once, when the node first takes
// traffic, with the address of the admin API.
func Run(ctx context.Context, c Config, log *slog.Logger, started func(adminAddress string)) error {
	e := &Engine{config: c, log: log, started: started}
	closers, err := e.open(ctx)
	if err == nil {
		err = e.run(ctx)
	}
	for i := len(closers) - 1; i >= 0; i-- {
		err = errors.Join(err, closers[i]())
	}
	return err
}

// open opens what lives as long as the process. What was opened before a
// failure is returned to be closed.
func (e *Engine) open(ctx context.Context) (closers []func() error, err error) {
	if err := os.MkdirAll(e.config.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	c := e.config
	if e.storage, err = plugin.Open[plugin.Storage](ctx, c.Storage.Plugin, e.env(c.Storage), c.Storage.Settings); err != nil {
		return closers, err
	}
	closers = append(closers, e.storage.Close)
	if e.policy, err = plugin.Open[plugin.Policy](ctx, c.Policy.Plugin, e.env(c.Policy), c.Policy.Settings); err != nil {
		return closers, err
	}
	closers = append(closers, e.policy.Close)
	for _, instance := range c.Transports {
		transport, err := plugin.Open[plugin.Transport](ctx, instance.Plugin, e.env(instance), instance.Settings)
		if err != nil {
			return closers, fmt.Errorf("transports.%s: %w", instance.Name, err)
		}
		e.doors = append(e.doors, &door{engine: e, instance: instance, transport: transport, ready: make(chan struct{})})
	}
	e.admin, err = admin.New(c.AdminListen, filepath.Join(c.DataDir, TokenFile), e.log)
	if err != nil {
		return closers, err
	}
	e.routes()
	return closers, nil
}

func (e *Engine) env(i Instance) plugin.Env {
	return plugin.Env{
		Instance: i.Name, Node: e.config.Node, DataDir: e.config.DataDir,
		Log: e.log.With("plugin", i.Plugin.Name, "instance", i.Name),
	}
}

// run serves all doors and the admin API, and leads while this node may. The
// first of them that fails ends the others. On the way out the doors stay open
// until the term has come to rest: whoever knocks is told to go elsewhere.
func (e *Engine) run(ctx context.Context) error {
	open, shut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer shut(nil)
	lead, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	var doors sync.WaitGroup
	serve := func(name string, f func(context.Context) error) {
		doors.Go(func() {
			err := f(open)
			if open.Err() != nil {
				return // it was told to
			}
			if err == nil {
				err = errors.New("ended by itself")
			}
			stop(fmt.Errorf("%s: %w", name, err))
		})
	}
	serve("admin", e.admin.Serve)
	for _, d := range e.doors {
		serve("transports."+d.instance.Name, func(ctx context.Context) error { return d.transport.Serve(ctx, d) })
	}
	err := e.lead(lead)
	if ctx.Err() == nil {
		err = errors.Join(context.Cause(lead), err)
	}
	shut(nil)
	doors.Wait()
	return err
}

// lead waits until all doors are open and then leads while the lease allows.
func (e *Engine) lead(ctx context.Context) error {
	for _, d := range e.doors {
		select {
		case <-d.ready:
		case <-ctx.Done():
			return nil
		}
	}
	context.AfterFunc(ctx, func() { e.draining.Store(true) })
	return standby.Run(ctx, e.storage, e.config.Node, e.log, e.serveTerm)
}

// active is the running term, or why there is none.
func (e *Engine) active() (*term, *message.Failure) {
	t := e.term.Load()
	switch {
	case e.draining.Load():
		return nil, &message.Failure{Reason: message.Draining, Temporary: true, RetryAfter: time.Second}
	case t == nil:
		return nil, &message.Failure{Reason: message.Standby, Temporary: true, RetryAfter: time.Second}
	}
	return t, nil
}

// routes are the engine's own part of the admin API.
func (e *Engine) routes() {
	e.admin.Ready(func() []string {
		t, failure := e.active()
		switch {
		case failure != nil:
			return []string{string(failure.Reason)}
		case t.pipeline.Spool.Failing():
			return []string{string(message.StorageDown)}
		}
		return nil
	})
	e.admin.Handle("GET /status", e.whileActive(func(w http.ResponseWriter, _ *http.Request, t *term) {
		admin.Reply(w, http.StatusOK, t.pipeline.Snapshot())
	}))
	e.admin.Handle("GET /quarantine", e.whileActive(func(w http.ResponseWriter, _ *http.Request, t *term) {
		admin.Reply(w, http.StatusOK, t.pipeline.Quarantined())
	}))
	e.admin.Handle("POST /quarantine/{id}/requeue", e.onAside(func(ctx context.Context, t *term, id message.ID) error {
		return t.pipeline.Requeue(ctx, id)
	}))
	e.admin.Handle("POST /quarantine/{id}/cancel", e.onAside(func(ctx context.Context, t *term, id message.ID) error {
		return t.pipeline.Cancel(ctx, id)
	}))
}

// onAside serves a change to one message in quarantine.
func (e *Engine) onAside(change func(context.Context, *term, message.ID) error) http.HandlerFunc {
	return e.whileActive(func(w http.ResponseWriter, r *http.Request, t *term) {
		id, err := message.ParseID(r.PathValue("id"))
		if err != nil {
			admin.Error(w, http.StatusBadRequest, err.Error())
			return
		}
		err = change(r.Context(), t, id)
		switch f := message.AsFailure(err); {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case f.Reason == message.UnknownRecipient:
			admin.Error(w, http.StatusNotFound, f.Err.Error())
		default:
			admin.Error(w, http.StatusServiceUnavailable, f.Error())
		}
	})
}

func (e *Engine) whileActive(serve func(http.ResponseWriter, *http.Request, *term)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t, failure := e.active()
		if failure != nil {
			admin.Error(w, http.StatusServiceUnavailable, string(failure.Reason))
			return
		}
		serve(w, r, t)
	}
}

package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/plugin"
)

// watcher is an observer that is open. Those who tell it something don't know
// when it is closed.
type watcher struct {
	instance Instance
	observer plugin.Observer
	routes   *admin.Scope
	metrics  *plugin.Metrics

	telling sync.RWMutex // held for reading while the observer is told something
	closed  bool         // guarded by telling
}

func (e *Engine) openWatcher(ctx context.Context, c Config, i Instance) (*watcher, error) {
	w := &watcher{instance: i, routes: admin.NewScope()}
	env := e.env(i)
	env.Admin, w.metrics = w.routes, env.Metrics
	observer, err := plugin.Open[plugin.Observer](ctx, i.Plugin, env, i.Settings)
	if err != nil {
		w.metrics.Close()
		return nil, c.wrong(i.Key(), err)
	}
	w.observer = observer
	return w, nil
}

// closeWatchers closes all observers, when nobody has anything to tell any more.
func (e *Engine) closeWatchers() (err error) {
	e.observers.Use(nil)
	for _, w := range e.watchers {
		err = errors.Join(err, w.Close())
	}
	return err
}

// watching is the list that plugin.Observers works with.
func watching(watchers []*watcher) []plugin.Observer {
	list := make([]plugin.Observer, len(watchers))
	for i, w := range watchers {
		list[i] = w
	}
	return list
}

// Packet is plugin.Observer.
func (w *watcher) Packet(p *plugin.Packet) {
	w.telling.RLock()
	defer w.telling.RUnlock()
	if !w.closed {
		w.observer.Packet(p)
	}
}

// Step is plugin.Observer.
func (w *watcher) Step(s *plugin.Step) {
	w.telling.RLock()
	defer w.telling.RUnlock()
	if !w.closed {
		w.observer.Step(s)
	}
}

// Close is plugin.Observer.
func (w *watcher) Close() error {
	w.telling.Lock()
	w.closed = true
	w.telling.Unlock() // whoever comes too late needn't wait for the end
	w.metrics.Close()
	return w.observer.Close()
}

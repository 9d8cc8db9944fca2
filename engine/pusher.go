package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// pusher has apps woken by whom the configuration in force names, or by nobody.
// All pipelines have the same one.
type pusher struct{ current atomic.Pointer[openPusher] }

// Wake is plugin.Pusher.
func (p *pusher) Wake(ctx context.Context, s plugin.Sleeper) error {
	if o := p.current.Load(); o != nil {
		return o.wake(ctx, s)
	}
	return message.Fail(message.Unavailable, "the configuration has no push")
}

// Keep is plugin.Pusher.
func (p *pusher) Keep() time.Duration {
	if o := p.current.Load(); o != nil {
		return o.keep
	}
	return 0
}

// Close is plugin.Pusher. It comes when nobody is to be woken any more.
func (p *pusher) Close() error { return p.current.Swap(nil).close() }

// openPusher is a pusher that is open. Those who call it don't know when it is
// closed.
type openPusher struct {
	plugin.Pusher
	instance Instance
	keep     time.Duration
	metrics  *plugin.Metrics
	open     context.Context // ends when it is to close
	shut     context.CancelFunc

	calling sync.RWMutex // held for reading while it is called
	closed  bool         // guarded by calling
}

// openPusher opens what a configuration names; nil: it names nothing.
func (e *Engine) openPusher(ctx context.Context, c Config) (*openPusher, error) {
	i := c.Push
	if i.Plugin.Name == "" {
		return nil, nil
	}
	env := e.env(i)
	opened, err := plugin.Open[plugin.Pusher](ctx, i.Plugin, env, i.Settings)
	if err != nil {
		env.Metrics.Close()
		return nil, c.wrong(i.Key(), err)
	}
	o := &openPusher{Pusher: opened, instance: i, keep: opened.Keep(), metrics: env.Metrics}
	o.open, o.shut = context.WithCancel(context.WithoutCancel(ctx))
	return o, nil
}

// wake calls the plugin, until it is to close: then the call is made again, by the
// one that comes after.
func (o *openPusher) wake(ctx context.Context, s plugin.Sleeper) error {
	o.calling.RLock()
	defer o.calling.RUnlock()
	if o.closed {
		return message.FailForNow(message.Overloaded, "the push plugin is being exchanged")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.open, cancel)()
	return o.Wake(ctx, s)
}

func (o *openPusher) close() error {
	if o == nil {
		return nil
	}
	o.shut()
	o.calling.Lock()
	o.closed = true
	o.calling.Unlock()
	o.metrics.Close()
	return o.Pusher.Close()
}

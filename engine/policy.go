package engine

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/revisions"
	"github.com/imgate/imgate/engine/spool"
)

// peerSeen is how long ago a node may have spoken whose word on its policies counts.
const peerSeen = 10 * time.Second

// maxRemark is how many octets a remark has at most.
const maxRemark = 4 << 10

// openBook makes the book of the policies' revisions.
func (e *Engine) openBook() {
	e.book = revisions.New(revisions.Config{
		Node: e.node, Log: e.log, Metrics: e.options.Metrics,
		Stored: spool.NewTables(revisions.Technology, e.storage, nil),
		Peers:  e.held,
	})
}

// held is what the sources of the nodes that are there hold.
func (e *Engine) held() map[string]revisions.Held {
	held := map[string]revisions.Held{}
	for _, p := range e.attendance.Nodes(time.Now()) {
		if p.Policy != "" && p.Seen <= peerSeen {
			held[p.Node] = revisions.Held{Revision: p.Policy, Broken: p.PolicyBroken}
		}
	}
	return held
}

// openSource opens a source of policies.
func (e *Engine) openSource(ctx context.Context, c Config) (*revisions.Source, error) {
	env := e.env(c.Policy)
	env.Transports = c.TransportNames()
	source, err := plugin.Open[plugin.PolicySource](ctx, c.Policy.Plugin, env, c.Policy.Settings)
	if err != nil {
		env.Metrics.Close()
		return nil, c.wrong(c.Policy.Key(), err)
	}
	return revisions.NewSource(measuredSource{source, env.Metrics}, c.Policy.words(), e.log), nil
}

// measuredSource takes its metrics with it.
type measuredSource struct {
	plugin.PolicySource
	metrics *plugin.Metrics
}

// Close is plugin.PolicySource.
func (s measuredSource) Close() error {
	s.metrics.Close()
	return s.PolicySource.Close()
}

// TransportNames are the names that plans may have: of the transports and of
// their plugins, sorted, each once.
func (c Config) TransportNames() []string {
	names := []string{}
	for _, i := range c.Transports {
		names = append(names, i.Name, i.Plugin.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// words are what an operator would call a source of policies: "dir ./policies",
// "bundle policies.tar.gz", or the name of its plugin.
func (i Instance) words() string {
	for _, place := range [...][]string{{"bundle", "file"}, {"dir"}} {
		if text := textAt(reflect.ValueOf(i.Settings), place); text != "" {
			return place[0] + " " + text
		}
	}
	return i.Plugin.Name
}

// textAt is the text that settings have at a key; empty: they have none.
func textAt(settings reflect.Value, key []string) string {
	settings = reflect.Indirect(settings)
	switch {
	case len(key) == 0 && settings.Kind() == reflect.String:
		return settings.String()
	case len(key) == 0 || settings.Kind() != reflect.Struct:
		return ""
	}
	for n := range settings.NumField() {
		if name, _, _ := strings.Cut(settings.Type().Field(n).Tag.Get("yaml"), ","); name == key[0] {
			return textAt(settings.Field(n), key[1:])
		}
	}
	return ""
}

// leadPolicies decides which policies are in force in a term.
func (e *Engine) leadPolicies(t *term) error {
	t.book = e.book
	err := e.book.Lead(t.ctx, spool.NewTables(revisions.Technology, e.storage, t.committer))
	if unusable, ok := errors.AsType[*revisions.UnusableError](err); ok {
		return e.config.wrong(e.config.Policy.Key(), unusable)
	}
	return err
}

// remarks are what is wrong, and keeps no node from its work.
func (e *Engine) remarks() []string {
	s := e.book.Status()
	if s.Trouble == "" {
		return nil
	}
	text := "policy: " + s.Trouble
	return []string{strings.ToValidUTF8(text[:min(len(text), maxRemark)], "")}
}

func (e *Engine) servePolicy(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		admin.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	admin.Reply(w, http.StatusOK, e.book.Status())
}

// findPolicies reads and compiles what is to be in force after a reload: by the
// source that there is, or by another one, if its settings or the names that
// plans may have change.
func (r *reload) findPolicies(ctx context.Context) (err error) {
	e := r.engine
	if r.policy {
		if r.source, err = e.openSource(ctx, r.to); err != nil {
			return err
		}
		r.onFailure(r.source.Close)
	}
	r.found, err = e.book.Prepare(ctx, r.source)
	return r.to.wrong(r.to.Policy.Key(), err)
}

// exchangePolicy puts the policies that were found in force.
func (r *reload) exchangePolicy(ctx context.Context) error {
	e := r.engine
	revert, err := e.book.Adopt(ctx, r.found, r.pause != nil)
	if err != nil {
		return r.to.wrong(r.to.Policy.Key(), err)
	}
	before := e.source
	e.source = cmp.Or(r.source, before)
	r.onFailure(func() error {
		revert()
		e.source = before
		return nil
	})
	r.onSuccess(func() {
		e.book.Watch(e.leading)
		if before != e.source {
			r.closed(r.from.Policy, before.Close())
		}
	})
	return nil
}

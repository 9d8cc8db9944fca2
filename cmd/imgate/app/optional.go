package app

import (
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

// This file reads the plugins that a configuration may go without.

// usualObserver keeps what `imgate trace` shows.
const usualObserver = "ladder"

// push reads who wakes apps that sleep: nobody, if neither the file nor the
// environment says who.
func (l *loader) push(sections map[string]*yaml.Node) engine.Instance {
	path := string(plugin.KindPush)
	if _, said := l.environment(join(path, "plugin")); sections[path] == nil && !said {
		return engine.Instance{}
	}
	return l.single(plugin.KindPush, sections)
}

// observers reads the observers; if the file has no such key, there is the
// usual one, in a build that has it.
func (l *loader) observers(section *yaml.Node) []engine.Instance {
	if section != nil {
		return l.instances(plugin.KindObserver, observersKey, section)
	}
	if !slices.ContainsFunc(l.plugins, func(d plugin.Definition) bool {
		return d.Kind == plugin.KindObserver && d.Name == usualObserver
	}) {
		return nil
	}
	return []engine.Instance{l.instance(plugin.KindObserver, "trace", join(observersKey, "trace"), nil, usualObserver)}
}

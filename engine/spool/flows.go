package spool

import (
	"maps"
	"slices"

	"github.com/imgate/imgate/engine/plugin"
)

// flows knows whose bindings are over a flow, so that one that is gone takes no
// look at all accounts.
type flows map[flowName]owners

// flowName is a flow among those of all transport instances.
type flowName struct{ transport, flow string }

// owners are the accounts over one flow. A client has a flow of its own; all that
// come through one proxy share theirs.
type owners struct {
	one  string
	more map[string]bool // nil: it is that one alone
}

// flowOf is the flow that a binding needs; none if it has none, or sleeps.
func flowOf(b *plugin.Binding) flowName {
	if b.Flow == "" || b.Asleep {
		return flowName{}
	}
	return flowName{b.Transport, b.Flow}
}

// update notes that an account has other bindings than before.
func (f flows) update(account string, before, after []plugin.Binding) {
	for i := range before {
		if name := flowOf(&before[i]); name.flow != "" && !over(name, after) {
			f.remove(name, account)
		}
	}
	for i := range after {
		if name := flowOf(&after[i]); name.flow != "" && !over(name, before) {
			f.add(name, account)
		}
	}
}

// over tells whether one of some bindings is over a flow.
func over(name flowName, bindings []plugin.Binding) bool {
	for i := range bindings {
		if flowOf(&bindings[i]) == name {
			return true
		}
	}
	return false
}

func (f flows) add(name flowName, account string) {
	o, known := f[name]
	switch {
	case !known:
		f[name] = owners{one: account}
	case o.more != nil:
		o.more[account] = true
	case o.one != account:
		f[name] = owners{more: map[string]bool{o.one: true, account: true}}
	}
}

func (f flows) remove(name flowName, account string) {
	o := f[name]
	delete(o.more, account)
	if len(o.more) == 0 {
		delete(f, name)
	}
}

// accounts are those over a flow.
func (f flows) accounts(name flowName) []string {
	o, known := f[name]
	switch {
	case !known:
		return nil
	case o.more == nil:
		return []string{o.one}
	}
	return slices.Collect(maps.Keys(o.more))
}

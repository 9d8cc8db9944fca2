package engine

import (
	"errors"
	"slices"
)

// difference is what a new configuration changes.
type difference struct {
	transports, observers exchange
	policy                bool // its source is opened anew
	push                  bool // it is opened anew, or ends
	// term: something that the pipeline or the books are made of.
	term bool
	keys []string // all that changes, as it stands in the configuration
}

// exchange is what changes about instances that have names.
type exchange struct {
	out []string   // those that are closed
	in  []Instance // those that are opened, in the place of a closed one or besides
}

// keeps tells whether an instance stays up.
func (x exchange) keeps(name string) bool { return !slices.Contains(x.out, name) }

// compare says how to get from one configuration to another. An error names
// what takes a restart.
func compare(from, to Config) (difference, error) {
	if err := errors.Join(
		to.fixed("node", from.Node == to.Node),
		to.fixed("data_dir", from.DataDir == to.DataDir),
		to.fixed("admin.listen", from.AdminListen == to.AdminListen),
		to.fixed("storage", from.Storage.same(to.Storage)),
	); err != nil {
		return difference{}, err
	}
	var d difference
	d.transports = d.exchange(from.Transports, to.Transports)
	d.term = d.term || anew(from.Transports, to.Transports)
	d.observers = d.exchange(from.Observers, to.Observers)
	d.policy = !from.Policy.same(to.Policy)
	d.note("policy", d.policy)
	d.policy = d.policy || !slices.Equal(from.TransportNames(), to.TransportNames()) // it warns of names that no transport has
	d.push = !from.Push.same(to.Push)
	d.note("push", d.push)
	d.note("zone", from.Zone.String() != to.Zone.String())
	d.term = d.term || from.Zone.String() != to.Zone.String()
	for _, books := range []struct {
		key     string
		changes bool
	}{
		{"accounts", !from.Accounts.same(to.Accounts)},
		{"charging", !from.Charging.same(to.Charging)},
	} {
		d.note(books.key, books.changes)
		d.term = d.term || books.changes
	}
	d.note("imdn", from.Notifications != to.Notifications)
	d.note("limits", from.Limits != to.Limits)
	d.note("retention", from.Retention != to.Retention)
	slices.Sort(d.keys)
	return d, nil
}

func (c Config) fixed(key string, same bool) error {
	if same {
		return nil
	}
	return c.wrong(key, errors.New("it can't change while the server runs: restart it"))
}

func (d *difference) note(key string, changes bool) {
	if changes {
		d.keys = append(d.keys, key)
	}
}

// exchange compares instances by their names.
func (d *difference) exchange(from, to []Instance) (x exchange) {
	for _, i := range from {
		next, stays := find(to, i.Name)
		if !stays || !i.same(next) {
			x.out = append(x.out, i.Name)
			d.keys = append(d.keys, i.Key())
		}
	}
	for _, i := range to {
		before, known := find(from, i.Name)
		if !known || !i.same(before) {
			x.in = append(x.in, i)
		}
		d.note(i.Key(), !known)
	}
	return x
}

// anew tells whether the pipeline must learn of other doors: it knows them by
// the names of instance and plugin.
func anew(from, to []Instance) bool {
	return !slices.EqualFunc(from, to, func(a, b Instance) bool {
		return a.Name == b.Name && a.Plugin.Name == b.Plugin.Name
	})
}

func find(list []Instance, name string) (Instance, bool) {
	i := slices.IndexFunc(list, func(i Instance) bool { return i.Name == name })
	if i < 0 {
		return Instance{}, false
	}
	return list[i], true
}

package plugintest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"sync"

	"github.com/imgate/imgate/engine/plugin"
)

// Tables is a plugin.Tables in memory. It outlives the plugin that is opened on
// it, so opening another one on the same Tables is what a restart is in
// production. What Authorize and Settle return is committed as the engine does
// it, in the order of the calls, with Commit.
//
// It refuses what an engine's storage may refuse: table names that aren't
// [a-z]+ and keys and values over the limits of package plugin.
type Tables struct {
	mu     sync.RWMutex
	tables map[string]*table
}

// table keeps its keys in order for Scan; the order is made when it is asked
// for, not with each change.
type table struct {
	rows  map[string][]byte
	order []string // nil: must be made
}

// NewTables returns empty tables.
func NewTables() *Tables { return &Tables{tables: map[string]*table{}} }

var tableName = regexp.MustCompile(`^[a-z]+$`)

// Commit applies all changes at once, or none of them. The Commitment that it
// returns is already fulfilled or broken.
func (s *Tables) Commit(changes []plugin.Change) plugin.Commitment {
	for _, c := range changes {
		if err := checkChange(c); err != nil {
			return commitment{err}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		s.table(c.Table).apply(c)
	}
	return commitment{}
}

func checkChange(c plugin.Change) error {
	switch {
	case !tableName.MatchString(c.Table):
		return fmt.Errorf("table %q: the name is not [a-z]+", c.Table)
	case len(c.Key) == 0 || len(c.Key) > plugin.MaxKey:
		return fmt.Errorf("table %q: a key of %d octets, the limits are 1 and %d", c.Table, len(c.Key), plugin.MaxKey)
	case len(c.Value) > plugin.MaxValue:
		return fmt.Errorf("table %q: a value of %d octets, the limit is %d", c.Table, len(c.Value), plugin.MaxValue)
	}
	return nil
}

func (s *Tables) table(name string) *table {
	t, ok := s.tables[name]
	if !ok {
		t = &table{rows: map[string][]byte{}}
		s.tables[name] = t
	}
	return t
}

func (t *table) apply(c plugin.Change) {
	key := string(c.Key)
	_, exists := t.rows[key]
	if c.Value == nil {
		delete(t.rows, key)
	} else {
		t.rows[key] = append([]byte{}, c.Value...)
	}
	if exists != (c.Value != nil) {
		t.order = nil
	}
}

// Scan returns up to n rows with from <= key < to, in the order of the keys.
func (s *Tables) Scan(ctx context.Context, name string, from, to []byte, n int) ([]plugin.Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table(name)
	t.sort()
	var found []plugin.Change
	for i := sort.SearchStrings(t.order, string(from)); i < len(t.order) && len(found) < n; i++ {
		key := t.order[i]
		if to != nil && key >= string(to) {
			break
		}
		found = append(found, plugin.Change{Table: name, Key: []byte(key), Value: append([]byte{}, t.rows[key]...)})
	}
	return found, nil
}

func (t *table) sort() {
	if t.order != nil {
		return
	}
	t.order = make([]string, 0, len(t.rows))
	for key := range t.rows {
		t.order = append(t.order, key)
	}
	slices.Sort(t.order)
}

// has tells whether there is such a row.
func (s *Tables) has(name string, key []byte) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.tables[name]
	if !ok {
		return false
	}
	_, ok = t.rows[string(key)]
	return ok
}

// commitment is one whose fate is known.
type commitment struct{ err error }

func (c commitment) Wait(context.Context) error { return c.err }

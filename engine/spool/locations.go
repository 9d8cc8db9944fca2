package spool

import (
	"context"
	"crypto/sha256"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// bindingFormat is the version of the rows in table bindings. Version 1 had the
// reg-id in the device, version 2 no window; their rows are still read.
const bindingFormat = 3

// Locations knows where devices can be reached. Memory holds all of it; the
// disk is written with each change. It may be used from several goroutines.
type Locations struct {
	storage   plugin.Storage
	committer *Committer

	mu       sync.RWMutex
	accounts map[string][]plugin.Binding
	devices  map[string][]Device
	count    int
	max      int // bindings of an address-of-record
}

// NewLocations returns an empty table.
func NewLocations(storage plugin.Storage, committer *Committer) *Locations {
	return &Locations{storage: storage, committer: committer, accounts: map[string][]plugin.Binding{}, devices: map[string][]Device{}, max: math.MaxInt}
}

// Limit sets how many bindings an address-of-record may have at once.
func (l *Locations) Limit(contacts int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max = contacts
}

// Restore fills the table from disk.
func (l *Locations) Restore(ctx context.Context, now time.Time) error {
	var expired []plugin.Change
	err := scan(ctx, l.storage, tableBindings, nil, func(key, value []byte) error {
		b, err := decodeBinding(value)
		if err != nil {
			return err
		}
		if !b.Expires.After(now) {
			expired = append(expired, plugin.Change{Table: tableBindings, Key: key})
			return nil
		}
		l.accounts[b.Account] = append(l.accounts[b.Account], b)
		l.count++
		return nil
	})
	if err != nil {
		return err
	}
	for page := range slices.Chunk(expired, firstPage) {
		l.committer.Move(page, nil)
	}
	return l.restoreDevices(ctx, now)
}

// Of returns the bindings of an account that are in force. The caller may
// keep them and changes nothing in them.
func (l *Locations) Of(account string, now time.Time) []plugin.Binding {
	l.mu.RLock()
	bindings := l.accounts[account]
	l.mu.RUnlock()
	if !slices.ContainsFunc(bindings, expiredAt(now)) {
		return bindings
	}
	return slices.DeleteFunc(slices.Clone(bindings), expiredAt(now))
}

func expiredAt(now time.Time) func(plugin.Binding) bool {
	return func(b plugin.Binding) bool { return !b.Expires.After(now) }
}

// Register carries out a registration for a transport instance: all of it or
// nothing. It returns the bindings that the address-of-record then has; done
// gets nil when they are on disk.
func (l *Locations) Register(transport string, r plugin.Registration, now time.Time, done func(error)) ([]plugin.Binding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Slices that Of has handed out stay as they are: the new state is a copy.
	before := l.accounts[r.Account.ID]
	after := slices.DeleteFunc(slices.Clone(before), expiredAt(now))
	if slices.ContainsFunc(after, func(o plugin.Binding) bool { return concerns(r, transport, o) && outOfOrder(o, r) }) {
		return nil, message.Fail(message.Malformed, "registration is out of order: same Call-ID and a CSeq that is not greater")
	}
	if r.All {
		after = slices.DeleteFunc(after, func(o plugin.Binding) bool { return concerns(r, transport, o) })
	}
	for _, b := range r.Bindings {
		b.Account, b.AOR, b.Transport, b.CallID, b.CSeq = r.Account.ID, r.AOR, transport, r.CallID, r.CSeq
		after = bind(after, b, now)
	}
	current := slices.DeleteFunc(slices.Clone(after), func(b plugin.Binding) bool { return b.AOR != r.AOR })
	if len(current) > l.max {
		return nil, message.Fail(message.LimitReached, "more than %d bindings for %s", l.max, r.AOR)
	}
	l.set(r.Account.ID, after)
	l.committer.Move(append(difference(before, after), l.noteDevices(transport, r, before, after, now)...), done)
	return current, nil
}

// concerns tells whether a registration changes a binding that exists.
func concerns(r plugin.Registration, transport string, o plugin.Binding) bool {
	if o.AOR != r.AOR || o.Transport != transport {
		return false
	}
	return r.All || slices.ContainsFunc(r.Bindings, func(b plugin.Binding) bool { return replaces(b, o) })
}

// replaces tells whether one binding takes the place of another of the same
// address-of-record: the same flow of the same device (RFC 5626 §6), or the
// same contact where the device isn't known.
func replaces(b, o plugin.Binding) bool {
	return o.Contact == b.Contact || b.Device != "" && o.Device == b.Device && o.RegID == b.RegID
}

// outOfOrder is RFC 3261 §10.3 step 7.
func outOfOrder(o plugin.Binding, r plugin.Registration) bool {
	return o.CallID == r.CallID && o.CSeq >= r.CSeq
}

// bind puts a binding in the place of those that it replaces; one that has
// expired only takes them away.
func bind(bindings []plugin.Binding, b plugin.Binding, now time.Time) []plugin.Binding {
	bindings = slices.DeleteFunc(bindings, func(o plugin.Binding) bool {
		return o.AOR == b.AOR && o.Transport == b.Transport && replaces(b, o)
	})
	if b.Expires.After(now) {
		bindings = append(bindings, b)
	}
	return bindings
}

// Sweep forgets the bindings that have expired, up to n accounts at a time.
func (l *Locations) Sweep(now time.Time, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for account, before := range l.accounts {
		if !slices.ContainsFunc(before, expiredAt(now)) {
			continue
		}
		after := slices.DeleteFunc(slices.Clone(before), expiredAt(now))
		l.set(account, after)
		l.committer.Move(difference(before, after), nil)
		if n--; n == 0 {
			return
		}
	}
}

// Count returns how many bindings there are, expired ones that weren't swept included.
func (l *Locations) Count() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.count
}

func (l *Locations) set(account string, bindings []plugin.Binding) {
	l.count += len(bindings) - len(l.accounts[account])
	if len(bindings) == 0 {
		delete(l.accounts, account)
		return
	}
	l.accounts[account] = bindings
}

// difference returns the rows that turn one state on disk into the other.
func difference(before, after []plugin.Binding) []plugin.Change {
	var changes []plugin.Change
	for _, b := range before {
		if !slices.ContainsFunc(after, func(o plugin.Binding) bool { return string(bindingKey(o)) == string(bindingKey(b)) }) {
			changes = append(changes, plugin.Change{Table: tableBindings, Key: bindingKey(b)})
		}
	}
	for _, b := range after {
		if !slices.Contains(before, b) {
			changes = append(changes, plugin.Change{Table: tableBindings, Key: bindingKey(b), Value: encodeBinding(b)})
		}
	}
	return changes
}

func bindingKey(b plugin.Binding) []byte {
	w := &writer{}
	w.string(b.Account)
	w.string(b.Transport)
	w.address(b.AOR)
	w.string(b.Contact)
	sum := sha256.Sum256(w.b)
	return sum[:]
}

func encodeBinding(b plugin.Binding) []byte {
	w := &writer{}
	w.uint(bindingFormat)
	w.string(b.Account)
	w.address(b.AOR)
	w.string(b.Transport)
	w.string(b.Contact)
	w.string(b.Flow)
	w.string(b.Device)
	w.string(b.RegID)
	w.int(int64(b.Q))
	w.time(b.Expires)
	w.string(b.CallID)
	w.uint(uint64(b.CSeq))
	w.uint(uint64(max(0, b.Window)))
	return w.b
}

func decodeBinding(row []byte) (plugin.Binding, error) {
	r := &reader{b: row}
	format := r.version(1, bindingFormat)
	b := plugin.Binding{
		Account: r.string(), AOR: r.address(), Transport: r.string(), Contact: r.string(), Flow: r.string(), Device: r.string(),
	}
	if format > 1 {
		b.RegID = r.string()
	}
	b.Q, b.Expires, b.CallID, b.CSeq = int(r.int()), r.time(), r.string(), uint32(r.uint())
	if format > 2 {
		b.Window = int(r.uint())
	}
	return b, r.done()
}

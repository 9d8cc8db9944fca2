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
// reg-id in the device, version 2 no window, version 3 no push; their rows are
// still read.
const bindingFormat = 4

// Locations knows where devices can be reached. Memory holds all of it; the
// disk is written with each change. It may be used from several goroutines.
type Locations struct {
	storage   plugin.Storage
	committer *Committer

	mu       sync.RWMutex
	accounts map[string][]plugin.Binding // those that sleep come last
	devices  map[string][]Device
	flows    flows
	count    int
	asleep   int           // of count
	max      int           // bindings of an address-of-record
	keep     time.Duration // see Keep
}

// NewLocations returns an empty table.
func NewLocations(storage plugin.Storage, committer *Committer) *Locations {
	return &Locations{
		storage: storage, committer: committer, max: math.MaxInt,
		accounts: map[string][]plugin.Binding{}, devices: map[string][]Device{}, flows: flows{},
	}
}

// Limit sets how many bindings an address-of-record may have at once.
func (l *Locations) Limit(contacts int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max = contacts
}

// Keep sets for how long after its expiry a binding sleeps whose app can be woken.
// 0, as it is at first: nobody wakes it, and it ends like any other. Those that
// sleep already stay.
func (l *Locations) Keep(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep = d
}

// Restore fills the table from disk.
func (l *Locations) Restore(ctx context.Context, now time.Time) error {
	if err := l.restoreBindings(ctx, now); err != nil {
		return err
	}
	return l.restoreDevices(ctx, now)
}

func (l *Locations) restoreBindings(ctx context.Context, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var expired []plugin.Change
	found := map[string][]plugin.Binding{}
	err := scan(ctx, l.storage, tableBindings, nil, func(key, value []byte) error {
		b, err := decodeBinding(value)
		if err != nil {
			return err
		}
		if _, stays := l.at(now, b); !stays {
			expired = append(expired, plugin.Change{Table: tableBindings, Key: key})
			return nil
		}
		found[b.Account] = append(found[b.Account], b)
		return nil
	})
	if err != nil {
		return err
	}
	for account, bindings := range found {
		l.set(account, bindings)
	}
	for page := range slices.Chunk(expired, firstPage) {
		l.committer.Move(page, nil)
	}
	return nil
}

// Of returns the bindings of an account that are in force and awake. The caller
// may keep them and changes nothing in them.
func (l *Locations) Of(account string, now time.Time) []plugin.Binding {
	l.mu.RLock()
	bindings := l.accounts[account]
	l.mu.RUnlock()
	n := 0
	for n < len(bindings) && awake(&bindings[n], now) {
		n++
	}
	left := bindings[:n:n]
	for i := n; i < len(bindings); i++ {
		if awake(&bindings[i], now) {
			left = append(left, bindings[i]) // into a slice of its own
		}
	}
	return left
}

// Sleeping returns the bindings of an account that are there only to be woken.
func (l *Locations) Sleeping(account string, now time.Time) (asleep []plugin.Binding) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, b := range l.accounts[account] {
		if b, stays := l.at(now, b); stays && b.Asleep {
			asleep = append(asleep, b)
		}
	}
	return asleep
}

func awake(b *plugin.Binding, now time.Time) bool { return !b.Asleep && b.Expires.After(now) }

func expiredAt(now time.Time) func(plugin.Binding) bool {
	return func(b plugin.Binding) bool { return !b.Expires.After(now) }
}

// at returns a binding as it is by now, and whether it is still there: one that
// has expired has fallen asleep, if its app can be woken.
func (l *Locations) at(now time.Time, b plugin.Binding) (_ plugin.Binding, stays bool) {
	if !b.Expires.After(now) {
		b = l.fallAsleep(b)
	}
	return b, b.Expires.After(now)
}

// fallAsleep returns a binding as it is once its device can't be reached: the same
// if nobody can wake it.
func (l *Locations) fallAsleep(b plugin.Binding) plugin.Binding {
	if !b.Asleep && b.Push.Provider != "" && l.keep > 0 {
		b.Asleep, b.Expires = true, b.Expires.Add(l.keep)
	}
	return b
}

// settled returns a copy of bindings as they are by now.
func (l *Locations) settled(bindings []plugin.Binding, now time.Time) []plugin.Binding {
	after := make([]plugin.Binding, 0, len(bindings)+1)
	for _, b := range bindings {
		if b, stays := l.at(now, b); stays {
			after = append(after, b)
		}
	}
	return after
}

// Register carries out a registration for a transport instance: all of it or
// nothing. It returns the bindings that the address-of-record then has and that
// are awake; done gets nil when they are on disk.
func (l *Locations) Register(transport string, r plugin.Registration, now time.Time, done func(error)) ([]plugin.Binding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Slices that Of has handed out stay as they are: the new state is a copy.
	before := l.accounts[r.Account.ID]
	after := l.settled(before, now)
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
	after, fits := within(after, r.AOR, l.max)
	if !fits {
		return nil, message.Fail(message.LimitReached, "more than %d bindings for %s", l.max, r.AOR)
	}
	l.set(r.Account.ID, after)
	l.committer.Move(append(difference(before, after), l.noteDevices(transport, r, before, after, now)...), done)
	return slices.DeleteFunc(slices.Clone(after), func(b plugin.Binding) bool { return b.AOR != r.AOR || b.Asleep }), nil
}

// within tells whether an address-of-record has no more bindings than it may. For
// one too many the one goes that has slept longest: an app that was installed
// many times doesn't lock itself out.
func within(bindings []plugin.Binding, aor message.Address, most int) (_ []plugin.Binding, fits bool) {
	n, oldest := 0, -1
	for i := range bindings {
		b := &bindings[i]
		if b.AOR != aor {
			continue
		}
		n++
		if b.Asleep && (oldest < 0 || b.Expires.Before(bindings[oldest].Expires)) {
			oldest = i
		}
	}
	if n <= most || oldest < 0 {
		return bindings, n <= most
	}
	return within(slices.Delete(bindings, oldest, oldest+1), aor, most)
}

// Lost ends the bindings of a transport instance over a flow; those whose app can
// be woken fall asleep. It returns these; done gets nil when all is on disk.
func (l *Locations) Lost(transport, flow string, done func(error)) (asleep []plugin.Binding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var changes []plugin.Change
	for _, account := range l.flows.accounts(flowName{transport, flow}) {
		before := l.accounts[account]
		after, fallen := l.without(flowName{transport, flow}, before)
		asleep = append(asleep, fallen...)
		l.set(account, after)
		changes = append(changes, difference(before, after)...)
	}
	if len(changes) == 0 {
		done(nil)
		return nil
	}
	for len(changes) > firstPage { // a proxy has many behind one flow; they are written in order
		l.committer.Move(changes[:firstPage:firstPage], nil)
		changes = changes[firstPage:]
	}
	l.committer.Move(changes, done)
	return asleep
}

// without returns what is left of an account's bindings when a flow is gone, and
// which of these have fallen asleep.
func (l *Locations) without(gone flowName, bindings []plugin.Binding) (left, asleep []plugin.Binding) {
	left = make([]plugin.Binding, 0, len(bindings))
	for _, b := range bindings {
		if flowOf(&b) == gone {
			if b = l.fallAsleep(b); !b.Asleep {
				continue
			}
			asleep = append(asleep, b)
		}
		left = append(left, b)
	}
	return left, asleep
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

// outOfOrder is RFC 3261 §10.3 step 7. A binding that sleeps isn't one any more.
func outOfOrder(o plugin.Binding, r plugin.Registration) bool {
	return !o.Asleep && o.CallID == r.CallID && o.CSeq >= r.CSeq
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

// Sweep forgets the bindings that have expired, or lets them sleep, up to n
// accounts at a time.
func (l *Locations) Sweep(now time.Time, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for account, before := range l.accounts {
		if !slices.ContainsFunc(before, expiredAt(now)) {
			continue
		}
		after := l.settled(before, now)
		l.set(account, after)
		l.committer.Move(difference(before, after), nil)
		if n--; n == 0 {
			return
		}
	}
}

// Count returns how many bindings there are, those apart that sleep. Of either
// kind, expired ones are included that weren't swept.
func (l *Locations) Count() (awake, asleep int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.count - l.asleep, l.asleep
}

// set replaces the bindings of an account, which it may sort.
func (l *Locations) set(account string, bindings []plugin.Binding) {
	before := l.accounts[account]
	l.count += len(bindings) - len(before)
	l.asleep += countAsleep(bindings) - countAsleep(before)
	l.flows.update(account, before, bindings)
	if len(bindings) == 0 {
		delete(l.accounts, account)
		return
	}
	slices.SortStableFunc(bindings, awakeFirst)
	l.accounts[account] = bindings
}

func awakeFirst(a, b plugin.Binding) int {
	switch {
	case a.Asleep == b.Asleep:
		return 0
	case b.Asleep:
		return -1
	}
	return 1
}

func countAsleep(bindings []plugin.Binding) (n int) {
	for i := range bindings {
		if bindings[i].Asleep {
			n++
		}
	}
	return n
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
	w.string(b.Push.Provider)
	w.string(b.Push.Param)
	w.string(b.Push.ID)
	w.bool(b.Asleep)
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
	if format > 3 {
		b.Push = plugin.Push{Provider: r.string(), Param: r.string(), ID: r.string()}
		b.Asleep = r.bool()
	}
	return b, r.done()
}

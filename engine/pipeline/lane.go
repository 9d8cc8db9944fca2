package pipeline

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// orderHold is how long a message that can't go holds its lane while the
// recipient is registered; then those behind it pass.
const orderHold = 30 * time.Second

// pair names a lane: one sender, one recipient. What waits for a registration at
// some instances holds up nothing that doesn't.
type pair struct {
	from message.Address
	to   string // the recipient's account, or its address if it isn't ours; for a copy see deviceName
	via  string // the instances, if the recipient must register at one of them
}

// pairOf names the lane of a message.
func (p *Pipeline) pairOf(e *spool.Entry, way way) pair {
	name := pair{from: e.Message.From, to: recipientName(e.Account, e.Recipient())}
	if len(way.routes) == 0 && !slices.ContainsFunc(way.transports, p.leadsOutside) {
		name.via = strings.Join(way.transports, " ")
	}
	if device := e.Copy.Device; device != "" {
		name.to = deviceName(e.Account, device)
	}
	return name
}

// deviceName names a device of an account's among all recipients: what is a copy for
// one that doesn't answer takes no place from messages for the others.
func deviceName(account, device string) string { return account + "\x00" + device }

// recipientName names a recipient among all: by its account, if it has one.
func recipientName(account string, a message.Address) string {
	if account != "" {
		return account
	}
	return a.String()
}

// clone copies the names: they may be parts of a datagram, which would stay in
// memory for as long as the lane does.
func (p pair) clone() pair {
	return pair{
		from: message.Address{User: strings.Clone(p.from.User), Host: strings.Clone(p.from.Host)},
		to:   strings.Clone(p.to), via: p.via,
	}
}

// item is a message in a lane. Whoever has it at work changes it; while it
// rests in a lane the lanes' lock guards it.
type item struct {
	id       message.ID
	pair     pair
	expiry   time.Time
	public   string // the public id
	received time.Time
	payload  *spool.Entry // nil: read it back when it is needed
	size     int          // octets of memory that the payload takes, roughly
	resident bool         // whether size is counted in lanes.resident
	onDisk   bool
	// transient: it goes at once or not at all.
	transient bool
	// wakes: apps are woken for it.
	wakes bool
	state deliveries
	// mayRepeat: a device may have it already. An attempt wasn't answered, or it was
	// found on disk, and whoever had it before may have sent it.
	mayRepeat bool
	next      time.Time // not before; zero: at once
	notBefore time.Time // as its sender wants; zero: at once
	unreached []string  // the instances at which its last attempt found no way
	ticket    *ticket   // nil: nobody waits
	digest    spool.Digest
	keyed     bool // whether digest is one
	// owed: its device has yet to answer the attempt that was made before there was
	// this copy. answer is what it said: it counts as the copy's own attempt.
	owed   bool
	answer *result

	conversation  uint64 // see conversations
	before, after *item  // of the same
}

// newItem makes the item of an entry. Without a ticket it is one that was found
// on disk: if it was to go at once, its time is over.
func (p *Pipeline) newItem(e *spool.Entry, t *ticket, state spool.State) *item {
	m := e.Message
	it := &item{
		id: m.ID, pair: p.pairOf(e, wayOf(e, state.Fallback)), expiry: e.Expiry, state: deliveries{state},
		public: m.PublicID, received: m.Received, payload: e, size: 1024 + len(m.Body), onDisk: t == nil, transient: t != nil && e.Transient(), ticket: t,
	}
	it.wakes = m.Class == message.Text && m.Receipt == nil
	it.conversation = conversationOf(m.From, m.Recipient)
	if m.NotBefore.After(m.Received) && m.Class != message.Composing && !state.Hurried {
		it.notBefore, it.transient = m.NotBefore, e.Expiry.Equal(m.NotBefore)
	}
	if e.Key != "" {
		it.digest, it.keyed = spool.DigestKey(e.Key), true
	}
	return it
}

// seen is what is remembered of the submission.
func (it *item) seen(o plugin.Outcome) spool.Seen {
	s := spool.Seen{Digest: it.digest, ID: it.id, PublicID: it.public, At: it.received, State: o.State}
	if o.Failure != nil {
		s.Reason = o.Failure.Reason
	}
	return s
}

// lane holds the messages of one pair in the order of their arrival. Everything
// in it is guarded by the lanes' lock.
type lane struct {
	pair      pair
	recipient *recipient
	items     []*item   // in order; the first one goes next
	parked    []*item   // passed by the others; each goes when its time comes
	heldSince time.Time // since when the first one holds the lane; zero: it doesn't
	quiet     time.Time // until when nothing goes: the next hop wants less; zero: it doesn't
	listed    bool      // in lanes.unreached
	offline   bool      // asleep until the recipient registers
	timed     bool      // it has one message, whose time hasn't come
	active    bool      // queued for a worker, or at work
	atWork    *item     // the one that the worker has just now; nil: none
	wakeAt    time.Time // when it must be looked at again, while it is at rest
	index     int       // in the schedule; -1: not in it
}

// recipient is what the lanes to one recipient have in common.
type recipient struct {
	name     string
	lanes    map[*lane]bool
	active   int              // lanes at work
	queue    []*lane          // that wait until the pace allows
	waiting  int              // messages in all lanes
	ahead    int              // messages to be read back at once the next time
	wakes    int              // how often it has registered: a wake during an attempt isn't missed
	inFlight map[string]int   // unanswered requests by contact, of forks that may go on without
	flights  map[*flight]bool // attempts at work
}

// flight is an attempt at work, which a registration may end.
type flight struct {
	began  time.Time
	cancel context.CancelFunc
}

// empty tells whether nothing is left in the lane.
func (l *lane) empty() bool { return len(l.items) == 0 && len(l.parked) == 0 }

// take returns the message that is to go now, or nil. A message that has held
// the lane for too long is passed. It stays in the lane while it is at work.
func (l *lane) take(now time.Time) (it *item, passed *item) {
	if l.offline || now.Before(l.quiet) {
		return nil, nil
	}
	l.quiet = time.Time{}
	if i := slices.IndexFunc(l.parked, func(it *item) bool { return !it.next.After(now) }); i >= 0 {
		return l.parked[i], nil
	}
	if len(l.items) == 0 {
		return nil, nil
	}
	head := l.items[0]
	if !head.next.After(now) {
		return head, nil
	}
	if l.heldSince.IsZero() || now.Sub(l.heldSince) < orderHold {
		return nil, nil
	}
	l.items = l.items[1:]
	l.parked = append(l.parked, head)
	l.heldSince = time.Time{}
	next, _ := l.take(now)
	return next, head
}

// remove takes a message out of the lane and tells whether it was there.
func (l *lane) remove(it *item) bool {
	if len(l.items) > 0 && l.items[0] == it {
		l.items[0] = nil
		l.items = l.items[1:]
		l.heldSince = time.Time{}
		return true
	}
	before := len(l.items) + len(l.parked)
	gone := func(o *item) bool { return o == it }
	l.items = slices.DeleteFunc(l.items, gone)
	l.parked = slices.DeleteFunc(l.parked, gone)
	return len(l.items)+len(l.parked) < before
}

// hold notes that a message couldn't go and when it may be tried again.
func (l *lane) hold(it *item, now, next time.Time) {
	it.next = next
	if len(l.items) > 0 && l.items[0] == it && l.heldSince.IsZero() {
		l.heldSince = now
	}
}

// throttle lets everything wait: no message passes one of which the next hop says
// that it wants less.
func (l *lane) throttle(it *item, until time.Time) {
	it.next, l.quiet = until, until
	l.heldSince = time.Time{}
}

// sleep puts the lane to rest until its recipient registers. Those that were
// passed get their places back: nothing went out of order for good.
func (l *lane) sleep() {
	l.offline = true
	l.heldSince = time.Time{}
	l.restoreOrder()
}

// rouse makes everything in the lane due at once: the recipient has shown
// signs of life.
func (l *lane) rouse() {
	if l.timed {
		return
	}
	l.offline = false
	l.heldSince, l.quiet = time.Time{}, time.Time{}
	l.restoreOrder()
	for _, it := range l.items {
		if !it.owed {
			it.next = time.Time{}
		}
	}
}

func (l *lane) restoreOrder() {
	if len(l.parked) == 0 {
		return
	}
	l.items = append(l.parked, l.items...)
	l.parked = nil
	slices.SortFunc(l.items, inOrder)
}

// outlived returns a message whose life is over, or nil. A transient one has
// no life: it gets one attempt, or none.
func (l *lane) outlived(now time.Time) *item {
	return l.find(func(it *item) bool { return !it.transient && !it.expiry.After(now) })
}

// stranded returns a message that must go now and can't, or nil.
func (l *lane) stranded() *item { return l.find(func(it *item) bool { return it.transient }) }

func (l *lane) find(f func(*item) bool) *item {
	for _, it := range l.all() {
		if f(it) {
			return it
		}
	}
	return nil
}

func (l *lane) all() []*item {
	if len(l.parked) == 0 {
		return l.items
	}
	return append(slices.Clone(l.parked), l.items...)
}

// nextLook is when the lane must be looked at again.
func (l *lane) nextLook() time.Time {
	var at time.Time
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, it := range l.all() {
		earlier(it.expiry)
	}
	switch {
	case l.offline:
		return at
	case !l.quiet.IsZero():
		earlier(l.quiet)
		return at
	}
	for _, it := range l.parked {
		earlier(it.next)
	}
	if len(l.items) > 0 {
		earlier(l.items[0].next)
		if !l.heldSince.IsZero() {
			earlier(l.heldSince.Add(orderHold))
		}
	}
	return at
}

package pipeline

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Bounds of the lanes.
const (
	maxWorkers     = 16384 // lanes at work in all
	workerIdle     = 10 * time.Second
	burst          = 16       // messages that a lane may send before others get their turn
	maxResident    = 16 << 20 // octets of payloads at rest that are kept in memory
	storageRecheck = 200 * time.Millisecond
)

// lanes are all messages that are ours, by pair. While a pair's messages go,
// one worker has the lane; at rest the lane is in the schedule.
type lanes struct {
	p *Pipeline

	mu          sync.Mutex
	byPair      map[pair]*lane
	recipients  map[string]*recipient
	asleep      schedule
	changed     chan struct{} // tells the scheduler that its next time may have moved
	count       int           // messages in all lanes
	resident    int           // octets of payloads at rest
	copying     map[pair]int  // copies that aren't in their lanes yet
	quarantined map[message.ID]*item
	talks       conversations
	unreached   map[string]map[*lane]bool // by instance: lanes with messages that found no way there
	reached     map[string]int            // by instance: which of the calls of Reachable was its last
	reaches     int                       // calls of Reachable

	work    chan *lane // to a worker that waits
	workers int
	backlog []*lane // lanes that found no worker
	active  int     // lanes at work or in the backlog
}

func (ls *lanes) init(p *Pipeline) {
	ls.p = p
	ls.byPair = map[pair]*lane{}
	ls.recipients = map[string]*recipient{}
	ls.copying = map[pair]int{}
	ls.quarantined = map[message.ID]*item{}
	ls.talks = conversations{}
	ls.unreached = map[string]map[*lane]bool{}
	ls.reached = map[string]int{}
	ls.changed = make(chan struct{}, 1)
	ls.work = make(chan *lane)
}

// add puts a message at the end of its lane and tells whether it rests there.
func (ls *lanes) add(it *item) (rests bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if !it.notBefore.IsZero() && it.early(time.Now()) {
		ls.holdBack(it)
		return true
	}
	return ls.enqueue(it)
}

func (ls *lanes) enqueue(it *item) (rests bool) {
	l := ls.append(it)
	if l.active {
		if len(l.items) > burst {
			ls.unload(it) // its worker won't come to it soon
		}
		return false
	}
	if l.offline || !l.heldSince.IsZero() || len(l.items) > 1 {
		return ls.queueBehind(l, it)
	}
	ls.activate(l)
	return false
}

// queueBehind lets a message wait in a lane that rests, if it may.
func (ls *lanes) queueBehind(l *lane, it *item) (rests bool) {
	if it.transient {
		ls.activate(l) // its worker drops it: it must go now and can't
		return false
	}
	ls.waits(it)
	ls.unload(it)
	ls.p.awaken(it)
	if it.expiry.Before(l.wakeAt) {
		ls.rest(l)
	}
	return true
}

// resume puts a message that was found on disk into its lane. The lanes work
// only after start. One whose first message has nowhere to go stays asleep: to
// read that back in order to find this out would take a scan for each lane.
func (ls *lanes) resume(it *item, nowhere bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if it.early(time.Now()) {
		ls.holdBack(it)
		return
	}
	l := ls.append(it)
	if len(l.items) == 1 {
		l.offline = nowhere
	}
	ls.unload(it)
}

// start sets all lanes to work that were restored.
func (ls *lanes) start() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.byPair {
		slices.SortFunc(l.items, inOrder) // whose time came later than they did
		switch {
		case l.active:
		case l.offline, l.timed:
			ls.rest(l)
			if l.offline {
				ls.p.awakenFor(l)
			}
		default:
			ls.activate(l)
		}
	}
}

func (ls *lanes) append(it *item) *lane {
	l, ok := ls.byPair[it.pair]
	if !ok {
		pair := it.pair.clone()
		l = &lane{pair: pair, recipient: ls.recipient(pair.to), index: -1}
		l.recipient.lanes[l] = true
		ls.byPair[pair] = l
	}
	it.pair = l.pair
	l.items = append(l.items, it)
	ls.talks.add(it)
	l.recipient.waiting++
	ls.count++
	return l
}

func (ls *lanes) recipient(name string) *recipient {
	r, ok := ls.recipients[name]
	if !ok {
		r = &recipient{name: name, lanes: map[*lane]bool{}, inFlight: map[string]int{}, flights: map[*flight]bool{}}
		ls.recipients[name] = r
	}
	return r
}

// counted is how many messages wait or are set aside in all, and how many wait for
// one recipient.
func (ls *lanes) counted(recipient string) (inAll, forThem int) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if r, ok := ls.recipients[recipient]; ok {
		forThem = r.waiting
	}
	return ls.count + len(ls.quarantined), forThem
}

// activate gives a lane to a worker, as soon as its recipient's pace allows.
// While the pipeline drains nothing goes any more: it waits.
func (ls *lanes) activate(l *lane) {
	ls.asleep.remove(l)
	if ls.p.draining.Load() {
		ls.settle(l)
		return
	}
	l.active = true
	r := l.recipient
	if r.active > 0 && r.active >= ls.p.pace(r.name, time.Now()) {
		r.queue = append(r.queue, l)
		return
	}
	r.active++
	ls.dispatch(l)
}

// dispatchQueued hands on as many lanes that wait for their recipient's pace as
// that allows now.
func (ls *lanes) dispatchQueued(r *recipient) {
	if len(r.queue) == 0 {
		return
	}
	for pace := ls.p.pace(r.name, time.Now()); len(r.queue) > 0 && r.active < pace; {
		next := r.queue[0]
		r.queue = r.queue[1:]
		r.active++
		ls.dispatch(next)
	}
}

// dispatch hands a lane to a worker that waits, or to a new one, or lets it
// wait for one.
func (ls *lanes) dispatch(l *lane) {
	ls.active++
	select {
	case ls.work <- l:
		return
	default:
	}
	if ls.workers >= maxWorkers {
		ls.backlog = append(ls.backlog, l)
		return
	}
	ls.workers++
	ls.p.sending.Go(func() { ls.worker(l) })
}

// worker runs one lane after the other and ends when there is nothing to do:
// long-lived goroutines don't pay for the growth of their stacks each time.
func (ls *lanes) worker(l *lane) {
	idle := time.NewTimer(workerIdle)
	defer idle.Stop()
	for l != nil {
		ls.p.runLane(l)
		l = ls.nextLane(idle)
	}
}

func (ls *lanes) nextLane(idle *time.Timer) *lane {
	ls.mu.Lock()
	if n := len(ls.backlog); n > 0 {
		l := ls.backlog[0]
		ls.backlog = ls.backlog[1:]
		ls.mu.Unlock()
		return l
	}
	ls.mu.Unlock()
	idle.Reset(workerIdle)
	select {
	case l := <-ls.work:
		return l
	case <-idle.C:
	case <-ls.p.ctx.Done():
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.workers--
	return nil
}

// action is what a worker does with a message.
type action uint8

const (
	actSend   action = iota
	actExpire        // its life is over
	actDrop          // it must go now and can't
)

// turn is what a lane's worker does next.
type turn struct {
	it      *item
	do      action
	wakes   int // of the recipient, when the turn began
	reaches int // of the lanes, then

	passed *item // the lane has just gone on without it
	fork   *fork // at the message's devices; nil: there is but one, or none
}

// begin returns the lane's next turn. If there is none the lane is released in
// the same moment, so that a message that is added isn't overlooked.
func (ls *lanes) begin(l *lane, now time.Time) (turn, bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	t := turn{wakes: l.recipient.wakes, reaches: ls.reaches}
	defer func() { l.atWork = t.it }()
	if ls.p.draining.Load() {
		ls.release(l, false)
		return t, false
	}
	if t.it, t.do = l.outlived(now), actExpire; t.it != nil {
		return t, true
	}
	if l.timed {
		ls.comesDue(l, now)
		return t, false
	}
	t.it, t.passed = l.take(now)
	t.do = actSend
	if t.it != nil {
		return t, true
	}
	if t.it, t.do = l.stranded(), actDrop; t.it != nil {
		return t, true
	}
	ls.release(l, false)
	return t, false
}

// yield ends a lane's turn although there is more to do: others come first.
func (ls *lanes) yield(l *lane) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.release(l, true)
}

// release ends a lane's time with its worker: it goes to the end of the queue
// if more is to go now, else to rest, or away if it is empty.
func (ls *lanes) release(l *lane, more bool) {
	r := l.recipient
	r.active--
	ls.active--
	l.active, l.atWork = false, nil
	switch {
	case l.empty():
		ls.drop(l)
	case more:
		l.active = true
		r.queue = append(r.queue, l)
	default:
		ls.settle(l)
		ls.rest(l)
	}
	ls.dispatchQueued(r)
}

// settle tells those who wait for a lane that has come to rest.
func (ls *lanes) settle(l *lane) {
	for _, it := range l.all() {
		ls.waits(it)
		ls.unload(it)
	}
}

// waits tells whoever waits for a message that it waits. A repeat of it needs
// no ticket any more.
func (ls *lanes) waits(it *item) {
	if it.ticket == nil {
		return
	}
	waiting := plugin.Outcome{State: plugin.OutcomeWaiting}
	if it.keyed {
		ls.p.remember(it.seen(waiting))
	}
	it.ticket.resolve(waiting)
	it.ticket = nil
}

// finish takes a message out of its lane for good.
func (ls *lanes) finish(l *lane, it *item) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.remove(l, it)
}

// retry lets a message, and those behind it, wait. A recipient that registered
// during the attempt gets the next one at once.
func (ls *lanes) retry(l *lane, t turn, now, next time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.recipient.wakes != t.wakes {
		next = time.Time{}
	}
	l.hold(t.it, now, next)
}

// pause lets a message wait for a reason that isn't its own; its life is
// extended by as much, or its lane would be looked at again at once.
func (ls *lanes) pause(t turn, until time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	t.it.next = until
	if t.it.expiry.Before(until) {
		t.it.expiry = until
	}
}

// offline puts a lane to rest until the recipient registers, unless that
// happened during the attempt.
func (ls *lanes) offline(l *lane, t turn) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.recipient.wakes == t.wakes {
		l.sleep()
		ls.p.awakenFor(l)
	}
}

func (ls *lanes) rest(l *lane) {
	ls.asleep.rest(l)
	select {
	case ls.changed <- struct{}{}:
	default:
	}
}

func (ls *lanes) drop(l *lane) {
	ls.asleep.remove(l)
	ls.unlist(l)
	delete(ls.byPair, l.pair)
	delete(l.recipient.lanes, l)
	if len(l.recipient.lanes) == 0 && len(l.recipient.inFlight) == 0 {
		delete(ls.recipients, l.recipient.name)
	}
}

// remove takes a message out of its lane for good.
func (ls *lanes) remove(l *lane, it *item) {
	if !l.remove(it) {
		return // a worker that panicked had come that far
	}
	ls.talks.remove(it)
	l.recipient.waiting--
	ls.count--
	if it.resident {
		ls.resident -= it.size
		it.resident = false
	}
}

// unload lets a message at rest keep its payload only while there is room.
func (ls *lanes) unload(it *item) {
	if it.resident || it.payload == nil {
		return
	}
	if it.onDisk && ls.resident+it.size > maxResident {
		it.payload = nil
		return
	}
	ls.resident += it.size
	it.resident = true
}

// wake sets the lanes of a recipient to work: it has registered. An attempt
// that was silent until now ends, and is made anew where the recipient is now:
// a phone that comes back on another port needn't wait for the old one.
func (ls *lanes) wake(account string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	r, ok := ls.recipients[account]
	if !ok {
		return
	}
	r.wakes++
	for f := range r.flights { // also one that has just begun gets its time
		time.AfterFunc(time.Until(f.began.Add(forkGrace)), f.cancel)
	}
	for _, l := range slices.SortedFunc(maps.Keys(r.lanes), olderFirst) {
		l.rouse()
		if !l.active && !l.timed {
			ls.activate(l)
		}
	}
	ls.dispatchQueued(r) // its devices may take more at once than before
}

// schedule looks at lanes when their time comes.
func (ls *lanes) schedule() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(ls.activateDue(time.Now()))
		select {
		case <-ls.p.ctx.Done():
			return
		case <-ls.changed:
		case <-timer.C:
		}
	}
}

func (ls *lanes) activateDue(now time.Time) time.Duration {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	due, next := ls.asleep.due(now)
	for _, l := range due {
		ls.activate(l)
	}
	if next.IsZero() {
		return time.Hour
	}
	return next.Sub(now)
}

// running is how many lanes are at work.
func (ls *lanes) running() int {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.active
}

package server

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// How long bindings last.
const (
	// bindingFor is how long a binding lasts that isn't refreshed: after a crash,
	// so long is sent to an ESME that isn't there.
	bindingFor = 10 * time.Minute
	// refreshEvery is how often it is.
	refreshEvery = 4 * time.Minute
	// outbindFor is how long an ESME without a session can be reached by outbind.
	outbindFor = 30 * 24 * time.Hour
	// lookEvery is how often the door looks what is to be refreshed, or to be tried
	// again.
	lookEvery = 5 * time.Second
	// maxPause is the longest time after which what failed is tried again.
	maxPause = time.Minute
	// registerWithin bounds one change.
	registerWithin = 10 * time.Second
)

// bindings keep the engine told which accounts can be reached here: those with a
// receiver or a transceiver. An account has one binding, however many sessions:
// which of them a message takes is decided when it goes. When the door closes,
// bindings stay: its ESMEs come back.
type bindings struct {
	gate      plugin.Gate
	table     *table
	node      string
	log       *slog.Logger
	deadlines *plugin.Deadlines
	run       func(func())

	closing atomic.Bool // the door is: what goes now comes back

	callID string // of this door: the changes of another one are never out of order
	mu     sync.Mutex
	cseq   uint32
	known  map[string]*binding // by account
}

func newBindings(d *Door) *bindings {
	return &bindings{
		gate: d.gate, table: d.table, node: d.node, log: d.log, run: d.tasks.run,
		deadlines: plugin.NewDeadlines(d.working, registerWithin),
		callID:    message.NewPublicID(), known: map[string]*binding{},
	}
}

// binding is what the engine is told of an account.
type binding struct {
	users int   // who is about to tell; guarded by the lock of bindings
	news  *bind // of the last that has come or gone, and waits for its turn to be told; guarded by it too

	turn  sync.Mutex    // one change after the other
	last  *bind         // of the last receiver
	due   time.Time     // when the engine is told next
	pause time.Duration // after the last failure; 0: there was none
	over  bool          // there is nothing more to tell
}

// changed tells the engine that a receiver has come or gone. It doesn't wait. While
// one change waits for its turn, others go with it: an ESME that comes and goes all
// the time costs no more than the storage can take.
func (bs *bindings) changed(b *bind) {
	if bs.closing.Load() {
		return
	}
	k := bs.hold(b.account.ID)
	if bs.joins(k, b) {
		bs.release(b.account.ID, k)
		return
	}
	bs.run(func() {
		defer bs.release(b.account.ID, k)
		k.turn.Lock()
		defer k.turn.Unlock()
		bs.tell(k, bs.take(k), time.Now())
	})
}

// joins notes of whom there is news, and returns true if somebody waits who will tell
// it.
func (bs *bindings) joins(k *binding, b *bind) bool {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	waits := k.news != nil
	k.news = b
	return waits
}

// take returns of whom there is news.
func (bs *bindings) take(k *binding) *bind {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b := k.news
	k.news = nil
	return b
}

func (bs *bindings) hold(account string) *binding {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	k := bs.known[account]
	if k == nil {
		k = &binding{}
		bs.known[account] = k
	}
	k.users++
	return k
}

func (bs *bindings) release(account string, k *binding) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	k.users--
	if k.users == 0 && k.over {
		delete(bs.known, account)
	}
}

// keep refreshes bindings, and repeats what failed, until ctx ends.
func (bs *bindings) keep(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			bs.refresh(now)
		case <-ctx.Done():
			return
		}
	}
}

// refresh tells the engine what is due.
func (bs *bindings) refresh(now time.Time) {
	for _, account := range bs.accounts() {
		k := bs.hold(account)
		k.turn.Lock()
		if k.last != nil && !now.Before(k.due) {
			bs.tell(k, k.last, now)
		}
		k.over = k.over || k.last == nil
		k.turn.Unlock()
		bs.release(account, k)
	}
}

func (bs *bindings) accounts() []string {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return slices.Collect(maps.Keys(bs.known))
}

// tell tells the engine how things are now with an account. What fails is repeated.
// The caller has the turn.
func (bs *bindings) tell(k *binding, b *bind, now time.Time) {
	here, window := bs.table.receiver(b.account.ID)
	if here != nil {
		b = here
	}
	k.last, k.due, k.over = b, now.Add(lookEvery), false
	if bs.gate.Active() != nil {
		k.over = here == nil // whoever is active now hears of the ESME from itself
		return
	}
	if _, err := bs.gate.Register(bs.deadlines.Context(now), bs.registration(b, here != nil, window, now)); err != nil {
		bs.failed(k, err, now)
		return
	}
	k.due, k.over, k.pause = now.Add(refreshEvery), here == nil, 0
}

// failed puts the next try off, each time for longer. The log hears of the first.
func (bs *bindings) failed(k *binding, err error, now time.Time) {
	if k.pause == 0 {
		bs.log.Warn("the binding of an ESME can't be changed for now", "peer", k.last.systemID, "reason", err)
	}
	k.pause = min(max(lookEvery, 2*k.pause), maxPause)
	k.due = now.Add(k.pause)
}

// registration is what the engine is told: it takes the place of all that this
// account had here before. window is how many messages its sessions take at once.
func (bs *bindings) registration(b *bind, here bool, window int, now time.Time) plugin.Registration {
	bs.mu.Lock()
	bs.cseq++
	r := plugin.Registration{Account: b.account, AOR: b.account.Identities[0], CallID: bs.callID, CSeq: bs.cseq, All: true}
	bs.mu.Unlock()
	binding := plugin.Binding{
		Account: b.account.ID, AOR: r.AOR, Contact: "smpp:" + b.systemID, Device: b.systemID,
		Flow: bs.node, Q: 1000, Window: window, Expires: now.Add(bindingFor), CallID: r.CallID, CSeq: r.CSeq,
	}
	switch {
	case here:
		r.Bindings = []plugin.Binding{binding}
	case b.terms.outbind != "":
		binding.Flow, binding.Expires = outbindFlow+b.terms.outbind, now.Add(outbindFor)
		r.Bindings = []plugin.Binding{binding}
	}
	return r
}

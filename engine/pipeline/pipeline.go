// Package pipeline is the one way that a message goes: submit, decide,
// authorise, put, lane, send, move, settle. Nothing calls back to an earlier
// stage.
//
// It works for as long as this node is the active one: New and Restore make it
// from what is on disk, Run works, Drain lets it come to rest. It must not know
// any protocol, nor how a plugin does its work.
package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/joining"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/push"
	"github.com/imgate/imgate/engine/ratelimit"
	"github.com/imgate/imgate/engine/spool"
)

// Bounds of the pipeline.
const (
	MaxBody       = 256 << 10               // octets of a message's body
	maxNotice     = 8 << 10                 // octets of a typing notice: it isn't on disk while it waits
	maxHeaders    = 64                      // header fields that travel along
	deciders      = 32                      // goroutines that decide; each takes the messages of its pairs in order
	maxUndecided  = deciders * deciderQueue // submitted and neither accepted nor refused
	deciderQueue  = 512                     // submissions that wait for one of them
	authorizeWait = 5 * time.Second
	receiptWait   = 24 * time.Hour // how long after a message's life a receipt may come
	bindingGrace  = time.Minute    // for how long a binding that has run out tells of what a node before this one may have sent
)

// Door is a transport instance as the pipeline sees it.
type Door struct {
	plugin.Transport
	Plugin    string // the name of its plugin: plans may name it in place of the instance
	Protocol  string // what it speaks: the key of a plan's MIME table
	Registrar bool   // whether it reaches bindings alone
}

// Parts are what a pipeline works with.
type Parts struct {
	Policy    plugin.Policy
	Accounts  plugin.Accounts
	Charging  plugin.Charging
	Tables    *spool.Tables // charging's own
	Doors     map[string]Door
	Spool     *spool.Spool
	Seen      *spool.SeenTable
	Locations *spool.Locations
	Log       *slog.Logger
	Pusher    plugin.Pusher  // nil: nobody wakes apps that sleep
	Zone      *time.Location // the operator's; nil: UTC

	// Meter counts for this pipeline and those after it. Nil: it counts alone, in
	// Metrics.
	Meter *Meter
	// Metrics and Observers may be nil. Who gives Metrics closes it when the
	// pipeline has ended: it shows what that has in memory.
	Metrics   *plugin.Metrics
	Observers *plugin.Observers
	// Limits has defaults where it is zero.
	Limits Limits
	// Retention is how long the record of a message is kept, from its receipt:
	// DefaultRetention if it is 0, at least MinRetention.
	Retention time.Duration
	// Notifications is how long a notification waits for whom it is for:
	// DefaultNotifications if it is 0.
	Notifications time.Duration
	// Key is a secret of the installation, the same for all time: what messages are
	// called by their peers is made of it.
	Key [32]byte
}

// Limits bound what may be kept for others.
type Limits struct {
	Messages     int // in the spool; default DefaultMessages
	PerRecipient int // of these, that wait for one recipient; default DefaultPerRecipient
	Contacts     int // that an address-of-record may have; default DefaultContacts
}

// What Parts has where it is zero.
const (
	DefaultMessages      = 1_000_000
	DefaultPerRecipient  = 10_000
	DefaultContacts      = 64
	DefaultRetention     = 168 * time.Hour
	DefaultNotifications = 168 * time.Hour
	MinRetention         = 15 * time.Minute // submissions are known again by their records: longer than spool.SeenFor
)

// Pipeline carries messages from the doors to the doors.
type Pipeline struct {
	Parts
	meter meter

	ids       message.Generator
	names     *spool.Names
	short     sync.Map // of shortName: those that are taken and may not be on disk yet
	jobs      [deciders]chan job
	undecided atomic.Int64

	joins   joins
	sets    *joining.Sets // of parts
	lanes   lanes
	settler settler
	reports reports
	notices notices
	limiter *ratelimit.Limiter
	waker   *push.Waker

	lastClock atomic.Pointer[reading]

	instances []string                 // the doors' names, sorted
	sends     map[string]*atomic.Int64 // attempts under way whose outcome isn't noted, by instance
	calls     map[string]*atomic.Int64 // of Send that haven't returned, by instance

	authorizing *plugin.Deadlines
	attempting  *plugin.Deadlines

	bounds atomic.Pointer[bounds]
	oldest atomic.Int64 // when the oldest message was received, as of the last sweep: ms since 1970; 0: there was none

	draining atomic.Bool
	sending  sync.WaitGroup // lane workers and the attempts they wait for
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

// New returns a pipeline. Its context ends what it does when the node stops
// being the active one.
func New(ctx context.Context, parts Parts) *Pipeline {
	p := &Pipeline{Parts: parts, limiter: ratelimit.New(parts.Spool), names: spool.NewNames(parts.Key)}
	p.Zone = cmp.Or(parts.Zone, time.UTC)
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for i := range p.jobs {
		p.jobs[i] = make(chan job, deciderQueue)
	}
	p.authorizing = plugin.NewDeadlines(p.ctx, authorizeWait)
	p.attempting = plugin.NewDeadlines(p.ctx, sendWait)
	p.instances = slices.Sorted(maps.Keys(parts.Doors))
	p.sends = make(map[string]*atomic.Int64, len(parts.Doors))
	p.calls = make(map[string]*atomic.Int64, len(parts.Doors))
	for _, instance := range p.instances {
		p.sends[instance], p.calls[instance] = new(atomic.Int64), new(atomic.Int64)
	}
	p.joins.live = map[spool.Digest]*ticket{}
	p.sets = joining.New(parts.Spool, parts.Seen, MaxBody)
	p.lanes.init(p)
	p.settler.init(p)
	p.reports.init()
	if parts.Meter == nil {
		parts.Meter = NewMeter(parts.Metrics)
	}
	p.meter = parts.Meter.of(p.instances)
	p.waker = push.New(parts.Pusher, p.sleeps, p.meter.wakes, parts.Log)
	p.notices = notices{log: parts.Log, pending: map[notice]*pendingNotice{}}
	p.Bound(parts.Limits, parts.Retention, parts.Notifications)
	p.gauges(parts.Metrics)
	return p
}

// bounds are Limits, Retention and Notifications without zeros.
type bounds struct {
	Limits
	retention, notifications time.Duration
}

// Bound sets other limits, another retention and another life of notifications than
// those of Parts, and asks the pusher anew for how long bindings sleep. What is kept
// already stays. It may be called while the pipeline works.
func (p *Pipeline) Bound(l Limits, retention, notifications time.Duration) {
	l.Messages = cmp.Or(l.Messages, DefaultMessages)
	l.PerRecipient = cmp.Or(l.PerRecipient, DefaultPerRecipient)
	l.Contacts = cmp.Or(l.Contacts, DefaultContacts)
	p.bounds.Store(&bounds{l, max(MinRetention, cmp.Or(retention, DefaultRetention)), cmp.Or(notifications, DefaultNotifications)})
	p.Locations.Limit(l.Contacts)
	p.Locations.Keep(p.keep())
}

// Restore rebuilds memory from the disk, except Seen, which the caller keeps. It
// comes before Run.
func (p *Pipeline) Restore(ctx context.Context) error {
	now := time.Now()
	if err := p.Locations.Restore(ctx, now.Add(-bindingGrace)); err != nil {
		return fmt.Errorf("rebuild locations: %w", err)
	}
	if err := p.limiter.Restore(ctx, now); err != nil {
		return err
	}
	if err := p.sets.Restore(ctx, now, p.ids.Seen); err != nil {
		return fmt.Errorf("rebuild the parts of messages: %w", err)
	}
	states, err := p.Spool.States(ctx)
	if err != nil {
		return fmt.Errorf("rebuild the spool: %w", err)
	}
	err = p.Spool.Entries(ctx, func(e *spool.Entry) { p.resume(now, e, states[e.Message.ID]) })
	if err != nil {
		return fmt.Errorf("rebuild the spool: %w", err)
	}
	return nil
}

// resume takes up a message that was accepted before this node became active.
func (p *Pipeline) resume(now time.Time, e *spool.Entry, state spool.State) {
	p.ids.Seen(e.Message.ID)
	if p.oldest.Load() == 0 { // they come in order
		p.oldest.Store(e.Message.ID.Time().UnixMilli())
	}
	it := p.newItem(e, nil, state)
	if e.Key != "" && !state.HandedOver { // then there is a row
		p.Seen.Remember(now, it.seen(plugin.Outcome{State: plugin.OutcomeWaiting}))
	}
	p.reports.expect(it)
	switch {
	case state.HandedOver:
		it.payload = nil
	case state.Quarantined != "":
		it.payload = nil
		p.lanes.setAside(it)
	default:
		way := wayOf(e, state.Fallback)
		it.mayRepeat = !it.early(now) && (state.Attempts > 0 || len(p.routes(e, way, now.Add(-bindingGrace))) > 0)
		p.lanes.resume(it, len(p.routes(e, way, now)) == 0 && p.exists(way) && e.Account != "")
	}
}

// Run works until the pipeline's context ends.
func (p *Pipeline) Run() {
	var all sync.WaitGroup
	for _, jobs := range p.jobs {
		all.Go(func() { p.decideAll(jobs) })
	}
	all.Go(p.lanes.schedule)
	all.Go(p.settler.run)
	all.Go(func() { p.waker.Run(p.ctx) })
	all.Go(p.assembleOverdue)
	all.Go(func() { p.every(sweepEvery, p.sweep) })
	all.Go(func() { p.every(sweepEvery, p.forgetHistory) })
	all.Go(func() { p.every(sweepDevicesEvery, p.Locations.SweepDevices) })
	p.lanes.start()
	all.Wait()
	p.draining.Store(true)
	p.sending.Wait()
}

// Drain stops taking messages and lets those under way come to rest, for as
// long as limit allows; then it ends the pipeline.
func (p *Pipeline) Drain(limit time.Duration) {
	p.draining.Store(true)
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for p.underWay() {
		select {
		case <-poll.C:
			continue
		case <-deadline.C:
		case <-p.ctx.Done():
		}
		break
	}
	p.cancel(message.FailForNow(message.Draining, "the node stops"))
}

// underWay tells whether something may still come to rest. While the storage
// fails nothing does.
func (p *Pipeline) underWay() bool {
	if p.Spool.Failing() {
		return false
	}
	return p.undecided.Load() > 0 || p.lanes.running() > 0 || p.settler.busy()
}

// Register carries out a registration and wakes what waits for the account.
func (p *Pipeline) Register(ctx context.Context, transport string, r plugin.Registration) ([]plugin.Binding, error) {
	now := time.Now()
	bindings, err := p.register(ctx, transport, r, now)
	if err != nil {
		p.refused(refusedRegistrations, transport, now, message.AsFailure(err), "transport", transport, "address", r.AOR)
	}
	return bindings, err
}

func (p *Pipeline) register(ctx context.Context, transport string, r plugin.Registration, now time.Time) ([]plugin.Binding, error) {
	if !r.Account.Owns(r.AOR) {
		return nil, message.Fail(message.Forbidden, "account %s doesn't own %s", r.Account.ID, r.AOR)
	}
	if p.Spool.Failing() {
		return nil, message.FailForNow(message.StorageDown, "the storage fails")
	}
	var bindings []plugin.Binding
	err := written(ctx, func(done func(error)) (err error) {
		bindings, err = p.Locations.Register(transport, r, now, func(err error) {
			if err == nil && len(r.Bindings) > 0 {
				p.awake(r)
				p.wake(r.Account.ID, r.Bindings) // also if nobody waits any more
			}
			done(err)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return bindings, nil
}

// wake sets to work what waits for an account, and the copies for its devices whose
// bindings have changed.
func (p *Pipeline) wake(account string, changed []plugin.Binding) {
	p.lanes.wake(account)
	for i := range changed {
		if device := changed[i].Device; device != "" {
			p.lanes.wake(deviceName(account, device))
		}
	}
}

// written waits until what write has begun to write is on disk.
func written(ctx context.Context, write func(done func(error)) error) error {
	done := make(chan error, 1)
	if err := write(func(err error) { done <- err }); err != nil {
		return err
	}
	return onDisk(ctx, done, 1)
}

// onDisk waits until n writes are on disk.
func onDisk(ctx context.Context, writes <-chan error, n int) error {
	for range n {
		select {
		case err := <-writes:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return message.FailForNow(message.StorageDown, "the storage doesn't answer in time")
		}
	}
	return nil
}

// held is how many messages are ours and have not ended.
func (p *Pipeline) held() int {
	c := p.lanes.counts()
	return c.messages + c.quarantined + int(p.reports.held.Load()) + p.sets.Count()
}

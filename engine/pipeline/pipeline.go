// Package pipeline is the one way that a message goes: submit, decide,
// authorise, put, lane, send, move, settle. Nothing calls back to an earlier
// stage.
//
// It works for as long as this node is the active one: New and Restore make it
// from what is on disk, Run works, Drain lets it come to rest. It must not know
// any protocol, nor how a plugin does its work.
package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
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
	maxWaiting    = 1 << 20                 // messages in the spool
	maxPerAccount = 10_000                  // messages in the spool for one recipient
	authorizeWait = 5 * time.Second
	receiptWait   = 24 * time.Hour // how long after a message's life a receipt may come
	sweepEvery    = 30 * time.Second
)

// Door is a transport instance as the pipeline sees it.
type Door struct {
	plugin.Transport
	Plugin    string // the name of its plugin: the key of a plan's MIME table
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
}

// Pipeline carries messages from the doors to the doors.
type Pipeline struct {
	Parts
	Stats Stats

	ids       message.Generator
	jobs      [deciders]chan job
	undecided atomic.Int64

	joins   joins
	lanes   lanes
	settler settler
	reports reports
	notices notices

	instances []string                 // the doors' names, sorted
	sends     map[string]*atomic.Int64 // attempts under way, by instance

	authorizing *plugin.Deadlines
	attempting  *plugin.Deadlines

	draining atomic.Bool
	sending  sync.WaitGroup // lane workers and the attempts they wait for
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

// New returns a pipeline. Its context ends what it does when the node stops
// being the active one.
func New(ctx context.Context, parts Parts) *Pipeline {
	p := &Pipeline{Parts: parts}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for i := range p.jobs {
		p.jobs[i] = make(chan job, deciderQueue)
	}
	p.authorizing = plugin.NewDeadlines(p.ctx, authorizeWait)
	p.attempting = plugin.NewDeadlines(p.ctx, sendWait)
	p.instances = slices.Sorted(maps.Keys(parts.Doors))
	p.sends = make(map[string]*atomic.Int64, len(parts.Doors))
	for _, instance := range p.instances {
		p.sends[instance] = new(atomic.Int64)
	}
	p.joins.live = map[spool.Digest]*ticket{}
	p.lanes.init(p)
	p.settler.init(p)
	p.reports.init()
	p.notices = notices{log: parts.Log, pending: map[message.Reason]*notice{}}
	return p
}

// Restore rebuilds memory from the disk. It comes before Run.
func (p *Pipeline) Restore(ctx context.Context) error {
	now := time.Now()
	if err := p.Locations.Restore(ctx, now); err != nil {
		return fmt.Errorf("rebuild locations: %w", err)
	}
	if err := p.Seen.Restore(ctx, now); err != nil {
		return fmt.Errorf("rebuild submissions: %w", err)
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
	it := newItem(e, nil)
	it.state.State = state
	if e.Key != "" && !state.HandedOver { // then there is a row
		p.Seen.Remember(now, it.seen(plugin.Outcome{State: plugin.OutcomeWaiting}))
	}
	switch {
	case state.HandedOver:
		it.payload = nil
		p.reports.expect(it)
	case state.Quarantined != "":
		it.payload = nil
		p.lanes.setAside(it)
	default:
		p.lanes.resume(it)
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
	all.Go(p.sweep)
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
	if !r.Account.Owns(r.AOR) {
		return nil, message.Fail(message.Forbidden, "account %s doesn't own %s", r.Account.ID, r.AOR)
	}
	if p.Spool.Failing() {
		return nil, message.FailForNow(message.StorageDown, "the storage fails")
	}
	done := make(chan error, 1)
	bindings, err := p.Locations.Register(transport, r, time.Now(), func(err error) {
		if err == nil && len(r.Bindings) > 0 {
			p.lanes.wake(r.Account.ID) // also if nobody waits any more
		}
		done <- err
	})
	if err != nil {
		return nil, err
	}
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, message.FailForNow(message.StorageDown, "the storage doesn't answer in time")
	}
	return bindings, nil
}

// sweep does the housekeeping that nobody waits for.
func (p *Pipeline) sweep() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-ticker.C:
			p.sweepOnce(now)
		}
	}
}

func (p *Pipeline) sweepOnce(now time.Time) {
	const page = 4096
	p.Locations.Sweep(now, page)
	p.expireQuarantined(now)
	p.expireReports(now)
	for {
		n, err := p.Seen.Sweep(p.ctx, now, page)
		if err != nil {
			p.Log.Warn("housekeeping failed; it will be tried again", "reason", err)
		}
		if n < page || err != nil {
			return
		}
	}
}

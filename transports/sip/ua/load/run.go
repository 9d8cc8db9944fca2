package load

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/transports/sip/ua/internal/process"
)

// registerFor is how long registrations are asked for, in seconds.
const registerFor = 3600

// settings are what a run does.
type settings struct {
	mode     string
	to       string   // the domain of the numbers that messages go to, with modeRelay
	servers  []string // host:port; several: nodes of one gateway
	window   int
	rate     float64 // messages a second; 0: closed loop
	messages int     // 0: until duration has passed
	duration time.Duration
	warmup   time.Duration
	patience time.Duration // without an arrival, until what is missing counts as lost
	size     int           // octets of a body
	sockets  int
	pid      string // of the server; empty: not known
	timers   timers
	notes    io.Writer // progress, for a person
}

// tick is how often an endpoint that receives nothing looks up.
func (s settings) tick() time.Duration {
	if s.rate > 0 {
		return time.Millisecond
	}
	return repeatEvery
}

// run is a run at work.
type run struct {
	settings
	endpoints  []*endpoint
	accounts   int
	pairs      []*pair
	tally      *tally
	registered time.Time
}

// measure runs the load that s describes with the accounts and reports.
func measure(ctx context.Context, s settings, accounts []*account) (*report, error) {
	r, err := newRun(ctx, s, accounts)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.register(ctx, 0); err != nil { // also what earlier runs left behind
		return nil, err
	}
	// Also after an interruption nothing may stay registered that isn't there.
	defer r.part(ctx)
	switch s.mode {
	case modeOffline:
		return r.offline(ctx)
	case modeRelay:
		return r.relay(ctx)
	}
	return r.online(ctx)
}

func newRun(ctx context.Context, s settings, accounts []*account) (*run, error) {
	name := cryptorand.Text()[:8]
	bodies, err := newBodies(name, s.size)
	if err != nil {
		return nil, err
	}
	pairs := makePairs(accounts, max(4*len(accounts), 4*s.window, pairsPerRate(s.rate)))
	if s.mode == modeRelay {
		sendToNumbers(pairs, s.to)
	}
	r := &run{settings: s, accounts: len(accounts), pairs: pairs, tally: newTally(len(pairs))}
	for i := range s.sockets {
		e, err := openEndpoint(ctx, s, i, name)
		if err != nil {
			r.close()
			return nil, err
		}
		e.bodies, e.pairs, e.tally = bodies, pairs, r.tally
		r.endpoints = append(r.endpoints, e)
	}
	for i, a := range accounts {
		r.home(i).adopt(a)
	}
	for _, p := range pairs {
		e := r.home(p.from.index)
		e.idle = append(e.idle, p)
	}
	for i, e := range r.endpoints {
		if len(e.idle) < share(s.window, s.sockets, i) {
			r.close()
			return nil, fmt.Errorf("%d users are too few for a window of %d: one message at a time is on its way between two", len(accounts), s.window)
		}
	}
	return r, nil
}

// home is the endpoint of an account.
func (r *run) home(account int) *endpoint { return r.endpoints[account%len(r.endpoints)] }

// pairsPerRate is enough for a server that takes a second to answer.
func pairsPerRate(rate float64) int { return int(min(rate, 100_000)) }

// makePairs returns n pairs of different accounts that are all different, or
// all that there are.
func makePairs(accounts []*account, n int) []*pair {
	random := rand.New(rand.NewPCG(1, 2)) // the same in every run
	all := len(accounts) * (len(accounts) - 1)
	var pairs []*pair
	add := func(code int) {
		from, to := code/(len(accounts)-1), code%(len(accounts)-1)
		if to >= from {
			to++
		}
		pairs = append(pairs, newPair(len(pairs), accounts[from], accounts[to]))
	}
	if all <= 2*n {
		for _, code := range random.Perm(all)[:min(n, all)] {
			add(code)
		}
		return pairs
	}
	chosen := make(map[int]bool, n)
	for len(pairs) < n {
		code := random.IntN(all)
		if !chosen[code] {
			chosen[code] = true
			add(code)
		}
	}
	return pairs
}

func (r *run) close() {
	for _, e := range r.endpoints {
		_ = e.conn.Close() // nothing is written that a failure could lose
	}
}

// phase runs one feed on every endpoint until all have finished.
func (r *run) phase(ctx context.Context, feedOf func(index int, e *endpoint) feed) error {
	var busy atomic.Int32
	busy.Store(int32(len(r.endpoints)))
	var workers sync.WaitGroup
	for i, e := range r.endpoints {
		f := feedOf(i, e)
		workers.Go(func() { e.work(ctx, &busy, f) })
	}
	workers.Wait()
	var failures []error
	for _, e := range r.endpoints {
		failures = append(failures, e.failure)
	}
	return errors.Join(append(failures, context.Cause(ctx))...)
}

func (r *run) register(ctx context.Context, seconds int) error {
	if seconds > 0 {
		r.registered = time.Now()
	}
	return r.phase(ctx, func(_ int, e *endpoint) feed { return e.registrations(seconds) })
}

// part ends all registrations, also when ctx has ended.
func (r *run) part(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for _, e := range r.endpoints {
		e.abandon()
	}
	if err := r.register(ctx, 0); err != nil {
		r.note("the registrations could not be ended: %v", err)
	}
}

func (r *run) note(format string, args ...any) { fmt.Fprintf(r.notes, format+"\n", args...) }

// online measures with all accounts registered.
func (r *run) online(ctx context.Context) (*report, error) {
	if err := r.register(ctx, registerFor); err != nil {
		return nil, err
	}
	before, err := r.send(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	after, err := r.sample()
	if err != nil {
		return nil, err
	}
	return r.report(before, after), r.checkRegistrations()
}

// offline measures first how messages are stored for accounts that aren't
// registered, and then how they arrive once these are.
func (r *run) offline(ctx context.Context) (*report, error) {
	before, err := r.send(ctx)
	if err != nil {
		return nil, err
	}
	between, err := r.sample()
	if err != nil {
		return nil, err
	}
	result := r.report(before, between)

	r.note("draining %d messages", r.tally.missing())
	r.tally.countArrivals(time.Now())
	if err := r.register(ctx, registerFor); err != nil {
		return nil, err
	}
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	after, err := r.sample()
	if err != nil {
		return nil, err
	}
	r.addDrain(result, between, after)
	return result, r.checkRegistrations()
}

// relay measures how messages are taken that lead elsewhere. Whether they arrive
// isn't seen here.
func (r *run) relay(ctx context.Context) (*report, error) {
	before, err := r.send(ctx)
	if err != nil {
		return nil, err
	}
	after, err := r.sample()
	if err != nil {
		return nil, err
	}
	result := r.report(before, after)
	result.Lost = 0
	return result, nil
}

// send sends until the goal is reached and every message has its final answer.
// It returns what the processes had used when the warming up was over.
func (r *run) send(ctx context.Context) (sample, error) {
	began := time.Now()
	quota := math.MaxInt
	if r.messages > 0 {
		quota = r.messages
	}
	warm := r.startMeasuring(ctx)
	err := r.phase(ctx, func(i int, e *endpoint) feed {
		p := pace{window: share(r.window, r.sockets, i), rate: r.rate / float64(r.sockets), began: began}
		return e.messages(p, share(quota, r.sockets, i), began.Add(r.warmup+r.duration))
	})
	if err != nil {
		return sample{}, err
	}
	w := <-warm
	return w.sample, w.err
}

// warmed is what is known when the warming up is over.
type warmed struct {
	sample sample
	err    error
}

// startMeasuring begins to measure once the warming up is over, which is at
// once if there is none.
func (r *run) startMeasuring(ctx context.Context) <-chan warmed {
	result := make(chan warmed, 1)
	begin := func() {
		s, err := r.sample()
		r.tally.begin(time.Now())
		result <- warmed{s, err}
	}
	if r.warmup == 0 {
		begin()
		return result
	}
	go func() {
		timer := time.NewTimer(r.warmup)
		defer timer.Stop()
		select {
		case <-timer.C:
			begin()
		case <-ctx.Done():
			result <- warmed{err: context.Cause(ctx)}
		}
	}()
	return result
}

// settle waits for what was acknowledged to arrive.
func (r *run) settle(ctx context.Context) error {
	since := time.Now()
	return r.phase(ctx, func(int, *endpoint) feed {
		return none(func(now time.Time) bool { return r.tally.settled(since, now, r.patience) })
	})
}

// checkRegistrations fails if they ran out before the end: then messages were
// kept that should have been delivered.
func (r *run) checkRegistrations() error {
	took := time.Since(r.registered)
	for _, e := range r.endpoints {
		if e.granted > 0 && took > e.granted {
			return fmt.Errorf("the server granted registrations for %s only, less than the run took: nothing measured is true", e.granted)
		}
	}
	return nil
}

// sample is what the server and the generator have used so far; nil: unknown.
type sample struct{ server, generator *process.Usage }

func (r *run) sample() (sample, error) {
	var s sample
	if own, err := process.UsageOf(process.Self); err == nil { // else this isn't Linux
		s.generator = &own
	}
	if r.pid == "" {
		return s, nil
	}
	server, err := process.UsageOf(r.pid)
	if err != nil {
		return s, err
	}
	s.server = &server
	return s, nil
}

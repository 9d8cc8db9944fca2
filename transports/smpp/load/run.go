package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

const (
	// bindWait is longer than the longest pause in which a gateway tries again.
	bindWait = 75 * time.Second
	// look is how often it is looked whether a run is over.
	look = 10 * time.Millisecond
)

var errNone = errors.New("nothing arrives")

// settings are what a run does.
type settings struct {
	server     string // host:port of the gateway
	listen     string // host:port of the SMSC
	login      login
	from       string // the sender's number, without a +
	binds      int
	window     int     // of each bind
	rate       float64 // messages a second over all binds; 0: closed loop
	messages   int     // 0: until duration has passed
	duration   time.Duration
	warmup     time.Duration
	patience   time.Duration // without an arrival, until what is missing counts as lost
	size       int           // octets of a text
	recipients int
	pid        string    // of the gateway; empty: not known
	notes      io.Writer // progress, for a person
}

func (s settings) note(format string, args ...any) { fmt.Fprintf(s.notes, format+"\n", args...) }

// measure submits what the settings say, takes it at the other side, and reports.
func measure(ctx context.Context, s settings) (*report, error) {
	run := rand.Text()[:8]
	t := newTally(false, time.Now())
	k, err := openSink(ctx, s.listen, run, t)
	if err != nil {
		return nil, err
	}
	defer k.close()
	s.note("waiting for the gateway to bind to %s", k.address())
	if err := k.awaitBind(ctx, bindWait); err != nil {
		return nil, err
	}
	esmes, err := s.bindAll(ctx, run, t)
	defer func() {
		for _, e := range esmes {
			_ = e.conn.Close() // it has unbound, or the run has failed
		}
	}()
	if err != nil {
		return nil, err
	}
	before, after, err := s.drive(ctx, esmes, t)
	if err != nil {
		return nil, err
	}
	return s.report(t, before, after), nil
}

func (s settings) bindAll(ctx context.Context, run string, t *tally) ([]*esme, error) {
	form, err := newTemplate(run, s.from, s.size)
	if err != nil {
		return nil, err
	}
	var esmes []*esme
	for i := range s.binds {
		stream, err := dial(ctx, s.server, s.login)
		if err != nil {
			return esmes, err
		}
		esmes = append(esmes, &esme{stream: stream, template: form, tally: t, index: i, recipients: s.recipients})
	}
	return esmes, nil
}

// drive has the ESMEs submit and waits until all has arrived. It returns what the
// processes had used when the warming up was over, and at the end.
func (s settings) drive(ctx context.Context, esmes []*esme, t *tally) (before, after sample, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	warm := s.warmup > 0
	if !warm {
		if before, err = s.begin(ctx, t); err != nil {
			return before, after, err
		}
	}
	sending, part := s.start(esmes, cancel)
	defer part()
	if warm {
		if before, err = s.begin(ctx, t); err != nil {
			return before, after, err
		}
	}
	if err := s.settle(ctx, sending, t); err != nil {
		return before, after, err
	}
	after, err = takeSample(s.pid)
	part()
	return before, after, errors.Join(err, context.Cause(ctx))
}

// begin measures from the end of the warming up on, for which it waits. It returns
// what the processes have used by then.
func (s settings) begin(ctx context.Context, t *tally) (sample, error) {
	if err := pause(ctx, s.warmup); err != nil {
		return sample{}, err
	}
	before, err := takeSample(s.pid)
	t.begin(time.Now())
	return before, err
}

// start lets the ESMEs submit. sending is done when everything is answered; part
// has them unbind. failed is told why one couldn't go on.
func (s settings) start(esmes []*esme, failed func(error)) (sending *sync.WaitGroup, part func()) {
	quota := math.MaxInt
	if s.messages > 0 {
		quota = s.messages
	}
	began := time.Now()
	done := make(chan struct{})
	sending = &sync.WaitGroup{}
	var bound sync.WaitGroup
	for i, e := range esmes {
		e.pace = pace{window: s.window, rate: s.rate / float64(len(esmes)), began: began}
		e.quota, e.end = share(quota, len(esmes), i), began.Add(s.warmup+s.duration)
		sending.Add(1)
		bound.Go(func() {
			if err := e.submit(done, sending.Done); err != nil {
				failed(err)
			}
		})
	}
	return sending, sync.OnceFunc(func() {
		close(done)
		bound.Wait()
	})
}

// settle waits until everything is sent and answered, and then for what was
// acknowledged to arrive.
func (s settings) settle(ctx context.Context, sending *sync.WaitGroup, t *tally) error {
	sent := make(chan struct{})
	go func() { // it ends with the ESMEs
		sending.Wait()
		close(sent)
	}()
	select {
	case <-sent:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return until(ctx, func(since, now time.Time) bool { return t.settled(since, now, s.patience) })
}

// count is an SMSC until nothing arrives any more, and reports.
func count(ctx context.Context, s settings) (*report, error) {
	t := newTally(true, time.Now())
	k, err := openSink(ctx, s.listen, "", t)
	if err != nil {
		return nil, err
	}
	defer k.close()
	s.note("listening on %s", k.address())
	if err := awaitFirst(ctx, k); err != nil {
		return nil, err
	}
	before, err := s.begin(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := until(ctx, func(_, now time.Time) bool { return t.quiet(now, s.patience) }); err != nil {
		return nil, err
	}
	after, err := takeSample(s.pid)
	return s.report(t, before, after), err
}

// awaitFirst waits for the gateway to bind, and then as long for the first message.
func awaitFirst(ctx context.Context, k *sink) error {
	if err := k.awaitBind(ctx, bindWait); err != nil {
		return err
	}
	err := until(ctx, func(since, now time.Time) bool { return k.tally.total() > 0 || now.Sub(since) >= bindWait })
	if err == nil && k.tally.total() == 0 {
		return errNone
	}
	return err
}

// until looks until something is so.
func until(ctx context.Context, isSo func(since, now time.Time) bool) error {
	since := time.Now()
	for !isSo(since, time.Now()) {
		if err := pause(ctx, look); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// share splits n as evenly as it goes among parts.
func share(n, parts, part int) int {
	portion := n / parts
	if part < n%parts {
		portion++
	}
	return portion
}

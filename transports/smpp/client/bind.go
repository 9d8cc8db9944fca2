package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// lasting is how long a bind must have been up for its end to be news: the next
// attempt then comes after the shortest pause.
const lasting = 30 * time.Second

// bind is one session with the SMSC, from its connection to its end.
type bind struct {
	client  *Client
	name    string // random; names what came on it to the engine, see Arrival.Key
	mode    string
	session *wire.Session
	threads wire.Threads
	// tickets are messages of the SMSC in the order of their arrival, which wait
	// to be accepted: as many as inWindow allows.
	tickets   chan arrived
	accepting *plugin.Deadlines
	invited   chan wire.Outbind // an SMSC's that has connected to us; nil: we have connected
	why       error             // of the end; set by Closed
	disowned  atomic.Bool       // by the SMSC
	patience  patience          // with receipts that may be about nobody's message
	load      int               // messages that are being sent over it; guarded by binds
}

func (c *Client) newBind(conn net.Conn, mode string) *bind {
	b := &bind{client: c, name: message.NewPublicID(), mode: mode, tickets: make(chan arrived, inWindow)}
	b.session = wire.NewSession(conn, wire.Config{
		Limits:      wire.Limits{Window: c.config.Window, InWindow: inWindow},
		EnquireLink: c.config.EnquireLink,
		Response:    c.config.Response,
		Bind:        c.config.BindWithin,
		Drain:       drainWithin,
		Counters:    &c.counters,
		Log:         c.log,
		Trace:       b.show,
	}, b)
	return b
}

// keep binds, and binds again when that has ended, until ctx ends.
func (c *Client) keep(ctx context.Context, mode string, number int) {
	pauses := backoff{min: c.config.Reconnect.Min, max: c.config.Reconnect.Max}
	log := c.log.With("bind", number, "mode", mode)
	said := ""
	for {
		up, err := c.once(ctx, mode, log)
		if ctx.Err() != nil {
			return
		}
		if up > 0 {
			said = ""
		}
		if up > lasting {
			pauses.reset()
		}
		if isHopeless(err) {
			pauses.patiently()
		}
		d := pauses.pause()
		if text := err.Error(); text != said { // else it would be said again at each attempt
			said = text
			log.Warn("not bound to the SMSC", "reason", text, "next", d.Round(time.Millisecond))
		}
		if !pause(ctx, d) {
			return
		}
	}
}

// once connects, binds, and keeps the bind until it or ctx ends. It returns for
// how long it was up, and why it isn't any more.
func (c *Client) once(ctx context.Context, mode string, log *slog.Logger) (up time.Duration, why error) {
	conn, err := c.dial(ctx)
	if err != nil {
		c.metrics.failures[failedConnect].Inc()
		return 0, err
	}
	return c.newBind(conn, mode).run(ctx, log)
}

// run binds and keeps the bind until it or ctx ends. It returns what once does.
func (b *bind) run(ctx context.Context, log *slog.Logger) (up time.Duration, why error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // the end of ctx is told to the SMSC first
	b.accepting = plugin.NewDeadlines(life, acceptWithin)
	var reading, answering sync.WaitGroup
	reading.Go(func() { b.session.Run(life) })
	answering.Go(b.answerAll)
	defer answering.Wait()
	defer end() // nobody need wait for the sake of who is gone
	defer reading.Wait()
	if err := b.establish(ctx); err != nil {
		b.session.Close()
		return 0, err
	}
	began := time.Now()
	log.Info("bound to the SMSC", "peer", b.session.RemoteAddr())
	b.client.binds.add(b)
	if b.sends() {
		b.client.gate.Reachable()
	}
	select {
	case <-b.session.Done():
	case <-ctx.Done():
	}
	b.client.binds.remove(b)
	if ctx.Err() != nil {
		b.part(life)
		log.Info("unbound from the SMSC", "peer", b.session.RemoteAddr())
		return time.Since(began), ctx.Err()
	}
	reading.Wait() // what is under way may be answered yet
	b.client.metrics.failures[failedLost].Inc()
	if b.disowned.Load() {
		return time.Since(began), errDisowned
	}
	return time.Since(began), fmt.Errorf("bind ended: %w", b.why)
}

var errDisowned = errors.New("bind ended: the SMSC answers a message with ESME_RINVBNDSTS, as if there were none that can send")

// disown ends a bind that the SMSC has forgotten: what is sent over it is refused,
// which says nothing of the messages.
func (b *bind) disown() {
	b.disowned.Store(true)
	b.session.Close()
}

// part ends the bind in order: nothing more begins on it, what is under way may
// end.
func (b *bind) part(life context.Context) {
	ctx, cancel := context.WithTimeout(life, partingWithin)
	defer cancel()
	_ = b.session.Unbind(ctx) // if the SMSC says nothing to that, it has ended all the same
}

// establish asks for the bind, when the SMSC has asked us to where it has to.
func (b *bind) establish(ctx context.Context) error {
	if b.invited != nil {
		if err := b.awaitInvitation(ctx); err != nil {
			return err
		}
	}
	return b.bind(ctx)
}

// bind asks for the bind.
func (b *bind) bind(ctx context.Context) error {
	c := b.client.config
	ctx, cancel := context.WithTimeout(ctx, c.BindWithin)
	defer cancel()
	response, err := b.session.Do(ctx, &wire.Bind{
		Mode: modeIDs[b.mode], SystemID: c.SystemID, Password: c.Password, SystemType: c.SystemType,
		InterfaceVersion: versions[c.Version],
		AddressRange:     wire.Address{TON: uint8(c.Range.TON), NPI: uint8(c.Range.NPI), Number: c.Range.Numbers},
	}, nil)
	if err != nil {
		b.client.metrics.failures[failedConnect].Inc()
		return fmt.Errorf("bind at %s: %w", b.session.RemoteAddr(), err)
	}
	if response.Status != wire.ROK {
		b.client.metrics.failures[failedRefused].Inc()
		return &refusal{response.Status}
	}
	return nil
}

var modeIDs = map[string]pdu.ID{
	bindTransceiver: pdu.BindTransceiverID, bindTransmitter: pdu.BindTransmitterID, bindReceiver: pdu.BindReceiverID,
}

// refusal is the SMSC's answer to a bind that it doesn't want.
type refusal struct{ status pdu.Status }

func (r *refusal) Error() string {
	return "the SMSC refuses to bind: " + wire.StatusName(r.status) + hints[r.status]
}

// hints say to the operator what such an answer usually means.
var hints = map[pdu.Status]string{
	wire.RInvPaswd:  ": it doesn't know this password",
	wire.RInvSysID:  ": it doesn't know this system_id",
	wire.RBindFail:  ": system_id, password or our address is wrong, or there are too many binds",
	wire.RAlyBnd:    ": there are as many binds as it allows, or one of before that it hasn't noticed to have ended",
	wire.RInvSysTyp: ": it wants another system_type",
	wire.RInvCmdID:  ": it doesn't know this kind of bind; a pair may do",
}

// isHopeless tells whether somebody has to mend something before another attempt
// can do better.
func isHopeless(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return false
	}
	switch r.status {
	case wire.RInvPaswd, wire.RInvSysID, wire.RInvSysTyp, wire.RBindFail, wire.RInvCmdID:
		return true
	}
	return false
}

func (b *bind) sends() bool    { return b.mode != bindReceiver }
func (b *bind) receives() bool { return b.mode != bindTransmitter }

// binds are those that are up.
type binds struct {
	mu   sync.Mutex
	all  []*bind
	next int
}

func (s *binds) add(b *bind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, b)
}

func (s *binds) remove(b *bind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(other *bind) bool { return other == b })
}

// take returns the bind that can send and has least to do, another one each time
// if that is true of several; nil: there is none. It counts until it is left. not
// is one that has just failed.
func (s *binds) take(not *bind) *bind {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *bind
	for i := range s.all {
		b := s.all[(s.next+i)%len(s.all)]
		if b.sends() && b != not && (best == nil || b.load < best.load) {
			best = b
		}
	}
	if best != nil {
		s.next = slices.Index(s.all, best) + 1
		best.load++
	}
	return best
}

// leave is for who has taken a bind.
func (s *binds) leave(b *bind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.load--
}

// count returns how many can send, or receive.
func (s *binds) count(sending bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.all {
		if sending && b.sends() || !sending && b.receives() {
			n++
		}
	}
	return n
}

// Package smsc is a small SMSC for examples, tests and measurements: ESMEs bind
// to it, it takes their messages and shows them, reports that they were
// delivered, and can bring messages of mobile phones. It answers slowly, wrongly
// or not at all where it is told to.
//
// It keeps nothing, and is no way to the phones of anybody.
package smsc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Config is how an SMSC behaves.
type Config struct {
	Listen   string // host:port; port 0: any
	SystemID string // of the only ESME that may bind; empty: whoever comes
	Password string // of SystemID

	// Bind says how a bind is answered, once SystemID and Password are right; nil:
	// with ESME_ROK. It must not block.
	Bind func(b *wire.Bind) pdu.Status
	// Answer says how a submit_sm or data_sm is answered; nil: it is taken. It is
	// called in the order of arrival on each session and must not block.
	Answer func(s Submit) Answer
	// Took gets each message that was taken, once all its parts are there; nil:
	// nobody wants them, and they aren't read. One call at a time.
	Took func(m Message)

	// Receipts: after how long a receipt is sent where one is asked for; negative:
	// never.
	Receipts time.Duration
	Outcome  translate.State // what receipts say; 0: Delivered

	Window   int // deliver_sm that may be unanswered on a session; default 10
	InWindow int // submit_sm that may be; default 1,000
	Log      *slog.Logger
	// Trace is that of wire.Config.
	Trace func(sent bool, pdu []byte)
}

// Submit is a submit_sm or data_sm.
type Submit struct {
	Session *wire.Session
	Packet  wire.Packet
	Short   *wire.Short
	Number  uint64 // how many there were in all, with this one
}

// Answer is what becomes of a submit_sm. The zero value takes it.
type Answer struct {
	Status    pdu.Status
	MessageID string          // empty: the next number
	After     time.Duration   // how long it takes
	Until     <-chan struct{} // nil, or until when it takes
	Silent    bool            // it isn't answered
	Drop      bool            // the connection is closed instead
}

// SMSC is one at work.
type SMSC struct {
	config   Config
	listener *wire.Listener
	dialect  translate.Dialect
	receipts chan *due
	joiner   joiner
	submits  atomic.Uint64
	names    atomic.Uint64

	mu    sync.Mutex
	bound []*peer
	next  int
	news  chan struct{} // closed when bound changes
}

// Listen opens an SMSC. Serve must follow.
func Listen(ctx context.Context, c Config) (*SMSC, error) {
	if c.InWindow == 0 {
		c.InWindow = 1000
	}
	if c.Outcome == 0 {
		c.Outcome = translate.Delivered
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	listener, err := wire.Listen(ctx, c.Listen, wire.ListenConfig{Log: c.Log})
	if err != nil {
		return nil, fmt.Errorf("smsc: %w", err)
	}
	s := &SMSC{
		config: c, listener: listener, dialect: translate.Defaults(),
		receipts: make(chan *due, maxDue), news: make(chan struct{}),
	}
	s.names.Store(uint64(time.Now().UnixMicro())) // another run has other names
	s.dialect.Receipts = translate.ReceiptsNone
	return s, nil
}

// Addr is where it listens.
func (s *SMSC) Addr() netip.AddrPort { return s.listener.Addr() }

// Serve answers until ctx ends.
func (s *SMSC) Serve(ctx context.Context) {
	var reporting sync.WaitGroup
	reporting.Go(func() { s.reportAll(ctx) })
	s.listener.Serve(ctx, s.serve)
	reporting.Wait()
}

// peer is a session with an ESME.
type peer struct {
	smsc    *SMSC
	session *wire.Session
	// Set by a bind, on the reader's goroutine, before the peer is among the bound.
	mode     pdu.ID
	systemID string
}

func (s *SMSC) serve(ctx context.Context, conn net.Conn) {
	p := &peer{smsc: s}
	p.session = wire.NewSession(conn, wire.Config{
		Limits: wire.Limits{Window: s.config.Window, InWindow: s.config.InWindow},
		Drain:  drainWithin,
		Log:    s.config.Log,
		Trace:  s.config.Trace,
	}, p)
	life := context.WithoutCancel(ctx) // the end is told to the ESME first
	stop := context.AfterFunc(ctx, func() {
		parting, cancel := context.WithTimeout(life, partingWithin)
		defer cancel()
		_ = p.session.Unbind(parting) // if the ESME says nothing to that, it has ended all the same
	})
	defer stop()
	p.session.Run(life)
}

// Bounds of an orderly end: of what is under way, and with unbind.
const (
	drainWithin   = time.Second
	partingWithin = 2 * time.Second
)

// Request is wire.Handler.
func (p *peer) Request(_ *wire.Session, packet wire.Packet) {
	switch body := packet.Body.(type) {
	case *wire.Bind:
		p.bind(packet, body)
	case *wire.Short:
		p.submit(packet, body)
	default:
		p.session.Respond(packet, wire.RInvCmdID, nil, nil)
	}
}

// Closed is wire.Handler.
func (p *peer) Closed(_ *wire.Session, why error) {
	if p.mode == 0 {
		return
	}
	p.smsc.config.Log.Info("ESME gone", "system_id", p.systemID, "reason", why)
	p.smsc.change(func() {
		for i, other := range p.smsc.bound {
			if other == p {
				p.smsc.bound = append(p.smsc.bound[:i:i], p.smsc.bound[i+1:]...)
				return
			}
		}
	})
}

// change changes who is bound, and tells whoever waits for that.
func (s *SMSC) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.news)
	s.news = make(chan struct{})
}

func (p *peer) bind(packet wire.Packet, b *wire.Bind) {
	status := p.admit(b)
	if status == wire.ROK {
		p.mode, p.systemID = b.Mode, b.SystemID
	}
	body := &wire.BindResp{Mode: wire.ResponseTo(b.Mode), SystemID: "imgate-smsc"}
	p.session.Respond(packet, status, body, wire.TLVs{wire.Uint8(wire.TagScInterfaceVersion, translate.Version34)})
	if status != wire.ROK {
		return
	}
	p.smsc.config.Log.Info("ESME bound", "system_id", b.SystemID, "mode", wire.Name(b.Mode), "peer", p.session.RemoteAddr())
	p.smsc.change(func() { p.smsc.bound = append(p.smsc.bound, p) })
}

// admit says how a bind is answered.
func (p *peer) admit(b *wire.Bind) pdu.Status {
	c := p.smsc.config
	switch {
	case p.mode != 0:
		return wire.RAlyBnd
	case c.SystemID != "" && b.SystemID != c.SystemID:
		return wire.RInvSysID
	case c.SystemID != "" && b.Password != c.Password:
		return wire.RInvPaswd
	case c.Bind != nil:
		return c.Bind(b)
	}
	return wire.ROK
}

func (p *peer) receives() bool {
	return p.mode == pdu.BindReceiverID || p.mode == pdu.BindTransceiverID
}

// submit takes a message or a part of one.
func (p *peer) submit(packet wire.Packet, short *wire.Short) {
	s := p.smsc
	if p.mode == 0 || p.mode == pdu.BindReceiverID || packet.ID == pdu.DeliverSMID {
		p.session.Respond(packet, wire.RInvBndSts, nil, nil)
		return
	}
	var a Answer
	submit := Submit{Session: p.session, Packet: packet, Short: short, Number: s.submits.Add(1)}
	if s.config.Answer != nil {
		a = s.config.Answer(submit)
	}
	switch {
	case a.Drop:
		p.session.Close()
	case a.Silent:
		p.session.Ignore(packet)
	case a.Until != nil:
		go func() {
			select {
			case <-a.Until:
				p.answer(submit, a)
			case <-p.session.Done():
				p.session.Ignore(packet)
			}
		}()
	case a.After > 0:
		time.AfterFunc(a.After, func() { p.answer(submit, a) })
	default:
		p.answer(submit, a)
	}
}

func (p *peer) answer(submit Submit, a Answer) {
	s := p.smsc
	if a.Status != wire.ROK {
		p.session.Respond(submit.Packet, a.Status, nil, nil)
		return
	}
	if a.MessageID == "" {
		a.MessageID = strconv.FormatUint(s.names.Add(1), 16)
	}
	if s.config.Took != nil {
		s.joiner.take(s.dialect, submit, s.config.Took)
	}
	p.session.Respond(submit.Packet, wire.ROK, &wire.ShortResp{Of: wire.ResponseTo(submit.Packet.ID), MessageID: a.MessageID}, nil)
	p.reportLater(submit, a.MessageID)
}

// errNobody is why a message can't be brought.
var errNobody = errors.New("no ESME is bound that receives")

// receiver returns a session that receives, another one each time if there are
// several: of a system_id, or of any if that is empty.
func (s *SMSC) receiver(systemID string) (*wire.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.bound {
		s.next = (s.next + 1) % len(s.bound)
		if p := s.bound[s.next]; p.receives() && (systemID == "" || p.systemID == systemID) {
			return p.session, nil
		}
	}
	return nil, errNobody
}

// AwaitBind waits until so many sessions are bound.
func (s *SMSC) AwaitBind(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		bound, news := len(s.bound), s.news
		s.mu.Unlock()
		if bound >= n {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d binds, of which there are %d: %w", n, bound, ctx.Err())
		}
	}
}

// Sessions returns those that are bound.
func (s *SMSC) Sessions() []*wire.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions := make([]*wire.Session, 0, len(s.bound))
	for _, p := range s.bound {
		sessions = append(sessions, p.session)
	}
	return sessions
}

package wire

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config says how an endpoint works. Zero values take the defaults.
type Config struct {
	MaxBody  int // octets of a body; default 64 KiB
	Workers  int // that handle requests; default 32
	Backlog  int // requests that wait for one worker; default 512
	Pending  int // requests without a final response; default 16,384
	Finished int // transactions whose retransmissions are answered; default 1,000,000
	Log      *slog.Logger
}

func (c Config) withDefaults() Config {
	c.MaxBody = or(c.MaxBody, 64<<10)
	c.Workers = or(c.Workers, 32)
	c.Backlog = or(c.Backlog, 512)
	c.Pending = or(c.Pending, 16_384)
	c.Finished = or(c.Finished, 1_000_000)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func or(value, fallback int) int {
	if value == 0 {
		return fallback
	}
	return value
}

// Handler handles a request. Requests from one source come to it one after the
// other in the order of their arrival; so it must not wait for long, and answers
// later if need be. A panic is answered with 500.
type Handler func(ctx context.Context, x *Exchange)

// Endpoint is a set of sockets with the transactions on them.
type Endpoint struct {
	config   Config
	sockets  []*socket
	server   *serverTable
	client   *clientTable
	seed     maphash.Seed
	counters counters
	packets  sync.Pool // of *[]byte, for responses
	closed   atomic.Bool
}

// socket is a UDP socket of ours.
type socket struct {
	conn   *net.UDPConn
	local  netip.AddrPort
	sentBy string // what we write into a Via
}

// receiveBuffer is what we ask the kernel for, in octets, so that a burst
// survives a pause of ours. It may give less.
const receiveBuffer = 4 << 20

// Listen opens the sockets. Nothing is read before Serve.
func Listen(addresses []netip.AddrPort, config Config) (*Endpoint, error) {
	config = config.withDefaults()
	e := &Endpoint{
		config:  config,
		server:  newServerTable(time.Now(), config.Pending, config.Finished),
		client:  newClientTable(),
		seed:    maphash.MakeSeed(),
		packets: sync.Pool{New: func() any { return new([]byte) }},
	}
	for _, address := range addresses {
		s, err := listen(address)
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("listen on udp %s: %w", address, err)
		}
		e.sockets = append(e.sockets, s)
	}
	return e, nil
}

func listen(address netip.AddrPort) (*socket, error) {
	network := "udp4"
	if address.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	// What the kernel gives is what there is: no error.
	_ = conn.SetReadBuffer(receiveBuffer)
	_ = conn.SetWriteBuffer(receiveBuffer)
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	return &socket{conn: conn, local: local, sentBy: sentBy(local)}, nil
}

// sentBy is the address for our Via. A socket on all addresses names the first
// that others can reach; because of rport the answers find us anyway.
func sentBy(local netip.AddrPort) string {
	if !local.Addr().IsUnspecified() {
		return local.String()
	}
	addresses, _ := net.InterfaceAddrs() // none: loopback it is
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().Is4() == local.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
			return netip.AddrPortFrom(prefix.Addr(), local.Port()).String()
		}
	}
	if local.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), local.Port()).String()
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), local.Port()).String()
}

// Addrs returns the addresses of the sockets, with the ports that the system
// chose where the configuration says 0.
func (e *Endpoint) Addrs() []netip.AddrPort {
	var addresses []netip.AddrPort
	for _, s := range e.sockets {
		addresses = append(addresses, s.local)
	}
	return addresses
}

// Close closes the sockets. What runs in Do ends with ErrClosed.
func (e *Endpoint) Close() {
	e.closed.Store(true)
	for _, s := range e.sockets {
		s.conn.Close()
	}
}

// Serve reads and hands requests to handle until ctx is done or Close is
// called, and waits for the handlers. The sockets stay open for what is still to
// be answered, until Close.
func (e *Endpoint) Serve(ctx context.Context, handle Handler) {
	stop := context.AfterFunc(ctx, e.stopReading)
	defer stop()
	queues := make([]chan *Request, e.config.Workers)
	var readers, workers sync.WaitGroup
	for i := range queues {
		queues[i] = make(chan *Request, e.config.Backlog)
		workers.Go(func() { e.work(ctx, queues[i], handle) })
	}
	for _, s := range e.sockets {
		readers.Go(func() { e.read(s, queues) })
	}
	readers.Wait()
	for _, q := range queues {
		close(q)
	}
	workers.Wait()
}

func (e *Endpoint) stopReading() {
	for _, s := range e.sockets {
		_ = s.conn.SetReadDeadline(time.Now()) // fails only when it is closed
	}
}

// readPause is how long a reader waits after an error that isn't the end.
const readPause = 10 * time.Millisecond

func (e *Endpoint) read(s *socket, queues []chan *Request) {
	buffer := make([]byte, MaxMessage+1)
	for {
		n, source, err := s.conn.ReadFromUDPAddrPort(buffer)
		switch {
		case err == nil:
			source = netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
			e.receive(s, buffer[:n], source, queues)
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			e.counters.readErrors.Add(1)
			time.Sleep(readPause)
		}
	}
}

// receive reads one datagram: a response goes to its transaction, a request to
// the worker for its source.
func (e *Endpoint) receive(s *socket, data []byte, source netip.AddrPort, queues []chan *Request) {
	if isKeepAlive(data) {
		e.counters.keepAlives.Add(1)
		return
	}
	request, response, refusal := Parse(data, e.config.MaxBody)
	if request != nil {
		request.Flow = Flow{Network: "udp", Local: s.local, Remote: source}
	}
	switch {
	case refusal != nil:
		e.refuse(s, request, refusal)
	case response != nil:
		e.counters.responses.Add(1)
		if !e.client.deliver(response) {
			e.counters.unmatched.Add(1)
		}
	default:
		e.counters.requests.Add(1)
		select {
		case queues[maphash.Comparable(e.seed, source)%uint64(len(queues))] <- request:
		default:
			e.counters.overflows.Add(1) // the peer repeats it
		}
	}
}

// isKeepAlive tells the empty datagrams that hold a NAT's binding open.
func isKeepAlive(data []byte) bool {
	if len(data) > 4 {
		return false
	}
	for _, c := range data {
		if c != 0 && c != '\r' && c != '\n' && c != ' ' {
			return false
		}
	}
	return true
}

// refuse answers what did not pass the validator, if it can be answered.
func (e *Endpoint) refuse(s *socket, r *Request, refusal *Refusal) {
	e.counters.malformed.Add(1)
	e.config.Log.Debug("malformed message", "reason", refusal.Phrase, "answered", r != nil)
	if r == nil || r.Method == "ACK" {
		return
	}
	x := Exchange{Request: r, endpoint: e, socket: s, key: e.server.key(r)}
	x.write(Reply{Status: refusal.Status, Phrase: refusal.Phrase})
}

func (e *Endpoint) work(ctx context.Context, queue <-chan *Request, handle Handler) {
	for r := range queue {
		if ctx.Err() != nil {
			continue // the peer repeats it, to whoever comes after us
		}
		e.handle(ctx, r, handle)
	}
}

func (e *Endpoint) handle(ctx context.Context, r *Request, handle Handler) {
	x := &Exchange{Request: r, endpoint: e, socket: e.socket(r.Flow.Local), key: e.server.key(r)}
	if o, kept, found := e.server.find(x.key, time.Now()); found {
		e.counters.retransmissions.Add(1)
		x.again(o, kept)
		return
	}
	defer x.Recover()
	handle(ctx, x)
}

// socket finds a socket by its address; the first one if that is gone, so that
// a binding outlives a change of the configuration.
func (e *Endpoint) socket(local netip.AddrPort) *socket {
	i := slices.IndexFunc(e.sockets, func(s *socket) bool { return s.local == local })
	if i < 0 {
		i = slices.IndexFunc(e.sockets, func(s *socket) bool { return s.local.Addr().Is4() == local.Addr().Is4() })
	}
	if i < 0 {
		return nil
	}
	return e.sockets[i]
}

// Do sends a request on a flow and waits for its final response: ErrTimeout
// after 32 s, ErrUnsafe and ErrTooLarge if it can't be written, ErrNoFlow if no
// socket of ours can reach the peer, ErrClosed after Close, or what the system
// or ctx says.
func (e *Endpoint) Do(ctx context.Context, f Flow, o Outgoing) (*Response, error) {
	s := e.socket(f.Local)
	if s == nil || f.Network != "udp" || s.local.Addr().Is4() != f.Remote.Addr().Is4() {
		return nil, ErrNoFlow
	}
	return e.client.do(ctx, &o, s.sentBy, func(packet []byte) error { return e.send(s, packet, f.Remote) })
}

func (e *Endpoint) send(s *socket, packet []byte, to netip.AddrPort) error {
	_, err := s.conn.WriteToUDPAddrPort(packet, to)
	if err == nil {
		e.counters.sent.Add(1)
		return nil
	}
	if e.closed.Load() {
		return ErrClosed
	}
	e.counters.writeErrors.Add(1)
	return err
}

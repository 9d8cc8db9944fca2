package load

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	socketBuffer   = 4 << 20 // octets asked for; the kernel may give less
	maxOutstanding = 20_000  // requests without a final response, of one endpoint
	repeatEvery    = 20 * time.Millisecond
)

// endpoint is one UDP socket, the accounts that share it, and the one
// goroutine that does everything for them: so nothing here needs a lock. What
// endpoints share is the tally.
type endpoint struct {
	name   string // tells its Call-IDs and branches from those of all others
	conn   *net.UDPConn
	local  string // host:port, for Via and Contact
	branch string // what its branches begin with
	tick   time.Duration
	timers timers
	bodies bodies
	pairs  []*pair // all, to look one up
	tally  *tally

	accounts []*account // those that are reached here
	idle     []*pair    // those that send from here and wait for nothing
	random   *rand.Rand

	exchanges   []exchange
	free        []int
	outstanding int
	serial      int

	datagram datagram
	buffer   []byte
	answer   []byte
	seed     maphash.Seed

	remotes []remote
	chosen  int // which of them is asked first

	repeats int   // requests sent again for want of an answer
	unsure  int   // messages challenged anew after another server may have taken them
	failure error // why the run can't go on
	granted time.Duration
}

func openEndpoint(ctx context.Context, s settings, index int, run string) (*endpoint, error) {
	conn, local, remotes, err := open(ctx, s.servers)
	if err != nil {
		return nil, err
	}
	// A smaller buffer than asked for costs repetitions, and those are counted.
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	name := run + "-" + strconv.Itoa(index)
	return &endpoint{
		name: name, conn: conn, local: local.String(), remotes: remotes,
		branch: "z9hG4bK" + name + ".",
		tick:   s.tick(), timers: s.timers,
		random: rand.New(rand.NewPCG(uint64(index), 0)),
		buffer: make([]byte, 65_535), seed: maphash.MakeSeed(),
	}, nil
}

// adopt makes an account reachable here.
func (e *endpoint) adopt(a *account) {
	e.accounts = append(e.accounts, a)
	a.contact = fmt.Sprintf("<sip:%d@%s>", a.index, e.local)
	a.callID = e.name + "-r" + strconv.Itoa(a.index)
}

// feed says what an endpoint is to start in a phase.
type feed struct {
	// allowance is how many requests may be started now.
	allowance func(now time.Time, outstanding int) int
	// start starts one; false: there is none that could be started now.
	start func(now time.Time) bool
	// finished tells that no more will follow.
	finished func(now time.Time) bool
	// strict: a server that isn't there ends the run.
	strict bool
}

// work runs one phase: until all endpoints have finished, since one that has
// still receives for the others. busy counts those that haven't.
func (e *endpoint) work(ctx context.Context, busy *atomic.Int32, f feed) {
	working := true
	defer func() {
		if working {
			busy.Add(-1)
		}
	}()
	var nextTick, nextRepeat time.Time
	for {
		now := time.Now()
		if !now.Before(nextTick) {
			if ctx.Err() != nil || e.failure != nil {
				return
			}
			if working && e.outstanding == 0 && f.finished(now) {
				working = false
				busy.Add(-1)
			}
			if busy.Load() == 0 {
				return
			}
			nextTick = now.Add(e.tick)
			// Fails only for a closed socket, and then so does Read.
			_ = e.conn.SetReadDeadline(nextTick)
		}
		if !now.Before(nextRepeat) {
			nextRepeat = now.Add(repeatEvery)
			e.repeatAll(now)
		}
		if working {
			e.startAll(f, now)
		}
		n, source, err := e.conn.ReadFromUDPAddrPort(e.buffer)
		if err != nil {
			e.readFailed(err, f.strict)
			continue
		}
		if from := e.from(source); from >= 0 {
			e.receive(e.buffer[:n], from)
		}
	}
}

func (e *endpoint) startAll(f feed, now time.Time) {
	if f.finished(now) {
		return
	}
	for range f.allowance(now, e.outstanding) {
		if !f.start(now) {
			return
		}
	}
}

// readFailed sorts the errors of a socket: the tick, a server that isn't there
// (ICMP; it may come back, and repetitions will reach it), and real ones.
func (e *endpoint) readFailed(err error, strict bool) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
	case errors.Is(err, syscall.ECONNREFUSED):
		if strict {
			e.failure = fmt.Errorf("nobody listens at %s (UDP): is the server running?", e.conn.RemoteAddr())
		}
	default:
		e.failure = err
	}
}

// begin takes an exchange for a request; nil if there are too many.
func (e *endpoint) begin(a *account) (x *exchange, index int) {
	if len(e.free) == 0 {
		if len(e.exchanges) == maxOutstanding {
			return nil, 0
		}
		e.exchanges = append(e.exchanges, exchange{})
		e.free = append(e.free, len(e.exchanges)-1)
	}
	index = e.free[len(e.free)-1]
	e.free = e.free[:len(e.free)-1]
	e.outstanding++
	x = &e.exchanges[index]
	*x = exchange{used: true, generation: x.generation, packet: x.packet, account: a, server: e.chosen}
	return x, index
}

func (e *endpoint) end(x *exchange, index int) {
	x.used = false
	e.free = append(e.free, index)
	e.outstanding--
}

// abandon gives up all requests, so that the endpoint can be used again after
// a phase that was interrupted.
func (e *endpoint) abandon() {
	for i := range e.exchanges {
		if e.exchanges[i].used {
			e.end(&e.exchanges[i], i)
		}
	}
	e.failure = nil
}

// try sends a request with the credentials that its account has now.
func (e *endpoint) try(x *exchange, index int) {
	x.tries++
	x.generation++
	e.build(x, index)
	now := time.Now()
	if x.tries == 1 {
		x.first = now
	}
	e.ask(x, now)
}

// repeatAll does what Timers E and F demand.
func (e *endpoint) repeatAll(now time.Time) {
	for i := range e.exchanges {
		x := &e.exchanges[i]
		if !x.used || now.Before(x.repeatAt) {
			continue
		}
		if now.Sub(x.first) >= e.timers.timeout() {
			e.finish(x, i, 0)
			continue
		}
		if e.turn(x, now) {
			continue
		}
		x.interval = min(2*x.interval, e.timers.t2)
		x.repeatAt = earliest(now.Add(x.interval), e.deadline(x))
		e.repeats++
		e.write(x.packet, x.server)
	}
}

// deadline is when a request is given up, or goes to another server.
func (e *endpoint) deadline(x *exchange) time.Time {
	end := x.first.Add(e.timers.timeout())
	if e.several() {
		return earliest(end, x.asked.Add(e.timers.silence()))
	}
	return end
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// receive takes one datagram from the network. What is not SIP is dropped.
func (e *endpoint) receive(b []byte, from int) {
	d := &e.datagram
	if !d.scan(b) {
		return
	}
	if d.code > 0 {
		e.response(d, from)
		return
	}
	e.request(d, from)
}

func (e *endpoint) response(d *datagram, from int) {
	if len(d.vias) == 0 {
		return
	}
	index, generation, ok := transactionIn(d.vias[0], e.branch)
	if !ok || index >= len(e.exchanges) {
		return
	}
	x := &e.exchanges[index]
	if !x.used || x.generation != generation {
		return // a repeated or a late answer
	}
	switch {
	case d.code < 200:
		x.interval = e.timers.t2 // Proceeding (RFC 3261 §17.1.2.2)
	case d.code == 503 && e.several():
		if x.server == from { // else another one is being asked by now
			e.refused(x, index)
		}
	case (d.code == 401 || d.code == 407) && x.tries < maxTries:
		x.server, e.chosen = from, from
		if x.unsure && x.pair != nil && x.signed {
			e.unsure++
		}
		if err := x.account.login.challenged(d); err != nil {
			e.failure = err
			return
		}
		e.try(x, index)
	default:
		e.chosen = from
		e.finish(x, index, d.code)
	}
}

// finish ends an exchange with a final response, or with 0 for none.
func (e *endpoint) finish(x *exchange, index, code int) {
	if x.pair == nil {
		e.registered(x, code)
	} else {
		e.idle = append(e.idle, x.pair)
		e.settle(x, code)
	}
	e.end(x, index)
}

func (e *endpoint) settle(x *exchange, code int) {
	if code == 0 {
		e.tally.timeout(x.measured)
		return
	}
	now := time.Now()
	e.tally.final(x.pair.id, x.sequence, code, x.measured, now.Sub(x.first), now)
}

// registered checks what became of a registration; one that failed ends the
// run, because nothing measured without it would be true.
func (e *endpoint) registered(x *exchange, code int) {
	switch {
	case code == 0:
		e.failure = fmt.Errorf("register %s: no answer from %s", x.account.aor, e.remotes[x.server].name)
	case !success(code):
		e.failure = fmt.Errorf("register %s: the server answered %d", x.account.aor, code)
	case x.expires > 0:
		e.granted = time.Duration(max(e.datagram.grantedSeconds(), 0)) * time.Second
	}
}

func (e *endpoint) request(d *datagram, from int) {
	if !d.answerable() {
		return
	}
	status := "405 Method Not Allowed"
	switch string(d.method) {
	case "ACK":
		return
	case "OPTIONS":
		status = "200 OK"
	case "MESSAGE":
		status = "200 OK"
		e.arrive(d)
	}
	e.answer = d.appendAnswer(e.answer[:0], status, e.name, e.remotes[from].source)
	e.write(e.answer, from)
}

// arrive counts a message. A retransmission has the topmost Via of the first.
func (e *endpoint) arrive(d *datagram) {
	id, sequence, err := e.bodies.read(d.body)
	switch {
	case errors.Is(err, errStray):
		e.tally.stray()
	case err != nil || id >= len(e.pairs) || e.pairs[id].to.index != contactIn(d.uri):
		e.tally.misdelivered()
	default:
		e.tally.arrive(id, sequence, uint32(maphash.Bytes(e.seed, d.vias[0])), time.Now())
	}
}

// contactIn reads the account's index from a Request-URI such as
// "sip:17@127.0.0.1:40000"; -1 if it is none of ours.
func contactIn(uri []byte) int {
	const scheme = "sip:"
	if len(uri) < len(scheme) || string(uri[:len(scheme)]) != scheme {
		return -1
	}
	uri = uri[len(scheme):]
	for i, c := range uri {
		if c == '@' {
			return number(uri[:i])
		}
	}
	return -1
}

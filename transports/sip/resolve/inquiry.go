package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// How long answers are kept.
const (
	minTTL      = 5 * time.Second
	maxTTL      = time.Hour
	maxNegative = 5 * time.Minute // that there is nothing (RFC 2308 §5)
	failureTTL  = 5 * time.Second // that nobody answers (RFC 2308 §7)
	// staleFor is how long an answer serves beyond its time while no name server
	// answers (RFC 8767 §5).
	staleFor = time.Hour
)

const (
	maxInquiries  = 4096 // that are kept
	maxOpen       = 256  // that are under way
	maxAliases    = 8    // CNAMEs that are followed
	inquiryWithin = 8 * time.Second
)

// question is what a name server is asked. Names are fully qualified and in
// lower case.
type question struct {
	name string
	kind uint16
}

// inquiry is a question and, once it is known, its answer: one for all who ask
// meanwhile, and for those who ask as long as the answer is good.
type inquiry struct {
	done   chan struct{} // closed when the rest is known
	answer answer
	err    error
	until  time.Time // from when it has to be asked again
	stale  time.Time // until when it serves in an emergency; zero: never
}

// isGood tells whether nobody needs to ask again.
func (i *inquiry) isGood(now time.Time) bool {
	select {
	case <-i.done:
		return now.Before(i.until)
	default:
		return true
	}
}

// wait returns the answer once it is there.
func (i *inquiry) wait(ctx context.Context) (answer, error) {
	select {
	case <-i.done:
		return i.answer, i.err
	default:
	}
	select {
	case <-i.done:
		return i.answer, i.err
	case <-ctx.Done():
		return answer{}, fmt.Errorf("waited for a name server: %w", ctx.Err())
	}
}

// ask finds the inquiry to a question, or begins one.
func (r *Resolver) ask(q question) *inquiry {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.inquiries[q]
	switch {
	case last != nil && last.isGood(now):
		return last
	case r.ctx.Err() != nil:
		return failed(errClosed)
	case r.open == maxOpen:
		return failed(errBusy)
	case last == nil:
		r.makeRoom(now)
	}
	i := &inquiry{done: make(chan struct{})}
	r.inquiries[q] = i
	r.open++
	r.flights.Go(func() { r.inquire(i, q, last) })
	return i
}

// errBusy and errClosed are those of a look-up that isn't made.
var (
	errBusy   = errors.New("too many look-ups at once")
	errClosed = errors.New("resolver is closed")
)

// failed is an inquiry that isn't made, and not kept.
func failed(err error) *inquiry {
	i := &inquiry{done: make(chan struct{}), err: err}
	close(i.done)
	return i
}

// sample is of how many one has to go.
const sample = 16

// makeRoom lets one answer go if there are too many: of some that are picked
// anyhow, the one that would go first.
func (r *Resolver) makeRoom(now time.Time) {
	if len(r.inquiries) < maxInquiries {
		return
	}
	var worst question
	var until time.Time
	seen := 0
	for q, i := range r.inquiries {
		select {
		case <-i.done:
		default:
			continue // under way
		}
		if seen == 0 || i.until.Before(until) {
			worst, until = q, i.until
		}
		if seen++; seen == sample || until.Before(now) {
			break
		}
	}
	delete(r.inquiries, worst)
}

// inquire finds the answer. If nobody gives one, the last serves, for a while.
func (r *Resolver) inquire(i *inquiry, q question, last *inquiry) {
	ctx, cancel := context.WithTimeout(r.ctx, inquiryWithin)
	defer cancel()
	i.answer, i.err = r.fetch(ctx, q)
	now := r.now()
	switch {
	case i.err == nil:
		i.until = now.Add(i.answer.ttl)
		i.stale = i.until.Add(staleFor)
	case last != nil && now.Before(last.stale):
		i.answer, i.err = last.answer, nil
		i.until, i.stale = now.Add(failureTTL), last.stale
	default:
		i.until = now.Add(failureTTL)
	}
	close(i.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
}

// errAliases is that of a name that leads nowhere.
var errAliases = errors.New("too many aliases")

// fetch asks until the answer is there, by all aliases.
func (r *Resolver) fetch(ctx context.Context, q question) (answer, error) {
	if a, ok := local(q); ok {
		return a, nil
	}
	a := answer{ttl: maxTTL}
	for range maxAliases {
		reply, err := r.exchange(ctx, q)
		if err != nil {
			return answer{}, fmt.Errorf("%s %s: %w", dns.TypeToString[q.kind], q.name, err)
		}
		next, err := a.gather(reply, q)
		if err != nil {
			return answer{}, fmt.Errorf("%s %s: %w", dns.TypeToString[q.kind], q.name, err)
		}
		if next == "" {
			r.leaveUnrouted(&a)
			a.ttl = max(a.ttl, minTTL)
			return a, nil
		}
		q.name = next
	}
	return answer{}, fmt.Errorf("%s %s: %w", dns.TypeToString[q.kind], q.name, errAliases)
}

// local answers for this machine, which no name server knows (RFC 6761 §6.3).
func local(q question) (answer, bool) {
	a := answer{ttl: maxTTL}
	if q.name != "localhost." {
		return a, false
	}
	switch q.kind {
	case dns.TypeA:
		a.addresses = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	case dns.TypeAAAA:
		a.addresses = []netip.Addr{netip.IPv6Loopback()}
	}
	return a, true
}

// gather reads the records of the question's name and kind, and of the names
// that it stands for; of others a reply may say what it likes. next is the name
// that has to be asked for in its place.
func (a *answer) gather(reply *dns.Msg, q question) (next string, err error) {
	name := q.name
	for range maxAliases {
		alias := aliasIn(reply, name)
		if alias == nil {
			return a.gatherOf(reply, question{name, q.kind}, name != q.name), nil
		}
		a.limit(alias.Hdr.Ttl)
		target, ok := serviceHost(alias.Target)
		if !ok {
			return "", nil // it stands for what can't be a host
		}
		name = target
	}
	return "", errAliases
}

func aliasIn(reply *dns.Msg, name string) *dns.CNAME {
	for _, record := range reply.Answer {
		if alias, ok := record.(*dns.CNAME); ok && lower(alias.Hdr.Name) == name {
			return alias
		}
	}
	return nil
}

// gatherOf reads the records of one name. Without any, who says so is the SOA of
// its zone (RFC 2308 §2); without that, an alias may lead to another server.
func (a *answer) gatherOf(reply *dns.Msg, q question, isAlias bool) (next string) {
	found := false
	for _, record := range reply.Answer {
		h := record.Header()
		if h.Rrtype == q.kind && h.Class == dns.ClassINET && lower(h.Name) == q.name {
			found = true
			a.limit(h.Ttl)
			a.read(record)
		}
	}
	if found {
		return ""
	}
	i := slices.IndexFunc(reply.Ns, func(record dns.RR) bool { return record.Header().Rrtype == dns.TypeSOA })
	switch {
	case i >= 0:
		soa, _ := reply.Ns[i].(*dns.SOA)
		a.limit(min(soa.Hdr.Ttl, soa.Minttl, uint32(maxNegative/time.Second)))
	case isAlias && reply.Rcode == dns.RcodeSuccess:
		return q.name
	default:
		a.ttl = 0 // it isn't said for how long (RFC 2308 §5)
	}
	return ""
}

// limit makes the answer good for no longer than that, in seconds. A time with
// the highest bit set is none (RFC 2181 §8).
func (a *answer) limit(ttl uint32) {
	if ttl > 1<<31-1 {
		ttl = 0
	}
	a.ttl = min(a.ttl, time.Duration(ttl)*time.Second)
}

// leaveUnrouted leaves out addresses to which this machine has no way. If it has
// none to any, such as those of IPv6 where there is none, they stay, and it is
// noted: that may change.
func (r *Resolver) leaveUnrouted(a *answer) {
	routed := slices.DeleteFunc(slices.Clone(a.addresses), func(address netip.Addr) bool { return !r.routed(address) })
	if a.unrouted = len(routed) == 0; !a.unrouted {
		a.addresses = routed
	}
}

// isRouted asks the system for a way to an address. Nothing is sent.
func isRouted(address netip.Addr) bool {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, 5060)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

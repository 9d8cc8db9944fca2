package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	queryWithin = 2 * time.Second // for an answer of one name server, over one network
	tries       = 2               // of each name server
	maxAsked    = 3               // name servers, as resolv.conf(5) has them
	// payload is what we take over UDP, in octets: it goes over any network in one
	// piece.
	payload = 1232
	// maxStray is how many datagrams are read that aren't the answer.
	maxStray = 64
)

// exchange asks one name server after the other, the one first that answered
// last.
func (r *Resolver) exchange(ctx context.Context, q question) (*dns.Msg, error) {
	servers := r.servers.list(r.now())
	first := int(r.preferred.Load())
	var failed []error
	for n := range tries * len(servers) {
		i := (first + n) % len(servers)
		reply, err := r.query(ctx, servers[i], q)
		if err == nil {
			r.preferred.Store(int32(i))
			return reply, nil
		}
		r.failures.Inc()
		failed = append(failed, fmt.Errorf("name server %s: %w", servers[i], err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

// refusedError is the RCODE of a name server that doesn't answer the question.
type refusedError int

func (e refusedError) Error() string { return "answered " + dns.RcodeToString[int(e)] }

// query asks one name server: over UDP, over TCP what UDP has no room for, and
// without EDNS0 one that doesn't know it (RFC 6891 §7).
func (r *Resolver) query(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(q.name, q.kind)
	m.SetEdns0(payload, false)
	reply, err := r.converse(ctx, "udp", server, m)
	if err == nil && reply.Rcode == dns.RcodeFormatError {
		m.Extra = nil
		reply, err = r.converse(ctx, "udp", server, m)
	}
	if err == nil && reply.Truncated {
		reply, err = r.converse(ctx, "tcp", server, m)
	}
	switch {
	case err != nil:
		return nil, err
	case reply.Truncated:
		return nil, errStray
	case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
		return nil, refusedError(reply.Rcode)
	}
	return reply, nil
}

// converse sends a question and waits for its answer, on a socket, and so from a
// port, of its own: whoever would answer in another's place has to guess that
// too (RFC 5452 §9.2).
func (r *Resolver) converse(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	socket, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Now()) })() // fails only when it is closed
	m.Id = dns.Id()
	r.queries.Inc()
	conn := &dns.Conn{Conn: socket, UDPSize: payload}
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	return readReply(conn, m)
}

// errStray is that of a name server that says something else than what it was
// asked.
var errStray = errors.New("sends what is no answer")

// readReply reads until the answer comes.
func readReply(conn *dns.Conn, m *dns.Msg) (*dns.Msg, error) {
	for range maxStray {
		packet, err := conn.ReadMsgHeader(nil)
		switch {
		case errors.Is(err, dns.ErrShortRead):
			continue
		case err != nil:
			return nil, err
		}
		reply := new(dns.Msg)
		if reply.Unpack(packet) == nil && isReply(reply, m) {
			return reply, nil
		}
	}
	return nil, errStray
}

// isReply tells whether a message answers the question. A server that couldn't
// read that needn't repeat it.
func isReply(reply, m *dns.Msg) bool {
	if !reply.Response || reply.Id != m.Id || reply.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(reply.Question) == 0 {
		return reply.Rcode == dns.RcodeFormatError
	}
	asked, answered := m.Question[0], reply.Question[0]
	return len(reply.Question) == 1 && answered.Qtype == asked.Qtype && answered.Qclass == asked.Qclass &&
		strings.EqualFold(answered.Name, asked.Name)
}

const (
	resolvConf = "/etc/resolv.conf"
	// rereadEvery is how often that file is read again.
	rereadEvery = 30 * time.Second
	dnsPort     = 53
)

// servers are the name servers to ask.
type servers struct {
	configured []netip.AddrPort
	file       string // where they are, if none is configured

	mu    sync.Mutex
	known []netip.AddrPort // of the file
	read  time.Time
}

// list returns at least one.
func (s *servers) list(now time.Time) []netip.AddrPort {
	if len(s.configured) > 0 {
		return s.configured[:min(len(s.configured), maxAsked)]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || now.Sub(s.read) >= rereadEvery {
		s.read = now
		s.reread()
	}
	return s.known
}

// reread keeps what it knows if the file can't be read. Where there never was
// one, the name server is on this machine (resolv.conf(5)).
func (s *servers) reread() {
	var found []netip.AddrPort
	if config, err := dns.ClientConfigFromFile(s.file); err == nil {
		for _, text := range config.Servers {
			if address, err := netip.ParseAddr(text); err == nil && !slices.Contains(found, netip.AddrPortFrom(address, dnsPort)) {
				found = append(found, netip.AddrPortFrom(address, dnsPort))
			}
		}
	}
	switch {
	case len(found) > 0:
		s.known = found[:min(len(found), maxAsked)]
	case s.known == nil:
		s.known = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
}

package ladder

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// repeatPrefix is how many octets of a packet are looked at to know it again:
// a request's branch and a response's CSeq are among them.
const repeatPrefix = 512

// packetEntry is a packet without what was in it. Texts end at the first NUL
// or with their array.
type packetEntry struct {
	at        int64  // nanoseconds since 1970
	call      uint64 // hash of the whole Call
	same      uint64 // hash of what a repeat has in common with the first
	local     endpoint
	remote    endpoint
	sent      bool
	network   [4]byte
	protocol  [5]byte
	transport [22]byte
	what      [24]byte // Title[0]
	detail    [72]byte // Title[1]
	callText  [64]byte // how the Call begins
}

func (e *packetEntry) fill(seed maphash.Seed, p *plugin.Packet) {
	e.at = p.Time.UnixNano()
	e.call = maphash.String(seed, p.Call)
	e.same = maphash.Bytes(seed, p.Data[:min(len(p.Data), repeatPrefix)])
	e.local, e.remote = newEndpoint(p.Local), newEndpoint(p.Remote)
	e.sent = p.Sent
	copy(e.network[:], p.Network)
	copy(e.protocol[:], p.Protocol)
	copy(e.transport[:], p.Transport)
	copy(e.what[:], p.Title[0])
	copy(e.detail[:], p.Title[1])
	copy(e.callText[:], p.Call)
}

// stepEntry is a step of a message without its text.
type stepEntry struct {
	began     int64 // nanoseconds since 1970
	ended     int64
	id        message.ID
	call      uint64 // hash of Call; 0: none
	from      uint64 // hash of the whole address
	recipient uint64
	attempt   uint16
	publicID  [23]byte // 22 octets, and a NUL
	name      [12]byte
	reason    [20]byte
	transport [22]byte
	service   [24]byte
	peer      [32]byte
	fromText  [32]byte
	toText    [32]byte
}

func (e *stepEntry) fill(seed maphash.Seed, s *plugin.Step) {
	m := s.Message
	e.began, e.ended = s.Began.UnixNano(), s.Ended.UnixNano()
	e.id = m.ID
	if s.Call != "" {
		e.call = maphash.String(seed, s.Call)
	}
	e.from, e.recipient = hashAddress(seed, m.From), hashAddress(seed, m.Recipient)
	e.attempt = uint16(min(max(s.Attempt, 0), 1<<16-1))
	copy(e.publicID[:], m.PublicID)
	copy(e.name[:], s.Name)
	copy(e.reason[:], s.Reason)
	copy(e.transport[:], s.Transport)
	copy(e.service[:], s.Service)
	copy(e.peer[:], s.Peer)
	copyAddress(e.fromText[:], m.From)
	copyAddress(e.toText[:], m.Recipient)
}

func (e *stepEntry) took() time.Duration { return time.Duration(e.ended - e.began) }

// copyAddress writes an address as String does, without the allocation.
func copyAddress(to []byte, a message.Address) {
	n := copy(to, a.User)
	if a.Host != "" {
		n += copy(to[n:], "@")
		copy(to[n:], a.Host)
	}
}

// text reads what was copied into an array. What was cut is marked.
func text(b []byte) string {
	cut := b[len(b)-1] != 0
	s := string(b)
	if !cut {
		s, _, _ = strings.Cut(s, "\x00")
	}
	s = plain(strings.ToValidUTF8(s, ""))
	if cut {
		s += "…"
	}
	return s
}

// endpoint is a netip.AddrPort without its pointer (the zone).
type endpoint struct {
	addr  [16]byte
	port  uint16
	valid bool
}

func newEndpoint(a netip.AddrPort) endpoint {
	if !a.IsValid() {
		return endpoint{}
	}
	return endpoint{addr: a.Addr().As16(), port: a.Port(), valid: true}
}

func (e endpoint) String() string {
	if !e.valid {
		return "unknown"
	}
	return netip.AddrPortFrom(netip.AddrFrom16(e.addr).Unmap(), e.port).String()
}

// plain makes what a stranger wrote fit for a terminal: a control character, or
// one that only changes how others look, is shown by its number.
func plain(s string) string {
	if strings.IndexFunc(s, isOdd) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isOdd(r) {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isOdd tells what must not reach a terminal as it is.
func isOdd(r rune) bool { return !unicode.IsPrint(r) || unicode.Is(unicode.Mn, r) }

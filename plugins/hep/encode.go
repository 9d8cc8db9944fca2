package hep

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/imgate/imgate/engine/plugin"
)

// How large a packet in HEP may be, in octets.
const (
	maxPacket   = 65_535 // its length field
	maxDatagram = 65_507 // a UDP datagram's payload over IPv4
)

// The generic chunks (vendor 0) that we use.
const (
	chunkFamily      = 0x0001
	chunkTransport   = 0x0002
	chunkSource4     = 0x0003
	chunkTarget4     = 0x0004
	chunkSource6     = 0x0005
	chunkTarget6     = 0x0006
	chunkSourcePort  = 0x0007
	chunkTargetPort  = 0x0008
	chunkSeconds     = 0x0009
	chunkMicros      = 0x000a
	chunkProtocol    = 0x000b
	chunkCaptureID   = 0x000c
	chunkPassword    = 0x000e
	chunkPayload     = 0x000f
	chunkCorrelation = 0x0011
	chunkNode        = 0x0013
)

// Values of chunks: address families, IP protocols.
const (
	familyIPv4 = 2
	familyIPv6 = 10
	ipTCP      = 6
	ipUDP      = 17
)

// chunkHead is how long a chunk's vendor, type and length are.
const chunkHead = 6

// protocolType is a protocol's number in HEP. SMPP has none: Homer couldn't
// tell what it is.
func protocolType(protocol string) (kind byte, ok bool) {
	if protocol == "sip" {
		return 1, true
	}
	return 0, false
}

// header is what all packets of an agent have in common.
type header struct {
	captureID uint32
	node      string
	password  string
}

func newHeader(c Config, node string) header {
	return header{captureID: uint32(c.CaptureID), node: cmp.Or(c.Node, node), password: c.Password}
}

// encode writes a packet in HEP3. If it would be longer than limit, the end of
// the payload is left out: the beginning is what people look at.
func (h *header) encode(p *plugin.Packet, kind byte, limit int) (encoded []byte, cut bool) {
	call := p.Call[:min(len(p.Call), maxText)]
	b := packet(make([]byte, 0, 160+len(call)+len(h.node)+len(h.password)+min(len(p.Data), limit)))
	b = append(b, "HEP3\x00\x00"...) // the length comes last

	source, target := p.Remote, p.Local
	if p.Sent {
		source, target = target, source
	}
	b = b.addresses(source.Addr().Unmap(), target.Addr().Unmap(), ipProtocol(p.Network))
	b = b.uint16(chunkSourcePort, source.Port()).uint16(chunkTargetPort, target.Port())
	b = b.uint32(chunkSeconds, uint32(p.Time.Unix())).uint32(chunkMicros, uint32(p.Time.Nanosecond()/1e3))
	b = b.uint8(chunkProtocol, kind).uint32(chunkCaptureID, h.captureID)
	b = b.text(chunkPassword, h.password).text(chunkCorrelation, call).text(chunkNode, h.node)

	room := limit - len(b) - chunkHead
	data := p.Data[:min(len(p.Data), room)]
	b = append(b.head(chunkPayload, len(data)), data...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b, len(data) < len(p.Data)
}

// ipProtocol is what carries a network: TLS and WebSocket go over TCP.
func ipProtocol(network string) byte {
	if network == "udp" {
		return ipUDP
	}
	return ipTCP
}

// packet is a HEP packet in the making.
type packet []byte

func (b packet) head(kind uint16, length int) packet {
	b = binary.BigEndian.AppendUint16(b, 0) // vendor: none
	b = binary.BigEndian.AppendUint16(b, kind)
	return binary.BigEndian.AppendUint16(b, uint16(chunkHead+length))
}

func (b packet) uint8(kind uint16, v byte) packet { return append(b.head(kind, 1), v) }

func (b packet) uint16(kind, v uint16) packet {
	return binary.BigEndian.AppendUint16(b.head(kind, 2), v)
}

func (b packet) uint32(kind uint16, v uint32) packet {
	return binary.BigEndian.AppendUint32(b.head(kind, 4), v)
}

// text writes nothing for nothing.
func (b packet) text(kind uint16, s string) packet {
	if s == "" {
		return b
	}
	return append(b.head(kind, len(s)), s...)
}

// addresses writes both in one family: in IPv6 unless both are IPv4.
func (b packet) addresses(source, target netip.Addr, protocol byte) packet {
	if source.Is4() && target.Is4() {
		from, to := source.As4(), target.As4()
		b = b.uint8(chunkFamily, familyIPv4).uint8(chunkTransport, protocol)
		b = append(b.head(chunkSource4, len(from)), from[:]...)
		return append(b.head(chunkTarget4, len(to)), to[:]...)
	}
	from, to := as16(source), as16(target)
	b = b.uint8(chunkFamily, familyIPv6).uint8(chunkTransport, protocol)
	b = append(b.head(chunkSource6, len(from)), from[:]...)
	return append(b.head(chunkTarget6, len(to)), to[:]...)
}

// as16 is an address in IPv6's form; that of nobody if there is none.
func as16(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return netip.IPv6Unspecified().As16()
	}
	return a.As16()
}

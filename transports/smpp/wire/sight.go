package wire

import (
	"crypto/tls"
	"strconv"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
)

// Sight is a PDU as Config.Trace sees it.
type Sight struct {
	ID       pdu.ID
	Sequence uint32
	Ours     bool // it belongs to an exchange that we have begun
	// Packet is what observers are told; Transport and Call are still to be filled in.
	Packet plugin.Packet
}

// See describes a PDU of the session, which frame is the whole of.
func (s *Session) See(sent bool, frame []byte) Sight {
	p := decodeHeader(frame)
	title := [2]string{Name(p.ID), strconv.FormatUint(uint64(p.Sequence), 10)}
	if p.IsResponse() {
		title[1] = StatusName(p.Status)
	}
	return Sight{
		ID: p.ID, Sequence: p.Sequence, Ours: sent != p.IsResponse(),
		Packet: plugin.Packet{
			Time: time.Now(), Protocol: "smpp", Network: s.Network(), Sent: sent,
			Local: s.local, Remote: s.remote, Title: title, Data: frame,
		},
	}
}

// Network is "tls" or "tcp".
func (s *Session) Network() string {
	if _, secure := s.conn.(*tls.Conn); secure {
		return "tls"
	}
	return "tcp"
}

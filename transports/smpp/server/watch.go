package server

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// header is how many octets of a PDU come before its body (SMPP 3.4 §3.2).
const header = 16

// show tells the observers of a PDU: frame is the whole of it. A request and its
// response have their Call in common.
func (s *session) show(sent bool, frame []byte) {
	if !s.door.watched.Watched() || len(frame) < header {
		return
	}
	id := pdu.ID(binary.BigEndian.Uint32(frame[4:]))
	sequence := binary.BigEndian.Uint32(frame[12:])
	p := plugin.Packet{
		Time: time.Now(), Transport: s.door.instance, Protocol: "smpp", Network: s.network(), Sent: sent,
		Local: s.wire.LocalAddr(), Remote: s.wire.RemoteAddr(),
		Title: [2]string{wire.Name(id), strconv.FormatUint(uint64(sequence), 10)}, Data: frame,
	}
	isResponse := wire.ResponseTo(id) == id
	if isResponse {
		p.Title[1] = wire.StatusName(pdu.Status(binary.BigEndian.Uint32(frame[8:])))
	}
	p.Call = s.threads.Of(sent, frame)
	if p.Call == "" {
		p.Call = s.call(sent != isResponse, sequence)
	}
	s.door.watched.Packet(&p)
}

func (s *session) network() string {
	if s.secure {
		return "tls"
	}
	return "tcp"
}

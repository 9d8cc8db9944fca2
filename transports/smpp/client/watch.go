package client

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// watch tells the observers of each PDU.
type watch struct {
	observers *plugin.Observers
	instance  string
	network   string
}

func newWatch(env plugin.Env, encrypted bool) *watch {
	w := &watch{observers: env.Observers, instance: env.Instance, network: "tcp"}
	if encrypted {
		w.network = "tls"
	}
	return w
}

// header is how many octets of a PDU come before its body (SMPP 3.4 §3.2).
const header = 16

// show tells of a PDU of a bind: frame is the whole of it. What belongs to one
// exchange has the delivery's reference in common, or the bind's name and the
// sequence number.
func (w *watch) show(b *bind, sent bool, frame []byte) {
	if !w.observers.Watched() || len(frame) < header {
		return
	}
	id := pdu.ID(binary.BigEndian.Uint32(frame[4:]))
	status := pdu.Status(binary.BigEndian.Uint32(frame[8:]))
	sequence := binary.BigEndian.Uint32(frame[12:])
	title := [2]string{wire.Name(id), fmt.Sprintf("sequence %d", sequence)}
	response := wire.ResponseTo(id) == id
	if response {
		title[1] = wire.StatusName(status)
	}
	call := b.threads.Of(sent, frame)
	if call == "" {
		call = b.call(sent != response, sequence)
	}
	w.observers.Packet(&plugin.Packet{
		Time: time.Now(), Transport: w.instance, Protocol: "smpp", Network: w.network, Sent: sent,
		Local: b.session.LocalAddr(), Remote: b.session.RemoteAddr(),
		Call: call, Title: title, Data: frame,
	})
}

// call names an exchange that we, or the SMSC, have begun on a bind.
func (b *bind) call(ours bool, sequence uint32) string {
	if ours {
		return fmt.Sprintf("%s-%d", b.name, sequence)
	}
	return fmt.Sprintf("%s-in-%d", b.name, sequence)
}

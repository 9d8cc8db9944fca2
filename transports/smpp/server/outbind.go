package server

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// An ESME whose account has the attribute smpp.outbind and no session is told to
// bind when a message is there for it: we connect, say outbind, and it binds over
// that connection (SMPP 3.4 §2.2.1, §4.1.7). So its binding outlasts its sessions,
// and says where it listens.
const (
	outbindFlow   = "outbind " // begins the flow of such a binding; host:port follows
	outbindEvery  = time.Minute
	outbindWithin = 5 * time.Second // for the connection, and for saying it
)

// knocks are when ESMEs were last told to bind: each at most once a minute.
type knocks struct {
	mu   sync.Mutex
	last map[string]time.Time // by account; those of the last minute
}

// may tells whether it is time, and notes that it was used.
func (k *knocks) may(account string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for other, at := range k.last {
		if now.Sub(at) >= outbindEvery {
			delete(k.last, other)
		}
	}
	if _, lately := k.last[account]; lately {
		return false
	}
	if k.last == nil {
		k.last = map[string]time.Time{}
	}
	k.last[account] = now
	return true
}

// knock tells the ESME of a binding to bind, if it wants that. It doesn't wait.
func (d *Door) knock(b *plugin.Binding, now time.Time) {
	address, wanted := strings.CutPrefix(b.Flow, outbindFlow)
	if !wanted || !d.knocks.may(b.Account, now) {
		return
	}
	d.tasks.run(func() { d.outbind(d.working, address) })
}

// outbind connects to an ESME and serves the connection as if the ESME had made
// it: its bind is checked like any other.
func (d *Door) outbind(ctx context.Context, address string) {
	dialer := net.Dialer{Timeout: outbindWithin}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		d.log.Info("an ESME can't be told to bind", "peer", address, "reason", err)
		return
	}
	s := d.newSession(conn, false, nil)
	if err := s.sayOutbind(conn); err != nil {
		d.log.Info("an ESME can't be told to bind", "peer", address, "reason", err)
	}
	s.run(ctx)
}

// sayOutbind writes the first PDU of a connection. It has no response, so nobody
// needs to wait for one.
func (s *session) sayOutbind(conn net.Conn) error {
	body := &wire.Outbind{SystemID: s.door.config.SystemID, Password: s.door.config.Outbind.Password}
	frame, err := wire.Encode(nil, &wire.Packet{ID: pdu.OutbindID, Sequence: 1, Body: body})
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(outbindWithin)); err != nil {
		return err
	}
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

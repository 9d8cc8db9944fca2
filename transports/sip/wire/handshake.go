package wire

import (
	"crypto/tls"
	"time"
)

// shakeHands makes a connection ready for messages: TLS if it has that, and
// upgrade if it isn't nil. It returns false, and why, if the connection has to
// end.
func (r *reader) shakeHands(upgrade func() error) (cause, bool) {
	deadline := r.opened.Add(r.endpoint.config.Limits.HandshakeTimeout)
	_ = r.conn.SetDeadline(deadline) // fails only when it is closed
	if why, over := r.isOver(); over {
		return why, false
	}
	err := r.secure()
	if err == nil && upgrade != nil {
		err = upgrade()
	}
	if why, over := r.isOver(); over {
		return why, false
	}
	if err != nil {
		r.endpoint.config.Log.Debug("handshake failed", "network", r.flow.Network, "remote", r.flow.Remote, "error", err)
		if time.Now().Before(deadline) {
			r.hangUp(causeHandshake)
		}
		return causeHandshake, false
	}
	if !r.endpoint.connections.opened(r.connection) {
		return causeDisplaced, false
	}
	// The deadline of writing stays: crypto/tls answers a KeyUpdate from where it
	// reads, and must not wait there for a peer who doesn't.
	r.mu.Lock()
	r.open = true
	r.mu.Unlock()
	r.begin()
	return 0, true
}

// secure makes the handshake of TLS.
func (r *reader) secure() error {
	conn, ok := r.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	if err := conn.Handshake(); err != nil {
		return err
	}
	if chains := conn.ConnectionState().VerifiedChains; len(chains) > 0 {
		r.certificate = chains[0][0]
	}
	return nil
}

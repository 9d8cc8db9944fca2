package ua

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// subprotocol is SIP's (RFC 7118 §4.1).
const subprotocol = "sip"

// webSocket is a WebSocket that looks like a connection: what is written at once
// is one message. Its addresses are those of the connection below.
type webSocket struct {
	net.Conn
	below net.Conn
}

func (w webSocket) LocalAddr() net.Addr  { return w.below.LocalAddr() }
func (w webSocket) RemoteAddr() net.Addr { return w.below.RemoteAddr() }

// openWebSocket connects to a server of RFC 7118.
func openWebSocket(ctx context.Context, dialer *net.Dialer, config *tls.Config, url string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialer.Timeout)
	defer cancel()
	var below net.Conn
	transport := &http.Transport{
		TLSClientConfig: config,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			below, err = dialer.DialContext(ctx, network, address)
			return below, err
		},
	}
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{subprotocol},
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxPacket)
	// The connection outlives the dialling, and ends with Close.
	return webSocket{websocket.NetConn(context.WithoutCancel(ctx), conn, websocket.MessageText), below}, nil
}

package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/coder/websocket"
)

// maxUpgrade is how many octets the request for a WebSocket may have, cookies of
// the page's site included.
const maxUpgrade = 16 << 10

// controlFrame is more than the longest frame that the library writes for us.
const controlFrame = 256

// errUpgrade doesn't say what the peer has said: that might be a message.
var errUpgrade = errors.New("no request for a WebSocket, or one that is refused")

// upgrade makes the opening handshake of a WebSocket (RFC 6455 §4.2, RFC 7118
// §4). Not net/http's server reads the request: its buffers would stay with
// the connection.
func (r *socketReader) upgrade() error {
	input := bufio.NewReaderSize(io.LimitReader(r.conn, maxUpgrade), smallBuffer)
	u := &upgrade{reader: r, input: input, header: http.Header{}}
	request, err := http.ReadRequest(input)
	if err != nil {
		u.refuse(http.StatusBadRequest, "not a request for a WebSocket") // nobody reads it if the peer is gone
		return errUpgrade
	}
	if status, why := r.endpoint.config.WebSocket.objection(request); status != 0 {
		u.refuse(status, why)
		return errUpgrade
	}
	r.socket, err = websocket.Accept(u, request, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // objection has checked the origin
		OnPingReceived: func(context.Context, []byte) bool {
			r.keepAlive()
			return true
		},
		OnPongReceived: func(context.Context, []byte) { r.keepAlive() },
	})
	if err != nil {
		_ = u.flush() // the connection ends anyway
		return errUpgrade
	}
	r.socket.SetReadLimit(int64(maxHead + r.endpoint.config.MaxBody))
	return nil
}

// subprotocol is that of RFC 7118 §4.1.
const subprotocol = "sip"

// objection says why a request gets no WebSocket, and the status that says so;
// 0 if nothing but what RFC 6455 asks for could be wrong.
func (w *WebSocket) objection(r *http.Request) (status int, why string) {
	switch {
	case r.URL.Path != w.Path:
		return http.StatusNotFound, "no WebSocket here"
	case r.Host == "" || r.ContentLength != 0:
		return http.StatusBadRequest, "not a request for a WebSocket"
	case !w.allows(r.Header.Values("Origin")):
		return http.StatusForbidden, "origin not allowed"
	case !asksForSIP(r.Header.Values("Sec-WebSocket-Protocol")):
		return http.StatusBadRequest, "sub-protocol sip expected"
	}
	return 0, ""
}

// allows tells whether a page may open a WebSocket.
func (w *WebSocket) allows(origins []string) bool {
	if len(w.Origins) == 0 || len(origins) == 0 {
		return true
	}
	origin, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && origin.Host != "" && slices.ContainsFunc(w.Origins, func(pattern string) bool {
		matched, _ := path.Match(strings.ToLower(pattern), strings.ToLower(origin.Host)) // a bad pattern matches nothing
		return matched
	})
}

func asksForSIP(values []string) bool {
	for _, value := range values {
		for protocol := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), subprotocol) {
				return true
			}
		}
	}
	return false
}

// upgrade is the response to a request for a WebSocket, as the library writes
// it.
type upgrade struct {
	reader *socketReader
	input  *bufio.Reader
	header http.Header
	status int
	text   bytes.Buffer
}

// Header is that of http.ResponseWriter.
func (u *upgrade) Header() http.Header { return u.header }

// Write is that of http.ResponseWriter.
func (u *upgrade) Write(b []byte) (int, error) { return u.text.Write(b) }

// WriteHeader is that of http.ResponseWriter.
func (u *upgrade) WriteHeader(status int) { u.status = status }

// Hijack is that of http.Hijacker: the library takes the connection over.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn := &socketConn{u.reader.conn, u.reader}
	return conn, bufio.NewReadWriter(u.input, bufio.NewWriterSize(conn, controlFrame)), u.flush()
}

func (u *upgrade) refuse(status int, why string) {
	http.Error(u, why, status)
	_ = u.flush() // the connection ends anyway
}

// flush writes the response.
func (u *upgrade) flush() error {
	response := http.Response{
		StatusCode: u.status, ProtoMajor: 1, ProtoMinor: 1, Header: u.header,
		Body: io.NopCloser(&u.text), ContentLength: int64(u.text.Len()), Close: u.status != http.StatusSwitchingProtocols,
	}
	var b bytes.Buffer
	if err := response.Write(&b); err != nil {
		return err
	}
	_, err := u.reader.conn.Write(b.Bytes())
	return err
}

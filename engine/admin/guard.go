package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// knowsHost refuses names that only a foreign DNS could have led here, so that
// a page in a browser on this machine can't reach the API under a name of its
// own (DNS rebinding).
func (s *Server) knowsHost(r *http.Request) bool {
	host := strings.ToLower(hostOnly(r.Host))
	if host == "" {
		return false
	}
	if host == "localhost" || host == s.host {
		return true
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return address.IsLoopback() || address.Unmap() == localAddress(r)
}

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

// localAddress is our end of the connection, which the client dialled.
func localAddress(r *http.Request) netip.Addr {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return netip.Addr{}
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// authorized compares digests, which are of one length, in constant time.
func (s *Server) authorized(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	presented := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(presented[:], s.token[:]) == 1
}

// boundBody limits the size of a request's body and the pauses in it. The
// deadline is set here too, because net/http reads what a handler leaves: of a
// stranger's, only what comes at once.
func (s *Server) boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	if !s.authorized(r) {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangerTimeout)) // a connection that can't is at its end
		r.Body = http.NoBody
		return
	}
	limit := int64(maxJSON)
	if isBulk(r) {
		limit = maxBulk
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(stallTimeout)) // a connection that can't is at its end
	r.Body = &pacedBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), ctx: r.Context, control: control}
}

// isBulk tells an import from a call: its body isn't JSON.
func isBulk(r *http.Request) bool {
	header := r.Header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(header)
	return header != "" && (err != nil || kind != "application/json")
}

// pacedBody allows a pause of stallTimeout before each piece, however long all
// of them take. No deadline stays behind at the end: net/http would take its
// passing for the client's departure.
type pacedBody struct {
	io.ReadCloser
	ctx     func() context.Context
	control *http.ResponseController
}

func (b *pacedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(stallTimeout))
	if err := b.ctx().Err(); err != nil { // after the deadline: see invocation.cut
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

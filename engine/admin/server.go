// Package admin is the HTTP side of a node: the probes /healthz and /readyz,
// and the admin API below /v1, whose routes the engine and the plugins bring.
// It knows who may call and how much a call may take; it must not know what
// the routes do, nor anything of messages.
package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	headerTimeout   = 5 * time.Second  // for the header of a request
	idleTimeout     = time.Minute      // between two requests of a connection
	stallTimeout    = 30 * time.Second // between two pieces of a body, in either direction
	strangerTimeout = time.Second      // for the body of a request without the token, which nobody reads
	requestTimeout  = 30 * time.Minute // for a whole request: an import or export of everything
	shutdownTimeout = 5 * time.Second

	maxHeader      = 16 << 10  // octets
	maxJSON        = 1 << 20   // octets of a body that is JSON, or doesn't say what it is
	maxBulk        = 256 << 20 // octets of any other body: an import
	maxRequests    = 64        // at work at once; the probes aren't counted
	maxConnections = 256
)

// Server is the HTTP server of one node. Make one with New, then Serve; scopes
// of routes may be opened and closed at any time.
type Server struct {
	log      *slog.Logger
	listener *boundedListener
	host     string // as configured: a Host header may say it
	token    [sha256.Size]byte
	slots    chan struct{}

	pages map[string]http.HandlerFunc // by path: what needs no token

	mu     sync.Mutex
	scopes []*Scope       // those that are open
	mux    *http.ServeMux // all their routes
	probe  func() []Obstacle
	other  func() string // what a node answers that isn't active
	remark func() []string
}

// Obstacle is why a node isn't ready.
type Obstacle struct {
	Reason string // for programs, and for people
	Detail error  // what is known besides, for people; nil: nothing
}

func (o Obstacle) String() string {
	if o.Detail == nil {
		return o.Reason
	}
	return o.Reason + ": " + o.Detail.Error()
}

// New takes the address ("host:port", TCP) and reads the token that callers
// must present; it makes the file, of mode 0600, if there is none. A file that
// others than its owner can read is an error. Serve, and only Serve, gives the
// address back.
func New(listen, tokenFile string, log *slog.Logger) (*Server, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("admin: %q is no address to listen on: %w", listen, err)
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	token, err := openToken(tokenFile)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("admin: %w", err), listener.Close())
	}
	warnIfExposed(listener.Addr(), log)
	return &Server{
		log:      log,
		listener: newBoundedListener(listener, maxConnections),
		host:     strings.ToLower(host),
		token:    sha256.Sum256([]byte(token)),
		slots:    make(chan struct{}, maxRequests),
		pages:    map[string]http.HandlerFunc{},
		mux:      http.NewServeMux(),
		other:    func() string { return notActive },
		remark:   func() []string { return nil },
	}, nil
}

// warnIfExposed says that the token would travel a network in clear text.
func warnIfExposed(address net.Addr, log *slog.Logger) {
	at, err := netip.ParseAddrPort(address.String())
	if err == nil && !at.Addr().IsLoopback() {
		log.Warn("the admin API listens beyond this machine, without TLS", "address", address.String())
	}
}

// Abandon gives the address back instead of Serve.
func (s *Server) Abandon() error { return s.listener.Close() }

// Addr returns the address that Serve answers at.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// HandleOpen adds a page that anybody may read, such as "/metrics". It is
// called before Serve.
func (s *Server) HandleOpen(path string, handler http.HandlerFunc) { s.pages[path] = handler }

// Ready sets what /readyz asks: probe returns why this node isn't ready, or
// nothing. It is called for each request, from several goroutines, and must
// not block. Until it is set the node is starting.
func (s *Server) Ready(probe func() []Obstacle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probe = probe
}

// Remark sets what /readyz says besides: what is wrong and keeps the node from
// nothing, in words. It is called for each request, from several goroutines, and
// must not block.
func (s *Server) Remark(remarks func() []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remark = remarks
}

// Inactive sets what is answered to requests that need the active node, while
// this one isn't it. It is called for each of them, from several goroutines, and
// must not block.
func (s *Server) Inactive(text func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.other = text
}

// Exchange opens scopes in the place of others, which may still be closed or
// opened again. An error names the pattern that is none, or that two of them
// want; then nothing has changed.
func (s *Server) Exchange(out, in []*Scope) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	scopes := slices.DeleteFunc(slices.Clone(s.scopes), func(open *Scope) bool { return slices.Contains(out, open) })
	scopes = append(scopes, in...)
	mux := http.NewServeMux()
	for _, scope := range scopes {
		if err := scope.addTo(mux); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	s.scopes, s.mux = scopes, mux
	return nil
}

// Close takes a scope's routes away and waits for requests under way, for as
// long as grace allows; those that last longer find their context cancelled and
// their connection cut, and have a second to notice. A scope is closed once.
func (s *Server) Close(scope *Scope, grace time.Duration) {
	_ = s.Exchange([]*Scope{scope}, nil) // fewer routes don't conflict
	if left := scope.close(grace); left > 0 {
		s.log.Warn("admin requests outlast what answers them", "requests", left)
	}
}

// Routes returns the patterns that are served just now, sorted, with "/v1".
func (s *Server) Routes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var patterns []string
	for _, scope := range s.scopes {
		for _, r := range scope.routes {
			patterns = append(patterns, r.pattern)
		}
	}
	slices.Sort(patterns)
	return patterns
}

// Serve answers until ctx ends; then it lets requests under way finish for up
// to 5 s and returns nil. It is called once. Any other return is an error.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           http.HandlerFunc(s.answer),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         s.listener.note,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(s.listener) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("admin: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close() // the grace is over: cut what is left
	}
	<-stopped
	return nil
}

// answer is where every request comes in.
func (s *Server) answer(raw http.ResponseWriter, r *http.Request) {
	w := newResponse(raw)
	defer s.catch(w, r)
	s.boundBody(raw, r)
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	switch {
	case !s.knowsHost(r):
		Error(w, http.StatusMisdirectedRequest, "this server doesn't answer for that host name")
	case r.URL.Path == "/healthz":
		s.health(w, r)
	case r.URL.Path == "/readyz":
		s.readiness(w, r)
	case s.pages[r.URL.Path] != nil:
		s.page(w, r)
	case !strings.HasPrefix(r.URL.Path, "/v1/"):
		Error(w, http.StatusNotFound, "no such page")
	case !s.authorized(r):
		header.Set("WWW-Authenticate", "Bearer")
		Error(w, http.StatusUnauthorized, "expected the header Authorization: Bearer, with the token of this server")
	default:
		s.call(w, r)
	}
}

// page answers with one of the open pages.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	if allowsReading(w, r) {
		s.pages[r.URL.Path](w, r)
	}
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if allowsReading(w, r) {
		Reply(w, http.StatusOK, map[string]string{"status": "alive"})
	}
}

func (s *Server) readiness(w http.ResponseWriter, r *http.Request) {
	if !allowsReading(w, r) {
		return
	}
	s.mu.Lock()
	probe, remark := s.probe, s.remark
	s.mu.Unlock()
	obstacles := []Obstacle{{Reason: "starting"}}
	if probe != nil {
		obstacles = probe()
	}
	answer := readiness{Status: "ready", Remarks: remark()}
	if len(obstacles) == 0 {
		Reply(w, http.StatusOK, answer)
		return
	}
	var texts []string
	for _, o := range obstacles {
		answer.Reasons, texts = append(answer.Reasons, o.Reason), append(texts, o.String())
	}
	answer.Status, answer.Error = "not ready", "not ready: "+strings.Join(texts, ", ")
	Reply(w, http.StatusServiceUnavailable, answer)
}

// readiness is what /readyz tells.
type readiness struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
	Error   string   `json:"error,omitempty"`
	Remarks []string `json:"remarks,omitempty"`
}

func allowsReading(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	Error(w, http.StatusMethodNotAllowed, "expected GET")
	return false
}

// call serves a request to the API whose caller is known.
func (s *Server) call(w *response, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "1")
		Error(w, http.StatusServiceUnavailable, "too many requests at once: try again")
		return
	}
	defer func() { <-s.slots }()
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r = r.WithContext(ctx)

	mux, other := s.current()
	handler, pattern := mux.Handler(r)
	if pattern == "" {
		refuse(w, r, handler, other)
		return
	}
	mux.ServeHTTP(w, r) // and not handler: only the mux fills in path values
}

// current returns the routes of now, and on a node that isn't active what is
// said instead of those that it doesn't have.
func (s *Server) current() (mux *http.ServeMux, other func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.scopes, func(open *Scope) bool { return open.ofTerm }) {
		return s.mux, nil
	}
	return s.mux, s.other
}

// refuse answers for a mux that found no route; its own answer is plain text
// and tells whether the path exists for another method. A node that isn't
// active can't know what routes it would have.
func refuse(w http.ResponseWriter, r *http.Request, muxAnswer http.Handler, other func() string) {
	told := &verdict{header: http.Header{}}
	muxAnswer.ServeHTTP(told, r)
	switch {
	case told.status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", told.header.Get("Allow"))
		Error(w, http.StatusMethodNotAllowed, "expected one of the methods "+told.header.Get("Allow"))
	case other != nil:
		Error(w, http.StatusServiceUnavailable, other())
	default:
		Error(w, http.StatusNotFound, "no such route")
	}
}

// verdict notes a status and a header, and drops the body.
type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header         { return v.header }
func (v *verdict) WriteHeader(status int)      { v.status = status }
func (v *verdict) Write(p []byte) (int, error) { return len(p), nil }

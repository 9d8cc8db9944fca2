package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	notActive = "this node is not the active one"
	notThere  = "what answers here has just been closed: try again"

	scopeCut = time.Second // for requests that are cut to notice
)

// Scope holds the routes of one owner: those of the engine, of an instance of
// a plugin, or of a term. It is a plugin.Admin. What is added to it before it
// is opened (see Server.Exchange) is served until it is closed.
type Scope struct {
	ofTerm bool
	routes []route
	fault  error // patterns that are none

	mu      sync.Mutex
	closed  bool
	running map[*invocation]struct{}
	idle    chan struct{} // closed when the scope is closed and nothing runs
}

// route is a pattern below /v1 with what answers.
type route struct {
	pattern string
	handler http.HandlerFunc
}

// NewScope returns a scope for an owner that lasts on every node.
func NewScope() *Scope {
	return &Scope{running: map[*invocation]struct{}{}, idle: make(chan struct{})}
}

// NewTermScope returns a scope for what exists only while this node is the
// active one. While none is open, a route that isn't known gets 503.
func NewTermScope() *Scope {
	s := NewScope()
	s.ofTerm = true
	return s
}

// Handle is plugin.Admin. It is called before the scope is opened. That a
// pattern is none, or is taken, is told then.
func (s *Scope) Handle(pattern string, handler http.HandlerFunc) {
	below, err := belowV1(pattern)
	if err != nil {
		s.fault = errors.Join(s.fault, err)
		return
	}
	s.routes = append(s.routes, route{below, s.counted(handler)})
}

// addTo adds the routes to a mux.
func (s *Scope) addTo(mux *http.ServeMux) error {
	err := s.fault
	for _, r := range s.routes {
		err = errors.Join(err, r.addTo(mux))
	}
	return err
}

// addTo adds a route to a mux, which panics if it can't take it.
func (r route) addTo(mux *http.ServeMux) (err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("route %q: it is taken already, or no pattern of net/http", r.pattern)
		}
	}()
	mux.HandleFunc(r.pattern, r.handler)
	return nil
}

// counted is a handler whose requests Close knows.
func (s *Scope) counted(handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		i := &invocation{cancel: cancel, control: http.NewResponseController(w)}
		if !s.enter(i) {
			Error(w, http.StatusServiceUnavailable, s.gone())
			return
		}
		defer s.leave(i)
		handler(w, withContext(r, ctx))
	}
}

func (s *Scope) gone() string {
	if s.ofTerm {
		return notActive
	}
	return notThere
}

// invocation is a request under way.
type invocation struct {
	cancel  context.CancelFunc
	control *http.ResponseController
}

// cut ends the request's context and then what it reads from the client;
// pacedBody looks at both in the other order, so one of them always wins.
func (i *invocation) cut() {
	i.cancel()
	_ = i.control.SetReadDeadline(time.Unix(1, 0)) // a connection that can't is at its end
}

// withContext gives the request, and the reading of its body, another context.
func withContext(r *http.Request, ctx context.Context) *http.Request {
	r = r.WithContext(ctx)
	if body, ok := r.Body.(*pacedBody); ok {
		body.ctx = r.Context
	}
	return r
}

func (s *Scope) enter(i *invocation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running[i] = struct{}{}
	return true
}

func (s *Scope) leave(i *invocation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, i)
	s.noteIdle()
}

func (s *Scope) noteIdle() {
	if s.closed && len(s.running) == 0 {
		close(s.idle)
	}
}

// close refuses new requests and waits for those under way. It returns how
// many are left after the wait; it is called once.
func (s *Scope) close(grace time.Duration) int {
	s.mu.Lock()
	s.closed = true
	s.noteIdle()
	s.mu.Unlock()
	if s.wait(grace) {
		return 0
	}
	s.mu.Lock()
	for i := range s.running {
		i.cut()
	}
	s.mu.Unlock()
	s.wait(scopeCut)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running)
}

func (s *Scope) wait(atMost time.Duration) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-s.idle:
		return true
	case <-timer.C:
		return false
	}
}

// belowV1 moves a pattern below /v1.
func belowV1(pattern string) (string, error) {
	method, path, found := strings.Cut(pattern, " ")
	if !found {
		method, path = "", pattern
	}
	path = strings.TrimLeft(path, " \t")
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("route %q: expected a path such as \"GET /accounts\"", pattern)
	}
	return strings.TrimLeft(method+" /v1"+path, " "), nil
}

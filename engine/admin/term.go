package admin

import (
	"context"
	"net/http"
	"sync"
	"time"
)

const (
	notActive = "this node is not the active one"

	// The end of a term: requests may finish, then they are cut, and then
	// there is a moment for them to notice.
	termGrace = 4 * time.Second
	termCut   = time.Second
)

// term serves the routes of plugins that live as long as this node is the
// active one, beside the engine's own.
type term struct {
	mux *http.ServeMux

	mu      sync.Mutex
	ended   bool
	running map[*invocation]struct{}
	idle    chan struct{} // closed when the term has ended and nothing runs
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

func newTerm(standing []route) *term {
	t := &term{
		mux:     http.NewServeMux(),
		running: map[*invocation]struct{}{},
		idle:    make(chan struct{}),
	}
	for _, r := range standing {
		t.mux.HandleFunc(belowV1(r.pattern), r.handler)
	}
	return t
}

// Handle implements plugin.Admin. A pattern that conflicts with another
// plugin's, or with the engine's own, panics.
func (t *term) Handle(pattern string, handler http.HandlerFunc) {
	t.mux.HandleFunc(belowV1(pattern), func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		i := &invocation{cancel: cancel, control: http.NewResponseController(w)}
		if !t.enter(i) {
			Error(w, http.StatusServiceUnavailable, notActive)
			return
		}
		defer t.leave(i)
		handler(w, withContext(r, ctx))
	})
}

// withContext gives the request, and the reading of its body, another context.
func withContext(r *http.Request, ctx context.Context) *http.Request {
	r = r.WithContext(ctx)
	if body, ok := r.Body.(*pacedBody); ok {
		body.ctx = r.Context
	}
	return r
}

func (t *term) enter(i *invocation) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	t.running[i] = struct{}{}
	return true
}

func (t *term) leave(i *invocation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, i)
	t.noteIdle()
}

func (t *term) noteIdle() {
	if t.ended && len(t.running) == 0 {
		close(t.idle)
	}
}

// end refuses new requests and waits for those under way. It returns how many
// are left after the wait; it is called once.
func (t *term) end() int {
	t.mu.Lock()
	t.ended = true
	t.noteIdle()
	t.mu.Unlock()
	if t.wait(termGrace) {
		return 0
	}
	t.mu.Lock()
	for i := range t.running {
		i.cut()
	}
	t.mu.Unlock()
	t.wait(termCut)
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.running)
}

func (t *term) wait(atMost time.Duration) bool {
	select {
	case <-t.idle:
		return true
	case <-time.After(atMost):
		return false
	}
}

package admin

import (
	"encoding/json"
	"net/http"
	"runtime/debug"
	"time"
)

// Error answers {"error": text}, the form of every error of the API.
func Error(w http.ResponseWriter, status int, text string) {
	Reply(w, status, map[string]string{"error": text})
}

// Reply answers value as JSON. A value that can't be written as JSON panics,
// which the server answers with 500.
func Reply(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that has left needs no answer
}

// response remembers whether the answer has begun, and allows a pause of
// stallTimeout for each piece of it, however long all of them take.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func newResponse(w http.ResponseWriter) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w)}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

func (w *response) extend() {
	w.begun = true
	_ = w.control.SetWriteDeadline(time.Now().Add(stallTimeout)) // a connection that can't is at its end
}

// catch answers for a handler that panicked. If its answer has begun, the
// connection is cut, so that nobody takes half an answer for a whole one.
func (s *Server) catch(w *response, r *http.Request) {
	fault := recover()
	if fault == nil {
		return
	}
	if fault == http.ErrAbortHandler {
		panic(fault)
	}
	s.log.Error("an admin request panicked", "method", r.Method, "path", r.URL.Path,
		"panic", fault, "stack", string(debug.Stack()))
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	Error(w, http.StatusInternalServerError, "internal error: see the server's log")
}

package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// begin runs a request in a term and returns once its handler is at work.
func begin(t *testing.T, term *term, handler http.HandlerFunc) (done <-chan struct{}) {
	t.Helper()
	entered, finished := make(chan struct{}), make(chan struct{})
	term.Handle("GET /work", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		handler(w, r)
	})
	go func() {
		defer close(finished)
		term.mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/work", nil))
	}()
	<-entered
	return finished
}

func TestTermWaitsForRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term := newTerm(nil)
		done := begin(t, term, func(http.ResponseWriter, *http.Request) { time.Sleep(3 * time.Second) })
		start := time.Now()
		if left := term.end(); left != 0 {
			t.Errorf("%d left", left)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("waited %v for a request of 3s", took)
		}
		<-done
	})
}

func TestTermCancelsWhatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term := newTerm(nil)
		done := begin(t, term, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		start := time.Now()
		if left := term.end(); left != 0 {
			t.Errorf("%d left", left)
		}
		if took := time.Since(start); took != termGrace {
			t.Errorf("cancelled after %v", took)
		}
		<-done
	})
}

func TestTermGivesUpOnWhatIgnoresCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term := newTerm(nil)
		release := make(chan struct{})
		done := begin(t, term, func(http.ResponseWriter, *http.Request) { <-release })
		start := time.Now()
		if left := term.end(); left != 1 {
			t.Errorf("%d left", left)
		}
		if took := time.Since(start); took != termGrace+termCut {
			t.Errorf("gave up after %v", took)
		}
		close(release)
		<-done
	})
}

func TestTermRefusesAfterItsEnd(t *testing.T) {
	term := newTerm(nil)
	term.Handle("GET /work", func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	term.end()
	w := httptest.NewRecorder()
	term.mux.ServeHTTP(w, httptest.NewRequest("GET", "/v1/work", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
}

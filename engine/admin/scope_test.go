package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

const scopeGrace = 4 * time.Second

// begin runs a request in a scope and returns once its handler is at work.
func begin(t *testing.T, scope *Scope, handler http.HandlerFunc) (done <-chan struct{}) {
	t.Helper()
	entered, finished := make(chan struct{}), make(chan struct{})
	scope.Handle("GET /work", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		handler(w, r)
	})
	mux := http.NewServeMux()
	if err := scope.addTo(mux); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(finished)
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/work", nil))
	}()
	<-entered
	return finished
}

func TestScopeWaitsForRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scope := NewScope()
		done := begin(t, scope, func(http.ResponseWriter, *http.Request) { time.Sleep(3 * time.Second) })
		start := time.Now()
		if left := scope.close(scopeGrace); left != 0 {
			t.Errorf("%d left", left)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("waited %v for a request of 3s", took)
		}
		<-done
	})
}

func TestScopeCancelsWhatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scope := NewScope()
		done := begin(t, scope, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		start := time.Now()
		if left := scope.close(scopeGrace); left != 0 {
			t.Errorf("%d left", left)
		}
		if took := time.Since(start); took != scopeGrace {
			t.Errorf("cancelled after %v", took)
		}
		<-done
	})
}

func TestScopeGivesUpOnWhatIgnoresCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scope := NewScope()
		release := make(chan struct{})
		done := begin(t, scope, func(http.ResponseWriter, *http.Request) { <-release })
		start := time.Now()
		if left := scope.close(scopeGrace); left != 1 {
			t.Errorf("%d left", left)
		}
		if took := time.Since(start); took != scopeGrace+scopeCut {
			t.Errorf("gave up after %v", took)
		}
		close(release)
		<-done
	})
}

func TestScopeRefusesAfterItsEnd(t *testing.T) {
	scope := NewScope()
	scope.Handle("GET /work", func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	mux := http.NewServeMux()
	if err := scope.addTo(mux); err != nil {
		t.Fatal(err)
	}
	scope.close(scopeGrace)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/v1/work", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
}

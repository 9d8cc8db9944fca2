package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine"
)

const testToken = "0123456789abcdef0123456789abcdef"

// apiServer answers like the admin API; it returns a client of it.
func apiServer(t *testing.T, handler http.HandlerFunc) *client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c := newClient(engine.Config{DataDir: tokenDir(t), AdminListen: server.Listener.Addr().String()})
	t.Cleanup(c.close)
	return c
}

func tokenDir(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, engine.TokenFile), []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return directory
}

func TestCall(t *testing.T) {
	c := apiServer(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]int
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body["n"] != 7 {
			t.Errorf("body %v, %v", body, err)
		}
		if r.Header.Get("Authorization") != "Bearer "+testToken || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("header %v", r.Header)
		}
		if r.Method != "PUT" || r.URL.String() != "/v1/a?b=c" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		io.WriteString(w, `{"n":8}`)
	})
	var answer map[string]int
	if err := c.Call(t.Context(), "PUT", "/v1/a?b=c", map[string]int{"n": 7}, &answer); err != nil || answer["n"] != 8 {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestStream(t *testing.T) {
	c := apiServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "text/csv" {
			t.Errorf("header %v", r.Header)
		}
		io.Copy(w, r.Body)
	})
	var out bytes.Buffer
	if err := c.Stream(t.Context(), "POST", "/v1/a", "text/csv", strings.NewReader("a,b\n"), &out); err != nil || out.String() != "a,b\n" {
		t.Errorf("%q, %v", &out, err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"in words", 409, `{"error":"the account exists"}`, "the account exists"},
		{"not JSON", 502, "<html>", "answered 502 Bad Gateway"},
		{"no words", 500, "{}", "answered 500 Internal Server Error"},
		{"a redirect", 307, "", "answered 307 Temporary Redirect"},
		{"the token", 401, `{"error":"expected a token"}`, "refuses the token in "},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := apiServer(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			err := client.Call(t.Context(), "GET", "/v1/a", nil, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			var out bytes.Buffer
			if err := client.Stream(t.Context(), "GET", "/v1/a", "", nil, &out); err == nil || out.Len() > 0 {
				t.Errorf("%v, and %q", err, &out)
			}
		})
	}
}

func TestAnswersThatBreakOff(t *testing.T) {
	c := apiServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, `{"n":`)
	})
	if err := c.Stream(t.Context(), "GET", "/v1/a", "", nil, io.Discard); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Error(err)
	}
	var answer map[string]int
	if err := c.Call(t.Context(), "GET", "/v1/a", nil, &answer); err == nil || !strings.Contains(err.Error(), "can't be read") {
		t.Error(err)
	}
}

func TestNoServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	address := listener.Addr().String()
	c := newClient(engine.Config{DataDir: tokenDir(t), AdminListen: address})
	want := "no server answers at " + address + ": is `imgate serve` running with this configuration?"
	if err := c.Call(t.Context(), "GET", "/v1/a", nil, nil); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	c := apiServer(t, func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	err := c.Call(ctx, "GET", "/v1/a", nil, nil)
	close(release)
	if err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Error(err)
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:8060": "127.0.0.1:8060",
		"0.0.0.0:8060":   "127.0.0.1:8060",
		"[::]:8060":      "[::1]:8060",
		"gw1:8060":       "gw1:8060",
	} {
		if got := reachable(listen); got != want {
			t.Errorf("reachable(%s) = %s, want %s", listen, got, want)
		}
	}
}

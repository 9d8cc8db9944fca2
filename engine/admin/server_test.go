package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fixture is a server at work, with its token.
type fixture struct {
	*Server
	token string
	log   *bytes.Buffer // to be read after stop
	stop  func()
}

func start(t *testing.T, prepare func(*Server)) *fixture {
	t.Helper()
	log := &bytes.Buffer{}
	path := filepath.Join(t.TempDir(), "admin.token")
	server, err := New("127.0.0.1:0", path, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(server)
	}
	token, err := readToken(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return &fixture{Server: server, token: token, log: log, stop: stop}
}

// request sends one request with the token; change may alter it.
func (f *fixture) request(t *testing.T, method, path string, body io.Reader, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+f.Addr()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.token)
	if change != nil {
		change(r)
	}
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

// open opens a scope with what prepare adds to it.
func open(t *testing.T, s *Server, scope *Scope, prepare func(*Scope)) *Scope {
	t.Helper()
	prepare(scope)
	if err := s.Exchange(nil, []*Scope{scope}); err != nil {
		t.Fatal(err)
	}
	return scope
}

func errorIn(t *testing.T, text string) string {
	t.Helper()
	var told struct{ Error string }
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		t.Errorf("not a JSON error: %q", text)
	}
	return told.Error
}

func echo(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		Error(w, http.StatusRequestEntityTooLarge, err.Error())
		return
	}
	Reply(w, http.StatusOK, map[string]any{"read": n, "id": r.PathValue("id")})
}

func TestAnswers(t *testing.T) {
	f := start(t, func(s *Server) {
		s.HandleOpen("/page", echo)
	})
	open(t, f.Server, NewScope(), func(s *Scope) {
		s.Handle("GET /things/{id}", echo)
		s.Handle("POST /things", echo)
		s.Handle("GET /broken", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	})
	open(t, f.Server, NewTermScope(), func(s *Scope) { s.Handle("GET /accounts", echo) })
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	authorization := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	kind := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Content-Type", value) }
	}
	_, port, _ := net.SplitHostPort(f.Addr())
	for _, c := range []struct {
		name, method, path string
		body               int
		change             func(*http.Request)
		status             int
	}{
		{name: "engine's route", method: "GET", path: "/v1/things/7", status: 200},
		{name: "plugin's route", method: "GET", path: "/v1/accounts", status: 200},
		{name: "no route", method: "GET", path: "/v1/nothing", status: 404},
		{name: "outside", method: "GET", path: "/", status: 404},
		{name: "wrong method", method: "DELETE", path: "/v1/accounts", status: 405},
		{name: "panic", method: "GET", path: "/v1/broken", status: 500},
		{name: "no token", method: "GET", path: "/v1/accounts", change: authorization(""), status: 401},
		{name: "wrong token", method: "GET", path: "/v1/accounts", change: authorization("Bearer " + strings.Repeat("x", 43)), status: 401},
		{name: "wrong scheme", method: "GET", path: "/v1/accounts", change: authorization("Basic " + f.token), status: 401},
		{name: "scheme in lower case", method: "GET", path: "/v1/accounts", change: authorization("bearer " + f.token), status: 200},
		{name: "no route, no token", method: "GET", path: "/v1/nothing", change: authorization(""), status: 401},
		{name: "foreign host", method: "GET", path: "/v1/accounts", change: host("evil.example.com"), status: 421},
		{name: "foreign host asks for health", method: "GET", path: "/healthz", change: host("evil.example.com:80"), status: 421},
		{name: "foreign address", method: "GET", path: "/v1/accounts", change: host("192.0.2.1"), status: 421},
		{name: "localhost", method: "GET", path: "/v1/accounts", change: host("LocalHost:" + port), status: 200},
		{name: "another loopback address", method: "GET", path: "/v1/accounts", change: host("[::1]:" + port), status: 200},
		{name: "loopback address without port", method: "GET", path: "/v1/accounts", change: host("[::1]"), status: 200},
		{name: "body", method: "POST", path: "/v1/things", body: maxJSON, status: 200},
		{name: "body over the limit", method: "POST", path: "/v1/things", body: maxJSON + 1, status: 413},
		{name: "JSON over the limit", method: "POST", path: "/v1/things", body: maxJSON + 1, change: kind("application/json; charset=utf-8"), status: 413},
		{name: "import", method: "POST", path: "/v1/things", body: 4 * maxJSON, change: kind("text/csv"), status: 200},
		{name: "stranger's import", method: "POST", path: "/v1/things", body: 1, change: authorization(""), status: 401},
		{name: "health without a token", method: "GET", path: "/healthz", change: authorization(""), status: 200},
		{name: "health posted", method: "POST", path: "/healthz", status: 405},
		{name: "open page without a token", method: "GET", path: "/page", change: authorization(""), status: 200},
		{name: "open page posted", method: "POST", path: "/page", status: 405},
		{name: "foreign host asks for an open page", method: "GET", path: "/page", change: host("evil.example.com"), status: 421},
		{name: "not yet ready", method: "GET", path: "/readyz", change: authorization(""), status: 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, text := f.request(t, c.method, c.path, bytes.NewReader(make([]byte, c.body)), c.change)
			if answer.StatusCode != c.status {
				t.Errorf("status %d, want %d: %s", answer.StatusCode, c.status, text)
			}
			if kind := answer.Header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("Content-Type %q", kind)
			}
			if c.status >= 400 && errorIn(t, text) == "" {
				t.Errorf("no error in words: %s", text)
			}
			if c.status == 405 && answer.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
	f.stop()
	if n := strings.Count(f.log.String(), "\n"); n != 1 || !strings.Contains(f.log.String(), "on purpose") {
		t.Errorf("want one log line, for the panic:\n%s", f.log)
	}
	if strings.Contains(f.log.String(), f.token) {
		t.Error("the token is in the log")
	}
}

func TestReady(t *testing.T) {
	f := start(t, nil)
	f.Ready(func() []Obstacle {
		return []Obstacle{{"storage down", errors.New("the disk is full")}, {Reason: "draining"}}
	})
	answer, text := f.request(t, "GET", "/readyz", nil, nil)
	if answer.StatusCode != 503 || errorIn(t, text) != "not ready: storage down: the disk is full, draining" {
		t.Errorf("%d %s", answer.StatusCode, text)
	}
	f.Ready(func() []Obstacle { return nil })
	answer, text = f.request(t, "GET", "/readyz", nil, nil)
	if answer.StatusCode != 200 || strings.TrimSpace(text) != `{"status":"ready"}` {
		t.Errorf("%d %s", answer.StatusCode, text)
	}
}

func TestHalfAnAnswerIsCut(t *testing.T) {
	f := start(t, nil)
	open(t, f.Server, NewScope(), func(s *Scope) {
		s.Handle("GET /half", func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("half"))
			http.NewResponseController(w).Flush()
			panic("on purpose")
		})
	})
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+f.Addr()+"/v1/half", nil)
	r.Header.Set("Authorization", "Bearer "+f.token)
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("%q passed for a whole answer", text)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	f := start(t, nil)
	open(t, f.Server, NewScope(), func(s *Scope) {
		s.Handle("GET /slow", func(w http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-release
		})
	})
	done := make(chan struct{})
	for range maxRequests {
		go func() {
			defer func() { done <- struct{}{} }()
			f.request(t, "GET", "/v1/slow", nil, nil)
		}()
	}
	for range maxRequests {
		<-entered
	}
	answer, _ := f.request(t, "GET", "/v1/slow", nil, nil)
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", answer.StatusCode, answer.Header.Get("Retry-After"))
	}
	if answer, _ := f.request(t, "GET", "/healthz", nil, nil); answer.StatusCode != 200 {
		t.Errorf("health while busy: %d", answer.StatusCode)
	}
	close(release)
	for range maxRequests {
		<-done
	}
}

func TestScopesComeAndGo(t *testing.T) {
	f := start(t, nil)
	handles := func(pattern string) func(*Scope) { return func(s *Scope) { s.Handle(pattern, echo) } }
	wants := func(when string, statuses map[string]int) {
		t.Helper()
		for path, want := range statuses {
			if answer, _ := f.request(t, "GET", path, nil, nil); answer.StatusCode != want {
				t.Errorf("%s: %s: status %d, want %d", when, path, answer.StatusCode, want)
			}
		}
	}
	open(t, f.Server, NewScope(), handles("GET /node"))
	wants("before the first term", map[string]int{"/v1/node": 200, "/v1/accounts": 503})
	term := open(t, f.Server, NewTermScope(), handles("GET /accounts"))
	wants("in a term", map[string]int{"/v1/node": 200, "/v1/accounts": 200, "/v1/trace": 404})

	old := open(t, f.Server, NewScope(), handles("GET /trace"))
	next := NewScope()
	next.Handle("GET /trace", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	if err := f.Exchange([]*Scope{old}, []*Scope{next}); err != nil {
		t.Fatal(err)
	}
	wants("exchanged", map[string]int{"/v1/trace": 202})
	if err := f.Exchange([]*Scope{next}, []*Scope{old}); err != nil {
		t.Fatal(err)
	}
	wants("put back", map[string]int{"/v1/trace": 200})
	if got, want := f.Routes(), []string{"GET /v1/accounts", "GET /v1/node", "GET /v1/trace"}; !slices.Equal(got, want) {
		t.Errorf("routes %v, want %v", got, want)
	}
	f.Close(old, scopeGrace)
	wants("closed", map[string]int{"/v1/trace": 404})
	f.Close(term, scopeGrace)
	wants("after the term", map[string]int{"/v1/node": 200, "/v1/accounts": 503, "/v1/trace": 503})
}

func TestScopesThatCannotBeOpened(t *testing.T) {
	f := start(t, nil)
	open(t, f.Server, NewScope(), func(s *Scope) { s.Handle("GET /things/{id}", echo) })
	for pattern, want := range map[string]string{
		"GET /things/{other}": `route "GET /v1/things/{other}": it is taken already`,
		"GET things":          `route "GET things": expected a path`,
		"GET /things/{":       `no pattern of net/http`,
	} {
		scope := NewScope()
		scope.Handle("GET /innocent", echo)
		scope.Handle(pattern, echo)
		if err := f.Exchange(nil, []*Scope{scope}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", pattern, err, want)
		}
	}
	if got := f.Routes(); len(got) != 1 {
		t.Errorf("routes of scopes that weren't opened: %v", got)
	}
}

func TestCloseCutsASlowUpload(t *testing.T) {
	f := start(t, nil)
	reading, ended := make(chan struct{}), make(chan error, 1)
	scope := open(t, f.Server, NewTermScope(), func(s *Scope) {
		s.Handle("POST /import", func(w http.ResponseWriter, r *http.Request) {
			close(reading)
			_, err := io.Copy(io.Discard, r.Body)
			ended <- err
		})
	})
	conn, err := net.Dial("tcp", f.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /v1/import HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+f.token+
		"\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\nhalf")
	<-reading
	begin := time.Now()
	f.Close(scope, scopeGrace)
	if err := <-ended; err == nil {
		t.Error("half an upload passed for a whole one")
	}
	if took := time.Since(begin); took > 5*(scopeGrace+scopeCut) {
		t.Errorf("it took %v", took)
	}
}

func TestPatterns(t *testing.T) {
	for in, want := range map[string]string{
		"GET /accounts": "GET /v1/accounts",
		"/accounts/{a}": "/v1/accounts/{a}",
	} {
		if got, err := belowV1(in); got != want || err != nil {
			t.Errorf("belowV1(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestAbandonGivesTheAddressBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t")
	first, err := New("127.0.0.1:0", path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Abandon(); err != nil {
		t.Fatal(err)
	}
	second, err := New(first.Addr(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	second.Abandon()
}

func TestNewRefuses(t *testing.T) {
	if _, err := New("8060", filepath.Join(t.TempDir(), "t"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("an address without a host passed")
	}
	taken := start(t, nil)
	if _, err := New(taken.Addr(), filepath.Join(t.TempDir(), "t"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("an address in use passed")
	}
}

func TestWarnsBeyondLoopback(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	warnIfExposed(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, logger)
	if log.Len() > 0 {
		t.Errorf("loopback: %s", &log)
	}
	warnIfExposed(&net.TCPAddr{IP: net.IPv6unspecified, Port: 1}, logger)
	if log.Len() == 0 {
		t.Error("no warning for all interfaces")
	}
}

func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "admin.token")
	first, err := openToken(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if second, err := openToken(path); err != nil || second != first || len(first) != 43 {
		t.Errorf("%q, then %q, %v", first, second, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".admin-token-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
	}{
		{"others can read it", first, 0o644},
		{"the group can write it", first, 0o620},
		{"too short", "secret", 0o600},
		{"empty", "", 0o600},
		{"too long", strings.Repeat("x", maxToken+1), 0o600},
		{"two lines", first + "\n" + first, 0o600},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "admin.token")
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := openToken(path); err == nil {
				t.Error("it passed")
			} else if strings.Contains(err.Error(), first) {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
	if _, err := openToken(t.TempDir()); err == nil {
		t.Error("a directory passed")
	}
}

package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// ask sends a request on a connection that stays open and returns the status.
func ask(t *testing.T, conn net.Conn, request string) (status int) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(5 * headerTimeout))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

const askHealth = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

func connect(t *testing.T, f *fixture) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", f.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// isClosed tells whether the server has ended a connection on which nothing is
// to come.
func isClosed(t *testing.T, conn net.Conn, within time.Duration) bool {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(within))
	_, err := conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestIdleConnectionsMakeRoom: those who hold all connections and ask nothing
// don't keep anybody out; the longest idle one has to go.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	f := start(t, nil)
	idle := make([]net.Conn, maxConnections)
	for i := range idle {
		idle[i] = connect(t, f)
		if status := ask(t, idle[i], askHealth); status != http.StatusOK {
			t.Fatalf("connection %d: status %d", i, status)
		}
		awaitResting(t, f, i+1) // the answer comes before the server knows that it rests
	}
	for range 3 {
		if status := ask(t, connect(t, f), askHealth); status != http.StatusOK {
			t.Errorf("a newcomer is answered %d", status)
		}
	}
	if !isClosed(t, idle[0], 5*headerTimeout) {
		t.Error("the connection that has been idle longest is still open")
	}
	if status := ask(t, idle[maxConnections-1], askHealth); status != http.StatusOK {
		t.Errorf("the last connection is answered %d", status)
	}
}

// awaitResting waits until n connections have no request.
func awaitResting(t *testing.T, f *fixture, n int) {
	t.Helper()
	resting := func() int {
		f.listener.mu.Lock()
		defer f.listener.mu.Unlock()
		return len(f.listener.resting)
	}
	for deadline := time.Now().Add(headerTimeout); resting() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections rest, want %d", resting(), n)
		}
	}
}

// TestWorkIsNotCutForNewcomers: connections that are at work are no room; a
// newcomer waits until one of them rests.
func TestWorkIsNotCutForNewcomers(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	f := start(t, func(s *Server) {
		s.HandleOpen("/slow", func(http.ResponseWriter, *http.Request) {
			entered <- struct{}{}
			<-release
		})
	})
	done := make(chan int)
	for range maxConnections {
		conn := connect(t, f)
		go func() { done <- ask(t, conn, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n") }()
		<-entered
	}
	newcomer := make(chan int)
	conn := connect(t, f)
	go func() { newcomer <- ask(t, conn, askHealth) }()
	close(release)
	for range maxConnections {
		if status := <-done; status != http.StatusOK {
			t.Errorf("what was at work is answered %d", status)
		}
	}
	if status := <-newcomer; status != http.StatusOK {
		t.Errorf("the newcomer is answered %d", status)
	}
}

// TestStrangersBodiesAreNotAwaited: who sends a body slowly, and has no token,
// doesn't hold a connection for as long as one who has.
func TestStrangersBodiesAreNotAwaited(t *testing.T) {
	f := start(t, nil)
	for path, want := range map[string]int{
		"/healthz": 405, "/": 404, "/v1/accounts": 401,
	} {
		conn := connect(t, f)
		request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nslowly", path)
		if status := ask(t, conn, request); status != want {
			t.Errorf("%s: status %d, want %d", path, status, want)
		}
		if !isClosed(t, conn, 5*strangerTimeout) {
			t.Errorf("%s: the connection is still open", path)
		}
	}
}

// TestNothingIsKeptOrGuessed: whatever answers, caches don't keep it and
// browsers don't guess what it is.
func TestNothingIsKeptOrGuessed(t *testing.T) {
	f := start(t, func(s *Server) {
		s.HandleOpen("/page", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<script>") })
	})
	open(t, f.Server, NewScope(), func(s *Scope) {
		s.Handle("GET /export", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<script>") })
	})
	for _, path := range []string{"/page", "/v1/export", "/v1/none", "/healthz", "/" + strings.Repeat("x", 1000)} {
		answer, _ := f.request(t, "GET", path, nil, nil)
		if got := answer.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%.20s: X-Content-Type-Options is %q", path, got)
		}
		if got := answer.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%.20s: Cache-Control is %q", path, got)
		}
	}
}

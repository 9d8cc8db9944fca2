package ua

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/internal/fakesip"
)

func TestMessagesOverTCP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		s := fake(t, fakesip.Config{Host: host})
		handle, arrived := inbox()
		bob := dialOver(t, Config{TCP: s.Address()}, "1002", handle)
		alice := dialOver(t, Config{TCP: s.Address()}, "1001", nil)
		register(t, bob)
		for _, text := range []string{"hello", strings.Repeat("long ", 5000), "\r\n\r\nbye\r\n"} {
			if r := send(t, alice, "1002", text); r.Code != 200 {
				t.Fatalf("got %+v, want 200", r)
			}
			if m := <-arrived; string(m.Body) != text {
				t.Errorf("got %q", m.Body)
			}
		}
		if err := bob.Unregister(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestLargeMessagesGoOverTCP(t *testing.T) {
	s := fake(t, fakesip.Config{})
	alice := dialOver(t, Config{UDP: s.Address(), TCP: s.Address()}, "1001", nil)
	send(t, alice, "1002", "short")
	if n := s.Connections(); n != 0 {
		t.Errorf("%d connections for a short message", n)
	}
	if r := send(t, alice, "1002", strings.Repeat("x", needsStream)); r.Code != 202 {
		t.Errorf("got %+v", r)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections for a long message", n)
	}
	elsewhere := dialOver(t, Config{UDP: s.Address(), TCP: "127.0.0.1:1"}, "1001", nil)
	if r := send(t, elsewhere, "1002", strings.Repeat("x", needsStream)); r.Code != 202 {
		t.Errorf("without TCP: %+v", r)
	}
}

// TestConnectionIsMadeAnew: a listener that loses its connection registers over
// another one, and is reached there.
func TestConnectionIsMadeAnew(t *testing.T) {
	for name, lose := range map[string]func(*fakesip.Server){
		"closed": func(s *fakesip.Server) { s.Hangup() },
		"silent": func(s *fakesip.Server) { s.Mute(true) },
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, fakesip.Config{})
			handle, arrived := inbox()
			c := Config{TCP: s.Address()}
			bob := dialOver(t, c, "1002", handle)
			bob.config.timers.pong = 50 * time.Millisecond
			register(t, bob)
			before := bob.Local()
			ctx, cancel := context.WithCancel(t.Context())
			var keeping sync.WaitGroup
			keeping.Go(func() { bob.KeepRegistered(ctx, time.Hour, func(err error) { t.Log(err) }) })
			again := make(chan struct{})
			s.OnRegister("1002", func() {
				s.Mute(false)
				close(again)
			})
			lose(s)
			<-again
			cancel()
			keeping.Wait()
			if bob.Local() == before {
				t.Error("still the same connection")
			}
			if r := send(t, dialOver(t, c, "1001", nil), "1002", "hello"); r.Code != 200 {
				t.Errorf("got %+v", r)
			}
			<-arrived
		})
	}
}

func TestNobodyListensOverTCP(t *testing.T) {
	_, err := Dial(t.Context(), Config{Address: user("1001"), TCP: "127.0.0.1:1"})
	if err == nil || !strings.Contains(err.Error(), "nobody listens at 127.0.0.1:1 (TCP)") {
		t.Errorf("got %v", err)
	}
}

func TestServerClosesBeforeItAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = conn.Read(make([]byte, 1))
			conn.Close()
		}
	}()
	a := dialOver(t, Config{TCP: listener.Addr().String()}, "1001", nil)
	_, err = a.Message(t.Context(), user("1002"), "text/plain", nil, Options{})
	if err == nil || !strings.Contains(err.Error(), "which closed the connection") {
		t.Errorf("got %v", err)
	}
}

func TestStreamFraming(t *testing.T) {
	head := "OPTIONS sip:a@b SIP/2.0\r\n"
	for _, c := range []struct {
		name, sent string
		want       []string
	}{
		{"two at once", "\r\n" + head + "l: 2\r\n\r\nhi\r\n\r\n" + head + "\r\n", []string{head + "l: 2\r\n\r\nhi", head + "\r\n"}},
		{"no number", head + "Content-Length: x\r\n\r\n", nil},
		{"too long", head + "Content-Length: 65535\r\n\r\n", nil},
		{"endless head", head + strings.Repeat("A: b\r\n", 20_000), nil},
		{"endless line", strings.Repeat("A", 70_000), nil},
		{"cut off", head + "Content-Length: 5\r\n\r\nhi", nil},
	} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.WriteString(theirs, c.sent)
			theirs.Close()
		}()
		l := newLink(ours, "tcp")
		var got []string
		for {
			packet, err := l.next()
			if err != nil {
				break
			}
			got = append(got, string(packet))
		}
		if strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		ours.Close()
	}
}

func TestPasswordSources(t *testing.T) {
	s := fake(t, fakesip.Config{})
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("one\r\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(args ...string) error {
		args = append(args, "1001@"+domain, "1002@"+domain, "hello")
		return run(t.Context(), "send", plugin.Invocation{Out: new(bytes.Buffer)}, append([]string{"--server", s.Address()}, args...)...)
	}
	for _, args := range [][]string{{"--password", "one"}, {"--password-file", file}, {"--password-file", file, "--transport", "tcp"}} {
		if err := try(args...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	if err := try(); err == nil {
		t.Error("without a password: no error")
	}
	t.Setenv(passwordVariable, "one")
	if err := try(); err != nil {
		t.Errorf("environment: %v", err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--password-file", file}, {"--password-file", file + "x"}, {"--password", "a", "--password-file", file}} {
		if err := try(args...); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

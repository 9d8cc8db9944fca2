//go:build process

package main_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// say sends a message and returns the answer.
func say(t *testing.T, from *ua.Agent, to, text string) ua.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quickly)
	defer cancel()
	result, err := from.Message(ctx, message.Address{User: to, Host: "sip.example.com"}, "text/plain", []byte(text), ua.Options{})
	if err != nil {
		t.Errorf("%q gets no answer: %v", text, err)
	}
	return result
}

func register(t *testing.T, a *ua.Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quickly)
	defer cancel()
	if _, err := a.Register(ctx, time.Hour); err != nil {
		t.Fatal(err)
	}
}

// TestDrain: a server that is told to end answers 503 to what is new, finishes
// what is under way, and exits 0.
func TestDrain(t *testing.T) {
	s := newServer(t, "")
	s.start()
	s.importAccounts([]string{"alice", "bob", "carol"})
	ringing, answer := make(chan struct{}), make(chan struct{})
	bob := dial(t, s, "bob", func(ua.Incoming) bool {
		close(ringing)
		<-answer
		return true
	})
	defer bob.Close()
	register(t, bob)
	alice, carol := dial(t, s, "alice", nil), dial(t, s, "carol", nil)
	defer alice.Close()
	defer carol.Close()
	underWay := make(chan ua.Result, 1)
	go func() { underWay <- say(t, alice, "bob", "under way") }()
	<-ringing

	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.eventually("draining", func() bool {
		status, text := s.readiness()
		return status == http.StatusServiceUnavailable && strings.Contains(text, "not ready: draining")
	})
	if refused := say(t, carol, "bob", "new"); refused.Code != 503 || refused.RetryAfter == 0 {
		t.Errorf("new work gets %+v", refused)
	}
	close(answer)
	if done := <-underWay; done.Code != 200 {
		t.Errorf("what was under way gets %+v", done)
	}
	if err := s.process.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	s.process = nil
}

// TestSecondSignal: whoever doesn't want to wait for what is under way signals
// again.
func TestSecondSignal(t *testing.T) {
	s := newServer(t, "")
	s.start()
	s.importAccounts([]string{"alice", "bob"})
	ringing, answer := make(chan struct{}), make(chan struct{})
	defer close(answer)
	bob := dial(t, s, "bob", func(ua.Incoming) bool {
		close(ringing)
		<-answer
		return true
	})
	register(t, bob)
	alice := dial(t, s, "alice", nil)
	go alice.Message(t.Context(), message.Address{User: "bob", Host: "sip.example.com"}, "text/plain", []byte("stuck"), ua.Options{})
	<-ringing
	for range 2 {
		if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.eventually("draining", func() bool { status, _ := s.readiness(); return status != http.StatusOK })
	}
	err := s.process.Wait()
	if state, ok := s.process.ProcessState.Sys().(syscall.WaitStatus); !ok || !state.Signaled() || state.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, %v", s.process.ProcessState, err)
	}
	s.process = nil
	alice.Close()
}

// reconfigure changes the configuration file.
func (s *server) reconfigure(change func(text string) string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(change(string(text))), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// TestHangup: SIGHUP and `imgate reload` take a changed configuration or leave
// everything as it was; a client of a transport that didn't change goes on.
func TestHangup(t *testing.T) {
	s := newServer(t, "")
	s.start()
	s.importAccounts([]string{"alice", "bob"})
	got := make(chan string, 10)
	bob := dial(t, s, "bob", func(m ua.Incoming) bool {
		got <- string(m.Body)
		return true
	})
	defer bob.Close()
	register(t, bob)
	alice := dial(t, s, "alice", nil)
	defer alice.Close()
	goesOn := func(text string) {
		t.Helper()
		if answer := say(t, alice, "bob", text); answer.Code != 200 {
			t.Errorf("%s: %+v", text, answer)
		}
		if arrived := <-got; arrived != text {
			t.Errorf("%q arrives, want %q", arrived, text)
		}
	}
	hangup := func(want string) {
		t.Helper()
		before := len(s.logged())
		if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.eventually(want, func() bool { return strings.Contains(s.logged()[before:], want) })
	}
	goesOn("first")
	good := ""
	s.reconfigure(func(text string) string {
		good = text
		return text + "  : garbage"
	})
	hangup("the configuration was not reloaded")
	goesOn("after garbage")

	second := freePort(t, "udp")
	s.reconfigure(func(string) string {
		return good + "  second:\n    plugin: sip\n    listen: [\"udp://" + second + "\"]\n    domains: [sip.example.com]\n"
	})
	hangup(`msg="configuration reloaded" changed=[transports.second]`)
	goesOn("with a second door")
	carol, err := ua.Dial(t.Context(), ua.Config{Address: message.Address{User: "alice", Host: "sip.example.com"}, Password: password, UDP: second})
	if err != nil {
		t.Fatal(err)
	}
	defer carol.Close()
	if answer := say(t, carol, "bob", "through the second door"); answer.Code != 200 {
		t.Errorf("%+v", answer)
	}
	<-got

	s.reconfigure(func(string) string {
		return good + "  second:\n    plugin: sip\n    listen: [\"udp://" + s.sip + "\"]\n    domains: [x.example.com]\n"
	})
	hangup("is taken by transports.second.listen")
	s.reconfigure(func(string) string {
		return strings.Replace(good, "domains: [sip.example.com]", "domains: [sip.example.com, other.example.com]", 1)
	})
	hangup(`msg="configuration reloaded" changed="[transports.second transports.sip]"`)
	goesOn("through a door that was exchanged")
	s.reconfigure(func(string) string { return good })
	if out := s.imgate("reload"); !strings.Contains(out, "changed: transports.sip") {
		t.Errorf("reload says %q", out)
	}
	goesOn("after all")
}

package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manager is the end of a service manager: it hears what it is told.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, conn}
}

// expect reads the next datagram: assignments, of which each must begin so.
func (m *manager) expect(prefixes ...string) {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	n, err := m.conn.Read(buffer)
	if err != nil {
		m.t.Fatalf("%v is never told: %v", prefixes, err)
	}
	got := strings.Split(string(buffer[:n]), "\n")
	if len(got) != len(prefixes) {
		m.t.Fatalf("told %q, want %q", got, prefixes)
	}
	for i, prefix := range prefixes {
		if !strings.HasPrefix(got[i], prefix) {
			m.t.Errorf("told %q, want %q", got, prefixes)
		}
	}
}

func TestNotifierTellsTheLifeOfANode(t *testing.T) {
	m := newManager(t)
	n := newNotifier(slog.New(slog.DiscardHandler))
	n.ready("takes traffic")
	m.expect("READY=1", "STATUS=takes traffic")
	if err := n.reload(func() error {
		m.expect("RELOADING=1", "MONOTONIC_USEC=")
		return nil
	}); err != nil {
		t.Error(err)
	}
	m.expect("READY=1", "STATUS=has taken")
	wrong := errors.New("imgate.yaml:1: wrong")
	if err := n.reload(func() error {
		m.expect("RELOADING=1", "MONOTONIC_USEC=")
		return wrong
	}); err != wrong {
		t.Error(err)
	}
	m.expect("READY=1", "STATUS=has refused")
	n.stopping()
	m.expect("STOPPING=1", "STATUS=drains")
}

func TestNotifierGivesSignsOfLifeWhileThereIsLife(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	var log bytes.Buffer
	n := newNotifier(slog.New(slog.NewTextHandler(&log, nil)))
	if n.patience != 20*time.Millisecond {
		t.Fatalf("patience %s", n.patience)
	}
	asked := 0
	ctx, cancel := context.WithCancel(t.Context())
	n.watch(ctx, func() error {
		switch asked++; asked {
		case 1, 2:
			return nil
		case 3:
			return errors.New("a lane\nis stuck")
		}
		cancel()
		return nil
	})
	m.expect("WATCHDOG=1")
	m.expect("WATCHDOG=1")
	m.expect("STATUS=doesn't work: a lane; is stuck")
	m.expect("WATCHDOG=1")
	if asked != 4 || !strings.Contains(log.String(), "is stuck") {
		t.Errorf("asked %d times, log %q", asked, &log)
	}
}

func TestNotifierWithoutAManager(t *testing.T) {
	for _, c := range []struct{ name, socket, watchdog, warning string }{
		{"none", "", "", ""},
		{"one that is gone", filepath.Join(t.TempDir(), "absent"), "", "can't be told"},
		{"a watchdog that can't be", "", "soon", "watchdog can't be used"},
		{"a watchdog of another process", "", "1000", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", c.socket)
			t.Setenv("WATCHDOG_USEC", c.watchdog)
			t.Setenv("WATCHDOG_PID", "1")
			var log bytes.Buffer
			n := newNotifier(slog.New(slog.NewTextHandler(&log, nil)))
			n.ready("takes traffic")
			n.watch(t.Context(), func() error {
				t.Error("asked for a sign of life that nobody waits for")
				return nil
			})
			if !strings.Contains(log.String(), c.warning) || c.warning == "" && log.Len() > 0 {
				t.Errorf("log %q, want %q", &log, c.warning)
			}
		})
	}
}

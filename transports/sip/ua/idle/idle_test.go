package idle

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua"
	"github.com/imgate/imgate/transports/sip/ua/internal/fakesip"
)

const domain = "sip.example.com"

// admin gives a fake server the accounts that it is to create.
type admin struct{ passwords map[string]string }

func (a *admin) Call(context.Context, string, string, any, any) error { return errors.ErrUnsupported }

func (a *admin) Stream(_ context.Context, _, path, _ string, body io.Reader, _ io.Writer) error {
	rows, err := csv.NewReader(body).ReadAll()
	if err != nil || path != "/v1/accounts/import" {
		return errors.Join(err, errors.ErrUnsupported)
	}
	for _, row := range rows[1:] {
		user, _, _ := strings.Cut(row[0], "@")
		a.passwords[user] = row[1]
	}
	return nil
}

// start starts a server, and prepares a bench of it and its invocation.
func start(t *testing.T, c fakesip.Config) (*fakesip.Server, bench, plugin.Invocation) {
	t.Helper()
	c.Domain, c.Accounts = domain, map[string]string{}
	s := fakesip.Start(t, c)
	b := bench{clients: 100, domain: domain, network: "tcp", server: s.Address(), messages: 10, pid: os.Getpid()}
	return s, b, plugin.Invocation{Admin: &admin{c.Accounts}, Out: io.Discard, Err: io.Discard}
}

// gather registers a crowd.
func gather(t *testing.T, b bench, in plugin.Invocation) *crowd {
	t.Helper()
	c, err := b.create(t.Context(), in, ua.Config{TCP: b.server})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close(t.Context(), closeWithin) })
	if _, err := c.register(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReport(t *testing.T) {
	s, b, in := start(t, fakesip.Config{})
	var out bytes.Buffer
	in.Out = &out
	if err := b.run(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"100 over tcp", "100 after 0 s of silence", "10 sent, 10 arrived", "KB a client"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	out.Reset()
	b.asJSON = true
	if err := b.run(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Transport != "tcp" || r.Clients != 100 || r.Connected != 100 || r.Sent != 10 || r.Arrived != 10 || r.Server.Resident == 0 || r.RegisterSeconds == 0 {
		t.Errorf("got %s", &out)
	}
	if n := s.Requests("REGISTER"); n != 400 { // each of 200 is challenged once
		t.Errorf("%d registrations", n)
	}
}

// TestRefused: the first client that isn't taken ends it for all.
func TestRefused(t *testing.T) {
	s, b, in := start(t, fakesip.Config{Standby: func() bool { return true }})
	b.clients = 10_000
	err := b.run(t.Context(), in)
	if err == nil || !strings.Contains(err.Error(), "of 10000: registration refused (503") {
		t.Errorf("got %v", err)
	}
	if n := s.Requests("REGISTER"); n > 1000 {
		t.Errorf("%d have tried nevertheless", n)
	}
}

func TestInterrupted(t *testing.T) {
	_, b, in := start(t, fakesip.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.run(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLostConnections(t *testing.T) {
	s, b, in := start(t, fakesip.Config{})
	c := gather(t, b, in)
	if n := c.connected(); n != 100 {
		t.Fatalf("%d are connected", n)
	}
	s.Hangup()
	for c.connected() > 0 {
		time.Sleep(time.Millisecond)
	}
	r := report{Clients: 100}
	if err := r.verdict(); err == nil || err.Error() != "100 of 100 lost their connections while they were idle" {
		t.Errorf("got %v", err)
	}
}

func TestLostMessage(t *testing.T) {
	_, b, in := start(t, fakesip.Config{Lose: func(n int) bool { return n == 1 }})
	c := gather(t, b, in)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	arrived, err := c.greet(ctx, 2)
	if arrived != 1 || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "never arrived") {
		t.Errorf("%d arrived, %v", arrived, err)
	}
	r := report{Sent: 2, Arrived: arrived, failed: err}
	if err := r.verdict(); err == nil || !strings.HasPrefix(err.Error(), "1 of 2 messages didn't arrive: message to client ") {
		t.Errorf("got %v", err)
	}
}

func TestRefusedMessage(t *testing.T) {
	_, b, in := start(t, fakesip.Config{Answer: func(string) (int, string, []string) { return 404, "Not Found", nil }})
	arrived, err := gather(t, b, in).greet(t.Context(), 1)
	if arrived != 0 || err == nil || !strings.Contains(err.Error(), "refused (404 Not Found)") {
		t.Errorf("%d arrived, %v", arrived, err)
	}
}

// TestCloseIsBounded: a server that says no good-bye holds nobody up.
func TestCloseIsBounded(t *testing.T) {
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"sip"}}); err == nil {
			<-over
		}
	}))
	defer server.Close()
	defer close(over)
	_, b, in := start(t, fakesip.Config{})
	b.clients = 2
	c, err := b.create(t.Context(), in, ua.Config{WS: strings.TrimPrefix(server.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members {
		if m.agent, err = ua.Dial(t.Context(), m.config); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	c.close(t.Context(), 10*time.Millisecond)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestProgress(t *testing.T) {
	var notes bytes.Buffer
	_, b, in := start(t, fakesip.Config{})
	in.Err = &notes
	if err := b.run(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(notes.String(), "100 registered in ") {
		t.Errorf("got %q", &notes)
	}
}

func TestWrongFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                                 "--pid",
		"--pid 0":                          "--pid",
		"--pid 1 surplus":                  "surplus",
		"--pid 1 --clients 1":              "--clients",
		"--pid 1 --clients 50001":          "--clients",
		"--pid 1 --hold -1s":               "--hold",
		"--pid 1 --hold 11m":               "--hold",
		"--pid 1 --transport udp":          "--transport",
		"--pid 1 --transport sctp":         "sctp",
		"--pid 1 --messages -1":            "--messages",
		"--pid 1 --messages 1001":          "--messages",
		"--pid 1 --domain a@b":             "--domain",
		"--pid 1 --server ws://127.0.0.1":  "transport tcp",
		"--pid 1 --clients 1 --messages 2": "--messages",
		"--pid 2147483647":                 "process 2147483647",
	} {
		flags := flag.NewFlagSet("bench idle", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		run := Command.Setup(flags)
		if err := flags.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		err := run(t.Context(), plugin.Invocation{Args: flags.Args(), Admin: &admin{}, Out: io.Discard, Err: io.Discard})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", args, err, want)
		}
	}
}

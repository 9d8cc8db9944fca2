package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// gateway is what a run of these tests measures: it takes binds, hands each
// submit_sm on to the SMSC, and answers it.
type gateway struct {
	listener net.Listener
	smsc     string
	// what becomes of a submit_sm: how often it goes on, and how it is answered.
	fate  func(n int) (copies int, status pdu.Status)
	ready chan struct{} // closed when it has bound to the SMSC

	mu       sync.Mutex
	n        int
	password string
	out      *stream
}

// startGateway starts one that delivers to an SMSC that may not be there yet.
func startGateway(t *testing.T, smsc string) *gateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{listener: listener, smsc: smsc, ready: make(chan struct{}), fate: func(int) (int, pdu.Status) { return 1, wire.ROK }}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { g.serve(t, newStream(conn)) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		g.mu.Lock()
		if g.out != nil {
			g.out.conn.Close()
		}
		g.mu.Unlock()
		all.Wait()
	})
	return g
}

// connect binds to the SMSC as soon as it listens, and passes over its answers.
func (g *gateway) connect(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := dial(t.Context(), g.smsc, login{})
		if err == nil {
			_ = s.conn.SetReadDeadline(time.Time{})
			g.mu.Lock()
			g.out = s
			g.mu.Unlock()
			close(g.ready)
			_, _ = io.Copy(io.Discard, s.conn)
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the SMSC can't be bound to: %v", err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (g *gateway) serve(t *testing.T, s *stream) {
	defer s.conn.Close()
	select {
	case <-g.ready:
	case <-t.Context().Done():
		return
	}
	for {
		frame, err := s.next()
		if err != nil {
			return
		}
		g.take(t, s, frame)
		if s.flush() != nil {
			return
		}
	}
}

func (g *gateway) take(t *testing.T, s *stream, frame []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch id := idOf(frame); id {
	case pdu.BindTransceiverID:
		p, err := wire.Decode(bytes.Clone(frame))
		if err != nil {
			t.Error(err)
			return
		}
		status := wire.ROK
		if g.password != "" && p.Body.(*wire.Bind).Password != g.password {
			status = wire.RInvPaswd
		}
		s.respond(frame, status, &wire.BindResp{Mode: pdu.BindTransceiverRespID})
		s.queue(&wire.Packet{ID: pdu.EnquireLinkID, Sequence: 7})
	case pdu.SubmitSMID:
		copies, status := g.fate(g.n)
		g.n++
		for range copies {
			g.out.out = append(g.out.out, frame...)
			if err := g.out.flush(); err != nil {
				t.Error(err)
			}
		}
		s.respond(frame, status, &wire.ShortResp{Of: pdu.SubmitSMRespID, MessageID: "x"})
	case pdu.UnbindID:
		s.respond(frame, wire.ROK, nil)
	case pdu.EnquireLinkRespID:
	default:
		t.Errorf("the gateway gets %s", wire.Name(id))
	}
}

// freeAddress is one that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// execute runs the command.
func execute(t *testing.T, admin plugin.AdminClient, args ...string) (string, error) {
	t.Helper()
	flags := flag.NewFlagSet("bench smpp", flag.ContinueOnError)
	run := Command.Setup(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	err := run(ctx, plugin.Invocation{Args: flags.Args(), Out: &out, Err: t.Output(), Admin: admin})
	return out.String(), err
}

// through measures a gateway with JSON as the report.
func through(t *testing.T, prepare func(g *gateway), args ...string) (report, error) {
	t.Helper()
	g := startGateway(t, freeAddress(t))
	if prepare != nil {
		prepare(g)
	}
	var connected sync.WaitGroup
	connected.Go(func() { g.connect(t) })
	defer connected.Wait()
	args = append([]string{"-json", "-server", g.listener.Addr().String(), "-listen", g.smsc, "-warmup", "0s", "-patience", "50ms"}, args...)
	out, err := execute(t, &admin{}, args...)
	var r report
	if out != "" {
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return r, err
}

// admin is the admin API of a server that creates accounts.
type admin struct{ rows string }

func (*admin) Call(context.Context, string, string, any, any) error { return errors.New("not called") }

func (a *admin) Stream(_ context.Context, _, _, _ string, body io.Reader, _ io.Writer) error {
	text, err := io.ReadAll(body)
	a.rows = string(text)
	return err
}

func TestEverythingArrives(t *testing.T) {
	r, err := through(t, nil, "-create", "-messages", "3000", "-binds", "3", "-recipients", "70")
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent != 3000 || r.Statuses["ESME_ROK"] != 3000 || r.Arrived != 3000 || r.Acknowledged != 3000 {
		t.Errorf("of 3000 messages it says %+v", r)
	}
	if r.Lost+r.Duplicates+r.OutOfOrder+r.Wrong+r.Strays+r.Timeouts != 0 {
		t.Errorf("nothing went wrong, but it says %+v", r)
	}
	if r.PerSecond <= 0 || r.LatencyMS.P99 <= 0 || r.LatencyMS.P99 < r.LatencyMS.P50 || r.ArrivalMS.Max <= 0 {
		t.Errorf("it measures %+v", r)
	}
}

func TestOpenLoop(t *testing.T) {
	r, err := through(t, nil, "-create", "-rate", "2000", "-duration", "500ms")
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent < 500 || r.Sent > 1001 || r.Arrived != r.Sent {
		t.Errorf("half a second at 2000/s: %+v", r)
	}
}

func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		fate   func(n int) (int, pdu.Status)
		verify func(r report) bool
		says   string
	}{
		{"lost", func(n int) (int, pdu.Status) { return min(n, 1), wire.ROK },
			func(r report) bool { return r.Lost == 1 && r.Arrived == 99 }, "1 of 100 acknowledged messages were lost"},
		{"twice", func(n int) (int, pdu.Status) { return 1 + n/99, wire.ROK },
			func(r report) bool { return r.Duplicates == 1 && r.Arrived == 100 }, "1 messages arrived twice"},
		{"throttled", func(n int) (int, pdu.Status) { return 0, wire.RThrottled },
			func(r report) bool { return r.Throttled == 100 && r.Acknowledged == 0 }, errNothing.Error()},
		{"refused", func(n int) (int, pdu.Status) {
			if n%2 == 0 {
				return 0, wire.RInvDstAdr
			}
			return 1, wire.ROK
		}, func(r report) bool { return r.Statuses["ESME_RINVDSTADR"] == 50 && r.Arrived == 50 && r.Lost == 0 }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := through(t, func(g *gateway) { g.fate = c.fate }, "-create", "-messages", "100")
			if !c.verify(r) {
				t.Errorf("it reports %+v", r)
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || err.Error() != c.says) {
				t.Errorf("it says %v, want %q", err, c.says)
			}
		})
	}
}

func TestBindsAsTheAccount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("sesame\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	strict := func(g *gateway) { g.password = "sesame" }
	if _, err := through(t, strict, "-system-id", "esme", "-password-file", file, "-messages", "10"); err != nil {
		t.Error(err)
	}
	if _, err := through(t, strict, "-system-id", "esme", "-messages", "10"); err == nil || !strings.Contains(err.Error(), "ESME_RINVPASWD") {
		t.Errorf("without the password it says %v", err)
	}
}

func TestCreatesAnAccount(t *testing.T) {
	var a admin
	l, err := createAccount(t.Context(), &a, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.systemID) > 15 || len(l.password) > 8 {
		t.Errorf("no bind can carry %+v", l)
	}
	want := "aor,password,balance,attributes\n" + l.systemID + "@bench.example.com," + l.password + ",100000000.00,smpp.binds=3;smpp.senders=[+][0-9]*\n"
	if a.rows != want {
		t.Errorf("it imports %q, want %q", a.rows, want)
	}
}

func TestSink(t *testing.T) {
	address := freeAddress(t)
	type result struct {
		out string
		err error
	}
	finished := make(chan result, 1)
	go func() {
		out, err := execute(t, nil, "-sink", "-listen", address, "-warmup", "0s", "-patience", "100ms", "-json")
		finished <- result{out, err}
	}()
	g := &gateway{smsc: address, ready: make(chan struct{})}
	go g.connect(t)
	<-g.ready
	s := g.out
	form, err := newTemplate("MARK", "442079460001", 100)
	if err != nil {
		t.Fatal(err)
	}
	other := form
	other.run = "OTHER"
	for i := range 50 {
		s.out = form.append(s.out, uint32(i+10), i%1000, 7, i)
	}
	s.out = form.append(s.out, 100, 0, 7, 49)
	s.out = other.append(s.out, 101, 0, 7, 50)
	s.out = form.append(s.out, 102, 0, 7, maxSequence-1)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	got := <-finished
	if got.err == nil || got.err.Error() != "1 messages arrived with another text" {
		t.Errorf("it says %v", got.err)
	}
	var r report
	if err := json.Unmarshal([]byte(got.out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Arrived != 50 || r.Duplicates != 1 || r.Strays != 1 || r.Wrong != 1 || r.Mode != modeSink {
		t.Errorf("it reports %+v", r)
	}
}

func TestGatewayThatNeverBinds(t *testing.T) {
	k, err := openSink(t.Context(), "127.0.0.1:0", "", newTally(true, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	if err := k.awaitBind(t.Context(), time.Millisecond); !errors.Is(err, errNoBind) {
		t.Errorf("it says %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"argument"}, {"-create", "-system-id", "x"}, {"-sink", "-create"}, {"-create", "-window", "1", "-rate", "1"},
		{"-create", "-window", "-1"}, {"-create", "-rate", "-1"}, {"-create", "-size", "161"}, {"-create", "-size", "49"},
		{"-create", "-binds", "0"}, {"-create", "-recipients", "1001"}, {"-create", "-from", "+44"}, {"-create", "-server", "host"},
		{"-create", "-listen", ":1"}, {"-create", "-duration", "1h"}, {"-create", "-patience", "-1s"}, {"-create", "-pid", "x"},
	} {
		if _, err := execute(t, nil, args...); !isUsage(err) {
			t.Errorf("%q is not called wrong usage but %v", args, err)
		}
	}
}

func isUsage(err error) bool {
	_, is := errors.AsType[plugin.ErrUsage](err)
	return is
}

func TestTable(t *testing.T) {
	r := &report{Mode: modeThrough, Window: 50, Statuses: map[string]uint64{"ESME_ROK": 3}, Server: &process{MicrosPerMessage: 51.5, Resident: 3 << 20}}
	var b strings.Builder
	if err := r.writeTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"closed loop with window 50", "answered ESME_ROK", "51.5 µs CPU a message, 3 MB resident", "not known"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q isn't in\n%s", want, b.String())
		}
	}
}

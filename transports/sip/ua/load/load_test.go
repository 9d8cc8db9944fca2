package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/internal/fakesip"
)

const domain = "sip.example.com"

// fake starts a server with ten accounts, and returns them for the generator.
func fake(t *testing.T, c fakesip.Config) (*fakesip.Server, []*account) {
	t.Helper()
	c.Domain, c.Accounts = domain, map[string]string{}
	var accounts []*account
	for i := range 10 {
		name := fmt.Sprintf("u%d", i)
		c.Accounts[name] = "secret-" + name
		a, err := newAccount(i, name+"@"+domain, c.Accounts[name])
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, a)
	}
	return fakesip.Start(t, c), accounts
}

func quick(s *fakesip.Server) settings {
	return settings{
		mode: modeOnline, servers: []string{s.Address()}, window: 8, messages: 200, duration: time.Minute,
		patience: time.Second, size: 100, sockets: 2, notes: io.Discard,
		timers: timers{t1: 50 * time.Millisecond, t2: 200 * time.Millisecond},
	}
}

// counts are what a report says exactly.
type counts struct {
	sent, ok, accepted, timeouts, acknowledged, delivered, lost, duplicates, disordered, wrong uint64
}

func countsOf(r *report) counts {
	return counts{
		r.Sent, r.Finals["200"], r.Finals["202"], r.Timeouts, r.Acknowledged,
		r.Delivered, r.Lost, r.Duplicates, r.OutOfOrder, r.Wrong,
	}
}

// nth says yes to these numbers.
func nth(numbers ...int) func(int) bool {
	return func(n int) bool {
		for _, number := range numbers {
			if n == number {
				return true
			}
		}
		return false
	}
}

func every(k int) func(int) bool { return func(n int) bool { return n%k == 0 } }

func TestReportSaysExactlyWhatHappened(t *testing.T) {
	for _, c := range []struct {
		name   string
		config fakesip.Config
		change func(*settings)
		want   counts
	}{
		{"all is well", fakesip.Config{}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"SHA-256", fakesip.Config{Algorithms: []string{"SHA-256", "MD5"}}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"IPv6", fakesip.Config{Host: "::1"}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"nonces for three requests", fakesip.Config{NonceUses: 3}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"requests dropped", fakesip.Config{DropRequest: every(7)}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"responses dropped", fakesip.Config{DropResponse: every(7)}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"lost", fakesip.Config{Lose: nth(3, 77, 150)}, nil,
			counts{sent: 200, ok: 197, accepted: 3, acknowledged: 200, delivered: 197, lost: 3}},
		{"delivered twice", fakesip.Config{Duplicate: nth(5, 6, 100, 199)}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200, duplicates: 4}},
		{"retransmitted by the server", fakesip.Config{Repeat: every(2)}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"damaged", fakesip.Config{Damage: nth(9)}, nil,
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 199, lost: 1, wrong: 1}},
		{"refused", fakesip.Config{Answer: func(string) (int, string, []string) { return 402, "Payment Required", nil }}, nil,
			counts{sent: 200}},
		{"open loop", fakesip.Config{}, func(s *settings) { s.window, s.rate = 0, 2000 },
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"one at a time over one socket", fakesip.Config{}, func(s *settings) { s.window, s.sockets = 1, 1 },
			counts{sent: 200, ok: 200, acknowledged: 200, delivered: 200}},
		{"offline", fakesip.Config{}, func(s *settings) { s.mode = modeOffline },
			counts{sent: 200, accepted: 200, acknowledged: 200, delivered: 200}},
		{"offline, lost and twice", fakesip.Config{Lose: nth(10, 11), Duplicate: nth(1)}, func(s *settings) { s.mode = modeOffline },
			counts{sent: 200, accepted: 200, acknowledged: 200, delivered: 198, lost: 2, duplicates: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, accounts := fake(t, c.config)
			s := quick(server)
			if c.change != nil {
				c.change(&s)
			}
			r, err := measure(t.Context(), s, accounts)
			if err != nil {
				t.Fatal(err)
			}
			if got := countsOf(r); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			if failed := r.verdict() != nil; failed != (c.want.lost > 0 || c.want.wrong > 0 || c.want.acknowledged == 0) {
				t.Errorf("verdict %v", r.verdict())
			}
			for i := range accounts {
				if _, ok := server.Contact(fmt.Sprintf("u%d", i)); ok {
					t.Errorf("u%d is still registered", i)
				}
			}
		})
	}
}

// With two users there are two pairs, so that what is held back is followed by
// a message of the same pair.
func TestReportCountsDisorder(t *testing.T) {
	server, accounts := fake(t, fakesip.Config{Hold: nth(1, 2)})
	s := quick(server)
	s.mode, s.window, s.sockets, s.messages = modeOffline, 1, 1, 40
	r, err := measure(t.Context(), s, accounts[:2])
	if err != nil {
		t.Fatal(err)
	}
	want := counts{sent: 40, accepted: 40, acknowledged: 40, delivered: 40, disordered: 2}
	if got := countsOf(r); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSilentServerMeansTimeouts(t *testing.T) {
	registered := 2 * 2 // wiping: a challenge and an answer for both users
	server, accounts := fake(t, fakesip.Config{DropRequest: func(n int) bool { return n > registered && n < 1000 }})
	s := quick(server)
	s.mode, s.window, s.sockets, s.messages = modeOffline, 1, 1, 2
	s.timers = timers{t1: 5 * time.Millisecond, t2: 20 * time.Millisecond}
	s.patience = 0
	p, err := newRun(t.Context(), s, accounts[:2])
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.register(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	before, err := p.send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := p.report(before, before)
	if r.Sent != 2 || r.Timeouts != 2 || r.Repeats < 4 || r.Acknowledged != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestClosedLoopKeepsItsWindowFull(t *testing.T) {
	server, accounts := fake(t, fakesip.Config{})
	s := quick(server)
	s.window, s.sockets = 8, 1
	r, err := newRun(t.Context(), s, accounts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	e := r.endpoints[0]
	f := e.messages(pace{window: s.window}, 100, time.Now().Add(time.Hour))
	e.startAll(f, time.Now())
	if e.outstanding != s.window {
		t.Errorf("%d outstanding, want %d", e.outstanding, s.window)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	server, accounts := fake(t, fakesip.Config{})
	s := quick(server)
	s.messages, s.warmup = 0, time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	server.OnRegister("u9", cancel)
	if _, err := measure(ctx, s, accounts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, ok := server.Contact("u0"); ok {
		t.Error("u0 is still registered")
	}
}

func TestRunFailsForAReason(t *testing.T) {
	for _, c := range []struct {
		name   string
		config fakesip.Config
		change func(*settings, []*account)
		want   string
	}{
		{"wrong password", fakesip.Config{}, func(_ *settings, a []*account) { a[3].login.password = "wrong" }, "register u3@sip.example.com: the server answered 401"},
		{"nobody there", fakesip.Config{}, func(s *settings, _ []*account) { s.servers = []string{"127.0.0.1:1"} }, "nobody listens at 127.0.0.1:1"},
		{"unknown algorithm", fakesip.Config{Algorithms: []string{"TOMORROW-1"}}, nil, "credentials of a kind"},
		{"silent server", fakesip.Config{DropRequest: func(int) bool { return true }}, func(s *settings, _ []*account) { s.timers = timers{time.Millisecond, time.Millisecond} }, "no answer from"},
		{"window too large", fakesip.Config{}, func(s *settings, _ []*account) { s.window = 1000 }, "too few for a window of 1000"},
		{"no such process", fakesip.Config{}, func(s *settings, _ []*account) { s.pid = "0" }, "usage of process 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, accounts := fake(t, c.config)
			s := quick(server)
			if c.change != nil {
				c.change(&s, accounts)
			}
			if _, err := measure(t.Context(), s, accounts); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestRegistrationsMustOutlastTheRun(t *testing.T) {
	r := &run{registered: time.Now().Add(-2 * time.Second), endpoints: []*endpoint{{}, {granted: time.Second}}}
	if err := r.checkRegistrations(); err == nil {
		t.Error("no error")
	}
	r.endpoints[1].granted = time.Hour
	if err := r.checkRegistrations(); err != nil {
		t.Error(err)
	}
}

// command runs bench as the command line does.
func command(t *testing.T, in plugin.Invocation, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	in.Out, in.Err = &out, io.Discard
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	run := Command.Setup(flags)
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	in.Args = flags.Args()
	err := run(t.Context(), in)
	return out.String(), err
}

func TestCommandReadsAccountsAndReports(t *testing.T) {
	server, accounts := fake(t, fakesip.Config{})
	file := filepath.Join(t.TempDir(), "accounts.csv")
	rows := "aor,password,balance\n"
	for _, a := range accounts {
		rows += a.aor + "," + a.login.password + ",10.00\n"
	}
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--accounts", file, "--server", server.Address(), "--messages", "20", "--window", "4", "--warmup", "0s"}
	table, err := command(t, plugin.Invocation{}, args...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table, "answered 200") || !strings.Contains(table, "lost") {
		t.Errorf("table:\n%s", table)
	}
	document, err := command(t, plugin.Invocation{}, append(args, "--json", "--mode", "offline")...)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal([]byte(document), &r); err != nil {
		t.Fatal(err)
	}
	if r.Sent != 20 || r.Finals["202"] != 20 || r.Drain == nil || r.Drain.Delivered != 20 {
		t.Errorf("got %s", document)
	}
}

// admin takes accounts for a fake server that isn't there yet.
type admin struct{ path, contentType, body string }

func (a *admin) Call(context.Context, string, string, any, any) error { return errors.ErrUnsupported }

func (a *admin) Stream(_ context.Context, method, path, contentType string, body io.Reader, _ io.Writer) error {
	text, err := io.ReadAll(body)
	a.path, a.contentType, a.body = method+" "+path, contentType, string(text)
	return err
}

func TestCreateAccounts(t *testing.T) {
	var a admin
	accounts, err := createAccounts(t.Context(), &a, domain, 2)
	if err != nil {
		t.Fatal(err)
	}
	if a.path != "POST /v1/accounts/import" || a.contentType != "text/csv" {
		t.Errorf("%s with %s", a.path, a.contentType)
	}
	read, err := readAccounts(strings.NewReader(a.body), 10)
	if err != nil || len(read) != 2 || !strings.HasSuffix(read[1].aor, "-2@sip.example.com") || read[1].login.password != accounts[1].login.password {
		t.Errorf("wrote %q, read back %v, %v", a.body, read, err)
	}
	if again, err := createAccounts(t.Context(), &a, domain, 2); err != nil || again[0].aor == accounts[0].aor {
		t.Errorf("the next run has %s again, %v", accounts[0].aor, err)
	}
	if !strings.HasPrefix(a.body, "aor,password,balance\n") {
		t.Errorf("header of %q", a.body)
	}
}

func TestReadAccounts(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"nothing", "", "read the header"},
		{"no password", "aor,balance\na@b,1\n", "columns aor and password"},
		{"not an address", "aor,password\na@b,x\nnobody,x\n", "line 3"},
		{"a user that needs escaping", "aor,password\na/b@c,x\n", "line 2"},
		{"too few columns", "aor,password\na@b\n", "wrong number of fields"},
	} {
		if _, err := readAccounts(strings.NewReader(c.file), 10); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	accounts, err := readAccounts(strings.NewReader("password,balance,aor\nx,1,a@b\ny,1,+43@b\nz,1,c@b\n"), 2)
	if err != nil || len(accounts) != 2 || accounts[1].aor != "+43@b" || accounts[1].login.password != "y" {
		t.Errorf("got %v, %v", accounts, err)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range []string{
		"", "--create --accounts x", "--create --mode drain", "--create --window 1 --rate 1", "--create --window -1", "--create --rate -1",
		"--create --rate NaN", "--create --users 1", "--create --messages -1", "--create --duration -1s", "--create --duration 2h",
		"--create --warmup -1s", "--create --size 1", "--create --sockets 0", "--create --pid -1", "--create --patience -1s", "--create surplus",
	} {
		if _, err := command(t, plugin.Invocation{Admin: &admin{}}, strings.Fields(args)...); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

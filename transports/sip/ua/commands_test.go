package ua

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/internal/fakesip"
)

// settings are a configuration as commands see it.
type settings struct{ address string }

func (settings) Validate() error               { return nil }
func (s settings) ClientAddress(string) string { return s.address }

// run calls a command as the command line does.
func run(ctx context.Context, path string, in plugin.Invocation, args ...string) error {
	for _, c := range Commands {
		if c.Path != path {
			continue
		}
		flags := flag.NewFlagSet(path, flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		command := c.Setup(flags)
		if err := flags.Parse(args); err != nil {
			return err
		}
		in.Args = flags.Args()
		return command(ctx, in)
	}
	return errors.New("no command " + path)
}

func TestSendSaysWhatBecameOfIt(t *testing.T) {
	for _, c := range []struct {
		code          int
		reason        string
		output, fails string
	}{
		{200, "OK", "delivered: the recipient's device has it\n", ""},
		{202, "Accepted", "accepted: on its way, or kept until the recipient comes online\n", ""},
		{402, "Payment Required", "", "refused (402 Payment Required): the account's balance is too low"},
		{404, "Not\x1b[31m Found", "", `refused (404 Not\x1b[31m Found): nobody has this address`},
	} {
		s := fake(t, fakesip.Config{Answer: func(string) (int, string, []string) { return c.code, c.reason, nil }})
		var out bytes.Buffer
		err := run(t.Context(), "send", plugin.Invocation{Out: &out, In: strings.NewReader("from stdin"), Settings: settings{s.Address()}},
			"--password", "one", "1001@"+domain, "1002@"+domain, "-")
		if out.String() != c.output || errorText(err) != c.fails {
			t.Errorf("%d: got %q and %q", c.code, out.String(), errorText(err))
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestSendWithoutAnAnswerSaysThatItDoesNotKnow(t *testing.T) {
	s := fake(t, fakesip.Config{DropRequest: func(int) bool { return true }})
	err := run(t.Context(), "send", plugin.Invocation{Out: io.Discard}, "--server", s.Address(), "--timeout", "5ms", "1001@"+domain, "1002@"+domain, "hello")
	if !strings.Contains(errorText(err), "it isn't known whether the message was taken") {
		t.Errorf("got %v", err)
	}
}

// TestSendToTheNodeThatTakesTraffic: whichever of those that were named.
func TestSendToTheNodeThatTakesTraffic(t *testing.T) {
	waits := fake(t, fakesip.Config{Standby: func() bool { return true }})
	s := fake(t, fakesip.Config{})
	var out bytes.Buffer
	err := run(t.Context(), "send", plugin.Invocation{Out: &out}, "--server", waits.Address(), "--server", s.Address(),
		"--password", "one", "1001@"+domain, "1002@"+domain, "hello")
	if err != nil || !strings.HasPrefix(out.String(), "accepted: ") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"send"},
		{"send", "1001", "1002@x", "hello"},
		{"send", "1001@x", "bob", "hello"},
		{"send", "--expires", "-1s", "1001@x", "1002@x", "hello"},
		{"send", "--type", "text", "1001@x", "1002@x", "hello"},
		{"listen"},
		{"listen", "1001"},
		{"send", "--transport", "sctp", "1001@x", "1002@x", "hello"},
		{"listen", "--count", "-1", "1001@x"},
		{"listen", "--transport", "udp", "--server", "tcp://x", "1001@x"},
		{"bench"},
		{"bench", "x"},
	} {
		err := run(t.Context(), args[0], plugin.Invocation{Out: io.Discard, Err: io.Discard}, args[1:]...)
		if !errors.As(err, new(plugin.ErrUsage)) && !slices.Contains(args, "-1s") { // that the flag package refuses
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestReadTextHasALimit(t *testing.T) {
	if body, err := readText("-", strings.NewReader(strings.Repeat("x", maxText))); err != nil || len(body) != maxText {
		t.Errorf("at the limit: %d octets, %v", len(body), err)
	}
	if _, err := readText("-", strings.NewReader(strings.Repeat("x", maxText+1))); err == nil {
		t.Error("over the limit: no error")
	}
}

// lines is a writer that hands on what is written to it.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func TestListenPrintsWhatArrivesAndUnregisters(t *testing.T) {
	s := fake(t, fakesip.Config{})
	out := make(lines, 10)
	var ended sync.WaitGroup
	ended.Go(func() {
		err := run(t.Context(), "listen", plugin.Invocation{Out: out, Err: io.Discard},
			"--server", s.Address(), "--password", "two", "--count", "2", "1002@"+domain)
		if err != nil {
			t.Error(err)
		}
	})
	if got := <-out; got != "listening as 1002@sip.example.com\n" {
		t.Errorf("got %q", got)
	}
	alice := dial(t, s, "1001", nil)
	send(t, alice, "1002", "hello\x1b[2J")
	if got := <-out; !strings.HasSuffix(got, "  1001@sip.example.com  hello\\x1b[2J\n") {
		t.Errorf("got %q", got)
	}
	send(t, alice, "1002", "bye")
	ended.Wait()
	if _, ok := s.Contact("1002"); ok {
		t.Error("still registered")
	}
}

func TestListenEndsWithItsContext(t *testing.T) {
	s := fake(t, fakesip.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	s.OnRegister("1002", cancel)
	err := run(ctx, "listen", plugin.Invocation{Out: io.Discard, Err: io.Discard}, "--server", s.Address(), "--password", "two", "1002@"+domain)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestListenEndsWithItsTerminal: who closes it is unregistered all the same.
func TestListenEndsWithItsTerminal(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		s := fake(t, fakesip.Config{})
		out := make(lines, 1)
		ended := make(chan error)
		go func() {
			ended <- run(t.Context(), "listen", plugin.Invocation{Out: out, Err: io.Discard},
				"--server", s.Address(), "--transport", network, "--password", "two", "1002@"+domain)
		}()
		<-out // so the signal has somebody who takes it
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, ok := s.Contact("1002"); ok {
			t.Errorf("%s: still registered", network)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestListenRefusesWhatItCannotPrint(t *testing.T) {
	l := &listener{out: broken{}, endless: true, ended: make(chan struct{})}
	for range 2 {
		if l.handle(Incoming{}) {
			t.Error("a message that wasn't printed was taken")
		}
	}
	<-l.ended
	if !errors.Is(l.failed, io.ErrClosedPipe) {
		t.Errorf("ended with %v", l.failed)
	}
}

func TestLines(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	evil := "a\x1b]0;x\x07\r\n\u009b2J\u202eb\xff \U0001f44d"
	for _, c := range []struct {
		name string
		in   Incoming
		want string
	}{
		{"plain", Incoming{From: user("1001"), ContentType: "text/plain;charset=UTF-8", Body: []byte("hello")}, "12:00:00  1001@sip.example.com  hello\n"},
		{"sent yesterday", Incoming{From: user("1001"), ContentType: "text/plain", Body: []byte("hello"), Date: now.Add(-24 * time.Hour)}, "2026-03-03 12:00:00  1001@sip.example.com  hello\n"},
		{"of another type", Incoming{From: user("1001"), ContentType: "text/\x1bhtml", Body: []byte("<p>")}, "12:00:00  1001@sip.example.com  [text/\\x1bhtml] <p>\n"},
		{"evil", Incoming{From: user("\x1b[1m"), ContentType: "text/plain", Body: []byte(evil)},
			"12:00:00  \\x1b[1m@sip.example.com  a\\x1b]0;x\\x07\\r\\n\\u009b2J\\u202eb\\xff \U0001f44d\n"},
	} {
		if got := string(textLine(c.in, now)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestJSONLine(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	line := jsonLine(Incoming{From: user("1001"), To: user("1002"), ContentType: "text/plain", Body: []byte("a\x1b\u009b\U000e0001 \U0001f44d"), CallID: "c"}, now)
	want := `{"from":"1001@sip.example.com","to":"1002@sip.example.com","type":"text/plain","text":"a\u001b\u009b\udb40\udc01 ` + "\U0001f44d" + `","call_id":"c","date":"2026-03-04T12:00:00Z"}` + "\n"
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	var decoded struct{ Text string }
	if err := json.Unmarshal(line, &decoded); err != nil || decoded.Text != "a\x1b\u009b\U000e0001 \U0001f44d" {
		t.Errorf("read back as %q, %v", decoded.Text, err)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("hello")
	f.Add("\x1b[31m\x9b\u009b\u202e\xff")
	f.Fuzz(func(t *testing.T, text string) {
		shown := Printable(text)
		if !isPrintable(shown) {
			t.Errorf("%q is shown as %q", text, shown)
		}
		if isPrintable(text) && shown != text {
			t.Errorf("%q is harmless and was changed", text)
		}
	})
}

func TestWordsForEveryCode(t *testing.T) {
	for _, c := range []struct {
		result Result
		want   string
	}{
		{Result{Code: 206, Reason: "Hm"}, "accepted (206 Hm)"},
		{Result{Code: 302, Reason: "Moved"}, "refused (302 Moved): the recipient is to be reached elsewhere"},
		{Result{Code: 415, Reason: "Unsupported Media Type", Accept: "text/plain"}, "refused (415 Unsupported Media Type): messages of this type aren't allowed; allowed: text/plain"},
		{Result{Code: 480, Reason: "Temporarily Unavailable", RetryAfter: 5 * time.Second}, "refused (480 Temporarily Unavailable): the recipient can't be reached now, and the message isn't kept; try again in 5s"},
		{Result{Code: 499, Reason: "X"}, "refused (499 X): the request can't be fulfilled"},
		{Result{Code: 599, Reason: "X"}, "refused (599 X): the server failed"},
		{Result{Code: 699, Reason: "X"}, "refused (699 X): the recipient can't be reached anywhere"},
	} {
		if got := c.result.Words(); got != c.want {
			t.Errorf("%d: %s\nwant %s", c.result.Code, got, c.want)
		}
	}
}

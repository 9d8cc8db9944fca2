package smsc

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// buffer is a terminal that several write to.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// command is `imgate smsc` at work.
type command struct {
	out, err buffer
	in       *io.PipeWriter
	done     chan error
}

var listening = regexp.MustCompile(`listening on (\S+)\n`)

// start runs the command until the end of the test, or its own.
func start(t *testing.T, args ...string) *command {
	t.Helper()
	flags := flag.NewFlagSet("smsc", flag.ContinueOnError)
	run := Commands[0].Setup(flags)
	if err := flags.Parse(append([]string{"-listen", "127.0.0.1:0"}, args...)); err != nil {
		t.Fatal(err)
	}
	in, typed := io.Pipe()
	c := &command{in: typed, done: make(chan error, 1)}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		c.done <- run(ctx, plugin.Invocation{Args: flags.Args(), In: in, Out: &c.out, Err: &c.err})
		close(c.done)
	}()
	t.Cleanup(func() {
		stop()
		typed.Close()
		<-c.done
	})
	return c
}

// connect binds an ESME to it.
func (c *command) connect(t *testing.T, systemID, password string) (*esme, pdu.Status) {
	t.Helper()
	var found []string
	for deadline := time.Now().Add(soon); found == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it doesn't listen: %s", c.err.String())
		}
		found = listening.FindStringSubmatch(c.err.String())
	}
	e := dial(t, found[1])
	return e, e.bind(t, pdu.BindTransceiverID, systemID, password)
}

func TestCommandShowsMessages(t *testing.T) {
	c := start(t, "-count", "2")
	e, _ := c.connect(t, "esme", "")
	e.do(t, submit("hello\nworld \x1b"))
	e.do(t, submit("second"))
	if err := <-c.done; err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(c.out.String(), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "+447700900001 → +447700900002  hello⏎world") || !strings.Contains(lines[1], "second") {
		t.Errorf("it prints %q", c.out.String())
	}
}

func TestCommandShowsJSON(t *testing.T) {
	c := start(t, "-count", "1", "-json")
	e, _ := c.connect(t, "esme", "")
	e.do(t, submit("hello"))
	if err := <-c.done; err != nil {
		t.Fatal(err)
	}
	if got := c.out.String(); !strings.HasPrefix(got, `{"from":"+447700900001","to":"+447700900002","type":"text/plain;charset=utf-8","text":"hello","parts":1,`) {
		t.Errorf("it prints %q", got)
	}
}

func TestCommandSendsWhatIsTyped(t *testing.T) {
	c := start(t, "-mo", "447700900002 447700900001 at first")
	e, _ := c.connect(t, "esme", "")
	if got := string((<-e.came).Body.(*wire.Short).Text); got != "at first" {
		t.Errorf("--mo sends %q", got)
	}
	if _, err := c.in.Write([]byte("nonsense\n\n+447700900002 +447700900001  then this \n")); err != nil {
		t.Fatal(err)
	}
	if got := string((<-e.came).Body.(*wire.Short).Text); got != "then this" {
		t.Errorf("what is typed is sent as %q", got)
	}
	if !strings.Contains(c.err.String(), "expected FROM TO TEXT") {
		t.Errorf("of nonsense it says %q", c.err.String())
	}
}

func TestCommandAnswersBadly(t *testing.T) {
	c := start(t, "-fail", "ESME_RINVDSTADR")
	e, _ := c.connect(t, "esme", "")
	if got := e.do(t, submit("hello")).Status; got != wire.RInvDstAdr {
		t.Errorf("--fail answers with %s", wire.StatusName(got))
	}
	c = start(t, "-throttle", "1")
	e, _ = c.connect(t, "esme", "")
	if first, second := e.do(t, submit("one")).Status, e.do(t, submit("two")).Status; first != wire.ROK || second != wire.RThrottled {
		t.Errorf("--throttle answers with %s and %s", wire.StatusName(first), wire.StatusName(second))
	}
	c = start(t, "-delay", "50ms")
	e, _ = c.connect(t, "esme", "")
	began := time.Now()
	if e.do(t, submit("hello")); time.Since(began) < 50*time.Millisecond {
		t.Errorf("--delay answers after %s", time.Since(began))
	}
	c = start(t, "-silent")
	e, _ = c.connect(t, "esme", "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.session.Do(ctx, submit("hello"), nil); !errors.Is(err, wire.ErrNoAnswer) {
		t.Errorf("--silent answers: %v", err)
	}
}

func TestCommandAsksForThePassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, "-system-id", "esme", "-password-file", file)
	if _, got := c.connect(t, "esme", "other"); got != wire.RInvPaswd {
		t.Errorf("another password gets %s", wire.StatusName(got))
	}
	if _, got := c.connect(t, "esme", "sesame"); got != wire.ROK {
		t.Errorf("the password gets %s", wire.StatusName(got))
	}
}

func TestCommandUsage(t *testing.T) {
	for _, args := range [][]string{{"argument"}, {"-count", "-1"}, {"-fail", "nothing"}, {"-throttle", "-1"}} {
		c := start(t, args...)
		if _, wrong := errors.AsType[plugin.ErrUsage](<-c.done); !wrong {
			t.Errorf("%q is not called wrong usage", args)
		}
	}
	c := start(t, "-mo", "nonsense")
	if err := <-c.done; !errors.Is(err, errLine) {
		t.Errorf("--mo nonsense: %v", err)
	}
	c = start(t, "-password-file", filepath.Join(t.TempDir(), "none"))
	if err := <-c.done; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a password that isn't there: %v", err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"grüße 👋": "grüße 👋", "a\r\nb": "a⏎b", "\x1b[2J": "\ufffd[2J", "\u202e": "\ufffd", "\xff": "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

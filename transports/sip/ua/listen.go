package ua

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

const (
	listenExpires  = 5 * time.Minute // of a listener's registration: a forgotten one is soon gone
	registerWithin = 40 * time.Second
	partingWithin  = 5 * time.Second
)

func setupListen(flags *flag.FlagSet) plugin.Run {
	var secret password
	secret.declare(flags, "ADDRESS")
	var servers target.Names
	flags.Var(&servers, "server", target.Usage+target.Further)
	network := flags.String("transport", "", "`network`: "+target.Networks+" (default: udp)")
	var t trust
	t.declare(flags)
	count := flags.Int("count", 0, "end after so many messages; 0: go on until interrupted")
	asJSON := flags.Bool("json", false, "print each message as a JSON object on a line")

	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) != 1 {
			return plugin.Usage("expected ADDRESS, for example: 1001@sip.example.com")
		}
		address, err := message.ParseAddress(in.Args[0])
		if err != nil {
			return plugin.Usage("ADDRESS: %w", err)
		}
		if *count < 0 {
			return plugin.Usage("--count: expected a number of messages, 0 for no end")
		}
		config, err := listenConfig(servers, *network, t, in.Settings)
		if err != nil {
			return err
		}
		if config.Password, err = secret.read(); err != nil {
			return err
		}
		l := &listener{out: in.Out, err: in.Err, asJSON: *asJSON, left: *count, endless: *count == 0, ended: make(chan struct{})}
		config.Address, config.Handle, config.Again = address, l.handle, l.again
		return l.run(ctx, config)
	}
}

// listenConfig says where the server is: over one network, since a
// registration stays where it was made.
func listenConfig(servers target.Names, network string, t trust, settings plugin.Config) (Config, error) {
	config, err := configOf(servers, network, t, settings)
	if config.UDP != "" {
		config.TCP = ""
	}
	return config, err
}

// listener prints what an agent receives.
type listener struct {
	out, err io.Writer
	asJSON   bool
	printing sync.Mutex

	// These belong to the goroutine that calls handle.
	left    int // messages until the end
	endless bool
	over    bool

	ended  chan struct{}
	failed error // why printing ended; set before ended is closed
}

// run listens until ctx ends, which is no error, or enough messages came.
func (l *listener) run(ctx context.Context, config Config) error {
	// A terminal that is closed is an end like any other: the server shall know.
	ctx, stopSignals := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stopSignals()
	agent, err := Dial(ctx, config)
	if err != nil {
		return err
	}
	defer agent.Close()
	granted, err := l.register(ctx, agent)
	if err != nil {
		return err
	}
	l.note("listening as %s\n", Printable(config.Address.String()))
	keep, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		agent.KeepRegistered(keep, granted, func(err error) { fmt.Fprintf(l.err, "registration not renewed: %v\n", err) })
	}()

	select {
	case <-ctx.Done():
	case <-l.ended:
		err = l.failed
	}
	stop()
	<-kept
	parting, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingWithin)
	defer cancel()
	return errors.Join(err, agent.Unregister(parting))
}

// note prints what isn't a message. What was waiting may arrive before it.
func (l *listener) note(format string, args ...any) {
	l.printing.Lock()
	defer l.printing.Unlock()
	out := l.out
	if l.asJSON {
		out = l.err
	}
	fmt.Fprintf(out, format, args...)
}

func (l *listener) print(line []byte) error {
	l.printing.Lock()
	defer l.printing.Unlock()
	_, err := l.out.Write(line)
	return err
}

func (l *listener) register(ctx context.Context, agent *Agent) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, registerWithin)
	defer cancel()
	return agent.Register(ctx, listenExpires)
}

// handle prints a message. Only what was printed is answered with 200.
func (l *listener) handle(m Incoming) bool {
	if l.over {
		return false
	}
	if err := l.print(l.line(m, time.Now())); err != nil {
		l.end(fmt.Errorf("print a message: %w", err))
		return false
	}
	l.left--
	if !l.endless && l.left == 0 {
		l.end(nil)
	}
	return true
}

// again says that a message came twice: for a phone that doesn't look closely.
func (l *listener) again(m Incoming) {
	l.printing.Lock()
	defer l.printing.Unlock()
	fmt.Fprintf(l.err, "came again, and is shown once: Call-ID %s, CSeq %d\n", Printable(m.CallID), m.CSeq)
}

func (l *listener) end(err error) {
	l.over, l.failed = true, err
	close(l.ended)
}

func (l *listener) line(m Incoming, now time.Time) []byte {
	if l.asJSON {
		return jsonLine(m, now)
	}
	return textLine(m, now)
}

func textLine(m Incoming, now time.Time) []byte {
	kind := ""
	if media, _, err := mime.ParseMediaType(m.ContentType); err != nil || media != "text/plain" {
		kind = "[" + Printable(m.ContentType) + "] "
	}
	return fmt.Appendf(nil, "%s  %s  %s%s\n", clock(m.Date, now), Printable(m.From.String()), kind, Printable(string(m.Body)))
}

func jsonLine(m Incoming, now time.Time) []byte {
	date := m.Date
	if date.IsZero() {
		date = now
	}
	// Marshal can't fail: every field is text.
	line, _ := json.Marshal(struct {
		From   string `json:"from"`
		To     string `json:"to"`
		Type   string `json:"type"`
		Text   string `json:"text"`
		CallID string `json:"call_id"`
		Date   string `json:"date"`
	}{m.From.String(), m.To.String(), m.ContentType, string(m.Body), m.CallID, date.UTC().Format(time.RFC3339)})
	return append(printableJSON(line), '\n')
}

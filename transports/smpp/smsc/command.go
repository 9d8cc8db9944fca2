package smsc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Commands are what this package adds to the imgate command line.
var Commands = []plugin.Command{{
	Path:  "smsc",
	Short: "play an SMSC: show the SMS that come, and send some as phones would",
	Long: "Listens for SMPP, lets ESMEs bind, and prints each message that they send, joined if it came in parts, with a receipt to follow where one was asked for. " +
		"A line such as \"447700900002 447700900001 hello\" on standard input is an SMS from the first number to the second. " +
		"It is for trying things out: it keeps nothing and leads to nobody's phone. --delay, --throttle, --fail and --silent make it a bad one.",
	Setup: setup,
}}

// maxLine is the longest line of input, in octets.
const maxLine = 64 << 10

// originateWithin bounds how long a message waits until it is taken: for an ESME
// that binds as well.
const originateWithin = 30 * time.Second

// settings are what the flags say.
type settings struct {
	config   Config
	delay    time.Duration
	throttle float64
	fail     string
	silent   bool
	passFile string
	outcome  string
	mo       string
	count    int
	asJSON   bool
}

func setup(flags *flag.FlagSet) plugin.Run {
	var s settings
	flags.StringVar(&s.config.Listen, "listen", "127.0.0.1:2775", "`host:port` to listen on")
	flags.StringVar(&s.config.SystemID, "system-id", "", "the `system_id` that may bind; empty: any")
	flags.StringVar(&s.passFile, "password-file", "", "the `file` whose first line is the password of --system-id")
	flags.DurationVar(&s.delay, "delay", 0, "how long each answer takes")
	flags.Float64Var(&s.throttle, "throttle", 0, "how many messages, or parts of one, are taken in a second; others get ESME_RTHROTTLED; 0: all")
	flags.StringVar(&s.fail, "fail", "", "the `status` that answers every message: ESME_RINVDSTADR or 0x0b")
	flags.BoolVar(&s.silent, "silent", false, "answer no message")
	flags.DurationVar(&s.config.Receipts, "receipts", time.Second, "after how long receipts come; below 0: never")
	outcome := plugin.NewChoice(flags, "outcome", "what receipts say:", "delivered", "undeliverable", "expired", "rejected")
	flags.StringVar(&s.mo, "mo", "", "an `SMS` to begin with, once an ESME has bound: \"FROM TO TEXT\"")
	flags.IntVar(&s.count, "count", 0, "end after so many messages; 0: go on until interrupted")
	flags.BoolVar(&s.asJSON, "json", false, "print each message as a JSON object on a line")
	return func(ctx context.Context, in plugin.Invocation) error {
		s.outcome = outcome.Value
		return s.run(ctx, in)
	}
}

var outcomes = map[string]translate.State{
	"delivered": translate.Delivered, "undeliverable": translate.Undeliverable,
	"expired": translate.Expired, "rejected": translate.Rejected,
}

func (s settings) run(ctx context.Context, in plugin.Invocation) error {
	if len(in.Args) > 0 || s.count < 0 || s.throttle < 0 || s.delay < 0 {
		return plugin.Usage("expected no arguments, and no --count, --throttle or --delay below 0")
	}
	var err error
	if s.config.Answer, err = s.answers(); err != nil {
		return err
	}
	if s.config.Password, err = readPassword(s.passFile); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	shown := &printer{out: in.Out, asJSON: s.asJSON, left: s.count, stop: stop}
	s.config.Took, s.config.Outcome = shown.show, outcomes[s.outcome]
	s.config.Log = slog.New(slog.NewTextHandler(in.Err, nil))
	center, err := Listen(ctx, s.config)
	if err != nil {
		return err
	}
	fmt.Fprintf(in.Err, "listening on %s\n", center.Addr())
	var serving sync.WaitGroup
	serving.Go(func() { center.Serve(ctx) })
	defer serving.Wait()
	defer stop()
	if s.mo != "" {
		if err := originate(ctx, center, s.mo); err != nil {
			return err
		}
	}
	go readLines(ctx, center, in) // reading a terminal can't be interrupted; the process ends
	<-ctx.Done()
	serving.Wait()
	return shown.err
}

// answers makes what the flags say of how messages are answered.
func (s settings) answers() (func(Submit) Answer, error) {
	status := wire.ROK
	if s.fail != "" {
		var code translate.Code
		if err := code.UnmarshalText([]byte(s.fail)); err != nil {
			return nil, plugin.Usage("--fail: %w", err)
		}
		status = pdu.Status(code)
	}
	meter := meter{perSecond: s.throttle}
	return func(Submit) Answer {
		if s.throttle > 0 && !meter.takes(time.Now()) {
			return Answer{Status: wire.RThrottled}
		}
		return Answer{Status: status, After: s.delay, Silent: s.silent}
	}, nil
}

// meter counts what is taken in a second.
type meter struct {
	perSecond float64

	mu   sync.Mutex
	left float64
	last time.Time
}

func (m *meter) takes(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last.IsZero() {
		m.left = max(1, m.perSecond)
	} else {
		m.left = math.Min(max(1, m.perSecond), m.left+now.Sub(m.last).Seconds()*m.perSecond)
	}
	m.last = now
	if m.left < 1 {
		return false
	}
	m.left--
	return true
}

// maxPassword is in octets.
const maxPassword = 1024

func readPassword(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxPassword))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// printer prints the messages that come.
type printer struct {
	out    io.Writer
	asJSON bool
	left   int // messages until the end; 0: without end
	stop   context.CancelFunc
	err    error
}

// show prints a message. Calls come one after the other.
func (p *printer) show(m Message) {
	if p.err != nil {
		return
	}
	if _, err := p.out.Write(p.line(m, time.Now())); err != nil {
		p.err = fmt.Errorf("print a message: %w", err)
		p.stop()
		return
	}
	if p.left == 1 {
		p.stop()
	}
	p.left = max(0, p.left-1)
}

func (p *printer) line(m Message, now time.Time) []byte {
	if p.asJSON {
		// Marshal can't fail: every field is text or a number.
		line, _ := json.Marshal(struct {
			From  string `json:"from"`
			To    string `json:"to"`
			Type  string `json:"type"`
			Text  string `json:"text"`
			Parts int    `json:"parts"`
			Date  string `json:"date"`
		}{m.From, m.To, m.ContentType, string(m.Body), m.Parts, now.UTC().Format(time.RFC3339)})
		return append(line, '\n')
	}
	kind := ""
	if !strings.HasPrefix(m.ContentType, "text/plain") {
		kind = "[" + printable(m.ContentType) + "] "
	}
	return fmt.Appendf(nil, "%s  %s → %s  %s%s\n", now.Format(time.TimeOnly), printable(m.From), printable(m.To), kind, printable(string(m.Body)))
}

// printable replaces what a terminal would obey, and writes line breaks so that a
// message stays on its line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return '⏎'
		case r == ' ', unicode.IsPrint(r):
			return r
		case r == '\r':
			return -1
		}
		return unicode.ReplacementChar
	}, s)
}

// readLines sends what is typed, until there is no more.
func readLines(ctx context.Context, center *SMSC, in plugin.Invocation) {
	if in.In == nil {
		return
	}
	lines := bufio.NewScanner(in.In)
	lines.Buffer(nil, maxLine)
	for lines.Scan() && ctx.Err() == nil {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := originate(ctx, center, lines.Text()); err != nil && ctx.Err() == nil {
			fmt.Fprintln(in.Err, "not taken:", err)
		}
	}
}

var errLine = errors.New("expected FROM TO TEXT: two numbers and a text, for example: 447700900002 447700900001 hello")

// originate sends what a line says, once somebody is there to take it.
func originate(ctx context.Context, center *SMSC, line string) error {
	from, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	to, text, _ := strings.Cut(strings.TrimSpace(rest), " ")
	text = strings.TrimSpace(text)
	if !isNumber(from) || !isNumber(to) || text == "" {
		return errLine
	}
	ctx, cancel := context.WithTimeout(ctx, originateWithin)
	defer cancel()
	for {
		err := center.Originate(ctx, from, to, text)
		if !errors.Is(err, errNobody) {
			return err
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// isNumber: digits, perhaps with a + in front.
func isNumber(s string) bool {
	_, err := strconv.ParseUint(strings.TrimPrefix(s, "+"), 10, 64)
	return err == nil && len(s) <= 20
}

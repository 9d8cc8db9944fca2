// Package load is the generator behind `imgate bench smpp`: it submits messages
// to a gateway as ESMEs do, is the SMSC that they arrive at, and says exactly what
// became of each.
//
// It shares the machine with the gateway that it measures, so it is built to cost
// little: one goroutine a connection, PDUs written from a template, and one write
// for all that one read has brought. It must not know how the gateway works
// inside; of its code it uses the codec of PDUs only.
package load

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Command is the bench smpp command.
var Command = plugin.Command{
	Path:  "bench smpp",
	Short: "submit messages over SMPP, be the SMSC they arrive at, and measure both",
	Long: "Binds to a gateway as an ESME, submits messages to telephone numbers, in a closed loop (--window) or an open loop (--rate), " +
		"and listens as the SMSC that the gateway sends them on to: its configuration connects to --listen. Reports answers, latencies, and what was " +
		"lost, repeated or out of order. With --sink it is only the SMSC, for what `imgate bench --to` or another `imgate bench smpp` sends, " +
		"and ends when nothing has come for --patience. The exit status is 1 if a message that was acknowledged did not arrive, or one arrived twice.",
	Setup: setup,
}

// Limits of the flags.
const (
	maxBinds      = 64
	maxWindow     = 10_000
	maxRate       = 1_000_000
	maxMessages   = 100_000_000
	maxRecipients = 1000 // so many numbers are nobody's
	maxDuration   = 50 * time.Minute

	defaultWindow   = 50
	defaultDuration = 10 * time.Second
	defaultPatience = 40 * time.Second
	sinkPatience    = 5 * time.Second
)

// bench is a call of the command.
type bench struct {
	settings
	sink     bool
	create   bool
	passFile string
	asJSON   bool
}

func setup(flags *flag.FlagSet) plugin.Run {
	var b bench
	flags.StringVar(&b.server, "server", "127.0.0.1:2775", "`host:port` where the gateway takes ESMEs")
	flags.StringVar(&b.listen, "listen", "127.0.0.1:2776", "`host:port` where we are the SMSC")
	flags.BoolVar(&b.sink, "sink", false, "be the SMSC only, and count what arrives")
	flags.BoolVar(&b.create, "create", false, "create an account on the running server; it stays there")
	flags.StringVar(&b.login.systemID, "system-id", "", "bind as this account, which may bind --binds times and send from --from")
	flags.StringVar(&b.passFile, "password-file", "", "the `file` whose first line is its password")
	flags.StringVar(&b.from, "from", "442079460001", "the `number` that messages come from, without a +")
	flags.IntVar(&b.binds, "binds", 1, "how many binds submit, each with a goroutine of its own")
	flags.IntVar(&b.window, "window", 0, "closed loop: so many requests at a time on each bind (default 50)")
	flags.Float64Var(&b.rate, "rate", 0, "open loop: so many messages a second over all binds")
	flags.IntVar(&b.messages, "messages", 0, "end after so many messages")
	flags.DurationVar(&b.duration, "duration", 0, "end after this time (default 10s)")
	flags.DurationVar(&b.warmup, "warmup", 2*time.Second, "send for this time before anything is measured")
	flags.DurationVar(&b.patience, "patience", 0, "what was acknowledged and doesn't arrive counts as lost when nothing has arrived for this time (default 40s, with --sink 5s)")
	flags.IntVar(&b.size, "size", 100, "octets of each message")
	flags.IntVar(&b.recipients, "recipients", maxRecipients, "to how many numbers")
	flags.StringVar(&b.pid, "pid", "", "the gateway's process `id`, to measure what it uses")
	flags.BoolVar(&b.asJSON, "json", false, "report as JSON")
	return b.run
}

func (b *bench) run(ctx context.Context, in plugin.Invocation) error {
	if len(in.Args) > 0 {
		return plugin.Usage("%q: expected flags only", in.Args[0])
	}
	if err := b.check(); err != nil {
		return err
	}
	b.notes = in.Err
	if err := b.identify(ctx, in.Admin); err != nil {
		return err
	}
	work := measure
	if b.sink {
		work = count
	}
	result, err := work(ctx, b.settings)
	if err != nil {
		return err
	}
	if err := b.write(result, in.Out); err != nil {
		return err
	}
	return result.verdict()
}

// identify finds out as whom to bind.
func (b *bench) identify(ctx context.Context, admin plugin.AdminClient) (err error) {
	switch {
	case b.sink:
	case b.create:
		b.login, err = createAccount(ctx, admin, b.binds)
	default:
		b.login.password, err = readPassword(b.passFile)
	}
	return err
}

func (b *bench) write(result *report, out io.Writer) error {
	if b.asJSON {
		return result.writeJSON(out)
	}
	return result.writeTable(out)
}

// check completes the flags and says everything that is wrong with them.
func (b *bench) check() error {
	var wrong []error
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	expect(b.sink || b.create != (b.login.systemID != ""), "expected either --create or --system-id, or --sink")
	expect(!b.sink || !b.create && b.login.systemID == "", "--sink: it binds nowhere, so it needs no account")
	expect(b.window == 0 || b.rate == 0, "expected either --window or --rate")
	b.complete()
	expect(isHostPort(b.server), "--server: expected host:port")
	expect(isHostPort(b.listen), "--listen: expected host:port")
	expect(isNumber(b.from), "--from: expected 3 to 15 digits")
	expect(between(b.binds, 1, maxBinds), "--binds: expected 1 to %d", maxBinds)
	expect(between(b.window, 1, maxWindow), "--window: expected 1 to %d", maxWindow)
	expect(b.rate >= 0 && b.rate <= maxRate, "--rate: expected at most %d", maxRate)
	expect(between(b.messages, 0, maxMessages), "--messages: expected 1 to %d", maxMessages)
	expect(b.duration > 0 && b.warmup >= 0 && b.duration+b.warmup <= maxDuration, "--duration and --warmup: expected %s at most together", maxDuration)
	expect(b.patience > 0, "--patience: expected a duration such as 40s")
	expect(between(b.size, minSize, maxSize), "--size: expected %d to %d octets", minSize, maxSize)
	expect(between(b.recipients, 1, maxRecipients), "--recipients: expected 1 to %d", maxRecipients)
	expect(strings.Trim(b.pid, "0123456789") == "", "--pid: expected a process id")
	if len(wrong) == 0 {
		return nil
	}
	return plugin.Usage("%w", errors.Join(wrong...))
}

// complete fills in what depends on other flags.
func (b *bench) complete() {
	switch {
	case b.rate > 0:
		b.window = maxWindow
	case b.window == 0:
		b.window = defaultWindow
	}
	if b.duration == 0 {
		b.duration = defaultDuration
		if b.messages > 0 {
			b.duration = maxDuration - b.warmup
		}
	}
	if b.patience == 0 {
		b.patience = defaultPatience
		if b.sink {
			b.patience = sinkPatience
		}
	}
}

func between(n, low, high int) bool { return n >= low && n <= high }

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && port != ""
}

func isNumber(s string) bool { return between(len(s), 3, 15) && strings.Trim(s, "0123456789") == "" }

// maxLine is the longest first line of a file with a password, in octets.
const maxLine = 1024

func readPassword(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, maxLine))
	lines.Scan()
	return lines.Text(), lines.Err()
}

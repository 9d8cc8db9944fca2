// Package load is the generator behind `imgate bench`: it sends messages
// between many registered users over a few sockets, and says exactly what
// became of each.
//
// It shares the machine with the server that it measures, so it is built to
// cost little: one goroutine a socket, packets written from templates and read
// by scanning bytes. It is the yardstick: it must share no code with the
// server, nor know how the gateway works inside.
package load

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// Command is the bench command.
var Command = plugin.Command{
	Path:  "bench",
	Short: "send messages between many users and measure what becomes of them",
	Long: "Registers users, sends messages between random pairs of them, in a closed loop (--window) or an open loop (--rate), " +
		"and reports answers, latencies, and what was lost, repeated or out of order. With --mode offline the recipients are registered " +
		"only after everything was sent, and the report also says how fast it then arrived. " +
		"With --to the recipients are telephone numbers, and `imgate bench smpp --sink` counts what arrives there. " +
		"With several --server, nodes of one gateway, it follows the one that takes traffic, and reports the longest gaps of a fail-over. " +
		"The exit status is 1 if a message that was acknowledged did not arrive.",
	Setup: setup,
}

// The modes.
const (
	modeOnline  = "online"
	modeOffline = "offline"
	modeRelay   = "relay" // with --to
)

// Limits of the flags.
const (
	maxUsers    = 100_000
	maxWindow   = 10_000
	maxRate     = 1_000_000
	maxSockets  = 64
	maxMessages = 100_000_000
	maxDuration = 50 * time.Minute // registrations last an hour

	defaultWindow   = 64
	defaultDuration = 10 * time.Second
)

// bench is a call of the command.
type bench struct {
	settings
	users  int
	file   string
	create bool
	domain string
	named  target.Names
	asJSON bool
	pid    int
}

func setup(flags *flag.FlagSet) plugin.Run {
	b := bench{settings: settings{timers: standardTimers}}
	flags.IntVar(&b.users, "users", 200, "how many users")
	flags.StringVar(&b.file, "accounts", "", "the users: a CSV `file` as account import takes it")
	flags.BoolVar(&b.create, "create", false, "create new users on the running server; they stay there")
	flags.StringVar(&b.domain, "domain", "sip.example.com", "the domain of the users that are created")
	flags.Var(&b.named, "server", target.Usage+target.Further)
	flags.StringVar(&b.mode, "mode", modeOnline, "online: all are registered; offline: only after everything was sent")
	flags.StringVar(&b.to, "to", "", "send to telephone numbers in this `domain`, which lead elsewhere, instead of to the users")
	flags.IntVar(&b.window, "window", 0, "closed loop: so many requests at a time (default 64)")
	flags.Float64Var(&b.rate, "rate", 0, "open loop: so many messages a second")
	flags.IntVar(&b.messages, "messages", 0, "end after so many messages")
	flags.DurationVar(&b.duration, "duration", 0, "end after this time (default 10s)")
	flags.DurationVar(&b.warmup, "warmup", 2*time.Second, "send for this time before anything is measured")
	flags.DurationVar(&b.patience, "patience", 40*time.Second, "what was acknowledged and doesn't arrive counts as lost when nothing has arrived for this time")
	flags.IntVar(&b.size, "size", 100, "octets of each message")
	flags.IntVar(&b.sockets, "sockets", 2, "over so many sockets, each with a goroutine of its own")
	flags.IntVar(&b.pid, "pid", 0, "the server's process `id`, to measure what it uses")
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
	servers, err := b.named.Of("udp", in.Settings)
	if err != nil {
		return err
	}
	for _, s := range servers {
		b.servers = append(b.servers, s.UDP)
	}
	b.notes = in.Err
	accounts, err := b.accounts(ctx, in.Admin)
	if err != nil {
		return err
	}
	if len(accounts) < 2 {
		return errors.New("expected two accounts at least")
	}
	result, err := measure(ctx, b.settings, accounts)
	if err != nil {
		return err
	}
	if err := b.write(result, in); err != nil {
		return err
	}
	return result.verdict()
}

func (b *bench) accounts(ctx context.Context, admin plugin.AdminClient) ([]*account, error) {
	if b.create {
		return createAccounts(ctx, admin, b.domain, b.users)
	}
	return accountsFile(b.file, b.users)
}

func (b *bench) write(result *report, in plugin.Invocation) error {
	if b.asJSON {
		return result.writeJSON(in.Out)
	}
	return result.writeTable(in.Out)
}

// check completes the flags and says everything that is wrong with them.
func (b *bench) check() error {
	var wrong []error
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	expect(b.mode == modeOnline || b.mode == modeOffline, "--mode: expected online or offline")
	expect(b.to == "" || b.mode == modeOnline, "expected either --to or --mode")
	expect(b.create != (b.file != ""), "expected either --accounts FILE or --create")
	expect(b.window == 0 || b.rate == 0, "expected either --window or --rate")
	b.complete()
	expect(between(b.users, 2, maxUsers), "--users: expected 2 to %d", maxUsers)
	expect(b.rate > 0 || between(b.window, 1, maxWindow), "--window: expected 1 to %d", maxWindow)
	expect(b.rate >= 0 && b.rate <= maxRate, "--rate: expected at most %d", maxRate)
	expect(between(b.messages, 0, maxMessages), "--messages: expected 1 to %d", maxMessages)
	expect(b.duration > 0 && b.warmup >= 0 && b.duration+b.warmup <= maxDuration, "--duration and --warmup: expected %s at most together", maxDuration)
	expect(b.patience >= 0, "--patience: expected a duration such as 40s")
	expect(between(b.size, minSize, maxSize), "--size: expected %d to %d octets", minSize, maxSize)
	expect(between(b.sockets, 1, maxSockets), "--sockets: expected 1 to %d", maxSockets)
	expect(b.pid >= 0, "--pid: expected a process id")
	if len(wrong) == 0 {
		return nil
	}
	return plugin.Usage("%w", errors.Join(wrong...))
}

// complete fills in what depends on other flags.
func (b *bench) complete() {
	if b.window == 0 && b.rate == 0 {
		b.window = defaultWindow
	}
	if b.duration == 0 {
		b.duration = defaultDuration
		if b.messages > 0 {
			b.duration = maxDuration - b.warmup
		}
	}
	if b.to != "" {
		b.mode = modeRelay
	}
	if b.pid > 0 {
		b.settings.pid = strconv.Itoa(b.pid)
	}
}

func between(n, low, high int) bool { return n >= low && n <= high }

// Package idle is behind `imgate bench idle`: it registers many users, each over a
// connection of its own, says nothing more for a while, and tells what they cost the
// server in memory, and whether they can still be reached. It must not know how the
// gateway works inside.
package idle

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua"
	"github.com/imgate/imgate/transports/sip/ua/internal/process"
	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// Command is the bench idle command.
var Command = plugin.Command{
	Path:  "bench idle",
	Short: "register many users over connections of their own and measure what they cost in memory",
	Long: "Creates users on the running server, which stay there, registers each over a connection of its own, and says nothing more for --hold. " +
		"Then it says how much more memory the server has, for each of them, and sends a message to some of them. " +
		"The server's limits of connections must allow for that many from one address, and so must the limit of open files of both. " +
		"The exit status is 1 if one couldn't be registered or lost its connection, or if a message didn't arrive.",
	Setup: setup,
}

// Limits of the flags.
const (
	maxClients = 50_000
	// maxHold is less than the 15 minutes after which the server ends a connection
	// on which nothing comes.
	maxHold = 10 * time.Minute
)

// bench is a call of the command.
type bench struct {
	clients  int
	domain   string
	network  string
	server   string
	hold     time.Duration
	settle   time.Duration // how long the server rests before its memory is read
	messages int
	pid      int
	asJSON   bool
}

func setup(flags *flag.FlagSet) plugin.Run {
	b := bench{settle: 5 * time.Second}
	flags.IntVar(&b.clients, "clients", 1000, "how many users")
	flags.StringVar(&b.domain, "domain", "sip.example.com", "the domain of the users that are created")
	flags.StringVar(&b.network, "transport", "tcp", "over which `network`: tcp, tls, ws or wss; certificates aren't checked")
	flags.StringVar(&b.server, "server", "", target.Usage)
	flags.DurationVar(&b.hold, "hold", 30*time.Second, "how long they say nothing before the memory is read")
	flags.IntVar(&b.messages, "messages", 100, "how many of them are sent a message afterwards")
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
	at, err := target.Of(b.server, b.network, in.Settings)
	if err != nil {
		return err
	}
	if _, err := b.usage(); err != nil {
		return err
	}
	c, err := b.create(ctx, in, ua.Trusting(at))
	if err != nil {
		return err
	}
	defer c.close(ctx, closeWithin)
	result, err := b.measure(ctx, c)
	if err != nil {
		return err
	}
	if err := b.write(result, in.Out); err != nil {
		return err
	}
	return result.verdict()
}

// check says everything that is wrong with the flags.
func (b *bench) check() error {
	var wrong []error
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	expect(b.clients >= 2 && b.clients <= maxClients, "--clients: expected 2 to %d", maxClients)
	_, err := message.ParseAddress("user@" + b.domain)
	expect(err == nil, "--domain: expected a domain such as sip.example.com")
	expect(b.network != "udp", "--transport: expected tcp, tls, ws or wss")
	expect(b.hold >= 0 && b.hold <= maxHold, "--hold: expected at most %s", maxHold)
	expect(b.messages >= 0 && b.messages <= b.clients, "--messages: expected at most as many as there are --clients")
	expect(b.pid > 0, "--pid: expected the server's process id")
	if len(wrong) == 0 {
		return nil
	}
	return plugin.Usage("%w", errors.Join(wrong...))
}

// create makes accounts whose names are new in every run.
func (b *bench) create(ctx context.Context, in plugin.Invocation, config ua.Config) (*crowd, error) {
	name := strings.ToLower(rand.Text()[:8])
	config.Password = rand.Text()
	var rows strings.Builder
	rows.WriteString("aor,password,balance\n")
	c := &crowd{notes: in.Err}
	for i := range b.clients {
		config.Address = message.Address{User: fmt.Sprintf("idle-%s-%d", name, i+1), Host: b.domain}
		c.members = append(c.members, newMember(config))
		fmt.Fprintf(&rows, "%s,%s,1000.00\n", config.Address, config.Password)
	}
	if err := in.Admin.Stream(ctx, "POST", "/v1/accounts/import", "text/csv", strings.NewReader(rows.String()), io.Discard); err != nil {
		return nil, fmt.Errorf("create %d accounts: %w", b.clients, err)
	}
	return c, nil
}

// measure registers all, lets them be, and looks what became of them.
func (b *bench) measure(ctx context.Context, c *crowd) (*report, error) {
	before, err := b.rested(ctx)
	if err != nil {
		return nil, err
	}
	took, err := c.register(ctx)
	if err != nil {
		return nil, err
	}
	registered, err := b.usage()
	if err != nil {
		return nil, err
	}
	c.note("%d registered in %.1f s; nothing is said for %s", b.clients, took.Seconds(), b.hold+b.settle)
	if err := rest(ctx, b.hold); err != nil {
		return nil, err
	}
	after, err := b.rested(ctx)
	if err != nil {
		return nil, err
	}
	result := &report{
		Transport: b.network, Clients: b.clients, RegisterSeconds: took.Seconds(), HoldSeconds: (b.hold + b.settle).Seconds(),
		Connected: c.connected(), Sent: b.messages, Server: costOf(before, registered, after, b.clients),
	}
	result.Arrived, result.failed = c.greet(ctx, b.messages)
	return result, nil
}

func (b *bench) usage() (process.Usage, error) { return process.UsageOf(strconv.Itoa(b.pid)) }

// rested reads what the server uses once it has rested.
func (b *bench) rested(ctx context.Context) (process.Usage, error) {
	if err := rest(ctx, b.settle); err != nil {
		return process.Usage{}, err
	}
	return b.usage()
}

// rest waits; an error is why it was cut short.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *bench) write(result *report, w io.Writer) error {
	if b.asJSON {
		return result.writeJSON(w)
	}
	return result.writeTable(w)
}

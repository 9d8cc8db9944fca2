// Package idle is behind `imgate bench idle`: it registers many users, each over a
// connection of its own, says nothing more, and tells what they cost the server in
// memory. It must not know how the gateway works inside.
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
	"sync"
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
	Long: "Creates users on the running server, which stay there, registers each over a connection of its own, and says how much more memory the server " +
		"has afterwards, for each of them. The server's limits of connections must allow for that many from one address. " +
		"The exit status is 1 if one couldn't be registered, or lost its connection.",
	Setup: setup,
}

const (
	maxClients = 50_000
	expires    = time.Hour
	// settle is how long the server may rest before its memory is read.
	settle = 5 * time.Second
	// atOnce is how many connections are made at the same time.
	atOnce = 64
)

// bench is a call of the command.
type bench struct {
	clients int
	domain  string
	network string
	server  string
	hold    time.Duration
	pid     int
}

func setup(flags *flag.FlagSet) plugin.Run {
	var b bench
	flags.IntVar(&b.clients, "clients", 1000, "how many users, at most "+strconv.Itoa(maxClients))
	flags.StringVar(&b.domain, "domain", "sip.example.com", "the domain of the users that are created")
	flags.StringVar(&b.network, "transport", "tcp", "over which `network`: tcp, tls, ws or wss; certificates aren't checked")
	flags.StringVar(&b.server, "server", "", target.Usage)
	flags.DurationVar(&b.hold, "hold", 30*time.Second, "how long they stay before the memory is read")
	flags.IntVar(&b.pid, "pid", 0, "the server's process `id`")
	return b.run
}

func (b *bench) check() error {
	switch {
	case b.clients < 1 || b.clients > maxClients:
		return plugin.Usage("--clients: expected 1 to %d", maxClients)
	case b.network == "udp":
		return plugin.Usage("--transport: expected tcp, tls, ws or wss")
	case b.hold < 0 || b.hold > expires/2:
		return plugin.Usage("--hold: expected at most %s", expires/2)
	case b.pid <= 0:
		return plugin.Usage("--pid: expected the server's process id")
	}
	return nil
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
	configs, err := b.users(ctx, in.Admin, ua.Trusting(at))
	if err != nil {
		return err
	}
	before, err := b.memory(ctx)
	if err != nil {
		return err
	}
	agents, took, err := register(ctx, configs)
	defer closeAll(agents)
	if err != nil {
		return err
	}
	wait(ctx, b.hold)
	after, err := b.memory(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(in.Out, "%d clients over %s registered in %.1f s\n", len(agents), b.network, took.Seconds())
	fmt.Fprintf(in.Out, "memory of the server: %d MB before, %d MB after, %.1f KB for each\n",
		before>>20, after>>20, float64(after-before)/1024/float64(len(agents)))
	return connected(agents)
}

// users makes accounts whose names are new in every run.
func (b *bench) users(ctx context.Context, admin plugin.AdminClient, config ua.Config) ([]ua.Config, error) {
	name := strings.ToLower(rand.Text()[:8])
	config.Password = rand.Text()
	var rows strings.Builder
	rows.WriteString("aor,password,balance\n")
	configs := make([]ua.Config, b.clients)
	for i := range configs {
		config.Address = message.Address{User: fmt.Sprintf("idle-%s-%d", name, i+1), Host: b.domain}
		configs[i] = config
		fmt.Fprintf(&rows, "%s,%s,0.00\n", config.Address, config.Password)
	}
	if err := admin.Stream(ctx, "POST", "/v1/accounts/import", "text/csv", strings.NewReader(rows.String()), io.Discard); err != nil {
		return nil, fmt.Errorf("create %d accounts: %w", b.clients, err)
	}
	return configs, nil
}

// memory reads the server's, once it has rested.
func (b *bench) memory(ctx context.Context) (int64, error) {
	wait(ctx, settle)
	usage, err := process.UsageOf(strconv.Itoa(b.pid))
	return usage.Resident, err
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// register connects and registers all, a few at a time.
func register(ctx context.Context, configs []ua.Config) ([]*ua.Agent, time.Duration, error) {
	began := time.Now()
	agents := make([]*ua.Agent, len(configs))
	failed := make([]error, len(configs))
	turns := make(chan struct{}, atOnce)
	var registering sync.WaitGroup
	for i, config := range configs {
		turns <- struct{}{}
		registering.Go(func() {
			agents[i], failed[i] = join(ctx, config)
			<-turns
		})
	}
	registering.Wait()
	return agents, time.Since(began), first(failed)
}

func join(ctx context.Context, config ua.Config) (*ua.Agent, error) {
	agent, err := ua.Dial(ctx, config)
	if err != nil {
		return nil, err
	}
	_, err = agent.Register(ctx, expires)
	return agent, err
}

// first is one error for all: they are alike, and may be thousands.
func first(failed []error) error {
	n := 0
	var one error
	for _, err := range failed {
		if err != nil {
			n, one = n+1, err
		}
	}
	if one == nil {
		return nil
	}
	return fmt.Errorf("%d of %d aren't registered: %w", n, len(failed), one)
}

var errLost = errors.New("lost the connection while it was idle")

// connected tells whether all are still there.
func connected(agents []*ua.Agent) error {
	failed := make([]error, len(agents))
	for i, agent := range agents {
		if !agent.Connected() {
			failed[i] = errLost
		}
	}
	return first(failed)
}

func closeAll(agents []*ua.Agent) {
	for _, agent := range agents {
		if agent != nil {
			_ = agent.Close() // the process ends
		}
	}
}

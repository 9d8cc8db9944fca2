package server

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Who is there: every account's password is its own system_id.
const (
	number1 = "447700900001" // acme's
	number2 = "447700900002"
)

// acme is the account of most tests.
func acme() plugin.Account {
	return plugin.Account{ID: "acc-acme", Identities: []message.Address{{User: "+" + number1}, {User: "ACME"}}, Attributes: map[string]string{}}
}

// gate is an engine that does what a test tells it.
type gate struct {
	plugin.Gate // what isn't here is never asked for

	mu        sync.Mutex
	ready     chan struct{}
	accounts  map[string]plugin.Account // by system_id
	asked     int                       // how often it was asked for one
	arrivals  []plugin.Arrival
	changes   []plugin.Registration
	changed   chan struct{} // something after each Register
	inactive  *message.Failure
	stranger  *message.Failure
	refuses   *message.Failure // Register
	ticket    func(n int) plugin.Ticket
	submitted map[string]plugin.Submitted // by public id
	cancelled []plugin.Which
	replaced  []plugin.Replacement
	conflict  *message.Failure // of Cancel and Replace
}

func newGate() *gate {
	return &gate{
		ready: make(chan struct{}), changed: make(chan struct{}, 100),
		accounts: map[string]plugin.Account{"acme": acme()}, submitted: map[string]plugin.Submitted{},
	}
}

func (g *gate) Ready() { close(g.ready) }

func (g *gate) Active() *message.Failure {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inactive
}

// set changes the gate.
func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

func (g *gate) Authenticate(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	if g.stranger != nil {
		return plugin.Account{}, g.stranger
	}
	account, found := g.accounts[c.Password.SystemID]
	if !found || c.Password.Password != c.Password.SystemID {
		return plugin.Account{}, message.Fail(message.Unauthenticated, "wrong")
	}
	return account, nil
}

func (g *gate) Register(_ context.Context, r plugin.Registration) ([]plugin.Binding, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuses != nil {
		return nil, g.refuses
	}
	g.changes = append(g.changes, r)
	g.changed <- struct{}{}
	return r.Bindings, nil
}

func (g *gate) Submit(a plugin.Arrival) plugin.Ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrivals = append(g.arrivals, a)
	if g.ticket != nil {
		return g.ticket(len(g.arrivals))
	}
	return ticket{}
}

func (g *gate) Find(_ context.Context, account, publicID string) (plugin.Submitted, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	found, ok := g.submitted[publicID]
	if !ok || account != "acc-acme" {
		return found, message.Fail(message.UnknownMessage, "none")
	}
	return found, nil
}

func (g *gate) Cancel(_ context.Context, _ string, which plugin.Which) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conflict != nil {
		return 0, g.conflict
	}
	g.cancelled = append(g.cancelled, which)
	return 1, nil
}

func (g *gate) Replace(_ context.Context, _, _ string, by plugin.Replacement) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conflict != nil {
		return g.conflict
	}
	g.replaced = append(g.replaced, by)
	return nil
}

// arrived returns what was submitted so far.
func (g *gate) arrived() []plugin.Arrival {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]plugin.Arrival(nil), g.arrivals...)
}

// nextChange waits for a change of bindings and returns the last one.
func (g *gate) nextChange(t testing.TB) plugin.Registration {
	t.Helper()
	select {
	case <-g.changed:
	case <-time.After(soon):
		t.Fatal("no binding is changed")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changes[len(g.changes)-1]
}

// ticket is accepted at once, unless it is refused or held.
type ticket struct {
	refused error
	hold    <-chan struct{}
	name    string
}

func (k ticket) Accepted(ctx context.Context) (plugin.Answer, error) {
	if k.hold != nil {
		select {
		case <-k.hold:
		case <-ctx.Done():
			return plugin.Answer{}, message.FailForNow(message.Overloaded, "%w", plugin.ErrUnknown)
		}
	}
	if k.refused != nil {
		return plugin.Answer{}, k.refused
	}
	return plugin.Answer{PublicID: k.name}, nil
}

func (ticket) First(context.Context) plugin.Outcome { return plugin.Outcome{} }

// serve serves a door with a configuration that change may change.
func serve(t testing.TB, g plugin.Gate, change func(*Config)) *Door {
	t.Helper()
	c := Defaults
	c.Listen = []string{"tcp://127.0.0.1:0"}
	c.Dialect.Domain = "sms.example.com"
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	d, err := New(t.Context(), plugin.Env{Instance: "esmes", Node: "n1", Log: slog.New(slog.DiscardHandler), Metrics: plugin.NewMetrics()}, c)
	if err != nil {
		t.Fatal(err)
	}
	serveDoor(t, g, d)
	return d
}

// serveDoor serves a door until the test ends, or what it returns is called.
func serveDoor(t testing.TB, g plugin.Gate, d *Door) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, g) }()
	end = sync.OnceFunc(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(soon):
			t.Error("Serve doesn't return")
		}
	})
	t.Cleanup(end)
	waitFor(t, "the door to open", func() bool { return len(d.Addrs()) == len(d.config.Listen) && d.isServed() })
	return end
}

// isServed tells whether the door takes connections.
func (d *Door) isServed() bool {
	d.tasks.mu.Lock()
	defer d.tasks.mu.Unlock()
	return d.tasks.isOpen
}

// waitFor waits until something is so.
func waitFor(t testing.TB, what string, isSo func() bool) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for !isSo() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// boundAs returns an ESME that is bound as acme.
func boundAs(t testing.TB, d *Door, mode pdu.ID) *esme {
	t.Helper()
	e := dial(t, d)
	e.want(bindAs(mode, "acme", "acme"), wire.ROK)
	return e
}

// takes tells whether a message to a number can go to an account.
func (d *Door) takes(account, number string) bool {
	s := d.table.pick(account, number)
	if s != nil {
		s.sending.Add(-1)
	}
	return s != nil
}

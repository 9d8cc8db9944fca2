package plugintest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// transportSecret is what both senders prove themselves with.
const transportSecret = "correct horse"

// transportAccount is the account of a sender.
func transportAccount(sender message.Address) plugin.Account {
	return plugin.Account{
		ID:         "account-of-" + sender.User,
		Identities: []message.Address{sender, {User: sender.User + "-work", Host: sender.Host}},
		Attributes: map[string]string{"tariff": "of " + sender.User},
	}
}

// transportGate is an engine that notes what it gets and does as a case says.
type transportGate struct {
	ready   chan struct{} // closed by the first Ready
	submits chan struct{} // something after each Submit

	mu       sync.Mutex
	readies  int
	asked    int // calls of Authenticate
	arrivals []plugin.Arrival
	changes  []plugin.Registration

	since    time.Time
	inactive *message.Failure // what Active says
	stranger *message.Failure // what Authenticate says; nil: it checks
	refusal  *message.Failure // what the tickets of what is submitted from now on say
	hold     chan struct{}    // what is held waits until it is closed
	holds    bool             // the next message is to be held
}

func newTransportGate() *transportGate {
	return &transportGate{ready: make(chan struct{}), submits: make(chan struct{}, 1), since: time.Now()}
}

func (g *transportGate) Ready() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readies++
	if g.readies == 1 {
		close(g.ready)
	}
}

// Tenure is that of the one time for which this engine is active.
func (g *transportGate) Tenure() (plugin.Tenure, *message.Failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inactive != nil {
		return plugin.Tenure{}, g.inactive
	}
	return plugin.Tenure{Fence: 1, Since: g.since, Key: [32]byte{1}}, nil
}

func (g *transportGate) Active() *message.Failure {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inactive
}

func (g *transportGate) Authenticate(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	if g.stranger != nil {
		return plugin.Account{}, g.stranger
	}
	for _, sender := range []message.Address{transportAlice, transportCarol} {
		if provesTransportSender(c, sender) {
			return transportAccount(sender), nil
		}
	}
	return plugin.Account{}, message.Fail(message.Unauthenticated, "wrong credentials")
}

func provesTransportSender(c plugin.Credentials, sender message.Address) bool {
	if d := c.Digest; d != nil {
		return d.Username == sender.User && d.Realm == sender.Host && d.Response == response(*d, transportSecret)
	}
	return c.Password != nil && c.Password.SystemID == sender.String() && c.Password.Password == transportSecret
}

func (g *transportGate) Register(_ context.Context, r plugin.Registration) ([]plugin.Binding, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changes = append(g.changes, r)
	return r.Bindings, nil
}

func (g *transportGate) Submit(a plugin.Arrival) plugin.Ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrivals = append(g.arrivals, a)
	select {
	case g.submits <- struct{}{}:
	default:
	}
	ticket := transportTicket{refusal: g.refusal}
	if g.holds {
		ticket.hold, g.holds = g.hold, false
	}
	return ticket
}

func (g *transportGate) Report(context.Context, string, plugin.Status) error { return nil }

func (g *transportGate) Lost(context.Context, string) error { return nil }

func (g *transportGate) Reachable() {}

func (g *transportGate) Find(context.Context, string, string) (plugin.Submitted, error) {
	return plugin.Submitted{}, message.Fail(message.UnknownMessage, "nothing is kept here")
}

func (g *transportGate) Cancel(context.Context, string, plugin.Which) (int, error) {
	return 0, message.Fail(message.UnknownMessage, "nothing is kept here")
}

func (g *transportGate) Replace(context.Context, string, string, plugin.Replacement) error {
	return message.Fail(message.UnknownMessage, "nothing is kept here")
}

// transportTicket is settled when it is made; hold delays the news.
type transportTicket struct {
	refusal *message.Failure
	hold    <-chan struct{} // nil: it doesn't wait
}

func (t transportTicket) Accepted(ctx context.Context) (plugin.Answer, error) {
	if t.hold != nil {
		select {
		case <-t.hold:
		case <-ctx.Done():
			return plugin.Answer{}, message.FailForNow(message.Internal, "still waiting for the disk: %w: %w", ctx.Err(), plugin.ErrUnknown)
		}
	}
	if t.refusal != nil {
		return plugin.Answer{}, t.refusal
	}
	return plugin.Answer{PublicID: message.NewPublicID()}, nil
}

func (t transportTicket) First(context.Context) plugin.Outcome {
	return plugin.Outcome{State: plugin.OutcomeWaiting}
}

// forget makes the gate as if nothing had happened since Ready.
func (g *transportGate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked, g.arrivals, g.changes = 0, nil, nil
}

func (g *transportGate) submitted() []plugin.Arrival {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.arrivals)
}

// count returns how often Ready, Authenticate and Register were called.
func (g *transportGate) count() (readies, asked, changes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.readies, g.asked, len(g.changes)
}

// deactivate makes another node the active one; nil: this one is.
func (g *transportGate) deactivate(why *message.Failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inactive = why
}

// estrange lets nobody authenticate; nil: whoever has the secret.
func (g *transportGate) estrange(why *message.Failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stranger = why
}

// refuse refuses what is submitted from now on; nil: takes it.
func (g *transportGate) refuse(why *message.Failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusal = why
}

// holdNext lets the next message that is submitted wait for its acceptance
// until letGo. Those behind it don't wait.
func (g *transportGate) holdNext() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold, g.holds = make(chan struct{}), true
}

// letGo accepts what waits.
func (g *transportGate) letGo() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold != nil {
		close(g.hold)
		g.hold, g.holds = nil, false
	}
}

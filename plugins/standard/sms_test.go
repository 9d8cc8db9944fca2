package standard_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/examples/exampletest"
	"github.com/imgate/imgate/plugins/free"
	"github.com/imgate/imgate/plugins/memory"
	"github.com/imgate/imgate/plugins/rego"
	"github.com/imgate/imgate/plugins/rego/source"
	"github.com/imgate/imgate/transports/sip"
	"github.com/imgate/imgate/transports/sip/ua"
)

const testWait = 10 * time.Second

// none is a configuration of nothing.
type none struct{}

func (none) Validate() error { return nil }

// vendor is a transport that speaks SMPP as far as the engine can tell: it keeps
// what it is to send.
type vendor struct {
	gate    chan plugin.Gate
	sent    chan *message.Message
	receipt atomic.Pointer[plugin.Receipt] // that it gives; nil: one that says nothing
}

func (v *vendor) Serve(ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	v.gate <- gate
	<-ctx.Done()
	return nil
}

func (v *vendor) Send(_ context.Context, m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
	v.sent <- m
	if receipt := v.receipt.Load(); receipt != nil {
		return *receipt, nil
	}
	return plugin.Receipt{}, nil
}

// trustful are accounts of people whose passwords nobody checks.
type trustful []plugin.Account

var subscribers = trustful{
	{ID: "ann", Identities: []message.Address{{User: "ann", Host: "sip.example.com"}, {User: "+447700900001"}}},
	{ID: "bob", Identities: []message.Address{{User: "bob", Host: "sip.example.com"}, {User: "+447700900002"}}},
}

func (s trustful) Verify(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	return s.Lookup(context.Background(), message.Address{User: c.Digest.Username, Host: c.Digest.Realm})
}

func (s trustful) Lookup(_ context.Context, a message.Address) (plugin.Account, error) {
	i := slices.IndexFunc(s, func(account plugin.Account) bool { return account.Owns(a) })
	if i < 0 {
		return plugin.Account{}, message.Fail(message.UnknownRecipient, "nobody")
	}
	return s[i], nil
}

func (trustful) Close() error { return nil }

// gateway is a node with the policies that ship, SIP, and a vendor.
type gateway struct {
	vendor *vendor
	gate   plugin.Gate // the vendor's
	sip    string
}

// open runs one; change may change its configuration.
func open(t *testing.T, change ...func(*engine.Config)) *gateway {
	t.Helper()
	g := &gateway{
		vendor: &vendor{gate: make(chan plugin.Gate, 1), sent: make(chan *message.Message, 10)},
		sip:    exampletest.FreePort(t),
	}
	listen := sip.Plugin.NewConfig().(*sip.Config)
	listen.Listen = []string{"udp://" + g.sip}
	policies := rego.Plugin.NewConfig().(*source.Config)
	policies.Dir, policies.Deadline = filepath.Join("..", "..", "policies"), time.Second
	smpp := plugin.DefineTransport("client", "", none{}, give[plugin.Transport](g.vendor)).Speaking("smpp")
	config := engine.Config{
		Node: "test", DataDir: t.TempDir(), AdminListen: "127.0.0.1:0",
		Storage:  instance("storage", memory.Plugin),
		Policy:   engine.Instance{Name: "policy", Plugin: rego.Plugin, Settings: policies},
		Accounts: instance("accounts", plugin.DefineAccounts("trustful", "", none{}, give[plugin.Accounts](subscribers))),
		Charging: instance("charging", free.Charging),
		Transports: []engine.Instance{
			{Name: "sip", Plugin: sip.Plugin, Settings: listen}, instance("smpp", smpp),
		},
	}
	for _, f := range change {
		f(&config)
	}
	ctx, stop := context.WithCancel(t.Context())
	up, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- engine.New(config, slog.New(slog.DiscardHandler), engine.Options{}).Run(ctx, func(string) { close(up) })
	}()
	select {
	case <-up:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	g.gate = <-g.vendor.gate
	return g
}

func instance(name string, d plugin.Definition) engine.Instance {
	return engine.Instance{Name: name, Plugin: d, Settings: d.NewConfig()}
}

func give[T any](value T) func(context.Context, plugin.Env, none) (T, error) {
	return func(context.Context, plugin.Env, none) (T, error) { return value, nil }
}

// phone is somebody's, registered.
func (g *gateway) phone(t *testing.T, user string) (*ua.Agent, <-chan ua.Incoming) {
	t.Helper()
	got := make(chan ua.Incoming, 10)
	agent, err := ua.Dial(t.Context(), ua.Config{
		Address: message.Address{User: user, Host: "sip.example.com"}, Password: "x", UDP: g.sip,
		Handle: func(m ua.Incoming) bool { got <- m; return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	if _, err := agent.Register(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	return agent, got
}

func received[T any](t *testing.T, from <-chan T) (m T) {
	t.Helper()
	select {
	case m = <-from:
	case <-time.After(testWait):
		t.Fatal("nothing comes")
	}
	return m
}

func say(t *testing.T, from *ua.Agent, to message.Address, contentType string) ua.Result {
	t.Helper()
	result, err := from.Message(t.Context(), to, contentType, []byte("hello"), ua.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestSMSTakesTextAlone: what SIP knows besides text is refused on its way to a
// vendor, with 415 and what would pass, by the domain of SMS and by a number alone;
// on-net it passes.
func TestSMSTakesTextAlone(t *testing.T) {
	g := open(t)
	ann, _ := g.phone(t, "ann")
	_, got := g.phone(t, "bob")
	for _, to := range []message.Address{{User: "+447700900123", Host: "sms.example.com"}, {User: "+447700900123"}} {
		for _, contentType := range []string{"text/html", "application/im-iscomposing+xml", "application/x-acro-filetransfer+json"} {
			if r := say(t, ann, to, contentType); r.Code != 415 || r.Accept != "text/plain, message/cpim" {
				t.Errorf("%s to %s: %+v", contentType, to, r)
			}
			if r := say(t, ann, message.Address{User: "bob", Host: "sip.example.com"}, contentType); r.Code != 200 {
				t.Errorf("%s to bob: %+v", contentType, r)
			}
			received(t, got)
		}
		if r := say(t, ann, to, "text/plain"); r.Code != 202 {
			t.Errorf("to %s: %+v", to, r)
		}
		if m := received(t, g.vendor.sent); m.Recipient != to || m.Number != "+447700900001" || string(m.Body) != "hello" {
			t.Errorf("%+v", m)
		}
	}
}

// TestMobileOriginated: an SMS from a vendor reaches the account that has the
// number, and its answer goes back; nobody else gets it, and no vendor.
func TestMobileOriginated(t *testing.T) {
	g := open(t)
	bob, got := g.phone(t, "bob")
	mobile := message.Address{User: "+4366412345678", Host: "sms.example.com"}
	arrives := func(number string) error {
		_, err := g.gate.Submit(plugin.Arrival{
			Message: &message.Message{
				From: mobile, Recipient: message.Address{User: number}, ContentType: "text/plain;charset=utf-8", Body: []byte("Grüße"), Hops: 70, Peer: "smsc",
			},
			Account: plugin.Account{ID: "smpp", Identities: []message.Address{mobile}}, Key: number,
		}).Accepted(t.Context())
		return err
	}
	if err := arrives("+447700900002"); err != nil {
		t.Fatal(err)
	}
	m := received(t, got)
	if m.From != mobile || m.To.User != "+447700900002" || m.ContentType != "text/plain;charset=utf-8" || string(m.Body) != "Grüße" {
		t.Errorf("%+v", m)
	}
	if r := say(t, bob, m.From, "text/plain"); r.Code != 202 {
		t.Errorf("%+v", r)
	}
	if m := received(t, g.vendor.sent); m.Recipient != mobile || m.Number != "+447700900002" {
		t.Errorf("%+v", m)
	}
	err := arrives("+447700900123")
	if f := message.AsFailure(err); err == nil || f.Reason != message.UnknownRecipient || f.Temporary {
		t.Errorf("%v", err)
	}
}

// TestNumbersOfOursStayOnNet: who writes to the number of one of ours reaches their
// phone, not a vendor.
func TestNumbersOfOursStayOnNet(t *testing.T) {
	g := open(t)
	ann, _ := g.phone(t, "ann")
	_, got := g.phone(t, "bob")
	if r := say(t, ann, message.Address{User: "+447700900002"}, "text/html"); r.Code != 202 {
		t.Errorf("%+v", r)
	}
	m := received(t, got)
	if m.From.String() != "ann@sip.example.com" || !strings.HasPrefix(m.To.String(), "+447700900002@") || len(g.vendor.sent) > 0 {
		t.Errorf("%+v", m)
	}
}

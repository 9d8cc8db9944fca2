package smpp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/free"
	"github.com/imgate/imgate/plugins/memory"
	"github.com/imgate/imgate/transports/smpp"
	"github.com/imgate/imgate/transports/smpp/client"
	"github.com/imgate/imgate/transports/smpp/server"
	"github.com/imgate/imgate/transports/smpp/smsc"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// testWait bounds every wait of these tests.
const testWait = 30 * time.Second

// acme is the only account: its ESME binds as "acme".
var acme = plugin.Account{ID: "acme", Identities: []message.Address{{User: "+447700900100"}}}

// people are acme alone.
type people struct{}

func (people) Verify(context.Context, plugin.Credentials) (plugin.Account, error) { return acme, nil }

func (people) Lookup(_ context.Context, a message.Address) (plugin.Account, error) {
	if acme.Owns(a) {
		return acme, nil
	}
	return plugin.Account{}, message.Fail(message.UnknownRecipient, "nobody")
}

func (people) Close() error { return nil }

// toVendor sends everything to the vendor.
type toVendor struct{}

func (toVendor) Decide(context.Context, plugin.Question, plugin.Supply) (plugin.Plan, error) {
	plan := plugin.DefaultPlan()
	plan.Service, plan.Transports, plan.Retry.Backoff = "test", []string{"vendor"}, []time.Duration{time.Second}
	return plan, nil
}

// mortal is a storage that can die: nothing reaches the disk from then on.
type mortal struct {
	plugin.Storage
	dead atomic.Bool
}

var errDead = errors.New("the storage is dead")

func (m *mortal) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Storage.Apply(ctx, f, changes)
}

func (m *mortal) Release(ctx context.Context, f plugin.Fence) error {
	if m.dead.Load() {
		return nil
	}
	return m.Storage.Release(ctx, f)
}

// gateway is a node between an ESME and an SMSC.
type gateway struct {
	t       *testing.T
	storage *mortal
	door    *server.Door
	end     func()
}

func instance(name string, d plugin.Definition) engine.Instance {
	return engine.Instance{Name: name, Plugin: d, Settings: d.NewConfig()}
}

func give[C plugin.Config, T any](value T) func(context.Context, plugin.Env, C) (T, error) {
	return func(context.Context, plugin.Env, C) (T, error) { return value, nil }
}

func startGateway(t *testing.T, disk *memory.Disk, center *smsc.SMSC) *gateway {
	t.Helper()
	g := &gateway{t: t, storage: &mortal{Storage: memory.Open(disk)}}
	esmes := server.Defaults
	esmes.Listen = []string{"tcp://127.0.0.1:0"}
	vendor := instance("vendor", smpp.Plugin)
	vendor.Settings.(*client.Config).Connect = []string{center.Addr().String()}
	door := func(ctx context.Context, env plugin.Env, c server.Config) (plugin.Transport, error) {
		var err error
		g.door, err = server.New(ctx, env, c)
		return g.door, err
	}
	config := engine.Config{
		Node: "test", DataDir: t.TempDir(), AdminListen: "127.0.0.1:0",
		Storage:  instance("storage", plugin.DefineStorage("test", "", memory.Config{}, give[memory.Config, plugin.Storage](g.storage))),
		Policy:   instance("policy", plugin.DefinePolicy("test", "", memory.Config{}, give[memory.Config](plugin.Always("1", toVendor{})))),
		Accounts: instance("accounts", plugin.DefineAccounts("test", "", memory.Config{}, give[memory.Config, plugin.Accounts](people{}))),
		Charging: instance("charging", free.Charging),
		Transports: []engine.Instance{
			instance("esmes", plugin.DefineTransport("smpp-server", "", esmes, door).AsRegistrar().Speaking("smpp")),
			vendor,
		},
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	up, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- engine.New(config, slog.New(slog.DiscardHandler), engine.Options{}).Run(ctx, func(string) { close(up) })
	}()
	g.end = sync.OnceFunc(func() {
		stop()
		select {
		case <-done: // that a storage dies is an error, or not
		case <-time.After(testWait):
			t.Error("the gateway doesn't end")
		}
	})
	t.Cleanup(g.end)
	select {
	case <-up:
	case err := <-done:
		done <- err
		t.Fatalf("the gateway doesn't start: %v", err)
	}
	return g
}

// kill ends the gateway as a crash does: its disk stays as it is.
func (g *gateway) kill() {
	g.storage.dead.Store(true)
	g.end()
}

// esme is one that is bound to a gateway, and takes all that it gets.
type esme struct {
	t       *testing.T
	session *wire.Session
	got     chan wire.Packet
}

func (e *esme) Request(s *wire.Session, p wire.Packet) {
	s.Respond(p, wire.ROK, &wire.ShortResp{Of: wire.ResponseTo(p.ID)}, nil)
	e.got <- p
}

func (e *esme) Closed(*wire.Session, error) {}

func bind(t *testing.T, g *gateway, mode pdu.ID) *esme {
	t.Helper()
	conn, err := net.Dial("tcp", g.door.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	e := &esme{t: t, got: make(chan wire.Packet, 1000)}
	e.session = wire.NewSession(conn, wire.Config{}, e)
	go e.session.Run(context.WithoutCancel(t.Context()))
	t.Cleanup(e.session.Close)
	e.do(&wire.Bind{Mode: mode, SystemID: "acme", Password: "secret", InterfaceVersion: translate.Version34})
	return e
}

func (e *esme) do(b wire.Body) wire.Packet {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), testWait)
	defer cancel()
	answer, err := e.session.Do(ctx, b, nil)
	if err != nil || answer.Status != wire.ROK {
		e.t.Fatalf("%T: %v %v", b, wire.StatusName(answer.Status), err)
	}
	return answer
}

// submit sends a message and returns its name.
func (e *esme) submit(registered uint8, text string) string {
	e.t.Helper()
	answer := e.do(&wire.Short{
		Of: pdu.SubmitSMID, Source: wire.Address{TON: 1, NPI: 1, Number: "447700900100"}, Destination: wire.Address{TON: 1, NPI: 1, Number: "4366412345678"},
		RegisteredDelivery: registered, Text: []byte(text),
	})
	return answer.Body.(*wire.ShortResp).MessageID
}

// receipt waits for a receipt and returns whose it is, and what it says.
func (e *esme) receipt() (name string, state translate.State) {
	e.t.Helper()
	select {
	case p := <-e.got:
		short := p.Body.(*wire.Short)
		name, _ = p.TLVs.Text(pdutlv.TagReceiptedMessageID)
		n, _ := p.TLVs.Uint(pdutlv.TagMessageStateOption)
		if short.Source.Number != "4366412345678" || short.Destination.Number != "447700900100" || short.ESMClass != 4 {
			e.t.Errorf("%+v", short)
		}
		return name, translate.State(n)
	case <-time.After(testWait):
		e.t.Fatal("no receipt")
		return "", 0
	}
}

func (e *esme) leave() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), testWait)
	defer cancel()
	_ = e.session.Unbind(ctx)
}

func startSMSC(t *testing.T, c smsc.Config) *smsc.SMSC {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	center, err := smsc.Listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var serving sync.WaitGroup
	serving.Go(func() { center.Serve(ctx) })
	t.Cleanup(func() {
		stop()
		serving.Wait()
	})
	return center
}

// TestReceiptsComeBack from the SMSC, through the gateway, to the ESME: those that
// were asked for.
func TestReceiptsComeBack(t *testing.T) {
	for outcome, asked := range map[translate.State][]uint8{translate.Delivered: {1, 3}, translate.Undeliverable: {1, 2}} {
		center := startSMSC(t, smsc.Config{Outcome: outcome})
		g := startGateway(t, memory.NewDisk(), center)
		e := bind(t, g, pdu.BindTransceiverID)
		want := map[string]bool{}
		for registered := range uint8(4) {
			if name := e.submit(registered, fmt.Sprint("hello ", registered)); slices.Contains(asked, registered) {
				want[name] = true
			}
		}
		for range asked {
			name, state := e.receipt()
			if !want[name] || state != outcome {
				t.Errorf("%s of %q, want one of %v", state, name, want)
			}
			delete(want, name)
		}
		g.end()
		if len(e.got) > 0 {
			t.Errorf("%+v", (<-e.got).Body)
		}
	}
}

// TestReceiptsOutliveACrash: the ESME goes once it has submitted, the gateway dies
// before the SMSC has said what became of all its messages; when they are back,
// each has its receipt.
func TestReceiptsOutliveACrash(t *testing.T) {
	const n = 30
	var took atomic.Int64
	center := startSMSC(t, smsc.Config{Receipts: 20 * time.Millisecond, Took: func(smsc.Message) { took.Add(1) }})
	disk := memory.NewDisk()
	g := startGateway(t, disk, center)
	e := bind(t, g, pdu.BindTransmitterID)
	want := map[string]int{}
	for i := range n {
		want[e.submit(1, fmt.Sprint("hello ", i))] = 0
	}
	e.leave()
	for deadline := time.Now().Add(testWait); took.Load() < n/2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	g.kill()

	g = startGateway(t, disk, center)
	e = bind(t, g, pdu.BindTransceiverID)
	for left := n; left > 0; {
		name, state := e.receipt()
		times, asked := want[name]
		if !asked || state != translate.Delivered {
			t.Errorf("%s of %q", state, name)
		}
		if times == 0 {
			left--
		}
		want[name]++
	}
	g.end()
	if len(e.got) > 0 {
		t.Errorf("%+v", (<-e.got).Body)
	}
	for name, times := range want {
		if times != 1 { // nobody was there to get one before the crash
			t.Errorf("%d receipts of %s", times, name)
		}
	}
}

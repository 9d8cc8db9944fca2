package client

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/smsc"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// bench is an instance at work, between an SMSC and an engine.
type bench struct {
	*testing.T
	client *Client
	gate   *gate
	center *smsc.SMSC
	stop   context.CancelFunc
	ended  chan struct{} // closed when Serve has returned

	mu   sync.Mutex
	seen []seen
	pdus chan struct{} // something after each PDU that the SMSC has seen
}

// seen is a PDU as the SMSC saw it.
type seen struct {
	sent   bool // by the SMSC
	id     pdu.ID
	status pdu.Status
}

// work opens an SMSC and an instance that binds to it, and waits for its binds.
func work(t *testing.T, center smsc.Config, change func(*Config)) *bench {
	t.Helper()
	b := newBench(t, center)
	b.open(plugin.Env{Instance: "vendor"}, change)
	b.awaitBinds(len(b.client.config.modes()))
	return b
}

// newBench opens an SMSC.
func newBench(t *testing.T, config smsc.Config) *bench {
	t.Helper()
	b := &bench{T: t, gate: newGate(), pdus: make(chan struct{}, 1)}
	config.Listen, config.Trace = "127.0.0.1:0", b.trace
	center, err := smsc.Listen(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { center.Serve(ctx) })
	t.Cleanup(func() {
		stop()
		serving.Wait()
	})
	b.center = center
	return b
}

// configured is a configuration for the SMSC of the bench.
func (b *bench) configured(change func(*Config)) Config {
	config := Defaults
	if b.center != nil {
		config.Connect = []string{b.center.Addr().String()}
	}
	config.Reconnect = Reconnect{Min: time.Millisecond, Max: 20 * time.Millisecond}
	config.Dialect.Receipts = "none"
	if change != nil {
		change(&config)
	}
	return config
}

// open opens an instance and serves it until the end of the test.
func (b *bench) open(env plugin.Env, change func(*Config)) {
	b.Helper()
	client, err := New(b.Context(), env, b.configured(change))
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	b.client, b.stop, b.ended = client, stop, make(chan struct{})
	go func() {
		defer close(b.ended)
		if err := client.Serve(ctx, b.gate); err != nil {
			b.Errorf("Serve: %v", err)
		}
	}()
	b.Cleanup(b.end)
	<-b.gate.ready
}

// end ends Serve.
func (b *bench) end() {
	b.Helper()
	b.stop()
	select {
	case <-b.ended:
	case <-time.After(soon):
		b.Fatalf("Serve has not returned within %s", soon)
	}
}

// awaitBinds waits until so many binds are up on both sides.
func (b *bench) awaitBinds(n int) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	if err := b.center.AwaitBind(ctx, n); err != nil {
		b.Fatal(err)
	}
	b.until("the binds are known here", func() bool {
		b.client.binds.mu.Lock()
		defer b.client.binds.mu.Unlock()
		return len(b.client.binds.all) == n
	})
}

// until waits until something is so that nobody tells of.
func (b *bench) until(what string, is func() bool) {
	b.Helper()
	for deadline := time.Now().Add(soon); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("not within %s: %s", soon, what)
		}
	}
}

// trace notes what the SMSC sees.
func (b *bench) trace(sent bool, frame []byte) {
	p, err := wire.Decode(frame)
	if err != nil {
		b.Errorf("the SMSC sees a PDU that can't be read: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, seen{sent, p.ID, p.Status})
	select {
	case b.pdus <- struct{}{}:
	default:
	}
}

// count returns how many PDUs of a kind the SMSC has seen from us.
func (b *bench) count(id pdu.ID) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.seen {
		if !s.sent && s.id == id {
			n++
		}
	}
	return n
}

// answers waits until we have answered so many PDUs of the SMSC's with an id, and
// returns how.
func (b *bench) answers(id pdu.ID, n int) (statuses []pdu.Status) {
	b.Helper()
	b.until("we have answered", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		statuses = nil
		for _, s := range b.seen {
			if !s.sent && s.id == id {
				statuses = append(statuses, s.status)
			}
		}
		return len(statuses) >= n
	})
	return statuses
}

// sms is a message to a phone.
func sms(text string) *message.Message {
	return &message.Message{
		ID: new(message.Generator).New(time.Now()), PublicID: message.NewPublicID(), Received: time.Now(),
		From: message.Address{User: "+447700900001"}, Recipient: message.Address{User: "+447700900002"},
		ContentType: "text/plain;charset=utf-8", Body: []byte(text),
	}
}

// routeTo is a route of its own for each call.
func routeTo() plugin.Route {
	return plugin.Route{Transport: "vendor", Reference: message.NewPublicID()}
}

// send makes an attempt that may take as long as there is.
func (b *bench) send(m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	return b.client.Send(ctx, m, route)
}

// wantFailure wants an error to be a certain failure.
func wantFailure(t *testing.T, err error, reason message.Reason, temporary bool) *message.Failure {
	t.Helper()
	f := message.AsFailure(err)
	if err == nil || f.Reason != reason || f.Temporary != temporary {
		t.Fatalf("the error is %v, want %s, temporary: %t", err, reason, temporary)
	}
	return f
}

// notes is a log that keeps its lines.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) Write(line []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, string(line))
	return len(line), nil
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.lines...)
}

func (n *notes) log() *slog.Logger { return slog.New(slog.NewTextHandler(n, nil)) }

package trunk

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	door "github.com/imgate/imgate/transports/sip"
)

// behind is what is behind a door of ours that a trunk of ours leads to.
type behind struct {
	plugin.Gate
	ready    chan struct{}
	arrivals atomic.Int64
	asked    atomic.Int64
}

func (b *behind) Ready()                   { close(b.ready) }
func (b *behind) Active() *message.Failure { return nil }
func (b *behind) Tenure() (plugin.Tenure, *message.Failure) {
	return plugin.Tenure{Fence: 1, Key: [32]byte{1}}, nil
}

func (b *behind) Authenticate(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	b.asked.Add(1)
	challenge := challenge{algorithm: c.Digest.Algorithm}
	d := c.Digest
	ha2 := challenge.hash(d.Method + ":" + d.URI)
	want := challenge.hash(challenge.hash(guardUser+":"+d.Realm+":"+guardPassword) + ":" + d.Nonce + ":" + d.NC + ":" + d.CNonce + ":" + d.QOP + ":" + ha2)
	if d.Username != guardUser || d.Response != want {
		return plugin.Account{}, message.Fail(message.Unauthenticated, "wrong")
	}
	return plugin.Account{ID: "partner", Identities: []message.Address{testMessage().From}}, nil
}

func (b *behind) Submit(plugin.Arrival) plugin.Ticket {
	b.arrivals.Add(1)
	return taken{}
}

// taken is a message that was delivered at once.
type taken struct{}

func (taken) Accepted(context.Context) (plugin.Answer, error) {
	return plugin.Answer{PublicID: "x"}, nil
}
func (taken) First(context.Context) plugin.Outcome {
	return plugin.Outcome{State: plugin.OutcomeDelivered}
}

// TestToOurOwnDoor: many messages at once, with credentials, over UDP and TCP.
func TestToOurOwnDoor(t *testing.T) {
	config := *door.Plugin.NewConfig().(*door.Config)
	config.Listen = []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0"}
	config.Domains = []string{"b.example"}
	d, err := door.New(t.Context(), plugin.Env{Instance: "sip"}, config)
	if err != nil {
		t.Fatal(err)
	}
	b := &behind{ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	received(t, "the door is open", b.ready)
	for i, network := range []string{"udp", "tcp"} {
		const n, each = 8, 5
		c := local()
		c.NextHop = "sip:" + d.Addrs()[i].String() + ";transport=" + network
		c.Username, c.Password, c.Realm = guardUser, guardPassword, "b.example"
		trunk, _ := openTrunk(t, c)
		before := b.arrivals.Load()
		var sending sync.WaitGroup
		for range n {
			sending.Go(func() {
				for range each {
					if receipt, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil || !receipt.Final {
						t.Errorf("over %s: %+v, %v", network, receipt, err)
					}
				}
			})
		}
		sending.Wait()
		if got := b.arrivals.Load() - before; got != n*each {
			t.Errorf("over %s: %d messages came in, want %d", network, got, n*each)
		}
	}
}

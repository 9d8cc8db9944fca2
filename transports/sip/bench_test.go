package sip

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

func BenchmarkDigest(b *testing.B) {
	n := newNonces(time.Hour, testTenure, time.Time{})
	now := time.Now()
	value := fmt.Sprintf(`Digest username="1001", realm="r", nonce=%q, uri="sip:a@b", response="0123456789abcdef0123456789abcdef", algorithm=MD5, cnonce="c", qop=auth, nc=00000001`, n.make("r", "address", "source", now))
	b.ReportAllocs()
	count := uint32(0)
	for b.Loop() {
		d, err := parseDigest(value)
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := nonceCount(&d); !ok {
			b.Fatal("no count")
		}
		id, err := n.check(d.Nonce, "r", now)
		if err != nil {
			b.Fatal(err)
		}
		count++
		if err := n.use("1001", id, count, now); err != nil {
			b.Fatal(err)
		}
		respond(&d, password)
	}
}

// relay is a gate that sends each message on through the door it came by.
type relay struct {
	gate
	door  *Door
	route plugin.Route
}

func (r *relay) Submit(a plugin.Arrival) plugin.Ticket { return relayed{r, a.Message} }

type relayed struct {
	*relay
	m *message.Message
}

func (relayed) Accepted(context.Context) (plugin.Answer, error) {
	return plugin.Answer{Within: time.Second}, nil
}

func (r relayed) First(ctx context.Context) plugin.Outcome {
	if _, err := r.door.Send(ctx, r.m, r.route); err != nil {
		return plugin.Outcome{State: plugin.OutcomeFailed, Failure: message.AsFailure(err)}
	}
	return plugin.Outcome{State: plugin.OutcomeDelivered}
}

// BenchmarkFullMessage: a MESSAGE with digest in, the MESSAGE out, 200 in, 200
// out. The CPU time includes sender and recipient, which parse nothing.
func BenchmarkFullMessage(b *testing.B) {
	r := &relay{}
	d := openRelay(b, r)
	device := newClient(b, d)
	r.door, r.route = d, route(d, device)
	go func() {
		buffer := make([]byte, wire.MaxMessage)
		for {
			n, err := device.conn.Read(buffer)
			if err != nil {
				return
			}
			device.conn.Write([]byte(answer(string(buffer[:n]), "200 OK")))
		}
	}()
	c := newClient(b, d)
	c.login()
	const window = 32
	requests := make([]string, b.N)
	for i := range requests {
		requests[i] = c.request("MESSAGE", bob, c.credentials("MESSAGE", bob)+"Content-Type: text/plain\r\n", "hello hello hello hello")
	}
	free := make(chan struct{}, window)
	before := cpu(b)
	b.ResetTimer()
	go func() {
		for _, request := range requests {
			free <- struct{}{}
			c.send(request)
		}
	}()
	for range b.N {
		if got := c.receive(); status(got) != "200 OK" {
			b.Fatal(got)
		}
		<-free
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/1000/float64(b.N), "CPU-µs/op")
}

func openRelay(b *testing.B, r *relay) *Door {
	b.Helper()
	r.ready = make(chan struct{})
	config := defaults
	config.Listen = []string{"udp://127.0.0.1:0"}
	config.Limits.RequestsPerAccount = maxRate // there is one
	d, err := New(b.Context(), plugin.Env{Instance: "sip"}, config)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, r) }()
	b.Cleanup(func() {
		cancel()
		<-served
	})
	<-r.ready
	return d
}

func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

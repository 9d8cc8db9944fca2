package server

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// window is that of the goal: 8,000 messages a second over one bind.
const window = 50

// BenchmarkSubmit is a submit_sm and its answer, over loopback with the ESME's part
// and a gate that does nothing but accept what has come each millisecond: µs of CPU
// for both.
func BenchmarkSubmit(b *testing.B) {
	g := &acceptAll{gate: newGate()}
	go g.commit(b.Context())
	d := serve(b, g, nil)
	e := dialWire(b, d, pdu.BindTransmitterID)
	run(b, func(i int) {
		body := &wire.Short{
			Of: pdu.SubmitSMID, Source: numbered(number1), Destination: numbered(number2),
			RegisteredDelivery: 1, Text: []byte("Your parcel will be there between ten and noon."),
		}
		if a, err := e.Do(b.Context(), body, nil); err != nil || a.Status != wire.ROK {
			b.Error(a.Status, err)
		}
	})
}

// BenchmarkDeliver is a Send and the ESME's answer.
func BenchmarkDeliver(b *testing.B) {
	d := serve(b, &acceptAll{gate: newGate()}, nil)
	dialWire(b, d, pdu.BindReceiverID)
	waitFor(b, "the bind", func() bool { return d.takes("acc-acme", number1) })
	m, route := outgoing("Your parcel will be there between ten and noon."), toAcme()
	run(b, func(int) {
		if _, err := d.Send(b.Context(), m, route); err != nil {
			b.Error(err)
		}
	})
}

func run(b *testing.B, each func(i int)) {
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	var all sync.WaitGroup
	for w := range window {
		all.Go(func() {
			for i := w; i < b.N; i += window {
				each(i)
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/1000/float64(b.N), "CPU-µs/op")
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// acceptAll is an engine that keeps nothing, and accepts as if it did.
type acceptAll struct {
	*gate
	mu      sync.Mutex
	waiting []chan struct{}
}

func (g *acceptAll) Submit(plugin.Arrival) plugin.Ticket {
	accepted := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, accepted)
	return ticket{hold: accepted, name: "AbCdEfGhIjKlMnOpQrStUv"}
}

func (g *acceptAll) commit(ctx context.Context) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		for _, accepted := range g.waiting {
			close(accepted)
		}
		g.waiting = g.waiting[:0]
		g.mu.Unlock()
	}
}

// agreeing says ESME_ROK to everything.
type agreeing struct{}

func (agreeing) Request(s *wire.Session, p wire.Packet) {
	s.Respond(p, wire.ROK, emptyAnswer(p.ID), nil)
}
func (agreeing) Closed(*wire.Session, error) {}

func dialWire(b *testing.B, d *Door, mode pdu.ID) *wire.Session {
	conn, err := net.Dial("tcp", d.Addrs()[0].String())
	if err != nil {
		b.Fatal(err)
	}
	s := wire.NewSession(conn, wire.Config{Limits: wire.Limits{Window: window}}, agreeing{})
	go s.Run(b.Context())
	q := bindAs(mode, "acme", "acme")
	if a, err := s.Do(b.Context(), q.Body, nil); err != nil || a.Status != wire.ROK {
		b.Fatal(a.Status, err)
	}
	return s
}

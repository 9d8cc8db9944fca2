package server

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// forgetful is a gate that keeps nothing, so that a flood costs what it costs the
// door.
type forgetful struct{ *gate }

func (forgetful) Submit(plugin.Arrival) plugin.Ticket { return ticket{name: "x"} }

// What an attack may cost.
const (
	bystanderWithin = 5 * time.Second // until another ESME is answered: five times what is promised
	attackMemory    = 64 << 20        // octets of heap
)

// attacked is a door under attack, with an ESME that has nothing to do with it.
type attacked struct {
	t         *testing.T
	door      *Door
	bystander *esme
	before    runtime.MemStats
}

// underAttackBy serves a door, attacks it, and sees to it that the bystander is served
// meanwhile, that memory is bounded, and that nothing of the attack is left.
func underAttackBy(t *testing.T, bindWithin time.Duration, attack func(a *attacked)) {
	goroutines := runtime.NumGoroutine()
	g := newGate()
	g.accounts["other"] = plugin.Account{ID: "acc-other", Identities: []message.Address{{User: "+" + number2}}, Attributes: map[string]string{}}
	c := Defaults
	c.Listen, c.Dialect.Domain = []string{"tcp://127.0.0.1:0"}, "sms.example.com"
	d, err := New(t.Context(), plugin.Env{Instance: "esmes", Node: "n1"}, c)
	if err != nil {
		t.Fatal(err)
	}
	d.wire.Bind = bindWithin
	end := serveDoor(t, forgetful{g}, d)
	a := &attacked{t: t, door: d, bystander: dial(t, d)}
	a.bystander.want(bindAs(pdu.BindTransceiverID, "other", "other"), wire.ROK)
	runtime.GC()
	runtime.ReadMemStats(&a.before)
	a.run(attack)
	a.bystander.conn.Close()
	waitFor(t, "the last session to end", func() bool { return d.table.count() == 0 && d.connections() == 0 })
	end()
	waitFor(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines+3 })
}

// run attacks while the bystander goes on with its work.
func (a *attacked) run(attack func(*attacked)) {
	over := make(chan struct{})
	var working sync.WaitGroup
	defer working.Wait()
	defer close(over)
	working.Go(func() {
		for {
			a.check()
			select {
			case <-over:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	attack(a)
}

// check is one message of the bystander.
func (a *attacked) check() {
	began := time.Now()
	a.bystander.want(shortOf(pdu.SubmitSMID, number2, number1, "x"), wire.ROK)
	if took := time.Since(began); took > bystanderWithin {
		a.t.Errorf("the bystander is answered after %s", took)
	}
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	if now.HeapAlloc > a.before.HeapAlloc+attackMemory {
		a.t.Errorf("the attack takes %d MB", (now.HeapAlloc-a.before.HeapAlloc)>>20)
	}
}

// raw is a connection that nobody reads from but the attack.
func (a *attacked) raw() net.Conn {
	conn, err := net.Dial("tcp", a.door.Addrs()[0].String())
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	return conn
}

// bound is one that is bound as acme.
func (a *attacked) bound(mode pdu.ID) net.Conn {
	conn := a.raw()
	a.write(conn, frameOf(a.t, bindAs(mode, "acme", "acme")))
	if status := a.answer(conn).Status; status != wire.ROK {
		a.t.Fatal(wire.StatusName(status))
	}
	return conn
}

func frameOf(t testing.TB, p wire.Packet) []byte {
	t.Helper()
	if p.Sequence == 0 {
		p.Sequence = 1
	}
	frame, err := wire.Encode(nil, &p)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func (a *attacked) write(conn net.Conn, b []byte) {
	if _, err := conn.Write(b); err != nil {
		a.t.Error(err)
	}
}

// answer reads a PDU.
func (a *attacked) answer(conn net.Conn) wire.Packet {
	_ = conn.SetReadDeadline(time.Now().Add(soon))
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		a.t.Fatal(err)
	}
	frame := append(head, make([]byte, binary.BigEndian.Uint32(head)-4)...)
	if _, err := io.ReadFull(conn, frame[4:]); err != nil {
		a.t.Fatal(err)
	}
	p, err := wire.Decode(frame)
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

// ends waits until the door hangs up.
func (a *attacked) ends(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(soon))
	if _, err := io.Copy(io.Discard, conn); err != nil && !isReset(err) {
		a.t.Errorf("the door doesn't hang up: %v", err)
	}
}

func isReset(err error) bool {
	return strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe")
}

// flood writes again and again until the door hangs up, or it was written so many
// times.
func flood(conn net.Conn, b []byte, times int) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second / 2))
	for range times {
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}

func TestAttacks(t *testing.T) {
	header := func(length uint32, id pdu.ID) []byte {
		b := binary.BigEndian.AppendUint32(nil, length)
		b = binary.BigEndian.AppendUint32(b, uint32(id))
		return append(b, 0, 0, 0, 0, 0, 0, 0, 1)
	}
	attacks := map[string]func(*attacked){
		"connections that say nothing": func(a *attacked) {
			for range 3 * a.door.config.Limits.ConnectionsPerAddress {
				a.raw()
			}
			again := dial(a.t, a.door) // from the same address
			again.want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.ROK)
			again.conn.Close()
			a.ends(a.raw())
		},
		"binds, octet by octet": func(a *attacked) {
			frame := frameOf(a.t, bindAs(pdu.BindTransceiverID, "acme", "acme"))
			var slow sync.WaitGroup
			for range 20 {
				conn := a.raw()
				slow.Go(func() {
					for i := range frame {
						if _, err := conn.Write(frame[i : i+1]); err != nil {
							return
						}
						time.Sleep(50 * time.Millisecond)
					}
					a.t.Error("a bind may take for ever")
				})
			}
			slow.Wait()
		},
		"noise": func(a *attacked) {
			noise := make([]byte, 1<<20)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range noise {
				noise[i] = byte(r.Uint32())
			}
			for range 20 {
				conn := a.raw()
				flood(conn, noise, 10)
				a.ends(conn)
			}
		},
		"lengths that can't be": func(a *attacked) {
			for _, length := range []uint32{0, 1, 15, 1<<20 + 1, 1 << 31, 1<<32 - 1} {
				conn := a.raw()
				a.write(conn, header(length, pdu.SubmitSMID))
				if p := a.answer(conn); p.ID != pdu.GenericNACKID || p.Status != wire.RInvCmdLen {
					a.t.Errorf("%d octets are answered with %s, %s", length, wire.Name(p.ID), wire.StatusName(p.Status))
				}
				a.ends(conn)
			}
		},
		"PDUs of a megabyte": func(a *attacked) {
			var all sync.WaitGroup
			large := append(header(1<<20, pdu.SubmitSMID), make([]byte, 1<<20-16)...)
			for range a.door.config.Binds {
				conn := a.bound(pdu.BindTransmitterID)
				all.Go(func() {
					for range 5 {
						a.write(conn, large)
						if p := a.answer(conn); p.Status != wire.RInvCmdLen {
							a.t.Error(wire.StatusName(p.Status))
						}
					}
					conn.Close()
				})
			}
			all.Wait()
		},
		"commands that don't exist": func(a *attacked) {
			conn := a.bound(pdu.BindTransmitterID)
			go flood(conn, header(16, 0x4242), 1_000_000)
			a.ends(conn)
		},
		"messages before the bind": func(a *attacked) {
			conn := a.raw()
			go flood(conn, frameOf(a.t, shortOf(pdu.SubmitSMID, number1, number2, "x")), 1_000_000)
			a.ends(conn)
		},
		"wrong passwords": func(a *attacked) {
			var all sync.WaitGroup
			for i := range 90 {
				conn := a.raw()
				name := string(rune('a'+i%26)) + string(rune('a'+i/26))
				all.Go(func() {
					for range 10 {
						if _, err := conn.Write(frameOf(a.t, bindAs(pdu.BindTransceiverID, name, "wrong"))); err != nil {
							return
						}
						if p := a.answer(conn); p.Status != wire.RInvPaswd {
							a.t.Error(wire.StatusName(p.Status))
						}
					}
					conn.Close()
				})
			}
			all.Wait()
			again := dial(a.t, a.door) // from the same address
			again.want(bindAs(pdu.BindTransceiverID, "other", "other"), wire.ROK)
			again.conn.Close()
		},
		"enquire_link, and nobody reads the answers": func(a *attacked) {
			conn := a.bound(pdu.BindTransceiverID)
			flood(conn, frameOf(a.t, wire.Packet{ID: pdu.EnquireLinkID}), 1_000_000)
			conn.Close()
		},
		"messages, and nobody reads the answers": func(a *attacked) {
			conn := a.bound(pdu.BindTransmitterID)
			flood(conn, frameOf(a.t, shortOf(pdu.SubmitSMID, number1, number2, strings.Repeat("x", 150))), 100_000)
			conn.Close()
		},
		"large messages, and nobody reads the answers": func(a *attacked) {
			large := shortOf(pdu.SubmitSMID, number1, number2, "")
			large.TLVs = wire.TLVs{{Tag: 0x0424, Value: []byte(strings.Repeat("x", 60_000))}}
			var all sync.WaitGroup
			for range 6 {
				conn := a.bound(pdu.BindTransmitterID)
				all.Go(func() {
					flood(conn, frameOf(a.t, large), 2_000)
					conn.Close()
				})
			}
			all.Wait()
		},
		"responses that nobody asked for": func(a *attacked) {
			conn := a.bound(pdu.BindTransceiverID)
			for _, id := range []pdu.ID{pdu.DeliverSMRespID, pdu.SubmitSMRespID, pdu.EnquireLinkRespID, pdu.UnbindRespID, pdu.GenericNACKID, pdu.BindTransceiverRespID} {
				flood(conn, header(16, id), 5_000)
			}
			a.write(conn, frameOf(a.t, wire.Packet{ID: pdu.EnquireLinkID}))
			if p := a.answer(conn); p.ID != pdu.EnquireLinkRespID {
				a.t.Error(wire.Name(p.ID))
			}
			conn.Close()
		},
		"binds upon binds": func(a *attacked) {
			conn := a.bound(pdu.BindTransceiverID)
			for range 1_000 {
				a.write(conn, frameOf(a.t, bindAs(pdu.BindReceiverID, "other", "other")))
				if p := a.answer(conn); p.Status != wire.RAlyBnd {
					a.t.Fatal(wire.StatusName(p.Status))
				}
			}
			conn.Close()
		},
		"destinations, most of them bad": func(a *attacked) {
			all := make([]string, 254)
			for i := range all {
				all[i] = strings.Repeat("x", 1+i%20)
			}
			all[100] = number2
			many := frameOf(a.t, multiTo(all...))
			conn := a.bound(pdu.BindTransmitterID)
			for range 200 {
				a.write(conn, many)
				p := a.answer(conn)
				if b, ok := p.Body.(*wire.MultiResp); !ok || p.Status != wire.ROK || len(b.Failed) != 253 {
					a.t.Fatalf("%s %+v", wire.StatusName(p.Status), p.Body)
				}
			}
			conn.Close()
		},
		"deliveries that are never answered": func(a *attacked) {
			for range 3 {
				a.bound(pdu.BindReceiverID)
			}
			ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
			defer cancel()
			var sending sync.WaitGroup
			for range 3_000 {
				sending.Go(func() {
					if _, err := a.door.Send(ctx, outgoing(strings.Repeat("x", 100)), toAcme()); err == nil {
						a.t.Error("what wasn't answered was taken")
					}
				})
			}
			for ctx.Err() == nil {
				route, began := toAcme(), time.Now()
				route.Binding = &plugin.Binding{Account: "acc-other", Device: "other"}
				done := sendLater(a.t.Context(), a.door, outgoing("x"), route)
				a.bystander.answer(a.bystander.next(), wire.ROK)
				if got := <-done; got.err != nil || time.Since(began) > bystanderWithin {
					a.t.Errorf("%v after %s", got.err, time.Since(began))
				}
			}
			sending.Wait()
			for _, s := range a.door.table.of("acc-acme") {
				s.wire.Close()
			}
		},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) { underAttackBy(t, time.Second, attack) })
	}
}

// TestHalfOpenConnections: each new bind takes the place of one that is silent.
func TestHalfOpenConnections(t *testing.T) {
	underAttackBy(t, bindWithin, func(a *attacked) {
		for range 3 {
			for range a.door.config.Binds {
				a.bound(pdu.BindTransceiverID)
			}
		}
		for _, s := range a.door.table.of("acc-acme") {
			s.wire.Close()
		}
	})
}

// TestDeadSessionMakesRoom: a session whose ESME doesn't say anything makes room for
// a new one; one that does stays.
func TestDeadSessionMakesRoom(t *testing.T) {
	g := newGate()
	d := serve(t, g, func(c *Config) { c.Binds = 2 })
	conn, err := net.Dial("tcp", d.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	dead := connect(conn, func(*peer, wire.Packet) {}) // answers nothing
	if _, err := dead.ask(t.Context(), bindAs(pdu.BindTransceiverID, "acme", "acme")); err != nil {
		t.Fatal(err)
	}
	alive := boundAs(t, d, pdu.BindTransceiverID)
	third := boundAs(t, d, pdu.BindTransceiverID)
	<-dead.gone
	began := time.Now()
	dial(t, d).want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.RBindFail)
	if took := time.Since(began); took > aliveWithin {
		t.Errorf("the answer took %s though everybody is alive", took)
	}
	alive.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK)
	third.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK)
}

// slowly is a gate that takes its time for a registration.
type slowly struct {
	*gate
	turn chan struct{}
}

func (s slowly) Register(ctx context.Context, r plugin.Registration) ([]plugin.Binding, error) {
	<-s.turn
	return s.gate.Register(ctx, r)
}

// TestComingAndGoing: an ESME that binds and unbinds all the time keeps the storage
// busy with no more than it can take, and its last state is what counts.
func TestComingAndGoing(t *testing.T) {
	g := slowly{newGate(), make(chan struct{})}
	d := serve(t, g, nil)
	for range 20 {
		e := boundAs(t, d, pdu.BindReceiverID)
		e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
		e.ends()
	}
	boundAs(t, d, pdu.BindReceiverID)
	waitFor(t, "the end of all sessions but one", func() bool { return d.table.count() == 1 })
	for range 2 {
		g.turn <- struct{}{}
		if r := g.nextChange(t); len(r.Bindings) != 1 {
			t.Errorf("%+v", r)
		}
	}
	select {
	case g.turn <- struct{}{}:
		t.Error("a third change is told")
	case <-time.After(50 * time.Millisecond):
	}
	close(g.turn)
}

package server

import (
	"strings"
	"sync"
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// TestObservers: each PDU is shown, and passwords aren't.
func TestObservers(t *testing.T) {
	var o observer
	g := newGate()
	watched := &plugin.Observers{}
	watched.Use([]plugin.Observer{&o})
	c := Defaults
	c.Listen = []string{"tcp://127.0.0.1:0"}
	d, err := New(t.Context(), plugin.Env{Instance: "esmes", Observers: watched}, c)
	if err != nil {
		t.Fatal(err)
	}
	serveDoor(t, g, d)
	e := boundAs(t, d, pdu.BindTransceiverID)
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "hello"), wire.ROK)
	waitFor(t, "four packets", func() bool { return len(o.seen()) >= 4 })
	packets := o.seen()
	titles := ""
	for _, p := range packets[:4] {
		titles += p.Title[0] + " " + p.Title[1] + "\n"
		if p.Protocol != "smpp" || p.Network != "tcp" || p.Transport != "esmes" || !p.Local.IsValid() || !p.Remote.IsValid() {
			t.Errorf("%+v", p)
		}
		if strings.Contains(string(p.Data), "acme\x00acme") {
			t.Error("the password is shown")
		}
	}
	if want := "bind_transceiver 1\nbind_transceiver_resp ESME_ROK\nsubmit_sm 2\nsubmit_sm_resp ESME_ROK\n"; titles != want {
		t.Errorf("%s", titles)
	}
	call := g.arrived()[0].Call
	if packets[2].Call != call || packets[3].Call != call || packets[0].Call == call || packets[2].Sent || !packets[3].Sent {
		t.Errorf("%q is not in %+v", call, packets)
	}
}

// TestObserversFindDelivery: the packets of a delivery bear its reference.
func TestObserversFindDelivery(t *testing.T) {
	var o observer
	watched := &plugin.Observers{}
	watched.Use([]plugin.Observer{&o})
	c := Defaults
	c.Listen = []string{"tcp://127.0.0.1:0"}
	d, err := New(t.Context(), plugin.Env{Instance: "esmes", Observers: watched}, c)
	if err != nil {
		t.Fatal(err)
	}
	serveDoor(t, newGate(), d)
	for version, isFound := range map[uint8]bool{0x34: true, 0x33: false} { // 3.3 has nothing to know it by
		e := listening(t, d, pdu.BindReceiverID, "", version)
		route := toAcme()
		for range 2 {
			before := len(o.seen())
			done := sendLater(t.Context(), d, outgoing("hello"), route)
			e.answer(e.next(), wire.ROK)
			if got := <-done; got.err != nil {
				t.Error(got.err)
			}
			packets := o.seen()[before:]
			if len(packets) != 2 || packets[0].Call != packets[1].Call || (packets[0].Call == route.Reference) != isFound {
				t.Errorf("%s is not in %+v", route.Reference, packets)
			}
		}
		e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
		e.ends()
		waitFor(t, "the end", func() bool { return d.table.count() == 0 })
	}
}

type observer struct {
	plugin.Observer
	mu      sync.Mutex
	packets []plugin.Packet
}

func (o *observer) Packet(p *plugin.Packet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	copied := *p
	copied.Data = append([]byte(nil), p.Data...)
	o.packets = append(o.packets, copied)
}

func (o *observer) seen() []plugin.Packet {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]plugin.Packet(nil), o.packets...)
}

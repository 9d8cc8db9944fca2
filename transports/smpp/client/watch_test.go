package client

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/smsc"
)

// observer keeps what it is shown.
type observer struct {
	mu      sync.Mutex
	packets []plugin.Packet
}

func (o *observer) Packet(p *plugin.Packet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := *p
	kept.Data = bytes.Clone(p.Data)
	o.packets = append(o.packets, kept)
}

func (o *observer) Step(*plugin.Step) {}
func (o *observer) Close() error      { return nil }

func (o *observer) titles() (titles []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.packets {
		titles = append(titles, p.Title[0])
	}
	return titles
}

func TestObserversSeeEachPDU(t *testing.T) {
	var shown observer
	observers := &plugin.Observers{}
	observers.Use([]plugin.Observer{&shown})
	b := newBench(t, smsc.Config{})
	b.open(plugin.Env{Instance: "vendor", Observers: observers}, func(c *Config) { c.Password = "sesame" })
	b.awaitBinds(1)
	route := routeTo()
	route.Reference = "delivery.1"
	if _, err := b.send(sms("hello"), route); err != nil {
		t.Fatal(err)
	}
	if err := b.originate("hello"); err != nil {
		t.Fatal(err)
	}
	want := []string{"bind_transceiver", "bind_transceiver_resp", "submit_sm", "submit_sm_resp", "deliver_sm", "deliver_sm_resp"}
	if got := shown.titles(); !slices.Equal(got, want) {
		t.Fatalf("shown were %q, want %q", got, want)
	}
	for i, p := range shown.packets {
		if p.Protocol != "smpp" || p.Transport != "vendor" || p.Network != "tcp" || !p.Local.IsValid() || !p.Remote.IsValid() || p.Time.IsZero() {
			t.Errorf("%s is shown as %+v", p.Title[0], p)
		}
		if p.Sent != (i == 0 || i == 2 || i == 5) {
			t.Errorf("%s is shown as sent by us: %t", p.Title[0], p.Sent)
		}
		if bytes.Contains(p.Data, []byte("sesame")) {
			t.Errorf("%s shows the password", p.Title[0])
		}
	}
	for i := 0; i < len(shown.packets); i += 2 {
		if shown.packets[i].Call != shown.packets[i+1].Call {
			t.Errorf("%s and its response are of the exchanges %q and %q", want[i], shown.packets[i].Call, shown.packets[i+1].Call)
		}
	}
	if got := shown.packets[2].Call; got != route.Reference {
		t.Errorf("submit_sm is of the exchange %q, the delivery %q", got, route.Reference)
	}
	if got := b.gate.arrivals[0].Call; got != shown.packets[4].Call {
		t.Errorf("the arrival is of the exchange %q, its PDU of %q", got, shown.packets[4].Call)
	}
}

package wire

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// watcher writes down what it is shown.
type watcher struct {
	mu    sync.Mutex
	lines []string
	tcp   string // the only peer over TCP
}

func (w *watcher) Packet(p *plugin.Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	direction := "came"
	if p.Sent {
		direction = "sent"
	}
	if p.Time.IsZero() || p.Transport != "door" || p.Protocol != "sip" || !p.Remote.IsValid() || !p.Local.IsValid() || len(p.Data) == 0 || p.Network == "tcp" && p.Remote.String() != w.tcp {
		direction = fmt.Sprintf("incomplete: %+v", p)
	}
	w.lines = append(w.lines, fmt.Sprintf("%s %s %s: %s %s", direction, p.Network, p.Call, p.Title[0], p.Title[1]))
}

func (*watcher) Step(*plugin.Step) {}
func (*watcher) Close() error      { return nil }

func (w *watcher) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

func TestObservers(t *testing.T) {
	w, observers := &watcher{}, &plugin.Observers{}
	observers.Use([]plugin.Observer{w})
	flows := make(chan Flow, 1)
	config := Config{Instance: "door", Observers: observers}
	e := openTCP(t, config, func(_ context.Context, x *Exchange) {
		if x.Begin() == nil {
			x.Answer(Reply{Status: 202})
			flows <- x.Flow
		}
	})
	udp, tcp := dial(t, e), dialTCP(t, e)
	w.tcp = tcp.LocalAddr().String()
	udp.send([]byte("\r\n" + string(udp.message("one"))))
	udp.receive()
	udp.send(udp.message("one"))
	udp.receive()
	udp.send([]byte("garbage"))
	udp.send([]byte(strings.Replace(string(udp.message("bad")), "1 MESSAGE", "1 INFO", 1)))
	udp.receive()
	<-flows
	tcp.say("\r\n\r\n" + hello("two"))
	if _, err := tcp.Discard(2); err != nil {
		t.Fatal(err)
	}
	tcp.hear()
	flow := <-flows
	go func() { tcp.say(respond(t, []byte(tcp.hear()+"hello"), 486)) }()
	if _, err := e.Do(t.Context(), flow, testOutgoing); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"came udp one: MESSAGE sip:a@b", "sent udp one: 202 Accepted",
		"came udp one: MESSAGE sip:a@b", "sent udp one: 202 Accepted",
		"came udp : malformed No End Of Headers",
		"came udp bad: malformed CSeq Method Mismatch", "sent udp bad: 400 CSeq Method Mismatch",
		"came tcp two: MESSAGE sip:a@b", "sent tcp two: 202 Accepted",
		"sent tcp ref: MESSAGE sip:1002@192.0.2.1:5070", "came tcp ref: 486 Busy Here",
	}
	if got := w.seen(); !slices.Equal(got, want) {
		t.Errorf("saw\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	observers.Use(nil)
	udp.send(udp.message("three"))
	udp.receive()
	if len(w.seen()) != len(want) {
		t.Error("an observer that was taken away saw something")
	}
}

// TestMetrics: each series is there, once, and shows what was counted.
func TestMetrics(t *testing.T) {
	registry, answered := plugin.NewMetrics(), make(chan struct{}, 2)
	e := openTCP(t, Config{Metrics: registry.Scope(plugin.Label{Name: "transport", Value: "door"})}, func(_ context.Context, x *Exchange) {
		x.Answer(Reply{Status: 200})
		answered <- struct{}{} // and counted
	})
	udp, tcp := dial(t, e), dialTCP(t, e)
	udp.send([]byte("garbage"))
	udp.send([]byte("\r\n"))
	udp.send(udp.message("a"))
	udp.receive()
	tcp.say(hello("b"))
	tcp.hear()
	<-answered
	<-answered
	got := map[string]float64{}
	for _, s := range registry.Series() {
		name := s.Name
		for _, l := range s.Labels {
			name += " " + l.Value
		}
		if _, twice := got[name]; twice || s.Help == "" {
			t.Errorf("%s: twice, or without help", name)
		}
		got[name] = s.Value()
	}
	for name, want := range map[string]float64{
		"sip_messages_received_total request door":   2,
		"sip_messages_received_total response door":  0,
		"sip_messages_received_total keepalive door": 1,
		"sip_messages_received_total malformed door": 1,
		"sip_messages_sent_total door":               2,
		"sip_retransmissions_total received door":    0,
		"sip_retransmissions_total sent door":        0,
		"sip_refused_total connections door":         0,
		"sip_connections tcp door":                   1,
		"sip_connections_accepted_total tcp door":    1,
		"sip_connections_closed_total tcp idle door": 0,
		"sip_transactions_pending door":              0,
		"sip_errors_total panic door":                0,
	} {
		if value, found := got[name]; !found || value != want {
			t.Errorf("%s: %v, want %v, found: %t", name, value, want, found)
		}
	}
	if len(got) != 72 {
		t.Errorf("%d series: %v", len(got), got)
	}
}

// TestGarbageLeavesNothing: what comes from ever new addresses costs no memory.
func TestGarbageLeavesNothing(t *testing.T) {
	e := newEndpoint(Config{Workers: 1})
	s := &socket{local: netip.MustParseAddrPort("192.0.2.9:5060")}
	queues := []chan *Request{make(chan *Request, 1)}
	before := memory()
	for i := range 200_000 {
		source := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 5060)
		e.receiveDatagram(s, []byte("garbage"), source, queues)
	}
	if after := memory(); after > before+256<<10 {
		t.Errorf("%d octets more", after-before)
	}
	if n := e.Counts(); n.Malformed != 200_000 {
		t.Errorf("%+v", n)
	}
}

func TestCompactForms(t *testing.T) {
	for compact, name := range map[string]string{
		"a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition", "e": "Content-Encoding",
		"f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported", "l": "Content-Length", "m": "Contact",
		"n": "Identity-Info", "o": "Event", "r": "Refer-To", "s": "Subject", "t": "To", "u": "Allow-Events", "v": "Via",
		"x": "Session-Expires", "y": "Identity", "z": "z",
	} {
		var h head
		if refusal := h.scan("start\r\n" + compact + ": 1\r\n" + strings.ToUpper(compact) + " : 2\r\n"); refusal != nil && !strings.HasPrefix(refusal.Phrase, "More Than One") {
			t.Error(refusal)
		}
		if h.headers[0].Name != name || !strings.EqualFold(h.headers[1].Name, name) || h.Get(name) != "1" {
			t.Errorf("%s: %+v", compact, h.headers)
		}
	}
}

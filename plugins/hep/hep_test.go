package hep

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// The example of the specification, its last page.
const example = `
48 45 50 33 00 71
00 00 00 01 00 07 02
00 00 00 02 00 07 11
00 00 00 03 00 0a d4 ca 00 01
00 00 00 04 00 0a 52 74 00 d3
00 00 00 07 00 08 2e ea
00 00 00 08 00 08 13 c4
00 00 00 09 00 0a 4e 49 82 cb
00 00 00 0a 00 0a 00 01 d4 c0
00 00 00 0b 00 07 01
00 00 00 0c 00 0a 00 00 00 e4
00 00 00 0f 00 14 49 4e 56 49 54 45 20 73 69 70 3a 62 6f 62`

// everything is a packet with each chunk that we ever write.
const everything = `
48 45 50 33 00 ab
00 00 00 01 00 07 0a
00 00 00 02 00 07 06
00 00 00 05 00 16 00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 01
00 00 00 06 00 16 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 07
00 00 00 07 00 08 13 c4
00 00 00 08 00 08 a0 fa
00 00 00 09 00 0a 69 7d ef c0
00 00 00 0a 00 0a 00 0f 42 3f
00 00 00 0b 00 07 01
00 00 00 0c 00 0a ff ff ff ff
00 00 00 0e 00 0c 73 65 63 72 65 74
00 00 00 11 00 0f 61 62 63 40 68 6f 73 74 31
00 00 00 13 00 09 67 77 31
00 00 00 0f 00 12 53 49 50 2f 32 2e 30 20 32 30 30 20`

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func examplePacket() *plugin.Packet {
	return &plugin.Packet{
		Time: time.Unix(1313440459, 120_000_000), Protocol: "sip", Network: "udp",
		Remote: netip.MustParseAddrPort("212.202.0.1:12010"), Local: netip.MustParseAddrPort("82.116.0.211:5060"),
		Data: []byte("INVITE sip:bob"),
	}
}

func TestEncode(t *testing.T) {
	for _, c := range []struct {
		name   string
		header header
		packet *plugin.Packet
		want   string
	}{
		{"the specification's example", header{captureID: 228}, examplePacket(), example},
		{"everything", header{captureID: 1<<32 - 1, node: "gw1", password: "secret"}, &plugin.Packet{
			Time: time.Date(2026, 1, 31, 12, 4, 16, 999_999_999, time.UTC), Protocol: "sip", Network: "tls", Sent: true,
			Local: netip.MustParseAddrPort("192.0.2.1:5060"), Remote: netip.MustParseAddrPort("[2001:db8::7]:41210"),
			Call: "abc@host1", Data: []byte("SIP/2.0 200 "),
		}, everything},
	} {
		got, cut := c.header.encode(c.packet, 1, maxPacket)
		if want := unhex(t, c.want); !bytes.Equal(got, want) || cut {
			t.Errorf("%s: cut %t\ngot\n%swant\n%s", c.name, cut, hex.Dump(got), hex.Dump(want))
		}
	}
}

// chunks reads a packet as a server does.
func chunks(b []byte) (map[uint16][]byte, error) {
	if len(b) < 6 || string(b[:4]) != "HEP3" || int(binary.BigEndian.Uint16(b[4:])) != len(b) {
		return nil, fmt.Errorf("not HEP3, or not of its length: %.20x", b)
	}
	found := map[uint16][]byte{}
	for b = b[6:]; len(b) > 0; {
		if len(b) < chunkHead {
			return nil, fmt.Errorf("%d octets are left over", len(b))
		}
		kind, n := binary.BigEndian.Uint16(b[2:]), int(binary.BigEndian.Uint16(b[4:]))
		if n < chunkHead || n > len(b) || found[kind] != nil {
			return nil, fmt.Errorf("chunk %d of %d octets where %d are left", kind, n, len(b))
		}
		found[kind], b = b[chunkHead:n], b[n:]
	}
	return found, nil
}

func TestLongPacketsAreCut(t *testing.T) {
	h := newHeader(Config{CaptureID: 1, Node: strings.Repeat("n", maxText), Password: strings.Repeat("p", maxText)}, "")
	p := examplePacket()
	p.Call = strings.Repeat("c", 100_000)
	for _, limit := range []int{maxDatagram, maxPacket} {
		for size := 64_000; size < 70_000; size += 97 {
			p.Data = bytes.Repeat([]byte("x"), size)
			encoded, cut := h.encode(p, 1, limit)
			found, err := chunks(encoded)
			if err != nil || len(encoded) > limit {
				t.Fatalf("%d octets make %d, at most %d: %v", size, len(encoded), limit, err)
			}
			if whole := len(found[chunkPayload]) == size; whole == cut || cut && len(encoded) != limit {
				t.Errorf("%d octets make %d, cut %t", size, len(encoded), cut)
			}
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("call", []byte("data"), "node", true, []byte{1, 2, 3, 4}, []byte{5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, call string, data []byte, node string, sent bool, local, remote []byte) {
		p := &plugin.Packet{Call: call, Data: data, Sent: sent, Network: "udp"}
		if a, ok := netip.AddrFromSlice(local); ok {
			p.Local = netip.AddrPortFrom(a, 5060)
		}
		if a, ok := netip.AddrFromSlice(remote); ok {
			p.Remote = netip.AddrPortFrom(a, 5061)
		}
		h := newHeader(Config{Node: node[:min(len(node), maxText)]}, "")
		encoded, _ := h.encode(p, 1, maxDatagram)
		found, err := chunks(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(data, found[chunkPayload]) {
			t.Errorf("the payload is %q, not the beginning of %q", found[chunkPayload], data)
		}
	})
}

func TestConfig(t *testing.T) {
	good := *Plugin.NewConfig().(*Config)
	if err := good.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, server := range []string{"", "127.0.0.1:9060", "udp://", "udp://host", "udp://host:0", "udp://host:x", "udp://:9060", "tls://h:1", "tcp://u@h:1", "udp://h:1/x", "udp://h:70000", "udp://h:1?x", "\x00"} {
		c := good
		c.Server = server
		if c.Validate() == nil {
			t.Errorf("server %q passes", server)
		}
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.CaptureID = 0 },
		func(c *Config) { c.CaptureID = 1 << 32 },
		func(c *Config) { c.Node = strings.Repeat("x", 256) },
		func(c *Config) { c.Password = strings.Repeat("x", 256) },
	} {
		c := good
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%+v passes", c)
		}
	}
}

// homer is a server that takes HEP over UDP or TCP.
type homer struct {
	url  string
	news chan struct{} // something has come
	quit func()

	mu   sync.Mutex
	got  bytes.Buffer // payloads, one after the other
	deaf bool
}

func (h *homer) take(b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if found, err := chunks(b); err != nil {
		fmt.Fprintln(&h.got, err)
	} else {
		h.got.Write(found[chunkPayload])
	}
	select {
	case h.news <- struct{}{}:
	default:
	}
}

func (h *homer) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got.String()
}

// waitFor waits until a text has come.
func (h *homer) waitFor(t plugintest.T, text string) string {
	for !strings.Contains(h.text(), text) {
		select {
		case <-h.news:
		case <-t.Context().Done():
			t.Fatalf("%q doesn't come", text)
		}
	}
	return h.text()
}

func (h *homer) jam() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf = true
}

func (h *homer) jammed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.deaf
}

func udpHomer(t plugintest.T) *homer {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	h := &homer{url: "udp://" + conn.LocalAddr().String(), news: make(chan struct{}, 1)}
	stopped := make(chan struct{})
	h.quit = sync.OnceFunc(func() { _ = conn.Close(); <-stopped })
	t.Cleanup(h.quit)
	go func() {
		defer close(stopped)
		buffer := make([]byte, 65_536)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			h.take(buffer[:n])
		}
	}()
	return h
}

func tcpHomer(t plugintest.T) *homer {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	h := &homer{url: "tcp://" + listener.Addr().String(), news: make(chan struct{}, 1)}
	var readers sync.WaitGroup
	stop := make(chan struct{})
	h.quit = sync.OnceFunc(func() { close(stop); _ = listener.Close(); readers.Wait() })
	t.Cleanup(h.quit)
	readers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			readers.Go(func() { h.serve(conn, stop) })
		}
	})
	return h
}

func (h *homer) serve(conn net.Conn, stop <-chan struct{}) {
	closed := make(chan struct{})
	go func() {
		select {
		case <-stop:
		case <-closed:
		}
		_ = conn.Close()
	}()
	defer close(closed)
	for {
		if h.jammed() {
			<-stop
			return
		}
		head := make([]byte, 6)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		rest := make([]byte, max(0, int(binary.BigEndian.Uint16(head[4:]))-6))
		if _, err := io.ReadFull(conn, rest); err != nil {
			return
		}
		h.take(append(head, rest...))
	}
}

func openAgent(t plugintest.T, server string, metrics *plugin.Metrics) plugin.Observer {
	config := Plugin.NewConfig().(*Config)
	config.Server = server
	env := plugin.Env{Node: "gw1", Log: slog.New(slog.DiscardHandler), Metrics: metrics}
	o, err := plugin.Open[plugin.Observer](t.Context(), Plugin, env, config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return o
}

// contract makes a harness around a server. A last packet tells that all that
// was told before has come.
func contract(serve func(plugintest.T) *homer, jam func(*homer)) func(plugintest.T) plugintest.ObserverHarness {
	return func(t plugintest.T) plugintest.ObserverHarness {
		h := serve(t)
		var o plugin.Observer
		return plugintest.ObserverHarness{
			Open: func(t plugintest.T) plugin.Observer { o = openAgent(t, h.url, nil); return o },
			Read: func(t plugintest.T) string {
				last := examplePacket()
				last.Data = []byte("the last")
				o.Packet(last)
				return h.waitFor(t, "the last")
			},
			Jam: func(plugintest.T) { jam(h) },
		}
	}
}

func TestContractOverUDP(t *testing.T) {
	plugintest.Observer(t, contract(udpHomer, func(h *homer) { h.quit() }))
}

func TestContractOverTCP(t *testing.T) {
	plugintest.Observer(t, contract(tcpHomer, (*homer).jam))
}

func TestContractWithoutServer(t *testing.T) {
	plugintest.Observer(t, contract(tcpHomer, func(h *homer) { h.quit() }))
}

func value(m *plugin.Metrics, name string) (sum float64) {
	for _, s := range m.Series() {
		if s.Name == name {
			sum += s.Value()
		}
	}
	return sum
}

func TestOverflowIsCounted(t *testing.T) {
	h := tcpHomer(t)
	h.jam()
	metrics := plugin.NewMetrics()
	o := openAgent(t, h.url, metrics)
	p := examplePacket()
	p.Data = make([]byte, 80_000)
	const told = 500
	for range told {
		o.Packet(p)
	}
	if waiting := value(metrics, "hep_queue_packets"); waiting > maxQueuedOctets/maxDatagram+1 {
		t.Errorf("%g packets wait", waiting)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	sent, dropped := value(metrics, "hep_sent_total"), value(metrics, "hep_dropped_total")
	if sent+dropped != told || dropped < told/2 || value(metrics, "hep_truncated_total") != told {
		t.Errorf("%g sent, %g dropped of %d", sent, dropped, told)
	}
}

// TestReconnects breaks the connection: what comes later arrives over the next.
func TestReconnects(t *testing.T) {
	first := tcpHomer(t)
	o := openAgent(t, first.url, nil)
	p := examplePacket()
	o.Packet(p)
	first.waitFor(t, "INVITE")
	first.quit()
	listener, err := net.Listen("tcp", strings.TrimPrefix(first.url, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // what is written right behind the break is lost without a word: go on writing
		defer close(done)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
				o.Packet(p)
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HEP3" {
		t.Errorf("%q, %v", head, err)
	}
	close(stop)
	<-done
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

func TestOtherProtocolsStayHome(t *testing.T) {
	h, metrics := udpHomer(t), plugin.NewMetrics()
	o := openAgent(t, h.url, metrics)
	p := examplePacket()
	p.Protocol = "smpp"
	o.Packet(p)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if n := value(metrics, "hep_sent_total") + value(metrics, "hep_dropped_total"); n != 0 {
		t.Errorf("%g packets of SMPP went out", n)
	}
}

func BenchmarkPacket(b *testing.B) {
	h := newHeader(Config{CaptureID: 1}, "gw1")
	p := examplePacket()
	p.Call, p.Data = "3848276298220188511@atlanta.example.com", make([]byte, 700)
	b.ReportAllocs()
	for b.Loop() {
		h.encode(p, 1, maxDatagram)
	}
}

package wire

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
)

// openTCP starts an endpoint on loopback with a socket and a listener.
func openTCP(t testing.TB, config Config, handle Handler) *Endpoint {
	t.Helper()
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	return openOn(t, []Listener{{"udp", loopback}, {"tcp", loopback}}, config, handle)
}

// tcpPeer is a bare connection to an endpoint.
type tcpPeer struct {
	*bufio.Reader
	net.Conn
	t testing.TB
}

func dialTCP(t testing.TB, e *Endpoint) *tcpPeer {
	t.Helper()
	conn, err := net.Dial("tcp", e.Addrs()[len(e.Addrs())-1].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &tcpPeer{bufio.NewReader(conn), conn, t}
}

func (p *tcpPeer) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func (p *tcpPeer) say(text string) {
	p.t.Helper()
	if _, err := p.Write([]byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// hear returns the header section of the next message; there is no body.
func (p *tcpPeer) hear() string {
	p.t.Helper()
	var text strings.Builder
	for !strings.HasSuffix(text.String(), "\r\n\r\n") {
		line, err := p.ReadString('\n')
		if err != nil {
			p.t.Fatalf("after %q: %v", text.String(), err)
		}
		text.WriteString(line)
	}
	return text.String()
}

func TestBothNetworks(t *testing.T) {
	flows := make(chan Flow, 2)
	e := openTCP(t, Config{}, func(_ context.Context, x *Exchange) {
		flows <- x.Flow
		x.Answer(Reply{Status: 200})
	})
	udp, tcp := dial(t, e), dialTCP(t, e)
	udp.send([]byte(hello("a")))
	tcp.say(hello("b"))
	for range 2 {
		switch f := <-flows; f.Network {
		case "udp":
			if f.Local != e.Addrs()[0] || f.Remote.String() != udp.conn.LocalAddr().String() || f.ID != "" {
				t.Errorf("%v", f)
			}
		case "tcp":
			if f.Local != e.Addrs()[1] || f.Remote.String() != tcp.LocalAddr().String() || f.ID == "" {
				t.Errorf("%v", f)
			}
			if again, err := ParseFlow(f.String()); err != nil || again != f || !e.Connected(again) {
				t.Errorf("%v: %v", again, err)
			}
		}
	}
	if got := status(tcp.hear()); got != "200 OK" {
		t.Error(got)
	}
	server := e.Addrs()[1]
	if _, err := Listen([]Listener{{"tcp", server}}, Config{}); err == nil || !strings.Contains(err.Error(), "listen on tcp "+server.String()) {
		t.Errorf("%v", err)
	}
	if _, err := Listen([]Listener{{"sctp", server}}, Config{}); err == nil {
		t.Error("sctp was taken")
	}
}

// TestViaOfBothNetworks: where a request really came from is added to its
// topmost Via, however many there are and however they are written.
func TestViaOfBothNetworks(t *testing.T) {
	e := openTCP(t, Config{}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	ask := map[string]func(request string) (answer string, port string){
		"udp": func(request string) (string, string) {
			p := dial(t, e)
			_, port, _ := net.SplitHostPort(p.conn.LocalAddr().String())
			p.send([]byte(strings.ReplaceAll(request, "PORT", port)))
			return p.receive(), port
		},
		"tcp": func(request string) (string, string) {
			p := dialTCP(t, e)
			_, port, _ := net.SplitHostPort(p.LocalAddr().String())
			p.say(strings.ReplaceAll(request, "PORT", port))
			return p.hear(), port
		},
	}
	tests := []struct{ via, want string }{
		{"Via: SIP/2.0/X 127.0.0.1:PORT;branch=z9hG4bK1", "Via: SIP/2.0/X 127.0.0.1:PORT;branch=z9hG4bK1"},
		{"Via: SIP/2.0/X h:PORT;branch=z9hG4bK1", "Via: SIP/2.0/X h:PORT;branch=z9hG4bK1;received=127.0.0.1"},
		{"Via: SIP/2.0/X 192.0.2.1;rport;branch=z9hG4bK1", "Via: SIP/2.0/X 192.0.2.1;rport=PORT;branch=z9hG4bK1;received=127.0.0.1"},
		{"Via: SIP/2.0/X h;received=192.0.2.7;branch=z9hG4bK1;rport", "Via: SIP/2.0/X h;branch=z9hG4bK1;rport=PORT;received=127.0.0.1"},
		{"Via: SIP/2.0/X h;rport;branch=z9hG4bK1;Received=192.0.2.7", "Via: SIP/2.0/X h;rport=PORT;branch=z9hG4bK1;received=127.0.0.1"},
		{"Via: SIP/2.0/X 127.0.0.1:PORT; received = 192.0.2.7 ;branch=z9hG4bK1", "Via: SIP/2.0/X 127.0.0.1:PORT;branch=z9hG4bK1"},
		{"v: SIP/2.0/X h:PORT;branch=z9hG4bK1, SIP/2.0/X i;rport\r\nVIA: SIP/2.0/X j", "Via: SIP/2.0/X h:PORT;branch=z9hG4bK1;received=127.0.0.1, SIP/2.0/X i;rport\r\nVia: SIP/2.0/X j"},
	}
	for network, ask := range ask {
		for _, test := range tests {
			answer, port := ask(strings.Replace(hello("a"), "Via: SIP/2.0/TCP h;branch=z9hG4bK1", test.via, 1))
			if want := strings.ReplaceAll(test.want, "PORT", port) + "\r\nFrom:"; !strings.Contains(answer, want) {
				t.Errorf("%s: %q, want %q", network, answer, want)
			}
		}
	}
}

// TestLastAnswerArrives: the peer sees why we hang up though it has sent more
// than we read.
func TestLastAnswerArrives(t *testing.T) {
	e := openTCP(t, Config{}, nil)
	p := dialTCP(t, e)
	p.say(streamed("\r\n") + strings.Repeat("x", 20_000))
	if got := status(p.hear()); got != "400 Missing Content-Length" {
		t.Error(got)
	}
	if _, err := io.Copy(io.Discard, p); err != nil {
		t.Error(err)
	}
}

// TestResetEndsTransactions: a peer who goes away without a word ends what is
// on its connection at once.
func TestResetEndsTransactions(t *testing.T) {
	flows, closed := make(chan Flow, 1), make(chan Flow, 1)
	e := openTCP(t, Config{Closed: func(f Flow) { closed <- f }}, func(_ context.Context, x *Exchange) {
		x.Answer(Reply{Status: 200})
		flows <- x.Flow
	})
	p := dialTCP(t, e)
	p.say(hello("a"))
	p.hear()
	go func() {
		p.hear() // the request
		_ = p.Conn.(*net.TCPConn).SetLinger(0)
		p.Close()
	}()
	flow := <-flows
	if _, err := e.Do(t.Context(), flow, testOutgoing); err != ErrNoFlow {
		t.Error(err)
	}
	if f := <-closed; f != flow {
		t.Errorf("%v, want %v", f, flow)
	}
}

// TestIdleConnectionIsSmall: a connection that has sent a request and now does
// nothing costs less than 16 KiB, its goroutine and its peer's end in this
// process included.
func TestIdleConnectionIsSmall(t *testing.T) {
	const n = 2000
	config := Config{Workers: 2, Limits: Limits{MaxPerAddress: n}}
	e := openTCP(t, config, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	before := memory()
	peers := make([]net.Conn, n)
	answer := make([]byte, 4096)
	for i := range peers {
		conn, err := net.Dial("tcp", e.Addrs()[1].String())
		if err != nil {
			t.Skipf("only %d connections: %v", i, err)
		}
		defer conn.Close()
		peers[i] = conn
		if _, err := conn.Write([]byte(hello(fmt.Sprint(i)))); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(answer); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.Counts().Connections; got != n {
		t.Fatalf("%d connections", got)
	}
	each := (memory() - before) / n
	t.Logf("%d octets each", each)
	if each > 16<<10 {
		t.Errorf("%d octets each", each)
	}
	p := dial(t, e)
	p.send(p.message("a"))
	if got := status(p.receive()); got != "200 OK" {
		t.Error(got)
	}
}

// memory is what the process holds after the collector has run, stacks
// included.
func memory() uint64 {
	runtime.GC()
	runtime.GC() // pools are empty only now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// BenchmarkLoopbackTCP is BenchmarkLoopback over 32 connections, answered by
// peers that parse nothing.
func BenchmarkLoopbackTCP(b *testing.B) {
	e := openTCP(b, Config{}, func(_ context.Context, x *Exchange) {
		if x.Begin() == nil {
			x.Answer(Reply{Status: 200})
		}
	})
	requests := make(chan string, 1024)
	go func() {
		defer close(requests)
		for i := range b.N {
			requests <- strings.Replace(hello(fmt.Sprint(i)), "z9hG4bK1", fmt.Sprint("z9hG4bK", i), 1)
		}
	}()
	before := cpu(b)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		p := dialTCP(b, e)
		for pb.Next() {
			p.say(<-requests)
			p.hear()
		}
	})
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "CPU-µs/op")
}

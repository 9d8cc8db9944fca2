package wire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// open starts an endpoint on loopback that ends with the test.
func open(t testing.TB, config Config, handle Handler) *Endpoint {
	t.Helper()
	return openOn(t, []Listener{{"udp", netip.MustParseAddrPort("127.0.0.1:0")}}, config, handle)
}

func openOn(t testing.TB, listeners []Listener, config Config, handle Handler) *Endpoint {
	t.Helper()
	e, err := Listen(listeners, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		e.Serve(ctx, handle)
	}()
	t.Cleanup(func() {
		cancel()
		<-served
		e.Close()
	})
	return e
}

// peer is a bare socket that talks to an endpoint.
type peer struct {
	t    testing.TB
	conn *net.UDPConn
}

func dial(t testing.TB, e *Endpoint) *peer {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.Addrs()[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &peer{t, conn}
}

func (p *peer) send(data []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(data); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) receive() string {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	buffer := make([]byte, MaxMessage)
	n, err := p.conn.Read(buffer)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(buffer[:n])
}

func (p *peer) message(callID string) []byte {
	return fmt.Appendf(nil, "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bK%s\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %s\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n", p.conn.LocalAddr(), callID, callID)
}

func status(s string) string {
	line, _, _ := strings.Cut(s, "\r\n")
	return strings.TrimPrefix(line, "SIP/2.0 ")
}

func TestRetransmissionsAreAbsorbed(t *testing.T) {
	tests := []struct {
		name    string
		reply   Reply
		begin   bool
		handled int32
	}{
		{"plain", Reply{Status: 480, RetryAfter: 3 * time.Second}, true, 1},
		{"kept whole", Reply{Status: 415, Headers: []Header{{"Accept", "text/plain"}}}, true, 1},
		{"stateless", Reply{Status: 401}, false, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var handled atomic.Int32
			arrived, release := make(chan struct{}, 8), make(chan struct{})
			e := open(t, Config{}, func(_ context.Context, x *Exchange) {
				handled.Add(1)
				arrived <- struct{}{}
				if !test.begin {
					x.Answer(test.reply)
					return
				}
				if err := x.Begin(); err != nil {
					t.Error(err)
				}
				go func() {
					<-release
					x.Answer(test.reply)
				}()
			})
			p := dial(t, e)
			p.send(p.message("a"))
			p.send(p.message("a")) // while it is being handled
			if test.begin {
				p.send(p.message("other"))
				<-arrived
				<-arrived // the same worker: the repetition came before it
			}
			close(release)
			first := p.receive()
			if test.begin {
				if other := p.receive(); strings.Contains(first, "Call-ID: other") {
					first = other
				}
				handled.Add(-1)
			} else if again := p.receive(); again != first {
				t.Errorf("%q, then %q", first, again)
			}
			p.send(p.message("a"))
			if again := p.receive(); again != first {
				t.Errorf("%q, then %q", first, again)
			}
			if got := handled.Load(); got != test.handled {
				t.Errorf("handled %d times", got)
			}
			if !strings.HasPrefix(first, fmt.Sprintf("SIP/2.0 %d ", test.reply.Status)) {
				t.Errorf("answer %q", first)
			}
		})
	}
}

func TestPanicIsAnswered(t *testing.T) {
	e := open(t, Config{}, func(_ context.Context, x *Exchange) {
		if x.CallID == "a" {
			panic("fault")
		}
		x.Answer(Reply{Status: 200})
	})
	p := dial(t, e)
	p.send(p.message("a"))
	if got := status(p.receive()); got != "500 Server Internal Error" {
		t.Error(got)
	}
	p.send(p.message("b"))
	if got := status(p.receive()); got != "200 OK" || e.Counts().Panics != 1 {
		t.Error(got, e.Counts())
	}
}

func TestMalformedIsAnsweredOrDropped(t *testing.T) {
	e := open(t, Config{MaxBody: 10}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	p := dial(t, e)
	for _, dropped := range []string{"", "\r\n\r\n", "\x00", "garbage", "MESSAGE sip:a@b SIP/2.0\r\n\r\n", strings.Replace(string(p.message("x")), "Via:", "X-Via:", 1), strings.ReplaceAll(strings.Replace(string(p.message("x")), "Content-Length: 0", "Content-Length: 9", 1), "MESSAGE", "ACK")} {
		p.send([]byte(dropped))
	}
	for _, test := range []struct{ old, new, status string }{
		{"CSeq: 1 MESSAGE", "CSeq: 1 OPTIONS", "400 CSeq Method Mismatch"},
		{"Content-Length: 0", "Content-Length: 1", "400 Content-Length Mismatch"},
		{"\r\n\r\n", "\r\nTo: <sip:evil@b>\r\n\r\n", "400 More Than One To"},
		{"SIP/2.0\r\nVia", "SIP/3.0\r\nVia", "505 Version Not Supported"},
		{"MESSAGE sip:a@b", "MESSAGE mailto:a@b", "416 Unsupported URI Scheme"},
		{"Content-Length: 0\r\n\r\n", "\r\n01234567890", "413 Request Entity Too Large"},
		{"", "", "200 OK"},
	} {
		p.send([]byte(strings.Replace(string(p.message("a")), test.old, test.new, 1)))
		if got := status(p.receive()); got != test.status {
			t.Errorf("%q: %s, want %s", test.new, got, test.status)
		}
	}
	if c := e.Counts(); c.Malformed != 9 || c.TooLarge != 1 || c.KeepAlives != 3 || c.Requests != 1 {
		t.Errorf("%+v", c)
	}
}

func TestTooManyPending(t *testing.T) {
	e := open(t, Config{Pending: 1}, func(_ context.Context, x *Exchange) {
		if err := x.Begin(); err != nil {
			x.Answer(Reply{Status: 503, RetryAfter: time.Second})
		}
	})
	p := dial(t, e)
	p.send(p.message("a"))
	p.send(p.message("b"))
	if got := p.receive(); status(got) != "503 Service Unavailable" || !strings.Contains(got, "Call-ID: b") {
		t.Error(got)
	}
	if c := e.Counts(); c.Busy != 1 || c.Pending != 1 {
		t.Errorf("%+v", c)
	}
}

// TestResponseGoesBackToTheSource: without rport to the port in the Via, and
// never to an address that the Via makes up.
func TestResponseGoesBackToTheSource(t *testing.T) {
	e := open(t, Config{}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	p, other := dial(t, e), dial(t, e)
	_, port, _ := net.SplitHostPort(other.conn.LocalAddr().String())
	own := p.conn.LocalAddr().String()
	p.send([]byte(strings.Replace(string(p.message("a")), own+";rport", "192.0.2.1:"+port, 1)))
	if got := other.receive(); !strings.Contains(got, "Via: SIP/2.0/UDP 192.0.2.1:"+port+";branch=z9hG4bKa;received=127.0.0.1\r\n") {
		t.Error(got)
	}
	p.send([]byte(strings.Replace(string(p.message("b")), own, "nowhere.example.com", 1)))
	_, port, _ = net.SplitHostPort(own)
	if got := p.receive(); !strings.Contains(got, "Via: SIP/2.0/UDP nowhere.example.com;rport="+port+";branch=z9hG4bKb;received=127.0.0.1\r\n") {
		t.Error(got)
	}
}

func TestDo(t *testing.T) {
	server := open(t, Config{}, func(_ context.Context, x *Exchange) {
		x.Answer(Reply{Status: 200, Headers: []Header{{"Retry-After", "7"}}})
	})
	e := open(t, Config{}, func(context.Context, *Exchange) {})
	flow := Flow{Network: "udp", Local: e.Addrs()[0], Remote: server.Addrs()[0]}
	response, err := e.Do(t.Context(), flow, testOutgoing)
	if err != nil || response.Status != 200 || response.Get("retry-after") != "7" {
		t.Fatalf("%+v, %v", response, err)
	}
	gone := flow
	gone.Local = netip.MustParseAddrPort("192.0.2.1:5060") // a socket that we no longer have
	if _, err := e.Do(t.Context(), gone, testOutgoing); err != nil {
		t.Errorf("another socket of the family can't do it: %v", err)
	}
	six := flow
	six.Remote = netip.MustParseAddrPort("[::1]:5060")
	if _, err := e.Do(t.Context(), six, testOutgoing); err != ErrNoFlow {
		t.Errorf("wrong family: %v", err)
	}
}

func TestFlow(t *testing.T) {
	for _, s := range []string{"udp;127.0.0.1:5060;192.0.2.1:4000", "udp;[::1]:5060;[2001:db8::1]:4000", "tcp;[::1]:5060;[2001:db8::1]:4000;QK3ZV"} {
		f, err := ParseFlow(s)
		if err != nil || f.String() != s {
			t.Errorf("%q: %v %v", s, f, err)
		}
	}
	for _, s := range []string{"", "udp", "tcp;127.0.0.1:5060;192.0.2.1:4000", "tcp;127.0.0.1:5060;192.0.2.1:4000;", "tcp;127.0.0.1:5060;192.0.2.1:4000;a;b", "udp;127.0.0.1:5060;192.0.2.1:4000;ID", "udp;x;192.0.2.1:4000", "udp;127.0.0.1:5060;192.0.2.1", "udp;127.0.0.1:5060;192.0.2.1:0"} {
		if f, err := ParseFlow(s); err == nil {
			t.Errorf("%q: %v", s, f)
		}
	}
}

func TestListenFails(t *testing.T) {
	e := open(t, Config{}, nil)
	if _, err := Listen([]Listener{{"udp", netip.MustParseAddrPort("127.0.0.1:0")}, {"udp", e.Addrs()[0]}}, Config{}); err == nil || !strings.Contains(err.Error(), e.Addrs()[0].String()) {
		t.Errorf("%v", err)
	}
}

// BenchmarkLoopback sends a request from one endpoint to another and waits for
// the answer: both sides together, in microseconds of CPU.
func BenchmarkLoopback(b *testing.B) {
	server := open(b, Config{}, func(_ context.Context, x *Exchange) {
		if x.Begin() == nil {
			x.Answer(Reply{Status: 200})
		}
	})
	e := open(b, Config{}, func(context.Context, *Exchange) {})
	flow := Flow{Network: "udp", Local: e.Addrs()[0], Remote: server.Addrs()[0]}
	before := cpu(b)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.Do(b.Context(), flow, testOutgoing); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "CPU-µs/op")
}

func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// socketPeer is a WebSocket whose frames are made by hand.
type socketPeer struct {
	*bufio.Reader
	net.Conn
	t testing.TB
}

func (p *socketPeer) Read(b []byte) (int, error) { return p.Reader.Read(b) }

const upgradeRequest = "GET / HTTP/1.1\r\nHost: sip.example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://app.example.com\r\nSec-WebSocket-Protocol: chat, sip\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

// dialSocket opens a WebSocket; config is nil without TLS.
func dialSocket(t testing.TB, e *Endpoint, config *tls.Config) *socketPeer {
	t.Helper()
	var p *tcpPeer
	if config != nil {
		p = dialTLS(t, e, config)
	} else {
		p = dialTCP(t, e)
	}
	return upgraded(t, p.Conn)
}

func upgraded(t testing.TB, conn net.Conn) *socketPeer {
	t.Helper()
	p := &socketPeer{bufio.NewReader(conn), conn, t}
	response := p.upgrade(upgradeRequest)
	if response.StatusCode != 101 || response.Header.Get("Sec-WebSocket-Protocol") != "sip" || response.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || response.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Fatalf("%+v", response)
	}
	return p
}

func (p *socketPeer) upgrade(request string) *http.Response {
	p.t.Helper()
	if _, err := io.WriteString(p.Conn, request); err != nil {
		p.t.Fatal(err)
	}
	response, err := http.ReadResponse(p.Reader, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return response
}

// frame is a masked one: opcode with the bit that says whether it is the last.
func frame(opcode byte, payload string) []byte {
	b := appendFrameHead(nil, opcode, len(payload))
	b[1] |= 0x80
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func (p *socketPeer) write(frames ...[]byte) {
	p.t.Helper()
	for _, f := range frames {
		if _, err := p.Conn.Write(f); err != nil {
			p.t.Error(err)
		}
	}
}

func (p *socketPeer) say(text string) {
	p.t.Helper()
	p.write(frame(frameText, text))
}

// frame returns the next frame.
func (p *socketPeer) frame() (opcode byte, payload string) {
	p.t.Helper()
	opcode, payload, err := readFrame(p.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return opcode, payload
}

func readFrame(r io.Reader) (opcode byte, payload string, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, "", err
	}
	length := int(head[1])
	if length == 126 {
		extended := make([]byte, 2)
		if _, err := io.ReadFull(r, extended); err != nil {
			return 0, "", err
		}
		length = int(binary.BigEndian.Uint16(extended))
	}
	if length == 127 {
		extended := make([]byte, 8)
		if _, err := io.ReadFull(r, extended); err != nil {
			return 0, "", err
		}
		length = int(binary.BigEndian.Uint64(extended))
	}
	b := make([]byte, length)
	_, err = io.ReadFull(r, b)
	return head[0], string(b), err
}

// hear returns the next message.
func (p *socketPeer) hear() string {
	p.t.Helper()
	opcode, payload := p.frame()
	if opcode != frameText {
		p.t.Fatalf("frame %x %q", opcode, payload)
	}
	return payload
}

// hearClose returns the status of the Close frame, behind which the connection
// ends.
func (p *socketPeer) hearClose() int {
	p.t.Helper()
	opcode, payload := p.frame()
	if opcode != frameClose || len(payload) < 2 {
		p.t.Fatalf("frame %x %q", opcode, payload)
	}
	if n, err := io.Copy(io.Discard, p.Reader); n > 0 || err != nil {
		p.t.Errorf("%d octets behind Close, %v", n, err)
	}
	return int(binary.BigEndian.Uint16([]byte(payload)))
}

func TestWebSocket(t *testing.T) {
	authority := newAuthority(t)
	client := &tls.Config{RootCAs: authority.pool, ServerName: "sip.example.com", Certificates: []tls.Certificate{authority.issue("peer.example.org")}}
	for family, address := range loopbacks() {
		for network, config := range map[string]*tls.Config{"ws": nil, "wss": client} {
			t.Run(network+" "+family, func(t *testing.T) {
				exchanges := make(chan *Exchange, 1)
				e := openEach(t, network, address, Config{TLS: authority.server("sip.example.com")}, func(_ context.Context, x *Exchange) {
					x.Answer(Reply{Status: 200, Body: x.Body})
					exchanges <- x
				})
				p := dialSocket(t, e, config)
				p.say(hello("a"))
				if got := p.hear(); status(got) != "200 OK" || !strings.HasSuffix(got, "\r\n\r\nhello") {
					t.Errorf("%q", got)
				}
				x := <-exchanges
				if (x.Certificate() != nil) != (network == "wss") {
					t.Errorf("certificate %v", x.Certificate())
				}
				flow, err := ParseFlow(x.Flow.String())
				if err != nil || flow != x.Flow || flow.Network != network || !e.Connected(flow) {
					t.Errorf("%v, %v", flow, err)
				}
				there(t, e, flow, p, "Via: SIP/2.0/"+strings.ToUpper(network)+" "+e.Addrs()[0].String()+";")
			})
		}
	}
}

func TestWebSocketMessages(t *testing.T) {
	const head = "Content-Type: text/plain\r\n\r\n"
	large := strings.Repeat("x", 60_000)
	text := hello("a")
	untold := strings.Replace(text, "Content-Length: 5\r\n", "", 1)
	tests := []struct {
		name   string
		frames [][]byte
		answer string // and the body of the request behind it
	}{
		{"text", [][]byte{frame(frameText, text)}, "200 OK hello"},
		{"binary", [][]byte{frame(frameBinary, text)}, "200 OK hello"},
		{"without Content-Length", [][]byte{frame(frameText, untold)}, "200 OK hello"},
		{"behind an empty line", [][]byte{frame(frameText, "\r\n"+text)}, "200 OK hello"},
		{"fragments", [][]byte{frame(0x01, text[:1]), frame(0x00, text[1:50]), frame(0x00, ""), frame(0x80, text[50:])}, "200 OK hello"},
		{"binary fragments", [][]byte{frame(0x02, text[:90]), frame(0x80, text[90:])}, "200 OK hello"},
		{"large", [][]byte{frame(frameText, streamed(head+large))}, "200 OK " + large},
		{"large in fragments", [][]byte{frame(0x01, streamed(head)), frame(0x00, large[:30_000]), frame(0x80, large[30_000:])}, "200 OK " + large},
		{"body too large", [][]byte{frame(frameText, streamed(head+large+large[:6000]))}, "413 Request Entity Too Large "},
		{"two messages in one", [][]byte{frame(frameText, text+text)}, "400 Content-Length Mismatch "},
		{"half of one", [][]byte{frame(frameText, text[:len(text)-1])}, "400 Content-Length Mismatch "},
		{"behind garbage", [][]byte{frame(frameText, "garbage"), frame(frameText, text)}, "200 OK hello"},
		{"behind nothing", [][]byte{frame(frameText, ""), frame(frameText, text)}, "200 OK hello"},
		{"behind a pong", [][]byte{frame(0x8a, "unasked"), frame(frameText, text)}, "200 OK hello"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := openEach(t, "ws", loopbacks()["IPv4"], Config{}, echo)
			p := dialSocket(t, e, nil)
			p.write(test.frames...)
			answer := p.hear()
			_, body, _ := strings.Cut(answer, "\r\n\r\n")
			if got := status(answer) + " " + body; got != test.answer {
				t.Errorf("%.200q, want %.200q", got, test.answer)
			}
			p.say(text) // whatever it was, the connection goes on
			if got := status(p.hear()); got != "200 OK" {
				t.Error(got)
			}
		})
	}
}

// TestWebSocketControlFrames come where they may, between fragments too.
func TestWebSocketControlFrames(t *testing.T) {
	e := openEach(t, "ws", loopbacks()["IPv4"], Config{}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	p := dialSocket(t, e, nil)
	text := hello("a")
	p.write(frame(0x89, "before"), frame(0x01, text[:70]), frame(0x89, "between"), frame(0x80, text[70:]))
	for _, want := range []string{"before", "between"} {
		if opcode, payload := p.frame(); opcode != 0x8a || payload != want {
			t.Errorf("frame %x %q, want a pong to %q", opcode, payload, want)
		}
	}
	if got := status(p.hear()); got != "200 OK" {
		t.Error(got)
	}
	p.say("\r\n")
	p.say("\r\n\r\n")
	if got := p.hear(); got != "\r\n" {
		t.Errorf("%q, want a pong", got)
	}
	if n := e.Counts(); n.KeepAlives != 4 || n.Pings != 1 {
		t.Errorf("%+v", n)
	}
	p.write(frame(frameClose, "\x03\xe8bye"))
	if got := p.hearClose(); got != 1000 {
		t.Error(got)
	}
	p.Close()
	waitFor(t, func() bool { n := e.Counts(); return n.EndedByPeer == 1 && n.Connections == 0 })
}

func TestWebSocketsThatEnd(t *testing.T) {
	tests := []struct {
		name   string
		said   []byte
		status int
	}{
		{"too large", frame(frameText, strings.Repeat("x", maxHead+64<<10+1)), 1009},
		{"too large in fragments", append(frame(0x01, strings.Repeat("x", 60_000)), frame(0x80, strings.Repeat("x", 60_000))...), 1009},
		{"without a mask", appendFrameHead(nil, frameText, 0), 1002},
		{"reserved bits", frame(0xc1, hello("a")), 1002},
		{"unknown opcode", frame(0x83, ""), 1002},
		{"continuation of nothing", frame(0x80, ""), 1002},
		{"two begun", append(frame(0x01, "a"), frame(0x81, "b")...), 1002},
		{"long ping", frame(0x89, strings.Repeat("x", 126)), 1002},
		{"fragmented ping", frame(0x09, "x"), 1002},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			closed := make(chan Flow, 1)
			e := openEach(t, "ws", loopbacks()["IPv4"], Config{Closed: func(f Flow) { closed <- f }}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
			p := dialSocket(t, e, nil)
			go p.Conn.Write(test.said) // not all of it is read
			if got := p.hearClose(); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
			p.Close()
			<-closed
			if n := e.Counts(); n.EndedMalformed != 1 || n.Malformed+n.TooLarge != 1 {
				t.Errorf("%+v", n)
			}
		})
	}
}

func TestUpgradeRefused(t *testing.T) {
	tests := []struct {
		name, old, new string
		status         int
	}{
		{"wrong path", "GET / ", "GET /chat ", 404},
		{"no sub-protocol", "Sec-WebSocket-Protocol: chat, sip\r\n", "", 400},
		{"another sub-protocol", "chat, sip", "chat", 400},
		{"wrong origin", "https://app.example.com", "https://evil.example.org", 403},
		{"sandboxed page", "https://app.example.com", "null", 403},
		{"two origins", "Origin:", "Origin: https://app.example.com\r\nOrigin:", 403},
		{"no upgrade", "Upgrade: websocket\r\n", "", 426},
		{"another version", "Version: 13", "Version: 8", 400},
		{"not GET", "GET", "POST", 405},
		{"with a body", "Host:", "Content-Length: 5\r\nHost:", 400},
		{"chunked", "Host:", "Transfer-Encoding: chunked\r\nHost:", 400},
		{"no host", "Host: sip.example.com\r\n", "", 400},
		{"not HTTP", "GET / HTTP/1.1", "MESSAGE sip:a@b SIP/2.0", 400},
		{"header section too large", "Host:", "X: " + strings.Repeat("x", maxUpgrade) + "\r\nHost:", 400},
	}
	e := openEach(t, "ws", loopbacks()["IPv4"], Config{WebSocket: WebSocket{Origins: []string{"*.Example.com", "app.example.net:8443"}}}, nil)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn := dialTCP(t, e).Conn
			p := &socketPeer{bufio.NewReader(conn), conn, t}
			if got := p.upgrade(strings.Replace(upgradeRequest, test.old, test.new, 1)); got.StatusCode != test.status || !got.Close {
				t.Errorf("%+v, want %d", got, test.status)
			}
			conn.Close()
			waitFor(t, func() bool { n := e.Counts(); return n.EndedHandshake == uint64(i+1) && n.Connections == 0 })
		})
	}
	for _, origin := range []string{"Origin: https://app.example.com\r\n", "Origin: https://app.example.net:8443\r\n", ""} {
		conn := dialTCP(t, e).Conn
		p := &socketPeer{bufio.NewReader(conn), conn, t}
		if got := p.upgrade(strings.Replace(upgradeRequest, "Origin: https://app.example.com\r\n", origin, 1)); got.StatusCode != 101 {
			t.Errorf("%q: %+v", origin, got)
		}
	}
}

// TestWebSocketOfTheLibrary: a client that isn't made by hand.
func TestWebSocketOfTheLibrary(t *testing.T) {
	e := openEach(t, "ws", loopbacks()["IPv4"], Config{WebSocket: WebSocket{Path: "/sip"}}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, _, err := websocket.Dial(ctx, fmt.Sprintf("ws://%s/sip?user=1", e.Addrs()[0]), &websocket.DialOptions{Subprotocols: []string{"sip"}, CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(ctx, websocket.MessageText, []byte(hello("a"))); err != nil {
		t.Fatal(err)
	}
	if kind, answer, err := p.Read(ctx); kind != websocket.MessageText || status(string(answer)) != "200 OK" {
		t.Errorf("%v %q %v", kind, answer, err)
	}
	if err := p.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

// TestBinaryFrames carry what isn't UTF-8, which a browser would refuse in text
// (RFC 6455 §8.1).
func TestBinaryFrames(t *testing.T) {
	e := openEach(t, "ws", loopbacks()["IPv4"], Config{}, func(_ context.Context, x *Exchange) {
		x.Answer(Reply{Status: 200, Body: []byte("\xff\xfe")})
	})
	p := dialSocket(t, e, nil)
	p.say(hello("a"))
	if opcode, answer := p.frame(); opcode != frameBinary || status(answer) != "200 OK" {
		t.Errorf("frame %x %q", opcode, answer)
	}
}

func TestFrameHead(t *testing.T) {
	for length, want := range map[int]string{0: "\x81\x00", 125: "\x81\x7d", 126: "\x81\x7e\x00\x7e", 65_535: "\x81\x7e\xff\xff", 65_536: "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"} {
		if got := appendFrameHead(nil, frameText, length); string(got) != want {
			t.Errorf("%d: %x, want %x", length, got, want)
		}
	}
}

// TestImpatientWebSocket doesn't wait for the end of the handshake.
func TestImpatientWebSocket(t *testing.T) {
	e := openEach(t, "ws", loopbacks()["IPv4"], Config{}, echo)
	conn := dialTCP(t, e).Conn
	p := &socketPeer{bufio.NewReader(conn), conn, t}
	if got := p.upgrade(upgradeRequest + string(frame(frameText, hello("a"))) + string(frame(frameText, hello("b")))); got.StatusCode != 101 {
		t.Fatalf("%+v", got)
	}
	for range 2 {
		if got := status(p.hear()); got != "200 OK" {
			t.Error(got)
		}
	}
}

package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are made in memory, for synctest.
type pipes struct {
	conns chan net.Conn
	errs  chan error
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case err := <-p.errs:
		return nil, err
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return nil }

// pipe is one side of a connection in memory that has addresses.
type pipe struct {
	net.Conn
	remote net.Addr
}

func (p pipe) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.9:5060"))
}

func (p pipe) RemoteAddr() net.Addr { return p.remote }

// bubble is an endpoint in a synctest bubble.
type bubble struct {
	*Endpoint
	t      *testing.T
	pipes  *pipes
	flows  chan Flow // of what came
	closed chan Flow // what Closed was told
	stop   context.CancelFunc
}

// inBubble runs a test with an endpoint that answers each request with 200,
// whose connections are in memory. Call-IDs that begin with "keep" are those of
// clients that we know.
func inBubble(t *testing.T, config Config, test func(t *testing.T, b *bubble)) {
	t.Helper()
	inBubbleOf(t, "tcp", config, test)
}

func inBubbleOf(t *testing.T, network string, config Config, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, flows: make(chan Flow, 64), closed: make(chan Flow, 64)}
		b.pipes = &pipes{conns: make(chan net.Conn), errs: make(chan error), done: make(chan struct{})}
		config.Closed = func(f Flow) { b.closed <- f }
		b.Endpoint = newEndpoint(config)
		b.acceptors = []*acceptor{{network: network, listener: b.pipes}}
		ctx, stop := context.WithCancel(t.Context())
		b.stop = stop
		served := make(chan struct{})
		go func() {
			defer close(served)
			b.Serve(ctx, b.handle)
		}()
		defer func() {
			stop()
			<-served
			b.Close()
			if left := b.budget.left.Load(); left != int64(b.config.Limits.MaxBuffered) {
				t.Errorf("%d of the budget left", left)
			}
		}()
		test(t, b)
	})
}

func (b *bubble) handle(_ context.Context, x *Exchange) {
	if strings.HasPrefix(x.CallID, "keep") {
		x.Keep()
	}
	b.flows <- x.Flow
	x.Answer(Reply{Status: 200})
}

// served starts an endpoint in a bubble, with one connection. stop ends it.
func served(t *testing.T, config Config, handle Handler) (*Endpoint, *caller, func()) {
	t.Helper()
	e := newEndpoint(config)
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	e.acceptors = []*acceptor{{network: "tcp", listener: p}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Serve(ctx, handle)
	}()
	b := &bubble{Endpoint: e, t: t, pipes: p}
	return e, b.call(somewhere), func() {
		cancel()
		<-ended
	}
}

// caller is the peer's side of a connection.
type caller struct {
	net.Conn
	t *testing.T
}

// known makes a call of a client that we know.
func (b *bubble) known(from string) *caller {
	b.t.Helper()
	c := b.call(from)
	c.say(hello("keep"))
	if got := c.hear(); got != "200 OK" {
		b.t.Error(got)
	}
	return c
}

func (b *bubble) call(from string) *caller {
	b.t.Helper()
	ours, theirs := net.Pipe()
	b.pipes.conns <- pipe{ours, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	b.t.Cleanup(func() { theirs.Close() })
	return &caller{theirs, b.t}
}

func (c *caller) say(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Errorf("%q: %v", text, err)
	}
}

// hear returns the status of the next response, or "pong".
func (c *caller) hear() string {
	c.t.Helper()
	buffer := make([]byte, 0, 4096)
	for !bytes.HasSuffix(buffer, []byte("\r\n\r\n")) {
		n, err := c.Read(buffer[len(buffer) : len(buffer)+1])
		if err != nil {
			c.t.Fatalf("after %q: %v", buffer, err)
		}
		buffer = buffer[:len(buffer)+n]
		if string(buffer) == "\r\n" {
			return "pong"
		}
	}
	return status(string(buffer))
}

// ends waits for the end of the connection and returns when it came.
func (c *caller) ends() time.Time {
	c.t.Helper()
	if n, err := io.Copy(io.Discard, c); n > 0 || err != nil && !errors.Is(err, io.ErrClosedPipe) {
		c.t.Errorf("%d octets before the end, %v", n, err)
	}
	return time.Now()
}

func (c *caller) isOpen() bool {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer c.SetReadDeadline(time.Time{})
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func hello(callID string) string {
	return strings.Replace(streamed("Content-Length: 5\r\n\r\nhello"), "Call-ID: c", "Call-ID: "+callID, 1)
}

const somewhere = "198.51.100.1:4000"

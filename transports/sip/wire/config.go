package wire

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Listener is where an endpoint listens.
type Listener struct {
	Network string // "udp", "tcp", "tls", "ws" or "wss"
	Address netip.AddrPort
}

// WebSocket says what a browser has to ask for (RFC 7118).
type WebSocket struct {
	Path string // of the URL; default "/"
	// Origins are patterns, as in path.Match, for the host of the page that opens
	// the connection, with its port if it names one; empty: any page may. A client
	// that is no browser names none and is let in: an origin keeps strangers'
	// pages away, not strangers.
	Origins []string
}

// Config says how an endpoint works. Zero values take the defaults.
type Config struct {
	MaxBody  int // octets of a body; default 64 KiB
	MaxUDP   int // octets of a request over UDP; default 1,300 (RFC 3261 §18.1.1)
	Workers  int // that handle requests; default 32
	Backlog  int // requests that wait for one worker; default 512
	Pending  int // requests without a final response; default 16,384
	Finished int // transactions whose retransmissions are answered; default 1,000,000
	Limits   Limits

	// TLS is that of listeners for "tls" and "wss", which need it. It may have
	// GetConfigForClient, which exchanges certificates while connections last.
	TLS *tls.Config
	// DialTLS is that of connections that Connect opens; its ServerName is
	// replaced. nil: TLS 1.2 and newer, certificates checked against the system's
	// authorities.
	DialTLS   *tls.Config
	WebSocket WebSocket // of listeners for "ws" and "wss"

	// Closed is told of each connection that ends while Serve runs, once, unless it
	// ends in its handshake. The connection's own goroutine calls it, which Serve
	// waits for; it must not wait for long. Requests that came on the connection may
	// still be on their way to the handler: whoever binds something to a flow asks
	// Connected afterwards.
	Closed func(Flow)

	Instance  string // what observers are told
	Observers *plugin.Observers
	Metrics   *plugin.Metrics
	Log       *slog.Logger
}

// Limits bound what connections may take. Zero values take the defaults.
type Limits struct {
	// Above these two the oldest connection that nobody has marked with Keep gives
	// way to who comes.
	MaxConnections int // in all; default 10,000
	MaxPerAddress  int // from one address, an IPv6 /64 counting as one; default 256
	// MaxBuffered is how many octets all connections together may hold of
	// messages that are not complete yet, or not written yet, beyond the first
	// 2 KiB of each; default 64 MiB.
	MaxBuffered int

	// MaxHandshakes is how many connections may be in a handshake, of TLS or of a
	// WebSocket; default 1,000. Above that the oldest handshake gives way to who comes.
	MaxHandshakes int
	// HandshakeTimeout is how long those handshakes may take together; default 5 s.
	HandshakeTimeout time.Duration
	// MessageTimeout is how long a message may take from its first octet to its
	// last, and the first one from the beginning of its connection, or from the end
	// of its handshake; default 10 s.
	MessageTimeout time.Duration
	// Idle ends a connection that sends nothing, not even a keep-alive; default
	// 15 min.
	Idle time.Duration
	// Unproven ends a connection that nobody has marked with Keep, if it sends
	// no valid message; default 60 s.
	Unproven time.Duration
	// WriteTimeout ends a connection whose peer doesn't take what we write;
	// default 5 s.
	WriteTimeout time.Duration
}

func (c Config) withDefaults() Config {
	c.MaxBody = or(c.MaxBody, 64<<10)
	c.MaxUDP = or(c.MaxUDP, 1300)
	c.Workers = or(c.Workers, 32)
	c.Backlog = or(c.Backlog, 512)
	c.Pending = or(c.Pending, 16_384)
	c.Finished = or(c.Finished, 1_000_000)
	c.Limits = c.Limits.withDefaults()
	if c.WebSocket.Path == "" {
		c.WebSocket.Path = "/"
	}
	if c.DialTLS == nil {
		c.DialTLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (l Limits) withDefaults() Limits {
	l.MaxConnections = or(l.MaxConnections, 10_000)
	l.MaxPerAddress = or(l.MaxPerAddress, 256)
	l.MaxBuffered = or(l.MaxBuffered, 64<<20)
	l.MaxHandshakes = or(l.MaxHandshakes, 1000)
	l.HandshakeTimeout = or(l.HandshakeTimeout, 5*time.Second)
	l.MessageTimeout = or(l.MessageTimeout, 10*time.Second)
	l.Idle = or(l.Idle, 15*time.Minute)
	l.Unproven = or(l.Unproven, time.Minute)
	l.WriteTimeout = or(l.WriteTimeout, 5*time.Second)
	return l
}

func or[T int | time.Duration](value, fallback T) T {
	if value == 0 {
		return fallback
	}
	return value
}

// Package target finds the server that a command talks to. It must not know
// what the command has to say.
package target

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	fallback    = "127.0.0.1:5060" // where a server without a configuration listens
	defaultPort = "5060"           // RFC 3261 §19.1.2
)

// ports are those of networks with one of their own (RFC 3261 §19.1.2, RFC 7118
// §5.2).
var ports = map[string]string{"tls": "5061", "ws": "80", "wss": "443"}

// Usage describes the flag whose value Of takes.
const Usage = "the SIP `server`: host:port, sip:host:port, udp://host:port, and so tcp, tls, ws and wss (default: as configured, else " + fallback + ")"

// Networks are those over which a server may be reached.
const Networks = "udp, tcp, tls, ws or wss"

// Further says what naming several servers means.
const Further = "; several are nodes of one gateway: whichever takes traffic is used"

// Names are the servers that a person has named, one with each flag.
type Names []string

// String is flag.Value.
func (n *Names) String() string { return strings.Join(*n, ", ") }

// Set is flag.Value.
func (n *Names) Set(name string) error {
	if len(*n) == maxNames {
		return fmt.Errorf("expected %d servers at most", maxNames)
	}
	*n = append(*n, name)
	return nil
}

const maxNames = 16

// Of returns the servers to talk to, as the function Of does each: at least one.
func (n Names) Of(network string, settings plugin.Config) ([]Server, error) {
	if len(n) == 0 {
		n = Names{""}
	}
	var servers []Server
	for _, name := range n {
		s, err := Of(name, network, settings)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// Server is where to send, host:port by network; empty: not over this one. WS and
// WSS may have a path behind it.
type Server struct{ UDP, TCP, TLS, WS, WSS string }

// Of returns the server to talk to: the one that was asked for, else the one
// that the configuration says clients can reach. network is one of Networks if the
// person at the terminal has chosen one, else empty.
func Of(asked, network string, settings plugin.Config) (Server, error) {
	if asked == "" {
		return configured(settings).only(network)
	}
	scheme, rest, found := strings.Cut(asked, "://")
	if !found {
		return named(strings.TrimPrefix(asked, "sip:"), network).only(network)
	}
	if network != "" && network != scheme {
		return Server{}, plugin.Usage("the server is %s, and the transport %s", asked, network)
	}
	return named(rest, scheme).only(scheme)
}

// named is a server that has the same name over all networks; without one chosen
// those that need no certificate.
func named(host, network string) Server {
	if network == "" {
		host = withPort(host, defaultPort)
		return Server{UDP: host, TCP: host}
	}
	port, own := ports[network]
	if !own {
		port = defaultPort
	}
	host, path, _ := strings.Cut(host, "/")
	host = withPort(host, port)
	web := host
	if path != "" {
		web += "/" + path
	}
	return Server{UDP: host, TCP: host, TLS: host, WS: web, WSS: web}
}

// configured is the server of a configuration; fallback if that has none that
// clients can reach.
func configured(settings plugin.Config) Server {
	door, ok := settings.(interface{ ClientAddress(network string) string })
	if !ok {
		return Server{UDP: fallback, TCP: fallback}
	}
	s := Server{
		UDP: door.ClientAddress("udp"), TCP: door.ClientAddress("tcp"),
		TLS: door.ClientAddress("tls"), WS: door.ClientAddress("ws"), WSS: door.ClientAddress("wss"),
	}
	if s == (Server{}) {
		return Server{UDP: fallback, TCP: fallback}
	}
	return s
}

// only leaves one of the networks.
func (s Server) only(network string) (Server, error) {
	switch network {
	case "":
		if s.UDP != "" || s.TCP != "" {
			return Server{UDP: s.UDP, TCP: s.TCP}, nil
		}
		return s, nil
	case "udp":
		s = Server{UDP: s.UDP}
	case "tcp":
		s = Server{TCP: s.TCP}
	case "tls":
		s = Server{TLS: s.TLS}
	case "ws":
		s = Server{WS: s.WS}
	case "wss":
		s = Server{WSS: s.WSS}
	default:
		return Server{}, plugin.Usage("%q isn't a transport: expected %s", network, Networks)
	}
	if s == (Server{}) {
		return s, plugin.Usage("the configuration has no %s listener: say which --server", network)
	}
	return s, nil
}

// withPort completes a server's name: "host", "host:port", "::1" or "[::1]:5060".
func withPort(server, port string) string {
	if ip, err := netip.ParseAddr(server); err == nil {
		return net.JoinHostPort(ip.String(), port)
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return net.JoinHostPort(strings.Trim(server, "[]"), port)
	}
	return server
}

// Local writes a socket's own address as SIP can: host:port without a zone.
func Local(conn net.Conn) netip.AddrPort {
	return plain(conn.LocalAddr())
}

// Remote does for the other end what Local does for ours.
func Remote(conn net.Conn) netip.AddrPort {
	return plain(conn.RemoteAddr())
}

func plain(address net.Addr) netip.AddrPort {
	with, ok := address.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	a := with.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

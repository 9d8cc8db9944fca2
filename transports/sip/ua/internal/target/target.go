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

// Usage describes the flag whose value Of takes.
const Usage = "the SIP `server`: host:port, sip:host:port, udp://host:port or tcp://host:port (default: as configured, else " + fallback + ")"

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

// Server is where to send, host:port by network; empty: not over this one.
type Server struct{ UDP, TCP string }

// Of returns the server to talk to: the one that was asked for, else the one
// that the configuration says clients can reach. network is "udp" or "tcp" if
// the person at the terminal has chosen one, else empty.
func Of(asked, network string, settings plugin.Config) (Server, error) {
	if asked == "" {
		return configured(settings).only(network)
	}
	scheme, rest, found := strings.Cut(asked, "://")
	if !found {
		host := withPort(strings.TrimPrefix(asked, "sip:"))
		return Server{UDP: host, TCP: host}.only(network)
	}
	if network != "" && network != scheme {
		return Server{}, plugin.Usage("the server is %s, and the transport %s", asked, network)
	}
	host := withPort(rest)
	return Server{UDP: host, TCP: host}.only(scheme)
}

// configured is the server of a configuration: the same address for both
// networks if it doesn't say.
func configured(settings plugin.Config) Server {
	door, ok := settings.(interface{ ClientAddress(network string) string })
	if !ok {
		return Server{UDP: fallback, TCP: fallback}
	}
	s := Server{UDP: door.ClientAddress("udp"), TCP: door.ClientAddress("tcp")}
	if s == (Server{}) {
		return Server{UDP: fallback, TCP: fallback}
	}
	return s
}

// only leaves one of the networks.
func (s Server) only(network string) (Server, error) {
	switch network {
	case "":
		return s, nil
	case "udp":
		s.TCP = ""
	case "tcp":
		s.UDP = ""
	default:
		return Server{}, plugin.Usage("%q isn't a transport: expected udp or tcp", network)
	}
	if s == (Server{}) {
		return s, plugin.Usage("the configuration has no %s listener: say which --server", network)
	}
	return s, nil
}

// withPort completes a server's name: "host", "host:port", "::1" or "[::1]:5060".
func withPort(server string) string {
	if ip, err := netip.ParseAddr(server); err == nil {
		return net.JoinHostPort(ip.String(), defaultPort)
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return net.JoinHostPort(strings.Trim(server, "[]"), defaultPort)
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

// Package target finds the server that a command talks to. It must not know
// what the command has to say.
package target

import (
	"net"
	"net/netip"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	fallback    = "127.0.0.1:5060" // where a server without a configuration listens
	defaultPort = "5060"           // RFC 3261 §19.1.2
)

// Usage describes the flag whose value Of takes.
const Usage = "`host:port` of the SIP server (default: as configured, else " + fallback + ")"

// Of returns the server to talk to, host:port: the one that was asked for,
// else the one that the configuration says clients can reach.
func Of(asked string, settings plugin.Config) string {
	if asked != "" {
		return withPort(asked)
	}
	door, ok := settings.(interface{ ClientAddress() string })
	if !ok || door.ClientAddress() == "" {
		return fallback
	}
	return door.ClientAddress()
}

// withPort completes a server's name: "host", "host:port", "::1" or "[::1]:5060".
func withPort(server string) string {
	if ip, err := netip.ParseAddr(server); err == nil {
		return net.JoinHostPort(ip.String(), defaultPort)
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return net.JoinHostPort(server, defaultPort)
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
	udp, ok := address.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	a := udp.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

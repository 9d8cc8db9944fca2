package sip

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/certificates"
	"github.com/imgate/imgate/transports/sip/wire"
)

// TLS is for the listeners that begin with tls:// or wss://.
type TLS struct {
	Certificate string `yaml:"certificate" doc:"file of our certificate and those that lead to its root, PEM; read anew when it changes"`
	Key         string `yaml:"key" doc:"file of its key, PEM; read anew when it changes"`
	ClientCA    string `yaml:"client_ca" doc:"file of the certificates, PEM, one of which must have signed a client's; read anew when it changes"`
	Clients     string `yaml:"clients" doc:"whether clients show a certificate that client_ca has signed: none, optional or required"`
}

// WebSocket is for the listeners that begin with ws:// or wss:// (RFC 7118).
type WebSocket struct {
	Path    string   `yaml:"path" doc:"path of the URL that clients connect to"`
	Origins []string `yaml:"origins" doc:"hosts of the pages that may connect, as a browser names them in Origin, such as app.example.com or *.example.com; empty: any. What is no browser names none and is let in"`
}

// The values of TLS.Clients.
const (
	clientsNone     = "none"
	clientsOptional = "optional"
	clientsRequired = "required"
)

// clientAuth says what TLS.Clients is to crypto/tls.
var clientAuth = map[string]tls.ClientAuthType{
	clientsNone:     tls.NoClientCert,
	clientsOptional: tls.VerifyClientCertIfGiven,
	clientsRequired: tls.RequireAndVerifyClientCert,
}

func (t TLS) files() certificates.Files {
	return certificates.Files{Certificate: t.Certificate, Key: t.Key, ClientCA: t.ClientCA}
}

// networks are those that listen can name; the value tells whether they need a
// certificate.
var networks = map[string]bool{"udp": false, "tcp": false, "tls": true, "ws": false, "wss": true}

func (c Config) checkListen(p *problems) {
	p.expect(len(c.Listen) > 0, "listen", `at least one address such as "udp://127.0.0.1:5060"`)
	for i, listen := range c.Listen {
		key := fmt.Sprintf("listen[%d]", i)
		l, err := parseListen(listen)
		p.expect(err == nil, key, `an address such as "udp://127.0.0.1:5060", "tls://[::1]:5061" or "wss://192.0.2.1:443" (an IP address, not a name)`)
		p.expect(err != nil || !slices.ContainsFunc(c.Listen[:i], l.collides), key, "each address once; TCP, TLS and WebSockets can't share a port")
	}
}

func (c Config) checkTLS(p *problems) {
	auth, known := clientAuth[c.TLS.Clients]
	p.expect(known, "tls.clients", "none, optional or required")
	if !c.needsTLS() {
		p.expect(c.TLS.files() == certificates.Files{}, "listen", "a tls:// or wss:// address, where tls is set")
		return
	}
	if !known {
		return
	}
	if err := c.TLS.files().Validate("tls.", auth); err != nil {
		*p = append(*p, err)
	}
}

// needsTLS tells whether there is a listener that needs a certificate.
func (c Config) needsTLS() bool {
	return slices.ContainsFunc(c.Listen, func(s string) bool {
		l, err := parseListen(s)
		return err == nil && networks[l.Network]
	})
}

// certificates reads the files; nil if no listener needs them.
func (c Config) certificates(log *slog.Logger) (*tls.Config, error) {
	if !c.needsTLS() {
		return nil, nil
	}
	store, err := certificates.Open(c.TLS.files(), clientAuth[c.TLS.Clients], log)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return store.Config(), nil
}

func (w WebSocket) check(p *problems) {
	p.expect(strings.HasPrefix(w.Path, "/") && !strings.ContainsAny(w.Path, "?# "), "websocket.path", `a path such as "/" or "/sip"`)
	for i, origin := range w.Origins {
		_, err := path.Match(origin, "")
		p.expect(err == nil && origin != "" && !strings.Contains(origin, "/"), fmt.Sprintf("websocket.origins[%d]", i), "a host such as app.example.com or *.example.com, without a scheme")
	}
}

var errListen = errors.New("not an address to listen on")

// listener is an item of listen.
type listener wire.Listener

// collides tells whether another item needs the same socket. At port 0 each gets
// one of its own, but nobody would want the same thing twice.
func (l listener) collides(s string) bool {
	other, err := parseListen(s)
	if err != nil || other.Address != l.Address {
		return false
	}
	return other.Network == l.Network || l.Address.Port() != 0 && (l.Network == "udp") == (other.Network == "udp")
}

func parseListen(s string) (listener, error) {
	network, rest, _ := strings.Cut(s, "://")
	if _, known := networks[network]; !known {
		return listener{}, errListen
	}
	address, err := netip.ParseAddrPort(rest)
	return listener{Network: network, Address: address}, err
}

// listeners returns where to listen.
func (c Config) listeners() ([]wire.Listener, error) {
	var listeners []wire.Listener
	for _, listen := range c.Listen {
		l, err := parseListen(listen)
		if err != nil {
			return nil, fmt.Errorf("listen %q: %w", listen, err)
		}
		listeners = append(listeners, wire.Listener(l))
	}
	return listeners, nil
}

// ClientAddress is where a client on this machine reaches the door over "udp",
// "tcp", "tls", "ws" or "wss", for the commands that play one: host:port of its
// first such listener, empty if it has none. A listener on all addresses is
// reached over loopback.
func (c Config) ClientAddress(network string) string {
	listeners, err := c.listeners()
	i := slices.IndexFunc(listeners, func(l wire.Listener) bool { return l.Network == network })
	if err != nil || i < 0 {
		return ""
	}
	address := listeners[i].Address
	if address.Addr().IsUnspecified() {
		return netip.AddrPortFrom(loopback(address.Addr()), address.Port()).String()
	}
	return address.String()
}

func loopback(unspecified netip.Addr) netip.Addr {
	if unspecified.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

package resolve

import (
	"errors"
	"net/netip"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// target is what a URI says of where to send (RFC 3263 §4).
type target struct {
	host       string     // fully qualified, in lower case
	address    netip.Addr // in place of a name
	port       uint16     // 0: it says none
	network    string     // empty: it says none
	secure     bool       // it is a sips URI
	serverName string
}

// errTransport is that of a URI that wants a transport that isn't ours.
var errTransport = errors.New("transport isn't one that we can send over")

func targetOf(u sip.Uri) (target, error) {
	t := target{port: uint16(u.Port), secure: wire.IsSecure(u), serverName: bareHost(u.Host)}
	host := u.Host
	if maddr, _ := u.UriParams.Get("maddr"); maddr != "" {
		host = maddr // RFC 3263 §4
	}
	transport, _ := u.UriParams.Get("transport")
	var err error
	if t.network, err = networkOf(transport, t.secure); err != nil {
		return t, message.Fail(message.Unbuildable, "%w: %q", err, transport)
	}
	if address, err := netip.ParseAddr(bareHost(host)); err == nil {
		t.host, t.address = host, address.Unmap()
		return t, nil
	}
	name, ok := hostName(host)
	if !ok {
		return t, message.Fail(message.UnknownRecipient, "not the name of a host")
	}
	t.host = name
	return t, nil
}

// networkOf reads the parameter transport (RFC 3261 §19.1.1).
func networkOf(transport string, secure bool) (string, error) {
	switch t := lower(transport); {
	case t == "":
		return "", nil
	case t == "udp" && !secure:
		return "udp", nil
	case t == "tcp" && !secure:
		return "tcp", nil
	case t == "tls", t == "tcp":
		return "tls", nil
	}
	return "", errTransport
}

// networks are those over which to look for servers, in order of preference.
func (t target) networks() []string {
	switch {
	case t.network != "":
		return []string{t.network}
	case t.secure:
		return []string{"tls"}
	}
	return []string{"udp", "tcp"}
}

// firstNetwork is the one where nothing else says which (RFC 3263 §4.1).
func (t target) firstNetwork() string { return t.networks()[0] }

// append adds the hops to a server. A port of 0 is the network's own.
func (t target) append(hops []wire.Target, network string, port uint16, addresses ...netip.Addr) []wire.Target {
	if port == 0 {
		port = defaultPort(network)
	}
	for _, address := range addresses {
		hop := wire.Target{Network: network, Address: netip.AddrPortFrom(address, port)}
		if network == "tls" {
			hop.ServerName = t.serverName
		}
		hops = append(hops, hop)
	}
	return hops
}

// defaultPort is where SIP is spoken (RFC 3261 §19.1.2).
func defaultPort(network string) uint16 {
	if network == "tls" {
		return 5061
	}
	return 5060
}

package sip

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Peer is a proxy or a gateway that is trusted because of the address that it
// sends from, or because of the certificate that it shows. Over TCP nobody else
// can send from an address; over UDP anybody can write any source address, so a
// network that lets strangers do that (RFC 2827) must not have peers over UDP.
// A certificate makes a peer of nobody but the connection on which it was shown.
//
// A peer may put itself on the way to the clients that register through it
// (RFC 3327), say under which trace a message is followed, and route a message
// through us. One with an account also vouches for the sender of a message
// without credentials, whatever its domain: the one in P-Asserted-Identity, else
// the one in From. Nobody registers without credentials.
//
// One that dispatches says from whom it has each request. Limits and lockouts
// are for those then; else all that it brings is of one source.
type Peer struct {
	Name      string   `yaml:"name" doc:"what policies know it by: the attribute peer of the sender; attribute asserted has the identity of a sender who doesn't want it shown (Privacy: id)"`
	Addresses []string `yaml:"addresses" doc:"what it sends from: IP addresses, or networks such as 192.0.2.0/24"`
	// Certificates are DNS names, or URIs such as sip:proxy.example.com (RFC 5922
	// §7.1); no patterns (§7.2).
	Certificates []string `yaml:"certificates" doc:"names in the certificate that it shows over TLS, as DNS name or URI (subjectAltName); such a peer needs no addresses"`
	Dispatches   bool     `yaml:"dispatches" doc:"whether it writes down in Via whom it has each request from (received, rport), as Kamailio and other proxies do: lockouts and limits are for those then, and not for the peer"`
	Account      string   `yaml:"account" doc:"the account that pays for messages that it vouches for; none: its clients authenticate with us"`
}

// Limits of the names in a peer, in octets.
const (
	maxPeerName    = 64
	maxPeerAccount = 256
)

func checkPeers(list []Peer, p *problems) {
	names := map[string]bool{}
	networks := map[netip.Prefix]bool{}
	certificates := map[string]bool{}
	for i, peer := range list {
		key := fmt.Sprintf("peers[%d]", i)
		p.expect(wire.IsToken(peer.Name) && len(peer.Name) <= maxPeerName && !names[peer.Name], key+".name", "a word, each once, of at most 64 characters")
		names[peer.Name] = true
		p.expect(len(peer.Addresses)+len(peer.Certificates) > 0, key+".addresses", "at least one address such as 192.0.2.7 or 192.0.2.0/24, or a name in certificates")
		for j, text := range peer.Addresses {
			network, err := parseNetwork(text)
			p.expect(err == nil && !networks[network], fmt.Sprintf("%s.addresses[%d]", key, j), "an IP address, or a network such as 192.0.2.0/24, each once")
			networks[network] = true
		}
		for j, name := range peer.Certificates {
			p.expect(isCertificateName(name) && !certificates[strings.ToLower(name)], fmt.Sprintf("%s.certificates[%d]", key, j), "a DNS name or a URI, each once")
			certificates[strings.ToLower(name)] = true
		}
		p.expect(len(peer.Account) <= maxPeerAccount, key+".account", "the id of an account, at most 256 octets")
	}
}

// checkCertified wants somebody to ask for the certificates by which peers are
// known.
func (c Config) checkCertified(p *problems) {
	asked := c.needsTLS() && c.TLS.Clients != clientsNone
	for i, peer := range c.Peers {
		p.expect(len(peer.Certificates) == 0 || asked, fmt.Sprintf("peers[%d].certificates", i), "tls.clients optional or required, and a tls:// or wss:// address in listen")
	}
}

// isCertificateName accepts a name, or a URI.
func isCertificateName(s string) bool {
	if !strings.Contains(s, ":") {
		return isDomain(s)
	}
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && len(s) <= maxPeerAccount
}

// parseNetwork reads a network, or an address as the network of it alone. A
// network of everything is none: it would trust everybody.
func parseNetwork(s string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(s); err == nil {
		return address.Unmap().WithZone("").Prefix(address.Unmap().BitLen())
	}
	network, err := netip.ParsePrefix(s)
	if err == nil && network.Bits() == 0 {
		err = fmt.Errorf("%s is everybody", s)
	}
	return network.Masked(), err
}

// peers finds the peer behind an address or a certificate.
type peers struct {
	networks     []peerNetwork
	certificates map[string]*Peer // by name, in lower case
}

type peerNetwork struct {
	network netip.Prefix
	peer    *Peer
}

// newPeers sorts the networks so that the smallest that fits comes first.
func newPeers(list []Peer) (peers, error) {
	all := peers{certificates: map[string]*Peer{}}
	for _, peer := range list {
		for _, name := range peer.Certificates {
			all.certificates[strings.ToLower(name)] = &peer
		}
		for _, text := range peer.Addresses {
			network, err := parseNetwork(text)
			if err != nil {
				return peers{}, fmt.Errorf("peer %s: %w", peer.Name, err)
			}
			all.networks = append(all.networks, peerNetwork{network, &peer})
		}
	}
	slices.SortStableFunc(all.networks, func(a, b peerNetwork) int { return cmp.Compare(b.network.Bits(), a.network.Bits()) })
	return all, nil
}

// behind returns the peer that sends from an address; nil: nobody whom we trust.
func (p *peers) behind(address netip.Addr) *Peer {
	for i := range p.networks {
		if p.networks[i].network.Contains(address) {
			return p.networks[i].peer
		}
	}
	return nil
}

// certified returns the peer that has a certificate, which was verified; nil:
// nobody whom we trust. A DNS name stands for the URI of a domain too, which is
// how RFC 5922 §7.1 has a SIP server named.
func (p *peers) certified(c *x509.Certificate) *Peer {
	for _, uri := range c.URIs {
		name := strings.ToLower(uri.String())
		if peer := cmp.Or(p.certificates[name], p.certificates[strings.TrimPrefix(name, "sip:")]); peer != nil {
			return peer
		}
	}
	for _, name := range c.DNSNames {
		if peer := p.certificates[strings.ToLower(name)]; peer != nil {
			return peer
		}
	}
	return nil
}

// peerOf returns the peer that brings a request; nil: nobody whom we trust.
func (d *Door) peerOf(x *wire.Exchange) *Peer {
	if c := x.Certificate(); c != nil {
		if peer := d.peers.certified(c); peer != nil {
			return peer
		}
	}
	return d.peers.behind(x.Flow.Remote.Addr())
}

// vouches tells whether the peer's word is enough for a message.
func (p *Peer) vouches() bool { return p != nil && p.Account != "" }

// account is that of a sender for whom the peer vouches.
func (p *Peer) account(sender *asserted) plugin.Account {
	attributes := map[string]string{"peer": p.Name}
	if sender.hidden != "" {
		attributes["asserted"] = sender.hidden
	}
	return plugin.Account{ID: p.Account, Identities: sender.identities, Attributes: attributes}
}

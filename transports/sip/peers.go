package sip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Peer is a proxy or a gateway that is trusted because of the address that it
// sends from. Over TCP nobody else can send from there; over UDP anybody can
// write any source address, so a network that lets strangers do that (RFC 2827)
// must not have peers over UDP.
//
// A peer may put itself on the way to the clients that register through it
// (RFC 3327), say under which trace a message is followed, and route a message
// through us. One with an account also vouches for the sender of a message
// without credentials, whatever its domain. Nobody registers without
// credentials.
type Peer struct {
	Name      string   `yaml:"name" doc:"what policies know it by: the attribute peer of the sender"`
	Addresses []string `yaml:"addresses" doc:"what it sends from: IP addresses, or networks such as 192.0.2.0/24"`
	Account   string   `yaml:"account" doc:"the account that pays for messages that it vouches for; none: its clients authenticate with us"`
}

// Limits of the names in a peer, in octets.
const (
	maxPeerName    = 64
	maxPeerAccount = 256
)

func checkPeers(list []Peer, p *problems) {
	names := map[string]bool{}
	networks := map[netip.Prefix]bool{}
	for i, peer := range list {
		key := fmt.Sprintf("peers[%d]", i)
		p.expect(wire.IsToken(peer.Name) && len(peer.Name) <= maxPeerName && !names[peer.Name], key+".name", "a word, each once, of at most 64 characters")
		names[peer.Name] = true
		p.expect(len(peer.Addresses) > 0, key+".addresses", "at least one address such as 192.0.2.7 or 192.0.2.0/24")
		for j, text := range peer.Addresses {
			network, err := parseNetwork(text)
			p.expect(err == nil && !networks[network], fmt.Sprintf("%s.addresses[%d]", key, j), "an IP address, or a network such as 192.0.2.0/24, each once")
			networks[network] = true
		}
		p.expect(len(peer.Account) <= maxPeerAccount, key+".account", "the id of an account, at most 256 octets")
	}
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

// peers finds the peer behind an address.
type peers []peerNetwork

type peerNetwork struct {
	network netip.Prefix
	peer    *Peer
}

// newPeers sorts the networks so that the smallest that fits comes first.
func newPeers(list []Peer) (peers, error) {
	var all peers
	for _, peer := range list {
		for _, text := range peer.Addresses {
			network, err := parseNetwork(text)
			if err != nil {
				return nil, fmt.Errorf("peer %s: %w", peer.Name, err)
			}
			all = append(all, peerNetwork{network, &peer})
		}
	}
	slices.SortStableFunc(all, func(a, b peerNetwork) int { return cmp.Compare(b.network.Bits(), a.network.Bits()) })
	return all, nil
}

// behind returns the peer that sends from an address; nil: nobody whom we trust.
func (p peers) behind(address netip.Addr) *Peer {
	for i := range p {
		if p[i].network.Contains(address) {
			return p[i].peer
		}
	}
	return nil
}

// vouches tells whether the peer's word is enough for a message.
func (p *Peer) vouches() bool { return p != nil && p.Account != "" }

// account is that of a sender for whom the peer vouches.
func (p *Peer) account(sender message.Address) plugin.Account {
	return plugin.Account{ID: p.Account, Identities: []message.Address{sender}, Attributes: map[string]string{"peer": p.Name}}
}

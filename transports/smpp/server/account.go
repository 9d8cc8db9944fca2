package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// The attributes of an account that say how it may use this door. A value that
// can't be read refuses its binds, and the log says which one: what was meant to
// narrow an account must not open it.
const (
	attributeBinds    = "smpp.binds"    // sessions at once
	attributeNetworks = "smpp.networks" // CIDRs and addresses, with commas, that it may bind from
	attributeSenders  = "smpp.senders"  // regular expression for all of a source address
	attributeRate     = "smpp.rate"     // requests a second, over all of its sessions
	attributeWindow   = "smpp.window"   // deliver_sm that may be unanswered on one session
	attributeTLS      = "smpp.tls"      // "required": no binds but over TLS
	attributeOutbind  = "smpp.outbind"  // host:port that is told to bind when something waits
)

// maxPattern is the longest attributeSenders, in octets.
const maxPattern = 1000

// terms are what an account may do here.
type terms struct {
	binds    int
	networks []netip.Prefix // none: it may come from anywhere
	senders  *regexp.Regexp // nil: only its identities
	rate     float64        // 0: unlimited
	window   int
	tlsOnly  bool
	outbind  string // empty: it binds by itself
}

// termsOf reads an account's attributes; what it doesn't say is as configured.
func termsOf(account plugin.Account, c Config) (terms, error) {
	a := attributes{values: account.Attributes}
	t := terms{
		binds:    a.number(attributeBinds, c.Binds, 1, maxBinds),
		networks: a.networks(),
		senders:  a.senders(),
		rate:     float64(a.number(attributeRate, c.Rate, 0, maxRate)),
		window:   a.number(attributeWindow, c.Window, 1, maxWindow),
		tlsOnly:  a.isRequired(attributeTLS),
		outbind:  a.hostPort(attributeOutbind),
	}
	return t, errors.Join(a.wrong...)
}

// attributes reads attributes, and notes those that can't be.
type attributes struct {
	values map[string]string
	wrong  []error
}

func (a *attributes) expect(ok bool, name, expected string) {
	if !ok {
		a.wrong = append(a.wrong, fmt.Errorf("attribute %s: expected %s", name, expected))
	}
}

func (a *attributes) number(name string, otherwise, least, most int) int {
	text, found := a.values[name]
	if !found {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	a.expect(err == nil && n >= least && n <= most, name, fmt.Sprintf("a number from %d to %d", least, most))
	return n
}

func (a *attributes) networks() (networks []netip.Prefix) {
	list, found := a.values[attributeNetworks]
	for text := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		network, err := parseNetwork(text)
		a.expect(err == nil, attributeNetworks, "networks such as 192.0.2.0/24 or addresses, with commas between them")
		networks = append(networks, network)
	}
	a.expect(!found || len(networks) > 0, attributeNetworks, "at least one network or address")
	return networks
}

// parseNetwork reads a network, or an address as the network of it alone.
func parseNetwork(s string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(s); err == nil {
		return address.Unmap().WithZone("").Prefix(address.Unmap().BitLen())
	}
	return netip.ParsePrefix(s)
}

// senders is a pattern of all of a source address.
func (a *attributes) senders() *regexp.Regexp {
	pattern, found := a.values[attributeSenders]
	if !found {
		return nil
	}
	anchored, err := regexp.Compile(`^(?:` + pattern + `)$`)
	a.expect(err == nil && len(pattern) <= maxPattern, attributeSenders, fmt.Sprintf("a regular expression of at most %d octets", maxPattern))
	return anchored
}

func (a *attributes) isRequired(name string) bool {
	word, found := a.values[name]
	a.expect(!found || word == "required", name, "required")
	return found
}

func (a *attributes) hostPort(name string) string {
	text, found := a.values[name]
	if !found {
		return ""
	}
	host, port, err := net.SplitHostPort(text)
	n, bad := strconv.ParseUint(port, 10, 16)
	a.expect(err == nil && bad == nil && n > 0 && host != "" && len(text) <= message.MaxAddress, name, "host:port")
	return text
}

// admits tells whether an account may come from an address.
func (t *terms) admits(source netip.Addr) bool {
	source = source.Unmap().WithZone("")
	return len(t.networks) == 0 || slices.ContainsFunc(t.networks, func(n netip.Prefix) bool { return n.Contains(source) })
}

// vouch returns the account with a sender among its identities, if it may send
// from there: it owns the address with or without our domain, or its senders
// allow the number.
func (t *terms) vouch(account plugin.Account, from message.Address) (plugin.Account, bool) {
	if account.Owns(from) {
		return account, true
	}
	bare := message.Address{User: from.User}
	if !account.Owns(bare) && (t.senders == nil || !t.senders.MatchString(from.User)) {
		return account, false
	}
	account.Identities = append(slices.Clip(account.Identities), from)
	return account, true
}

// usualSender is from which address an account sends that doesn't say: its first
// number, else its first identity. It has one.
func usualSender(account plugin.Account) message.Address {
	for _, identity := range account.Identities {
		if identity.Host == "" {
			return identity
		}
	}
	return account.Identities[0]
}

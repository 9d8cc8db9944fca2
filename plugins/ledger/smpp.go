package ledger

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Limits of an account that binds over SMPP. Its fields have room for a system_id of
// 15 and a password of 8 octets (SMPP 3.4 §4.1.1); many ESMEs send longer passwords,
// which the SMPP door takes.
const (
	maxSystemID      = 15 // octets
	maxBindPassword  = 64 // octets
	madeBindPassword = 8  // octets of one that we make: every ESME can send it
)

// smppPrefix begins the names of the attributes that the SMPP door reads. Another
// name behind it is a slip.
const smppPrefix = "smpp."

// smppAttributes are those attributes, each with what checks its value.
var smppAttributes = map[string]func(string) error{
	"smpp.binds":    wholeNumber(1, 1_000),
	"smpp.networks": networks,
	"smpp.senders":  senders,
	"smpp.rate":     wholeNumber(1, 100_000),
	"smpp.window":   wholeNumber(1, 10_000),
	"smpp.tls":      required,
	"smpp.outbind":  hostPort,
}

// isSMPP tells whether an account is meant to bind over SMPP.
func (e entry) isSMPP() bool {
	for name := range e.Attributes {
		if strings.HasPrefix(name, smppPrefix) {
			return true
		}
	}
	return false
}

// checkSMPP refuses what would keep an ESME from binding: whoever adds the account
// can mend it, and the ESME only sees that it is refused.
func (e entry) checkSMPP() error {
	if !e.isSMPP() {
		return nil
	}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		if err := checkSMPPAttribute(name, e.Attributes[name]); err != nil {
			wrong = append(wrong, fmt.Errorf("attributes: %s: %w", name, err))
		}
	}
	if len(e.Password) > maxBindPassword {
		wrong = append(wrong, fmt.Errorf("password: longer than %d octets, which is all that the SMPP door takes", maxBindPassword))
	}
	if !e.hasSystemID() {
		wrong = append(wrong, fmt.Errorf("identities: expected a name of at most %d octets to bind as, such as acme: %s is too long for SMPP", maxSystemID, e.AOR))
	}
	return errors.Join(wrong...)
}

func checkSMPPAttribute(name, value string) error {
	if !strings.HasPrefix(name, smppPrefix) {
		return nil
	}
	check, known := smppAttributes[name]
	if !known {
		return fmt.Errorf("expected one of %s", strings.Join(slices.Sorted(maps.Keys(smppAttributes)), ", "))
	}
	return check(value)
}

// hasSystemID tells whether the account has a name that fits into a bind: the part
// before the @ of its own address, or an identity without a domain.
func (e entry) hasSystemID() bool {
	user, _, _ := strings.Cut(e.AOR, "@")
	return len(strings.TrimPrefix(user, "sip:")) <= maxSystemID || slices.ContainsFunc(e.Identities, func(identity string) bool {
		return len(identity) <= maxSystemID && !strings.Contains(identity, "@")
	})
}

// wholeNumber checks decimal digits alone.
func wholeNumber(low, high uint64) func(string) error {
	return func(value string) error {
		if n, err := strconv.ParseUint(value, 10, 32); err != nil || n < low || n > high {
			return fmt.Errorf("expected a whole number from %d to %d", low, high)
		}
		return nil
	}
}

// networks checks addresses and networks, separated by commas.
func networks(value string) error {
	for text := range strings.SplitSeq(value, ",") {
		text = strings.TrimSpace(text)
		_, err := netip.ParsePrefix(text)
		if err != nil && !strings.Contains(text, "%") { // a zone is this machine's own
			_, err = netip.ParseAddr(text)
		}
		if err != nil {
			return fmt.Errorf("%q: expected an address or a network, such as 192.0.2.7 or 192.0.2.0/24, separated by commas", text)
		}
	}
	return nil
}

// senders checks a regular expression over the whole of a source address.
func senders(value string) error {
	if _, err := regexp.Compile(value); value == "" || err != nil {
		return errors.New(`expected a regular expression over source addresses, such as \+4477009001[0-9]{2}`)
	}
	return nil
}

// required checks the one word that switches something on.
func required(value string) error {
	if value != "required" {
		return errors.New("expected required")
	}
	return nil
}

// hostPort checks where an ESME listens.
func hostPort(value string) error {
	host, port, err := net.SplitHostPort(value)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
		return errors.New("expected host:port, such as esme.example.com:2776")
	}
	return nil
}

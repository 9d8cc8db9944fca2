package sip

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// asserted is who sent a message as a trusted peer says.
type asserted struct {
	identities []message.Address // the first is the sender; others are his too
	display    string            // empty: the peer doesn't say
	hidden     string            // the identity that isn't to be shown; empty: there is none
}

var errAsserted = errors.New("P-Asserted-Identity is not one")

// identityOf returns whom a peer vouches for: the identity in
// P-Asserted-Identity (RFC 3325 §9.1), else the one in From. Of a SIP URI and a
// telephone number together the URI is the sender, and the number is his as well.
//
// With Privacy: id (RFC 3325 §9.3) the recipient isn't to learn the asserted
// identity. What a message is sent from is shown to him, so that is From then,
// into which the sender has written what he wants to be shown (RFC 3323 §4.1),
// and the asserted identity is only known to policies, as the attribute asserted.
// Other values of Privacy are for the peer: it talks to the sender, and we
// forward none of the fields that they are about.
func identityOf(x *wire.Exchange) (asserted, error) {
	values, ok := wire.List(x.All("P-Asserted-Identity"))
	if !ok {
		return asserted{}, errAsserted
	}
	if len(values) == 0 {
		from, err := sender(x)
		return asserted{identities: []message.Address{from}}, err
	}
	a, err := parseAsserted(values)
	if err != nil || !wantsPrivacy(x) {
		return a, err
	}
	from, err := sender(x)
	return asserted{identities: slices.Insert(a.identities, 0, from), hidden: a.identities[0].String()}, err
}

// parseAsserted reads one value, or a SIP URI and a telephone number.
func parseAsserted(values []string) (asserted, error) {
	var a asserted
	for _, value := range values {
		party, ok := wire.ParseNameAddr(value)
		if !ok {
			return a, errAsserted
		}
		address, err := wire.Identity(party.URI)
		if err != nil {
			return a, errAsserted
		}
		a.identities = append(a.identities, address)
		if a.display == "" && utf8.ValidString(party.Display) {
			a.display = party.Display
		}
	}
	isNumber := func(a message.Address) bool { return a.Host == "" }
	switch {
	case len(a.identities) > 2:
		return a, errAsserted
	case len(a.identities) == 2 && isNumber(a.identities[0]) == isNumber(a.identities[1]):
		return a, errAsserted
	case len(a.identities) == 2 && isNumber(a.identities[0]):
		slices.Reverse(a.identities)
	}
	return a, nil
}

// wantsPrivacy tells whether Privacy has the value id (RFC 3323 §4.2: values are
// divided by semicolons).
func wantsPrivacy(x *wire.Exchange) bool {
	for _, field := range x.All("Privacy") {
		for value := range strings.SplitSeq(field, ";") {
			if strings.EqualFold(strings.Trim(value, " \t"), "id") {
				return true
			}
		}
	}
	return false
}

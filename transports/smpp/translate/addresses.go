package translate

import (
	"strings"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Types of number and numbering plans (SMPP 3.4 §5.2.5, §5.2.6).
const (
	tonUnknown       = 0
	tonInternational = 1
	tonAlphanumeric  = 5
	maxTON           = 6

	npiUnknown = 0
	npiE164    = 1
	maxNPI     = 18
)

// Lengths of addresses in characters.
const (
	minNumber        = 3
	maxNumber        = 20
	maxWord          = 11 // what phones show of an alphanumeric address (3GPP TS 23.040 §9.1.2.5)
	maxAddress       = 20 // what SMPP has room for (SMPP 3.4 §5.2.8)
	minInternational = 9  // of a number that is taken for an international one
	maxInternational = 15 // ITU-T E.164 §6.2.1
)

// sender is who a source address is: a telephone number, which has a "+" if it is
// international, or a word, in the domain of the SMS service.
func (d *Dialect) sender(a wire.Address) (message.Address, error) {
	switch {
	case a.TON > maxTON:
		return message.Address{}, &wire.Error{Status: wire.RInvSrcTON, Reason: "source_addr_ton is not one"}
	case a.NPI > maxNPI:
		return message.Address{}, &wire.Error{Status: wire.RInvSrcNPI, Reason: "source_addr_npi is not one"}
	}
	user, ok := d.number(a)
	if !ok && isWord(a.Number, maxAddress) {
		user, ok = a.Number, true
	}
	if !ok {
		return message.Address{}, &wire.Error{Status: wire.RInvSrcAdr, Reason: "source_addr is neither a number nor a word"}
	}
	return message.Address{User: user, Host: d.Domain}, nil
}

// recipient is who a destination address is: a telephone number, without a domain.
func (d *Dialect) recipient(a wire.Address) (message.Address, error) {
	switch {
	case a.TON > maxTON:
		return message.Address{}, &wire.Error{Status: wire.RInvDstTON, Reason: "dest_addr_ton is not one"}
	case a.NPI > maxNPI:
		return message.Address{}, &wire.Error{Status: wire.RInvDstNPI, Reason: "dest_addr_npi is not one"}
	}
	number, ok := d.number(a)
	if !ok {
		return message.Address{}, &wire.Error{Status: wire.RInvDstAdr, Reason: "destination_addr is not a number of 3 to 20 digits"}
	}
	return message.Address{User: number}, nil
}

// number reads a telephone number.
func (d *Dialect) number(a wire.Address) (string, bool) {
	digits, plus := strings.CutPrefix(a.Number, "+")
	switch {
	case a.TON == tonAlphanumeric || !isNumber(digits):
		return "", false
	case plus:
		return a.Number, true
	case a.TON == tonInternational || d.Plus && looksInternational(a):
		return "+" + digits, true
	}
	return digits, true
}

// looksInternational recognizes the numbers of peers that leave TON and NPI alone.
func looksInternational(a wire.Address) bool {
	return a.TON == tonUnknown && a.NPI <= npiE164 && a.Number[0] != '0' &&
		len(a.Number) >= minInternational && len(a.Number) <= maxInternational
}

// destination is where a message goes: a number, or what an ESME calls itself.
func (d *Dialect) destination(m *message.Message, of pdu.ID) (wire.Address, *message.Failure) {
	user := m.Recipient.User
	digits, _ := strings.CutPrefix(user, "+")
	if !isNumber(digits) && (of != pdu.DeliverSMID || !isWord(user, maxAddress)) {
		return wire.Address{}, message.Fail(message.UnknownRecipient, "the recipient is not a number of %d to %d digits", minNumber, maxNumber)
	}
	return addressOf(user, d.Destination), nil
}

// source is whom a message comes from: the sender's address in the SMS service, or
// else its number. A sender who has neither gets the bind's; an ESME also takes
// its name.
func (d *Dialect) source(m *message.Message, of pdu.ID) (wire.Address, *message.Failure) {
	for _, user := range d.senders(m, of) {
		if isSender(user) {
			return addressOf(user, d.Source), nil
		}
	}
	return wire.Address{}, message.Fail(message.Forbidden, "the sender has no number, and none is configured")
}

// senders are the source addresses that there may be for a message, the best
// first; some may be empty.
func (d *Dialect) senders(m *message.Message, of pdu.ID) [3]string {
	switch {
	case m.From.Host == "":
		return [3]string{m.From.User}
	case m.From.Host == d.Domain:
		return [3]string{m.From.User, m.Number, d.DefaultSender}
	case of == pdu.DeliverSMID:
		return [3]string{m.Number, m.From.User, d.DefaultSender}
	}
	return [3]string{m.Number, d.DefaultSender}
}

// addressOf writes a number, or a word.
func addressOf(user string, n Numbering) wire.Address {
	digits, plus := strings.CutPrefix(user, "+")
	if !isNumber(digits) {
		return wire.Address{TON: tonAlphanumeric, NPI: npiUnknown, Number: user}
	}
	a := wire.Address{TON: tonUnknown, NPI: npiE164, Number: digits}
	if plus {
		a.TON = tonInternational
	}
	if n.TON >= 0 {
		a.TON = uint8(n.TON)
	}
	if n.NPI >= 0 {
		a.NPI = uint8(n.NPI)
	}
	return a
}

// isSender tells whether a source address can be written so that phones show it.
func isSender(user string) bool {
	digits, _ := strings.CutPrefix(user, "+")
	return isNumber(digits) || isWord(user, maxWord)
}

func isNumber(digits string) bool {
	if len(digits) < minNumber || len(digits) > maxNumber {
		return false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return true
}

// isWord tells whether an alphanumeric address has only characters that stand in
// an address of ours too.
func isWord(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '@' {
			return false
		}
	}
	return true
}

package message

import (
	"errors"
	"strings"
)

// MaxAddress is the longest address, in octets, that any door may let in.
const MaxAddress = 256

// Address is an address-of-record: who somebody is, not where they can be
// reached. User is unescaped; Host is in lower case and without a port. A
// telephone number without a domain has an empty Host.
type Address struct {
	User string
	Host string
}

// ErrBadAddress is what ParseAddress returns; it says what was expected.
var ErrBadAddress = errors.New("not an address: expected user@domain, for example 1001@sip.example.com")

// ParseAddress reads what people type: "1001@sip.example.com", optionally
// with "sip:" in front. Header syntax is the business of a door.
func ParseAddress(s string) (Address, error) {
	s = strings.TrimPrefix(strings.TrimSpace(s), "sip:")
	user, host, ok := strings.Cut(s, "@")
	if !ok || user == "" || host == "" || strings.ContainsAny(s, " \t<>\"'") {
		return Address{}, ErrBadAddress
	}
	a := Address{User: user, Host: strings.ToLower(host)}
	return a, a.Validate()
}

// maxDigits is how long a telephone number may be; E.164 has 15.
const maxDigits = 32

// ParseNumber reads a telephone number as it is written in a URI, and returns it as
// an Address has it: digits, behind a "+" if it is international, without the
// separators that are there for people alone (RFC 3966 §5.1.1).
func ParseNumber(s string) (number string, ok bool) {
	digits, international := strings.CutPrefix(s, "+")
	if strings.ContainsAny(digits, "-.()") {
		digits = strings.NewReplacer("-", "", ".", "", "(", "", ")", "").Replace(digits)
	}
	if digits == "" || len(digits) > maxDigits || strings.Trim(digits, "0123456789") != "" {
		return "", false
	}
	if international {
		return "+" + digits, true
	}
	return digits, true
}

// Validate refuses what no door may pass on: control characters, a second @, a port,
// an address over MaxAddress octets.
func (a Address) Validate() error {
	if a.User == "" || len(a.User)+len(a.Host) > MaxAddress {
		return ErrBadAddress
	}
	if strings.ContainsRune(a.Host, '@') || hasControl(a.User) || hasControl(a.Host) || hasPort(a.Host) {
		return ErrBadAddress
	}
	return nil
}

// hasPort tells whether a host has one; the colons of an IPv6 address are in
// brackets (RFC 3261 §25.1).
func hasPort(host string) bool {
	return strings.ContainsRune(host[strings.LastIndexByte(host, ']')+1:], ':')
}

func hasControl(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0
}

// String returns user@host, or the number alone.
func (a Address) String() string {
	if a.Host == "" {
		return a.User
	}
	return a.User + "@" + a.Host
}

// IsZero tells whether there is no address at all.
func (a Address) IsZero() bool { return a == Address{} }

// MarshalText makes an Address readable in JSON and in logs.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (a *Address) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = Address{}
		return nil
	}
	user, host, _ := strings.Cut(string(text), "@")
	*a = Address{User: user, Host: strings.ToLower(host)}
	return a.Validate()
}

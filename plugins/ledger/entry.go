package ledger

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Limits of an account.
const (
	maxPassword   = 128 // octets
	maxIdentities = 64  // besides its own address
	maxNumber     = 32  // digits of a telephone number or short code
	maxName       = 15  // octets of a name without a domain
	maxAttributes = 32
	maxAttribute  = 256 // octets of an attribute's value
)

// entry is an account as it is handed in, by the admin API and by CSV. Balance
// is an amount such as "10.00". Identities are further addresses, at most 64 of
// them: user@domain, telephone numbers, and names without a domain, as SMS have them
// for a sender and SMPP for who binds.
type entry struct {
	AOR        string            `json:"aor"`
	Password   string            `json:"password"`
	Balance    string            `json:"balance,omitempty"`    // empty: 0
	Identities []string          `json:"identities,omitempty"` // besides the AOR
	Attributes map[string]string `json:"attributes,omitempty"` // for policies, at most 32
}

// account reads an entry, or says all that is wrong with it. What it returns
// shares no memory with the entry, so no password stays behind.
func (e entry) account() (*account, error) {
	names, badNames := e.names()
	balance, badBalance := e.balance()
	attributes, badAttributes := e.attributes()
	if err := errors.Join(badNames, checkPassword(e.Password), badBalance, badAttributes, e.checkSMPP()); err != nil {
		return nil, err
	}
	return &account{
		id: names[0].String(), identities: names, attributes: attributes,
		secrets: newSecrets(names[0], e.Password), credited: balance,
	}, nil
}

// names returns all that the account is known by, its own address first.
func (e entry) names() ([]message.Address, error) {
	own, badOwn := parseOwn(e.AOR)
	names, wrong := e.identities(own)
	if err := errors.Join(badOwn, wrong); err != nil {
		return nil, err
	}
	return names, nil
}

// parseOwn reads an address-of-record that can be a digest username and realm:
// without the colon that separates them (RFC 7616 §3.4.2).
func parseOwn(s string) (message.Address, error) {
	own, err := message.ParseAddress(strings.Clone(s))
	if err != nil {
		return own, fmt.Errorf("aor: %w", err)
	}
	if strings.Contains(own.User, ":") {
		return own, errors.New("aor: a colon can't be part of a digest username")
	}
	return own, nil
}

func checkPassword(password string) error {
	switch {
	case password == "":
		return errors.New("password: expected one")
	case len(password) > maxPassword:
		return fmt.Errorf("password: longer than %d octets", maxPassword)
	case strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("password: control characters can't be part of it")
	}
	return nil
}

func (e entry) balance() (plugin.Money, error) {
	if e.Balance == "" {
		return 0, nil
	}
	balance, err := plugin.ParseMoney(e.Balance)
	if err != nil {
		return 0, fmt.Errorf("balance: %w", err)
	}
	if balance < 0 || balance > ceiling {
		return 0, fmt.Errorf("balance: expected an amount from 0 to %s", ceiling)
	}
	return balance, nil
}

// identities returns the account's own address and the further ones.
func (e entry) identities(own message.Address) ([]message.Address, error) {
	if len(e.Identities) > maxIdentities {
		return nil, fmt.Errorf("identities: more than %d", maxIdentities)
	}
	all := append(make([]message.Address, 0, 1+len(e.Identities)), own)
	seen := map[message.Address]bool{own: true}
	for _, s := range e.Identities {
		identity, err := parseIdentity(strings.Clone(s))
		if err != nil {
			return nil, fmt.Errorf("identities: %q is %w", s, err)
		}
		if !seen[identity] {
			seen[identity] = true
			all = append(all, identity)
		}
	}
	return all, nil
}

var attributeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,63}$`)

func (e entry) attributes() (map[string]string, error) {
	if len(e.Attributes) > maxAttributes {
		return nil, fmt.Errorf("attributes: more than %d", maxAttributes)
	}
	if len(e.Attributes) == 0 {
		return nil, nil
	}
	all := make(map[string]string, len(e.Attributes))
	for name, value := range e.Attributes {
		switch {
		case !attributeName.MatchString(name):
			return nil, fmt.Errorf("attributes: %q is no name: expected up to 64 letters, digits, ., _ and -, a letter first", name)
		case len(value) > maxAttribute:
			return nil, fmt.Errorf("attributes: %s is longer than %d octets", name, maxAttribute)
		case strings.ContainsFunc(value, unicode.IsControl) || !utf8.ValidString(value):
			return nil, fmt.Errorf("attributes: %s: control characters can't be part of it", name)
		}
		all[strings.Clone(name)] = strings.Clone(value)
	}
	return all, nil
}

// setAttribute reads name=value.
func setAttribute(all map[string]string, s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("attributes: %q: expected name=value", s)
	}
	if _, twice := all[name]; twice {
		return fmt.Errorf("attributes: %s is there twice", name)
	}
	all[name] = value
	return nil
}

var errBadIdentity = errors.New("neither user@domain nor a telephone number, nor a name of at most 15 letters, digits, ., _, & and -, a letter first")

var nameWithoutDomain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._&-]*$`)

// parseIdentity reads an address-of-record, a telephone number, or a name without a
// domain.
func parseIdentity(s string) (message.Address, error) {
	if strings.Contains(s, "@") {
		a, err := message.ParseAddress(s)
		if err != nil {
			return a, errBadIdentity
		}
		return a, nil
	}
	if !isNumber(s) && (len(s) > maxName || !nameWithoutDomain.MatchString(s)) {
		return message.Address{}, errBadIdentity
	}
	return message.Address{User: s}, nil
}

func isNumber(s string) bool {
	digits := strings.TrimPrefix(s, "+")
	return digits != "" && len(digits) <= maxNumber && strings.Trim(digits, "0123456789") == ""
}

package ledger

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Limits of an account.
const (
	maxPassword   = 128 // octets
	maxIdentities = 64  // besides its own address
	maxNumber     = 32  // digits of a telephone number or short code
)

// entry is an account as it is handed in, by the admin API and by CSV.
type entry struct {
	AOR        string   `json:"aor"`
	Password   string   `json:"password"`
	Balance    string   `json:"balance"` // empty: 0
	Identities []string `json:"identities,omitempty"`
}

// account reads an entry, or says all that is wrong with it. What it returns
// shares no memory with the entry, so no password stays behind.
func (e entry) account() (*account, error) {
	own, err := parseOwn(e.AOR)
	identities, wrong := e.identities(own)
	balance, badBalance := e.balance()
	if err := errors.Join(err, checkPassword(e.Password), badBalance, wrong); err != nil {
		return nil, err
	}
	return &account{
		id: own.String(), identities: identities,
		secrets: newSecrets(own, e.Password), credited: balance,
	}, nil
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

var errBadIdentity = errors.New("neither user@domain nor a telephone number")

// parseIdentity reads an address-of-record or a telephone number.
func parseIdentity(s string) (message.Address, error) {
	if !strings.Contains(s, "@") {
		return parseNumber(s)
	}
	a, err := message.ParseAddress(s)
	if err != nil {
		return a, errBadIdentity
	}
	return a, nil
}

func parseNumber(s string) (message.Address, error) {
	digits := strings.TrimPrefix(s, "+")
	if digits == "" || len(digits) > maxNumber || strings.Trim(digits, "0123456789") != "" {
		return message.Address{}, errBadIdentity
	}
	return message.Address{User: s}, nil
}

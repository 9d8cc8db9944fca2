package plugin

import (
	"context"

	"github.com/imgate/imgate/engine/message"
)

// Accounts knows the subscribers. Its methods are called for every request,
// from many goroutines.
type Accounts interface {
	// Verify checks credentials. Whether the account doesn't exist or the
	// secret is wrong: a *message.Failure with Unauthenticated in both cases,
	// after about the same time. Forbidden: right, but suspended. If nobody
	// can be asked: a temporary failure.
	Verify(ctx context.Context, c Credentials) (Account, error)

	// Lookup finds the account that owns an address, suspended or not.
	// UnknownRecipient: nobody does.
	Lookup(ctx context.Context, a message.Address) (Account, error)

	// Close lets go. No other method runs or follows.
	Close() error
}

// Account is a subscriber as the engine and the policies see it.
type Account struct {
	ID         string            // its name for charging; never changes
	Identities []message.Address // what it may send from and is reached at; the first is its own
	Attributes map[string]string // for policies
}

// Owns tells whether an address is one of the account's identities.
func (a Account) Owns(address message.Address) bool {
	for _, identity := range a.Identities {
		if identity == address {
			return true
		}
	}
	return false
}

// Credentials are what a peer proves itself with: exactly one of the fields.
type Credentials struct {
	Digest   *Digest
	Password *Password
}

// Digest is the answer to a SIP digest challenge (RFC 7616, RFC 8760). That
// the nonce is ours, fresh and not replayed is the door's business.
type Digest struct {
	Method    string // of the request
	Username  string
	Realm     string
	Nonce     string
	URI       string
	Algorithm string // "MD5" or "SHA-256"
	QOP       string // "auth", or empty for RFC 2069 clients
	NC        string // eight hexadecimal digits, as sent
	CNonce    string
	Response  string // hexadecimal, in lower case
}

// Password is what an SMPP bind carries (SMPP 3.4 §4.1).
type Password struct {
	SystemID string
	Password string
}

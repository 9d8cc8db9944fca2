package ledger

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// ha1 is H(username:realm:password), all that is kept of a password (RFC 7616
// §3.4.2).
type ha1 struct {
	md5    [md5.Size]byte
	sha256 [sha256.Size]byte
}

func newHA1(username, realm, password string) ha1 {
	text := []byte(username + ":" + realm + ":" + password)
	return ha1{md5: md5.Sum(text), sha256: sha256.Sum256(text)}
}

// secrets prove one account. The realm is the domain of its address-of-record.
// Clients differ in what they take for their username: most say the part before
// the @, some all of the address, and each needs a hash of its own.
type secrets struct {
	user ha1
	full ha1
}

func newSecrets(own message.Address, password string) secrets {
	return secrets{
		user: newHA1(own.User, own.Host, password),
		full: newHA1(own.String(), own.Host, password),
	}
}

// verify returns the account that credentials are good for, or nil. It does the
// same work whether the account exists or not.
func (b *book) verify(c plugin.Credentials) *account {
	switch {
	case c.Digest != nil:
		return b.verifyDigest(c.Digest)
	case c.Password != nil:
		return b.verifyPassword(c.Password)
	}
	return nil
}

func (b *book) verifyDigest(d *plugin.Digest) *account {
	user, domain, full := strings.Cut(d.Username, "@")
	var a *account
	if !full || strings.EqualFold(domain, d.Realm) {
		a = b.findOwn(message.Address{User: user, Host: d.Realm})
	}
	proof := &b.decoy
	switch {
	case a != nil && full:
		proof = &a.secrets.full
	case a != nil:
		proof = &a.secrets.user
	}
	if !proof.matches(d) {
		return nil
	}
	return a
}

// verifyPassword takes a system_id that is an identity without a domain, an
// address-of-record, or its user part where only one account has it: SMPP has room
// for 15 characters (SMPP 3.4 §4.1.1). The user part of two accounts is good for
// neither.
func (b *book) verifyPassword(p *plugin.Password) *account {
	a := b.findSystemID(p.SystemID)
	own, want := decoyAddress, &b.decoy.sha256
	if a != nil {
		own, want = a.identities[0], &a.secrets.user.sha256
	}
	got := newHA1(own.User, own.Host, p.Password)
	if subtle.ConstantTimeCompare(got.sha256[:], want[:]) != 1 {
		return nil
	}
	return a
}

// matches tells whether the response of a digest is that of this secret (RFC
// 7616 §3.4.1; without qop RFC 2069 §2.1.2).
func (h *ha1) matches(d *plugin.Digest) bool {
	var want []byte
	switch d.Algorithm {
	case "MD5":
		want = response(d, h.md5[:], md5Hex)
	case "SHA-256":
		want = response(d, h.sha256[:], sha256Hex)
	}
	if want == nil || d.QOP != "" && d.QOP != "auth" {
		return false
	}
	return subtle.ConstantTimeCompare(want, []byte(d.Response)) == 1
}

// response is the digest that a client with this secret sends, in hexadecimal.
func response(d *plugin.Digest, secret []byte, sum func(text []byte) []byte) []byte {
	text := make([]byte, 0, 512)
	text = append(append(append(text, d.Method...), ':'), d.URI...)
	ha2 := sum(text)

	text = hex.AppendEncode(text[:0], secret)
	text = append(append(text, ':'), d.Nonce...)
	if d.QOP != "" {
		text = append(append(text, ':'), d.NC...)
		text = append(append(text, ':'), d.CNonce...)
		text = append(append(text, ':'), d.QOP...)
	}
	return sum(append(append(text, ':'), ha2...))
}

func md5Hex(text []byte) []byte {
	sum := md5.Sum(text)
	return hex.AppendEncode(nil, sum[:])
}

func sha256Hex(text []byte) []byte {
	sum := sha256.Sum256(text)
	return hex.AppendEncode(nil, sum[:])
}

// decoyAddress is whose secret is compared when there is no account. It is nobody's
// own address: its host is empty.
var decoyAddress = message.Address{User: "nobody"}

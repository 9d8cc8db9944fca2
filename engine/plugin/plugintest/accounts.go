package plugintest

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// AccountsHarness is an accounts plugin under test.
type AccountsHarness struct {
	// Open opens the plugin. Opening it again without closing the first is a
	// new process after a crash; the first is not used again.
	Open func(t T) plugin.Accounts
	// Add makes an account that owns aor and the identities. Its digest
	// username is aor's user, its realm aor's domain, its system_id aor. Called
	// after Open; the account works when Add returns.
	Add func(t T, aor, password string, identities ...string)
	// Suspend suspends an account. Nil: the plugin knows no such thing.
	Suspend func(t T, aor string)
}

// Accounts checks a plugin against the contract of plugin.Accounts.
func Accounts(t *testing.T, harness func(T) AccountsHarness) {
	run(t, accountsCases, harness)
}

var accountsCases = []Case[AccountsHarness]{
	{"the right MD5 response is accepted", accountsDigest("MD5")},
	{"the right SHA-256 response is accepted", accountsDigest("SHA-256")},
	{"the right response without qop is accepted", accountsNoQOP},
	{"the response must fit all that it covers", accountsTampered},
	{"the response to a wrong password is refused", accountsWrongSecret},
	{"an unknown user is refused", accountsUnknownUser},
	{"a realm of somebody else is refused", accountsWrongRealm},
	{"a refusal doesn't tell whether the account exists", accountsSameRefusal},
	{"the right password is accepted", accountsPassword},
	{"a wrong password is refused", accountsWrongPassword},
	{"an account is found by its own address", accountsLookupOwn},
	{"an account is found by each identity", accountsLookupIdentity},
	{"an address that nobody has is an unknown recipient", accountsLookupUnknown},
	{"the first identity is the account's own address", accountsFirstIdentity},
	{"an account keeps its ID and its identities over a restart", accountsRestart},
	{"credentials checked at the same time don't get mixed up", accountsConcurrent},
	{"a suspended account is forbidden, and still found", accountsSuspended},
}

const (
	accountsAOR      = "alice@a.example"
	accountsIdentity = "sales@a.example"
	accountsPass     = "correct horse"
)

// accountsBench is a case at work: a plugin with two accounts.
type accountsBench struct {
	T
	h AccountsHarness
	p plugin.Accounts
}

func newAccountsBench(t T, h AccountsHarness) *accountsBench {
	b := &accountsBench{T: t, h: h, p: h.Open(t)}
	t.Cleanup(func() {
		if err := b.p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	h.Add(t, accountsAOR, accountsPass, accountsIdentity, "+15550100@a.example")
	h.Add(t, "bob@b.example", "battery staple")
	return b
}

// digest returns what a client with this user and password answers.
func digest(user, realm, password, algorithm, qop string) plugin.Digest {
	d := plugin.Digest{
		Method: "MESSAGE", Username: user, Realm: realm, Nonce: "bm9uY2U=", URI: "sip:bob@b.example",
		Algorithm: algorithm, QOP: qop,
	}
	if qop != "" {
		d.NC, d.CNonce = "00000001", "0a4f113b"
	}
	d.Response = response(d, password)
	return d
}

// response is RFC 7616 §3.4.1; without qop it is RFC 2069's.
func response(d plugin.Digest, password string) string {
	hash := func(parts ...string) string {
		text := []byte(strings.Join(parts, ":"))
		if d.Algorithm == "SHA-256" {
			sum := sha256.Sum256(text)
			return hex.EncodeToString(sum[:])
		}
		sum := md5.Sum(text)
		return hex.EncodeToString(sum[:])
	}
	ha1, ha2 := hash(d.Username, d.Realm, password), hash(d.Method, d.URI)
	if d.QOP == "" {
		return hash(ha1, d.Nonce, ha2)
	}
	return hash(ha1, d.Nonce, d.NC, d.CNonce, d.QOP, ha2)
}

func (b *accountsBench) verify(c plugin.Credentials) (plugin.Account, error) {
	return b.p.Verify(b.Context(), c)
}

// accept wants credentials to be those of an account.
func (b *accountsBench) accept(what string, c plugin.Credentials, aor string) {
	b.Helper()
	account, err := b.verify(c)
	if err != nil {
		b.Errorf("%s: %v, want it accepted", what, err)
		return
	}
	if !account.Owns(address(b, aor)) {
		b.Errorf("%s: got the account %q with %v, want the one of %s", what, account.ID, account.Identities, aor)
	}
}

// refuse wants a final refusal and returns its text.
func (b *accountsBench) refuse(what string, c plugin.Credentials, want message.Reason) string {
	b.Helper()
	account, err := b.verify(c)
	if err == nil {
		b.Errorf("%s: accepted as %q, want %s", what, account.ID, want)
		return ""
	}
	wantFinal(b, what, err, want)
	return err.Error()
}

func wantFinal(t T, what string, err error, want message.Reason) {
	t.Helper()
	var f *message.Failure
	if !errors.As(err, &f) || f.Reason != want || f.Temporary {
		t.Errorf("%s: got %v, want a final *message.Failure with %s", what, err, want)
	}
}

func (b *accountsBench) lookup(aor string) plugin.Account {
	b.Helper()
	account, err := b.p.Lookup(b.Context(), address(b, aor))
	if err != nil {
		b.Fatalf("Lookup of %s: %v", aor, err)
	}
	return account
}

func address(t T, s string) message.Address {
	t.Helper()
	a, err := message.ParseAddress(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return a
}

func byDigest(d plugin.Digest) plugin.Credentials { return plugin.Credentials{Digest: &d} }

func byPassword(systemID, password string) plugin.Credentials {
	return plugin.Credentials{Password: &plugin.Password{SystemID: systemID, Password: password}}
}

func accountsDigest(algorithm string) func(T, AccountsHarness) {
	return func(t T, h AccountsHarness) {
		newAccountsBench(t, h).acceptDigests(algorithm, "auth")
	}
}

func (b *accountsBench) acceptDigests(algorithm, qop string) {
	b.Helper()
	b.accept(algorithm, byDigest(digest("alice", "a.example", accountsPass, algorithm, qop)), accountsAOR)
	b.accept(algorithm, byDigest(digest("bob", "b.example", "battery staple", algorithm, qop)), "bob@b.example")
}

func accountsNoQOP(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	b.acceptDigests("MD5", "")
	b.acceptDigests("SHA-256", "")
}

func accountsTampered(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	tampered := map[string]func(*plugin.Digest){
		"method":         func(d *plugin.Digest) { d.Method = "REGISTER" },
		"nonce":          func(d *plugin.Digest) { d.Nonce = "b3RoZXI=" },
		"URI":            func(d *plugin.Digest) { d.URI = "sip:premium@b.example" },
		"nc":             func(d *plugin.Digest) { d.NC = "00000002" },
		"cnonce":         func(d *plugin.Digest) { d.CNonce = "0a4f113c" },
		"qop":            func(d *plugin.Digest) { d.QOP = "" },
		"response":       func(d *plugin.Digest) { d.Response = d.Response[:len(d.Response)-1] },
		"empty response": func(d *plugin.Digest) { d.Response = "" },
	}
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		for what, tamper := range tampered {
			d := digest("alice", "a.example", accountsPass, algorithm, "auth")
			tamper(&d)
			b.refuse(algorithm+" with another "+what, byDigest(d), message.Unauthenticated)
		}
	}
}

func accountsWrongSecret(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		d := digest("alice", "a.example", "Correct horse", algorithm, "auth")
		b.refuse(algorithm, byDigest(d), message.Unauthenticated)
	}
}

func accountsUnknownUser(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	for _, password := range []string{accountsPass, ""} {
		d := digest("mallory", "a.example", password, "MD5", "auth")
		b.refuse("an unknown user", byDigest(d), message.Unauthenticated)
	}
}

func accountsWrongRealm(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	d := digest("alice", "b.example", accountsPass, "MD5", "auth")
	b.refuse("another realm", byDigest(d), message.Unauthenticated)
}

func accountsSameRefusal(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	same := func(what string, unknown, wrong plugin.Credentials) {
		_, first := b.verify(unknown)
		_, second := b.verify(wrong)
		if fmt.Sprint(first) != fmt.Sprint(second) {
			t.Errorf("%s: an unknown account is refused with %q and a wrong secret with %q, want the same", what, first, second)
		}
	}
	same("digest", byDigest(digest("mallory", "a.example", "x", "MD5", "auth")), byDigest(digest("alice", "a.example", "x", "MD5", "auth")))
	same("password", byPassword("mallory@a.example", "x"), byPassword(accountsAOR, "x"))
}

func accountsPassword(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	b.accept("password", byPassword(accountsAOR, accountsPass), accountsAOR)
}

func accountsWrongPassword(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	b.refuse("a wrong password", byPassword(accountsAOR, "Correct horse"), message.Unauthenticated)
	b.refuse("no password", byPassword(accountsAOR, ""), message.Unauthenticated)
	b.refuse("an unknown system_id", byPassword("mallory@a.example", accountsPass), message.Unauthenticated)
}

func accountsLookupOwn(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	alice, bob := b.lookup(accountsAOR), b.lookup("bob@b.example")
	if alice.ID == "" || alice.ID == bob.ID {
		t.Errorf("two accounts have the IDs %q and %q, want two different ones", alice.ID, bob.ID)
	}
	if verified, err := b.verify(byPassword(accountsAOR, accountsPass)); err == nil && verified.ID != alice.ID {
		t.Errorf("Lookup says that %s is %q, Verify says %q", accountsAOR, alice.ID, verified.ID)
	}
}

func accountsLookupIdentity(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	for _, identity := range []string{accountsIdentity, "+15550100@a.example"} {
		account, err := b.p.Lookup(t.Context(), address(t, identity))
		if err != nil || !account.Owns(address(t, accountsAOR)) {
			t.Errorf("Lookup of the identity %s: account %q, error %v; want the one of %s", identity, account.ID, err, accountsAOR)
		}
	}
}

func accountsLookupUnknown(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	for _, unknown := range []string{"mallory@a.example", "alice@b.example"} {
		account, err := b.p.Lookup(t.Context(), address(t, unknown))
		if err == nil {
			t.Errorf("Lookup of %s: found %q, want %s", unknown, account.ID, message.UnknownRecipient)
			continue
		}
		wantFinal(t, "Lookup of "+unknown, err, message.UnknownRecipient)
	}
}

func accountsFirstIdentity(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	account, err := b.p.Lookup(t.Context(), address(t, accountsAOR))
	if err != nil {
		t.Logf("the account isn't found: that is for another case")
		return
	}
	if len(account.Identities) == 0 || account.Identities[0] != address(t, accountsAOR) {
		t.Errorf("the identities are %v, want %s first", account.Identities, accountsAOR)
	}
}

func accountsRestart(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	proof := byPassword(accountsAOR, accountsPass)
	before, found := b.p.Lookup(t.Context(), address(t, accountsAOR))
	_, verified := b.verify(proof)
	b.p = h.Open(t)
	after, stillFound := b.p.Lookup(t.Context(), address(t, accountsAOR))
	_, stillVerified := b.verify(proof)
	if after.ID != before.ID || !slices.Equal(after.Identities, before.Identities) {
		t.Errorf("after a restart the account is %q with %v, want %q with %v", after.ID, after.Identities, before.ID, before.Identities)
	}
	if fmt.Sprint(found, verified) != fmt.Sprint(stillFound, stillVerified) {
		t.Errorf("after a restart it is looked up and verified with %v and %v, before with %v and %v", stillFound, stillVerified, found, verified)
	}
}

func accountsConcurrent(t T, h AccountsHarness) {
	b := newAccountsBench(t, h)
	proofs := []plugin.Credentials{
		byDigest(digest("alice", "a.example", accountsPass, "MD5", "auth")),
		byDigest(digest("bob", "b.example", "battery staple", "MD5", "auth")),
		byDigest(digest("bob", "b.example", "wrong", "MD5", "auth")),
		byPassword(accountsAOR, accountsPass),
	}
	const callers, rounds = 16, 50
	failures := make(chan string, callers)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range callers {
		proof := proofs[i%len(proofs)]
		want := b.outcome(proof)
		group.Go(func() {
			<-start
			for range rounds {
				if got := b.outcome(proof); got != want {
					failures <- fmt.Sprintf("got %s among others, %s alone", got, want)
					return
				}
			}
		})
	}
	close(start)
	group.Wait()
	close(failures)
	for failure := range failures {
		t.Errorf("the same credentials: %s", failure)
	}
}

// outcome says what Verify makes of credentials, for comparison.
func (b *accountsBench) outcome(c plugin.Credentials) string {
	account, err := b.verify(c)
	return fmt.Sprintf("account %q, error %v", account.ID, err)
}

func accountsSuspended(t T, h AccountsHarness) {
	if h.Suspend == nil {
		t.Logf("this plugin doesn't suspend accounts")
		return
	}
	b := newAccountsBench(t, h)
	_, found := b.p.Lookup(t.Context(), address(t, accountsAOR))
	proofs := slices.DeleteFunc([]plugin.Credentials{
		byPassword(accountsAOR, accountsPass),
		byDigest(digest("alice", "a.example", accountsPass, "MD5", "auth")),
		byDigest(digest("alice", "a.example", accountsPass, "SHA-256", "auth")),
	}, func(c plugin.Credentials) bool {
		_, err := b.verify(c)
		return err != nil // that these are accepted is for other cases
	})
	h.Suspend(t, accountsAOR)
	for _, proof := range proofs {
		b.refuse("a suspended account", proof, message.Forbidden)
	}
	if _, err := b.p.Lookup(t.Context(), address(t, accountsAOR)); fmt.Sprint(err) != fmt.Sprint(found) {
		t.Errorf("Lookup of a suspended account: %v, before that: %v", err, found)
	}
	b.refuse("a suspended account with a wrong password", byPassword(accountsAOR, "wrong"), message.Unauthenticated)
}

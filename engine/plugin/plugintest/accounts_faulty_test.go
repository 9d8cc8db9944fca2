package plugintest

import (
	"context"
	"crypto/subtle"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// register is a small sound accounts plugin. It lives on as the disk does; what
// a restart can lose, a fault loses in opened.
type register []*subscriber

type subscriber struct {
	plugin.Account
	password  string
	suspended bool
}

func (r register) byAOR(aor message.Address) *subscriber {
	for _, s := range r {
		if s.Owns(aor) && s.ID == aor.String() {
			return s
		}
	}
	return nil
}

func (r register) Verify(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	s := r.byAOR(claimed(c))
	if s == nil || !s.proves(c) {
		return plugin.Account{}, refusal()
	}
	if s.suspended {
		return plugin.Account{}, message.Fail(message.Forbidden, "suspended")
	}
	return s.Account, nil
}

func refusal() error { return message.Fail(message.Unauthenticated, "wrong credentials") }

// claimed is who somebody says to be.
func claimed(c plugin.Credentials) message.Address {
	if c.Digest != nil {
		return message.Address{User: c.Digest.Username, Host: c.Digest.Realm}
	}
	a, _ := message.ParseAddress(c.Password.SystemID)
	return a
}

func (s *subscriber) proves(c plugin.Credentials) bool {
	got, want := "", s.password
	if c.Digest != nil {
		got, want = c.Digest.Response, response(*c.Digest, s.password)
	} else {
		got = c.Password.Password
	}
	return subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}

func (r register) Lookup(_ context.Context, a message.Address) (plugin.Account, error) {
	for _, s := range r {
		if s.Owns(a) {
			return s.Account, nil
		}
	}
	return plugin.Account{}, message.Fail(message.UnknownRecipient, "nobody")
}

func (r register) Close() error { return nil }

// brokenRegister does one thing in another way than a sound one. Nil: as it does.
type brokenRegister struct {
	register
	opened  func(register)
	added   func(*subscriber)
	verify  func(context.Context, register, plugin.Credentials) (plugin.Account, error)
	lookup  func(context.Context, register, message.Address) (plugin.Account, error)
	suspend func(*subscriber)
}

func (b *brokenRegister) Verify(ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
	if b.verify == nil {
		return b.register.Verify(ctx, c)
	}
	return b.verify(ctx, b.register, c)
}

func (b *brokenRegister) Lookup(ctx context.Context, a message.Address) (plugin.Account, error) {
	if b.lookup == nil {
		return b.register.Lookup(ctx, a)
	}
	return b.lookup(ctx, b.register, a)
}

func (b brokenRegister) harness(T) AccountsHarness {
	return AccountsHarness{
		Open: func(T) plugin.Accounts {
			if b.opened != nil {
				b.opened(b.register)
			}
			return &b
		},
		Add: func(t T, aor, password string, identities ...string) {
			s := &subscriber{Account: plugin.Account{ID: aor}, password: password}
			for _, identity := range append([]string{aor}, identities...) {
				s.Identities = append(s.Identities, address(t, identity))
			}
			if b.added != nil {
				b.added(s)
			}
			b.register = append(b.register, s)
		},
		Suspend: func(t T, aor string) {
			s := b.byAOR(address(t, aor))
			s.suspended = true
			if b.suspend != nil {
				b.suspend(s)
			}
		},
	}
}

func TestAccountsMatrix(t *testing.T) {
	prove(t, accountsCases, brokenRegister{}.harness, []fault[AccountsHarness]{
		{"refuses MD5", "the right MD5 response is accepted",
			brokenRegister{verify: refuseDigest(func(d *plugin.Digest) bool { return d.Algorithm == "MD5" && d.QOP != "" })}.harness},
		{"refuses SHA-256", "the right SHA-256 response is accepted",
			brokenRegister{verify: refuseDigest(func(d *plugin.Digest) bool { return d.Algorithm == "SHA-256" && d.QOP != "" })}.harness},
		{"insists on qop", "the right response without qop is accepted",
			brokenRegister{verify: refuseDigest(func(d *plugin.Digest) bool { return d.QOP == "" })}.harness},
		{"doesn't look at the URI", "the response must fit all that it covers",
			brokenRegister{verify: altered(func(d *plugin.Digest) { d.URI = "sip:bob@b.example" })}.harness},
		{"doesn't look at the method", "the response must fit all that it covers",
			brokenRegister{verify: altered(func(d *plugin.Digest) { d.Method = "MESSAGE" })}.harness},
		{"compares as much of the response as there is", "the response must fit all that it covers",
			brokenRegister{verify: comparePrefix}.harness},
		{"takes a capital letter for a small one", "the response to a wrong password is refused",
			brokenRegister{verify: capitalDigest}.harness},
		{"gives unknown users an empty password", "an unknown user is refused",
			brokenRegister{verify: anonymous}.harness},
		{"lets a refused user try again", "an unknown user is refused",
			brokenRegister{verify: unknownForNow}.harness},
		{"looks for the user in every realm", "a realm of somebody else is refused",
			brokenRegister{verify: anyRealm}.harness},
		{"says that it doesn't know the user", "a refusal doesn't tell whether the account exists",
			brokenRegister{verify: talkative}.harness},
		{"has forgotten passwords", "the right password is accepted",
			brokenRegister{verify: refusePassword}.harness},
		{"ignores case in passwords", "a wrong password is refused",
			brokenRegister{verify: foldPassword}.harness},
		{"doesn't find an account by its own address", "an account is found by its own address",
			brokenRegister{lookup: notByOwn}.harness},
		{"gives each answer another ID", "an account is found by its own address",
			brokenRegister{verify: otherID}.harness},
		{"finds an account by its own address only", "an account is found by each identity",
			brokenRegister{lookup: byOwnOnly}.harness},
		{"finds a user in every domain", "an address that nobody has is an unknown recipient",
			brokenRegister{lookup: anyDomain}.harness},
		{"says try again for an unknown address", "an address that nobody has is an unknown recipient",
			brokenRegister{lookup: unknownAddressForNow}.harness},
		{"lists identities backwards", "the first identity is the account's own address",
			brokenRegister{added: func(s *subscriber) { slices.Reverse(s.Identities) }}.harness},
		{"loses identities", "an account keeps its ID and its identities over a restart",
			brokenRegister{opened: loseIdentities}.harness},
		{"loses passwords", "an account keeps its ID and its identities over a restart",
			brokenRegister{opened: losePasswords}.harness},
		{"has room for one at a time", "credentials checked at the same time don't get mixed up",
			brokenRegister{verify: mixUp()}.harness},
		{"doesn't suspend", "a suspended account is forbidden, and still found",
			brokenRegister{suspend: func(s *subscriber) { s.suspended = false }}.harness},
		{"loses a suspended account's addresses", "a suspended account is forbidden, and still found",
			brokenRegister{lookup: hideSuspended}.harness},
		{"tells anybody who is suspended", "a suspended account is forbidden, and still found",
			brokenRegister{verify: tellSuspended}.harness},
	})
}

type verifyFunc = func(context.Context, register, plugin.Credentials) (plugin.Account, error)

func refuseDigest(which func(*plugin.Digest) bool) verifyFunc {
	return func(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
		if c.Digest != nil && which(c.Digest) {
			return plugin.Account{}, refusal()
		}
		return r.Verify(ctx, c)
	}
}

func altered(alter func(*plugin.Digest)) verifyFunc {
	return func(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
		if c.Digest != nil {
			d := *c.Digest
			alter(&d)
			c.Digest = &d
		}
		return r.Verify(ctx, c)
	}
}

func comparePrefix(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	s := r.byAOR(claimed(c))
	if s != nil && c.Digest != nil && strings.HasPrefix(response(*c.Digest, s.password), c.Digest.Response) {
		return r.Verify(ctx, byDigest(withResponse(*c.Digest, s.password)))
	}
	return r.Verify(ctx, c)
}

func withResponse(d plugin.Digest, password string) plugin.Digest {
	d.Response = response(d, password)
	return d
}

func capitalDigest(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	s := r.byAOR(claimed(c))
	if s == nil || c.Digest == nil {
		return r.Verify(ctx, c)
	}
	capital := strings.ToUpper(s.password[:1]) + s.password[1:]
	if response(*c.Digest, capital) == c.Digest.Response {
		return s.Account, nil
	}
	return r.Verify(ctx, c)
}

func anonymous(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	if c.Digest != nil && r.byAOR(claimed(c)) == nil && response(*c.Digest, "") == c.Digest.Response {
		return plugin.Account{ID: c.Digest.Username}, nil
	}
	return r.Verify(ctx, c)
}

func unknownForNow(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	if c.Digest != nil && c.Digest.Realm == "a.example" && r.byAOR(claimed(c)) == nil {
		return plugin.Account{}, message.FailForNow(message.Unauthenticated, "wrong credentials")
	}
	return r.Verify(ctx, c)
}

func anyRealm(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	if c.Digest == nil {
		return r.Verify(ctx, c)
	}
	for _, s := range r {
		if s.Identities[0].User == c.Digest.Username && s.proves(c) && !s.suspended {
			return s.Account, nil
		}
	}
	return r.Verify(ctx, c)
}

func talkative(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	if r.byAOR(claimed(c)) == nil {
		return plugin.Account{}, message.Fail(message.Unauthenticated, "no such user")
	}
	return r.Verify(ctx, c)
}

func refusePassword(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	if c.Password != nil {
		return plugin.Account{}, refusal()
	}
	return r.Verify(ctx, c)
}

func foldPassword(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	if c.Password != nil {
		c = byPassword(c.Password.SystemID, strings.ToLower(c.Password.Password))
	}
	return r.Verify(ctx, c)
}

func notByOwn(ctx context.Context, r register, a message.Address) (plugin.Account, error) {
	if r.byAOR(a) != nil {
		return plugin.Account{}, message.Fail(message.UnknownRecipient, "nobody")
	}
	return r.Lookup(ctx, a)
}

func otherID(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	account, err := r.Verify(ctx, c)
	account.ID = "id-" + account.ID
	return account, err
}

func byOwnOnly(ctx context.Context, r register, a message.Address) (plugin.Account, error) {
	if r.byAOR(a) == nil {
		return plugin.Account{}, message.Fail(message.UnknownRecipient, "nobody")
	}
	return r.Lookup(ctx, a)
}

func anyDomain(ctx context.Context, r register, a message.Address) (plugin.Account, error) {
	for _, s := range r {
		if s.Identities[0].User == a.User {
			return s.Account, nil
		}
	}
	return r.Lookup(ctx, a)
}

func unknownAddressForNow(ctx context.Context, r register, a message.Address) (plugin.Account, error) {
	account, err := r.Lookup(ctx, a)
	if err != nil {
		err = message.FailForNow(message.UnknownRecipient, "nobody yet")
	}
	return account, err
}

func loseIdentities(r register) {
	for _, s := range r {
		s.Identities = s.Identities[:1:1]
	}
}

func losePasswords(r register) {
	for _, s := range r {
		s.password = "lost"
	}
}

// mixUp keeps what it is working on where the next caller puts its own.
func mixUp() verifyFunc {
	var current atomic.Pointer[plugin.Credentials]
	return func(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
		current.Store(&c)
		for range 100 {
			runtime.Gosched()
		}
		return r.Verify(ctx, *current.Load())
	}
}

func hideSuspended(ctx context.Context, r register, a message.Address) (plugin.Account, error) {
	if s := r.byAOR(a); s != nil && s.suspended {
		return plugin.Account{}, message.Fail(message.UnknownRecipient, "nobody")
	}
	return r.Lookup(ctx, a)
}

func tellSuspended(ctx context.Context, r register, c plugin.Credentials) (plugin.Account, error) {
	if s := r.byAOR(claimed(c)); s != nil && s.suspended {
		return plugin.Account{}, message.Fail(message.Forbidden, "suspended")
	}
	return r.Verify(ctx, c)
}

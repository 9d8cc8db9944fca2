package sip

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// identity is who sent a request.
type identity struct {
	account plugin.Account
	from    *asserted // what a peer vouches for; nil: From says who it is
	proof
}

// sender is the address that a message is from.
func (i *identity) sender(x *wire.Exchange) (message.Address, error) {
	if i.from != nil {
		return i.from.identities[0], nil
	}
	return sender(x)
}

// displayName is what the sender is called; empty if nobody says.
func (i *identity) displayName(x *wire.Exchange) string {
	if i.from != nil && i.from.display != "" {
		return i.from.display
	}
	return displayName(x)
}

// proof is how that is known.
type proof struct {
	name   string  // tells the submissions of one from those of others
	nonces *nonces // of the credentials; nil: a peer vouches
	nonce  nonceID
	count  uint32
}

// authenticate finds out who sent a request, by its credentials. If it returns
// false it has answered: everybody without credentials gets the same challenge,
// whatever it asks for, so that nobody learns which addresses exist.
//
// Whoever has given too many wrong answers is told to come back later, and
// nobody looks at what he says: not whether it is right, nor whether there is
// such an account.
func (d *Door) authenticate(ctx context.Context, x *wire.Exchange, o *origin, digest plugin.Digest, found bool, now time.Time) (identity, bool) {
	if !found {
		d.challenge(x, d.realm(x), false, now)
		return identity{}, false
	}
	count, ok := nonceCount(&digest)
	if !ok || !slices.Contains(d.config.Algorithms, digest.Algorithm) || !isSameURI(x, digest.URI) {
		d.answer(x, wire.Reply{Status: 400, Phrase: "Bad Credentials"})
		return identity{}, false
	}
	tenure, failure := d.gate.Tenure()
	if failure != nil {
		d.refuse(x, failure)
		return identity{}, false
	}
	id, stale := d.tenures.under(tenure).checkFrom(o, &digest, now)
	if stale == errForeignNonce {
		d.challenge(x, digest.Realm, true, now)
		return identity{}, false
	}
	digest.Method = x.Method
	try := d.guard.try(&digest, o)
	if wait := d.guard.wait(&try, now); wait > 0 {
		d.putOff(x, wait)
		return identity{}, false
	}
	account, err := d.gate.Authenticate(d.authenticating.Context(now), plugin.Credentials{Digest: &digest})
	if err != nil && ctx.Err() != nil {
		x.Abandon() // we are closing, and don't know
		return identity{}, false
	}
	if err != nil {
		d.refuseProof(x, &try, message.AsFailure(err), now)
		return identity{}, false
	}
	who := identity{account: account, proof: proof{name: account.ID, nonce: id, count: count}}
	if !d.isFresh(x, o, &who.proof, digest.Realm, stale, now) {
		return identity{}, false
	}
	d.guard.right(&try, now) // not before: somebody else's request may come again
	d.rates.excuse(o)
	x.Keep() // also if it never registers: it doesn't give way to strangers
	if wait := d.rates.ofAccount(account.ID, now); wait > 0 {
		d.rates.limited[overAccount].Inc()
		who.mayRepeat(x)
		d.putOff(x, wait)
		return identity{}, false
	}
	return who, true
}

// refuseProof answers who couldn't prove an account. A wrong password counts,
// whether there is such an account or not.
func (d *Door) refuseProof(x *wire.Exchange, t *try, failure *message.Failure, now time.Time) {
	if failure.Reason == message.Unauthenticated && !failure.Temporary {
		if wait := d.guard.wrong(t, now); wait > 0 {
			d.putOff(x, wait)
			return
		}
	}
	d.refuse(x, failure)
}

// credentials returns those for a realm of ours. A request may carry others
// too; those for a proxy are as good as those for us.
func (d *Door) credentials(x *wire.Exchange) (plugin.Digest, bool) {
	for _, h := range x.Headers() {
		if !strings.EqualFold(h.Name, "Authorization") && !strings.EqualFold(h.Name, "Proxy-Authorization") {
			continue
		}
		digest, err := parseDigest(h.Value)
		if err == nil && slices.Contains(d.config.Domains, digest.Realm) {
			return digest, true
		}
	}
	return plugin.Digest{}, false
}

// isFresh answers a right response to a nonce that is too old, or was used with
// this count before, with a new nonce: err is what the nonce's check said. It
// comes after Authenticate, so that stale=true goes only to those who know the
// secret (RFC 7616 §3.3), and only they occupy a window.
func (d *Door) isFresh(x *wire.Exchange, o *origin, p *proof, realm string, err error, now time.Time) bool {
	tenure, failure := d.gate.Tenure()
	if failure != nil {
		d.refuse(x, failure)
		return false
	}
	n := d.tenures.under(tenure)
	inherited, good := n.inherited(p.nonce, o.address.String(), now)
	if err == nil && inherited && (!good || x.Method != "MESSAGE") {
		err = errStaleNonce
	}
	if err == nil {
		p.nonces = n
		err = n.use(p.name, p.nonce, p.count, now)
	}
	if err == errReplay && n.pardons.use(p.pardon(x)) {
		return true
	}
	if err != nil {
		d.challenge(x, realm, true, now)
	}
	return err == nil
}

// mayRepeat lets a request that wasn't taken come again as it is. To
// authenticate anew would make another one of it (RFC 3261 §22.2), which nobody
// knows as a repeat.
func (p proof) mayRepeat(x *wire.Exchange) {
	if p.nonces != nil {
		p.nonces.pardons.grant(p.pardon(x))
	}
}

func (p proof) pardon(x *wire.Exchange) pardon {
	return pardon{p.nonce, p.count, x.Flow.Remote, submissionKey(x, p.name)}
}

// challenge answers with a new nonce, while this node is the active one.
func (d *Door) challenge(x *wire.Exchange, realm string, stale bool, now time.Time) {
	tenure, failure := d.gate.Tenure()
	if failure != nil {
		d.refuse(x, failure)
		return
	}
	o := originOf(x, d.peerOf(x))
	source := o.sourceOctets()
	nonce := d.tenures.under(tenure).make(realm, o.address.String(), string(source[:]), now)
	algorithms := offered(d.config.Algorithms, x.Get("User-Agent"), x.Flow.Network)
	d.answer(x, wire.Reply{Status: 401, Headers: challenges(algorithms, realm, nonce, stale)})
}

// isSameURI tells whether the digest's uri names the Request-URI: word for word,
// or at least the same user, host and port. A uri without a user names the
// server and not a resource on it: sipp and some old phones send that, and since
// each nonce count is good once, nobody else gains by it.
func isSameURI(x *wire.Exchange, uri string) bool {
	if uri == x.URIText {
		return true
	}
	u, err := wire.ParseURI(uri)
	if err != nil {
		return false
	}
	return u.User == "" || u.User == x.URI.User && strings.EqualFold(u.Host, x.URI.Host) && u.Port == x.URI.Port
}

package sip

import (
	"hash/maphash"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// burstFor is how many seconds' requests may come at once: when a network is
// back, all of its phones come.
const burstFor = 2

// Places in the tables of the rates: some 6 MB if all are used.
const (
	maxSources  = 64 << 10
	maxAccounts = 64 << 10
)

// rates bound how many requests a second come from one source, as long as it
// hasn't proved who it is, and how many from one account.
type rates struct {
	seed       maphash.Seed
	perSource  int // a second
	perAccount int // a second
	sources    *table[allowance]
	flows      *table[bucket] // of sources that ask too much: by address and port
	accounts   *table[bucket]
	limited    [verdicts]*plugin.Counter
}

// What each port of a source, or each client behind a dispatching peer, may ask
// while the source asks too much: enough to register.
const (
	flowBurst = 6
	flowPause = 5 * time.Second
)

// allowance is what a source may ask, what of it those may who have hardly asked
// while others there ask too much, and how often it is told that it does.
type allowance struct{ requests, newcomers, refusals bucket }

// verdict is what becomes of a request as far as rates go.
type verdict uint8

const (
	admitted    verdict = iota
	refused             // told so
	dropped             // not answered
	overAccount         // refused: the account's
	verdicts
)

var verdictNames = [verdicts]string{refused: "source", dropped: "source_dropped", overAccount: "account"}

func newRates(l Limits, m *plugin.Metrics) *rates {
	r := &rates{
		seed:       maphash.MakeSeed(),
		perSource:  l.RequestsPerSource,
		perAccount: l.RequestsPerAccount,
		sources:    newTable[allowance](maxSources),
		flows:      newTable[bucket](maxSources),
		accounts:   newTable[bucket](maxAccounts),
	}
	for v, name := range verdictNames {
		if name != "" {
			r.limited[v] = m.Counter("sip_limited_requests_total", "Requests over a limit of rate, by which; those of source_dropped weren't answered.", plugin.Label{Name: "limit", Value: name})
		}
	}
	return r
}

func (r *rates) sourceKey(o *origin) uint64 {
	source := o.sourceOctets()
	return keyOf(maphash.Bytes(r.seed, source[:]))
}

// request counts a request of a source. While there are more than the rate, a
// port of it that has hardly asked anything still gets through, so that one
// phone that runs wild doesn't keep all others behind the same address from
// registering. What is over that is refused, and beyond the rate of refusals
// dropped: to answer a flood would make two of it, perhaps to somebody who never
// asked.
func (r *rates) request(o *origin, now time.Time) (verdict, time.Duration) {
	pause := time.Second / time.Duration(r.perSource)
	key := r.sourceKey(o)
	s, places := r.sources.lock(key)
	defer s.mu.Unlock()
	a := &opened(places, key, now).value
	wait := a.requests.take(now, pause, r.perSource*burstFor)
	switch {
	case wait == 0:
		o.counted = true
		return admitted, 0
	case r.isNewcomer(o, now) && a.newcomers.take(now, pause, r.perSource) == 0:
		return admitted, 0
	case a.refusals.take(now, pause, r.perSource) == 0:
		return refused, wait
	}
	return dropped, 0
}

// isNewcomer tells whether an address and port has hardly asked anything since
// its source asks too much, and counts that it asks now.
func (r *rates) isNewcomer(o *origin, now time.Time) bool {
	key := keyOf(maphash.Comparable(r.seed, o.address))
	s, places := r.flows.lock(key)
	defer s.mu.Unlock()
	return opened(places, key, now).value.take(now, flowPause, flowBurst) == 0
}

// excuse takes a request back that turned out to be an account's.
func (r *rates) excuse(o *origin) {
	if !o.counted {
		return
	}
	o.counted = false
	key := r.sourceKey(o)
	s, places := r.sources.lock(key)
	defer s.mu.Unlock()
	if p := find(places, key); p != nil {
		p.value.requests.give(time.Second / time.Duration(r.perSource))
	}
}

// ofAccount counts a request of an account, and returns how long it must wait.
func (r *rates) ofAccount(id string, now time.Time) time.Duration {
	key := keyOf(maphash.String(r.seed, id))
	s, places := r.accounts.lock(key)
	defer s.mu.Unlock()
	return opened(places, key, now).value.take(now, time.Second/time.Duration(r.perAccount), r.perAccount*burstFor)
}

// isAdmitted tells whether a request may be looked at; if not it has been
// answered, or isn't to be. What a peer asks by itself always is. So is what
// comes with the credentials of a client that has proved its account where it
// comes from, so that a flood of one doesn't silence all those who share its
// address.
func (d *Door) isAdmitted(x *wire.Exchange, o *origin, now time.Time) bool {
	if o.isPeer() {
		return true
	}
	v, wait := d.rates.request(o, now)
	if v == admitted || d.isProved(x, o, now) {
		return true
	}
	d.rates.limited[v].Inc()
	if v == dropped {
		x.Abandon()
		return false
	}
	d.putOff(x, wait)
	return false
}

// isProved tells whether a request has credentials with a nonce that we gave to
// its source, for an account that was proved on its flow. The response isn't
// looked at yet.
func (d *Door) isProved(x *wire.Exchange, o *origin, now time.Time) bool {
	digest, found := d.credentials(x)
	if !found {
		return false
	}
	tenure, failure := d.gate.Tenure()
	if failure != nil {
		return false
	}
	if _, err := d.tenures.under(tenure).checkFrom(o, &digest, now); err == errForeignNonce {
		return false
	}
	t := d.guard.try(&digest, o)
	return d.guard.hasProved(&t, now)
}

// putOff refuses what may be asked again later: 500 with Retry-After (RFC 3261
// §21.5.1). 503 would be about the whole node, and have proxies send everybody's
// requests elsewhere (§21.5.4); 429 is another protocol's. 480 would do for a
// message, like for the other limits (see finals), but a phone isn't to give up:
// pjsip registers again by itself after a 500, its older versions not after a
// 480, and none after a 403.
func (d *Door) putOff(x *wire.Exchange, wait time.Duration) {
	d.metrics.refused[message.LimitReached].Inc()
	d.answer(x, wire.Reply{Status: 500, Phrase: "Try Again Later", RetryAfter: wait})
}

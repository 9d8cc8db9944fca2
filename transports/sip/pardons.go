package sip

import (
	"net/netip"
	"sync"
)

// maxPardons is how many requests may come again at one time: some 5 MB.
const maxPardons = 32 << 10

// pardon is a request that may come again as it was, with a nonce count that it
// has used. All that a digest leaves open is in it: whoever has seen the request
// can't say anything else with it, nor from anywhere else.
type pardon struct {
	id      nonceID
	count   uint32
	source  netip.AddrPort
	request string // its submission key
}

// pardons are the requests that were refused for now, or not answered, after
// their credentials had been accepted. Of too many the oldest is forgotten: its
// sender is challenged, and authenticates anew.
type pardons struct {
	mu      sync.Mutex
	granted map[pardon]struct{}
	ring    []pardon // those that were granted last, also those that were used
	next    int      // the place of the oldest, once there are maxPardons
}

// grant lets a request come again, once.
func (p *pardons) grant(r pardon) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.granted == nil {
		p.granted = map[pardon]struct{}{}
	}
	if len(p.ring) < maxPardons {
		p.ring = append(p.ring, r)
	} else {
		delete(p.granted, p.ring[p.next])
		p.ring[p.next] = r
		p.next = (p.next + 1) % maxPardons
	}
	p.granted[r] = struct{}{}
}

// use tells whether a request may come again. From then on it may not.
func (p *pardons) use(r pardon) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, found := p.granted[r]
	delete(p.granted, r)
	return found
}

//go:build cluster

package main_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	talkers   = 40
	listeners = 40 // every other one is registered from the beginning
	streams   = 4  // of those are over TCP
	each      = 5  // a talker has so many to talk to
	pairs     = talkers * each
	usualRate = 200 // messages a second of all
	// untilTaken is how long a talker tries to get rid of a message.
	untilTaken = 3 * time.Minute
	// lagging is for how long a message may be due and not yet accepted while all
	// is well.
	lagging = 2 * time.Second
)

// sent is a message that was accepted.
type sent struct {
	at     time.Time
	by     string // a node
	code   int
	unsure int  // how often nobody can say whether it was accepted before
	online bool // its recipient is registered
	stream bool // and reached over a connection
	trail  []string
}

// traffic is what all talkers send. Each sends to a listener of his when the
// next message is due and the one before is accepted: what couldn't go while no
// node took anything follows as fast as it is taken.
type traffic struct {
	t        *testing.T
	c        *cluster
	mail     *mail
	talkers  []*phone
	hearing  []hearer
	names    []string      // of those
	interval time.Duration // between two messages of a pair
	began    time.Time
	stop     chan struct{}
	all      sync.WaitGroup
	progress [pairs]atomic.Int64 // messages that were accepted

	mu       sync.Mutex
	accepted map[string]sent
}

// newTraffic makes the users, who will send so many messages a second, and
// registers every other listener.
func newTraffic(t *testing.T, c *cluster, rate int) *traffic {
	t.Helper()
	x := &traffic{
		t: t, c: c, mail: newMail(), interval: pairs * time.Second / time.Duration(rate),
		stop: make(chan struct{}), accepted: map[string]sent{},
	}
	from, to := numbered("from", talkers), numbered("to", listeners)
	c.active().importWith(append(from, to...), "100000.00")
	for _, user := range from[:talkers] {
		x.talkers = append(x.talkers, newPhone(t, user, c.addresses(), nil))
	}
	x.names = to
	for i, user := range to {
		x.hearing = append(x.hearing, x.newHearer(i, user))
	}
	x.register(func(listener int) bool { return isOnline(listener) })
	return x
}

func isOnline(listener int) bool { return listener%2 == 0 }

// isOverTCP is so of some of those who are registered from the beginning.
func isOverTCP(listener int) bool { return listener%(listeners/streams) == 0 }

// hearer is a listener's device.
type hearer interface {
	register(ctx context.Context) error
}

func (x *traffic) newHearer(listener int, user string) hearer {
	if isOverTCP(listener) {
		return newStream(x.t, user, x.c.addresses(), x.mail.take)
	}
	return newPhone(x.t, user, x.c.addresses(), x.mail.take)
}

// register registers some of the listeners.
func (x *traffic) register(which func(listener int) bool) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), untilTaken)
	defer cancel()
	var all sync.WaitGroup
	for i, h := range x.hearing {
		if !which(i) {
			continue
		}
		all.Go(func() {
			if err := h.register(ctx); err != nil {
				x.t.Errorf("%s: %v", x.names[i], err)
			}
		})
	}
	all.Wait()
}

// start lets everybody talk.
func (x *traffic) start() {
	x.began = time.Now()
	for i := range pairs {
		x.all.Go(func() { x.talk(i) })
	}
}

// end stops it, once what is under way is accepted.
func (x *traffic) end() {
	close(x.stop)
	x.all.Wait()
}

// talk is what one talker has to say to one listener.
func (x *traffic) talk(pair int) {
	p, listener := x.talkers[pair/each], pair%listeners
	for n := 0; ; n++ {
		timer := time.NewTimer(time.Until(x.due(pair, n)))
		select {
		case <-x.stop:
			timer.Stop()
			return
		case <-timer.C:
		}
		if !x.say(p, listener, n) {
			return
		}
		x.progress[pair].Add(1)
	}
}

// due is when the n-th message of a pair is to go: pairs one after the other.
func (x *traffic) due(pair, n int) time.Time {
	return x.began.Add(time.Duration(n)*x.interval + time.Duration(pair)*x.interval/pairs)
}

func (x *traffic) say(p *phone, listener, n int) bool {
	ctx, cancel := context.WithTimeout(x.t.Context(), untilTaken)
	defer cancel()
	to := x.names[listener]
	body := fmt.Sprintf("%s %s %d", p.user, to, n)
	r := p.message(to, body)
	code, by, err := p.ask(ctx, r)
	if x.t.Context().Err() != nil {
		return false // the test has ended before
	}
	if err != nil {
		x.t.Errorf("%s: %v", body, err)
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.accepted[body] = sent{at: time.Now(), by: x.c.name(by), code: code, unsure: r.unsure, online: isOnline(listener), stream: isOverTCP(listener), trail: r.trail}
	return true
}

// isLate tells whether some pair has something to say that should be accepted
// by now.
func (x *traffic) isLate(now time.Time) bool {
	for pair := range pairs {
		if now.After(x.due(pair, int(x.progress[pair].Load())).Add(lagging)) {
			return true
		}
	}
	return false
}

// hasDelivered tells whether everything that was accepted until a moment for
// listeners who are registered has arrived.
func (x *traffic) hasDelivered(until time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for body, s := range x.accepted {
		if s.online && s.at.Before(until) && !x.mail.has(body) {
			return false
		}
	}
	return true
}

// sent returns what was accepted so far.
func (x *traffic) sent() map[string]sent {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.accepted)
}

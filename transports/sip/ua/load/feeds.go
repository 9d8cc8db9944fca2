package load

import (
	"math"
	"time"
)

// registrationWindow is how many REGISTERs an endpoint has on their way at once.
const registrationWindow = 32

// none is the feed of a phase in which only others send, until over.
func none(over func(now time.Time) bool) feed {
	return feed{
		allowance: func(time.Time, int) int { return 0 },
		start:     func(time.Time) bool { return false },
		finished:  over,
	}
}

// registrations sends one REGISTER for each account of the endpoint.
// seconds 0 ends all the bindings of the account's address.
func (e *endpoint) registrations(seconds int) feed {
	next := 0
	return feed{
		allowance: func(_ time.Time, outstanding int) int { return registrationWindow - outstanding },
		start: func(time.Time) bool {
			if next == len(e.accounts) {
				return false
			}
			x, index := e.begin(e.accounts[next])
			if x == nil {
				return false
			}
			next++
			x.contact, x.expires = "*", seconds
			if seconds > 0 {
				x.contact = x.account.contact
			}
			e.try(x, index)
			return true
		},
		finished: func(time.Time) bool { return next == len(e.accounts) },
		strict:   true,
	}
}

// messages sends random pairs' messages at a pace, until quota of them were
// measured or the end has come.
func (e *endpoint) messages(p pace, quota int, end time.Time) feed {
	started := 0
	return feed{
		allowance: func(now time.Time, outstanding int) int { return p.allowance(now, started, outstanding) },
		start: func(time.Time) bool {
			measured, ok := e.startMessage()
			if ok {
				started++
			}
			if measured {
				quota--
			}
			return ok && quota > 0
		},
		finished: func(now time.Time) bool { return quota <= 0 || !now.Before(end) },
	}
}

func (e *endpoint) startMessage() (measured, ok bool) {
	if len(e.idle) == 0 {
		return false, false
	}
	at := e.random.IntN(len(e.idle))
	p := e.idle[at]
	x, index := e.begin(p.from)
	if x == nil {
		return false, false
	}
	last := len(e.idle) - 1
	e.idle[at] = e.idle[last]
	e.idle = e.idle[:last]

	e.serial++
	x.pair, x.serial = p, e.serial
	x.sequence, x.measured = e.tally.send(p.id)
	e.try(x, index)
	return x.measured, true
}

// pace says how fast an endpoint sends: in a closed loop with window requests
// outstanding, or in an open loop at rate a second, whatever the answers.
type pace struct {
	window int
	rate   float64 // 0: closed loop
	began  time.Time
}

func (p pace) allowance(now time.Time, started, outstanding int) int {
	if p.rate == 0 {
		return p.window - outstanding
	}
	return p.due(now) - started
}

// due is how many should have been started by now.
func (p pace) due(now time.Time) int {
	return int(math.Max(0, now.Sub(p.began).Seconds()*p.rate))
}

// share splits n as evenly as it goes among parts.
func share(n, parts, part int) int {
	portion := n / parts
	if part < n%parts {
		portion++
	}
	return portion
}

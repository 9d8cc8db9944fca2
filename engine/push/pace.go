package push

import "time"

// Each account has calls of its own, or somebody whose app registers and vanishes
// again and again, each time as another one if he likes, has us flood the push
// server: a message that waits for it is easily sent.
const (
	accountBurst = 64 // calls at once: more than anybody has apps
	accountPause = 10 * time.Second
	fewAccounts  = 1024 // that needn't be looked through
)

// paces knows when the calls of each account that were made or are to be made are
// forgiven. Those of whom all are aren't kept for long.
type paces struct {
	free  map[string]time.Time
	sweep int // at how many the list is looked through
}

// take says when the next call of an account may be made. It returns false if that
// would be later than anybody wants to be woken, and takes nothing.
func (p *paces) take(now time.Time, account string) (at time.Time, ok bool) {
	free := p.free[account]
	if free.Before(now) {
		free = now
	}
	at = free.Add(-(accountBurst - 1) * accountPause)
	if at.Before(now) {
		at = now
	}
	if at.Sub(now) > giveUp {
		return at, false
	}
	p.tidy(now)
	p.free[account] = free.Add(accountPause)
	return at, true
}

func (p *paces) tidy(now time.Time) {
	if len(p.free) < max(p.sweep, fewAccounts) {
		return
	}
	for account, free := range p.free {
		if !free.After(now) {
			delete(p.free, account)
		}
	}
	p.sweep = 2 * len(p.free)
}

package pipeline

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	// forkGrace is how long the other contacts may still answer once one has
	// taken a message: a dead contact holds nothing up.
	forkGrace = 500 * time.Millisecond
	// groupWait is how long devices that don't answer hold up those that the
	// recipient likes less.
	groupWait = 5 * time.Second
)

// fork is an attempt at several targets.
type fork struct {
	p *Pipeline
	shot
	answers chan result
	sent    []target
	results []result
}

// run sends to all targets of a group at once, and to the next group where none has
// taken the message: when all have answered, or have had their time. It returns when
// there is nobody left, or one has taken it and the others have had their grace. It
// calls taken as soon as one has.
//
// While a device may have the message that gets no second chance, no other group
// follows.
func (f *fork) run(ctx context.Context, groups [][]target, taken func()) []result {
	f.answers = make(chan result, len(slices.Concat(groups...)))
	wait := min(groupWait, sendWait/time.Duration(len(groups))) // so that the last one has its share
	var overdue, grace <-chan time.Time
	next := func() {
		overdue = nil
		f.send(ctx, groups[0])
		if groups = groups[1:]; len(groups) > 0 && f.repeats {
			overdue = time.After(wait)
		}
	}
	for next(); f.left() > 0; {
		follows := false
		select {
		case r := <-f.answers:
			f.results = append(f.results, r)
			if r.failure == nil && grace == nil {
				grace, groups = time.After(forkGrace), nil
				taken()
			}
			follows = f.left() == 0
		case <-overdue:
			follows = true
		case <-grace:
			return f.results
		}
		if follows && len(groups) > 0 && ctx.Err() == nil && (f.repeats || !slices.ContainsFunc(f.results, unanswered)) {
			next()
		}
	}
	return f.results
}

// left is how many haven't answered.
func (f *fork) left() int { return len(f.sent) - len(f.results) }

func (f *fork) send(ctx context.Context, targets []target) {
	f.sent = append(f.sent, targets...)
	for _, t := range targets {
		f.p.lanes.sent(f.to, t.key(), 1)
		f.p.sending.Go(func() {
			answer := f.p.attempt(ctx, f.shot, t)
			f.p.lanes.sent(f.to, t.key(), -1)
			f.answers <- answer
		})
	}
}

// owes tells whether a device hasn't answered.
func (f *fork) owes(device string) bool {
	if f == nil {
		return false
	}
	asked := 0
	for _, t := range f.sent {
		if t.device == device {
			asked++
		}
	}
	for _, r := range f.results {
		if r.device == device {
			asked--
		}
	}
	return asked > 0
}

// groups are the targets that are tried at once, in their order: all, or by the
// preference of the recipient (RFC 3261 §16.6 step 6).
func groups(forking plugin.Forking, targets []target) (groups [][]target) {
	if forking != plugin.ForkSequential {
		return [][]target{targets}
	}
	slices.SortStableFunc(targets, func(a, b target) int { return cmp.Compare(b.preference(), a.preference()) })
	for len(targets) > 0 {
		n := slices.IndexFunc(targets, func(t target) bool { return t.preference() < targets[0].preference() })
		if n < 0 {
			n = len(targets)
		}
		groups = append(groups, targets[:n])
		targets = targets[n:]
	}
	return groups
}

// preference is the greatest of a device's ways.
func (t *target) preference() int {
	if t.route.Binding == nil {
		return 0
	}
	q := t.route.Binding.Q
	for i := range t.others {
		q = max(q, t.others[i].preference())
	}
	return q
}

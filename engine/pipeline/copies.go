package pipeline

import (
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// copyPause is how soon a message looks again whether copies of those before it are
// still on their way to its only devices.
const copyPause = 200 * time.Millisecond

// maxCopied is how many octets of copies one message is followed by, and one copy:
// they go on disk at once.
const maxCopied = plugin.MaxApply / 2

// isForAll tells whether each of the recipient's devices is to have a message.
func isForAll(e *spool.Entry) bool { return e.Plan.Devices == plugin.AllDevices && e.Copy.IsZero() }

// copies makes a message for each of the recipient's devices that haven't had the
// one that another device has just taken, nor refused it for good: those that failed
// for now, haven't answered yet, or aren't there. They go on disk as that one ends;
// done then sends them on their way.
func (p *Pipeline) copies(t turn, e *spool.Entry, x ending) (rows []plugin.Change, done func(error)) {
	var items []*item
	size := 0
	owing := map[string]*item{}
	instances := p.registrars(e.Plan.Transports)
	room := p.roomForCopies(e.Account)
	for _, device := range p.devicesOf(e.Account, instances, x.at) {
		last, ended := t.it.state.heard(device, x.results)
		if ended {
			continue
		}
		c := p.copyOf(e, device, instances, x.at)
		if x.unwrapped && e.Message.Report.Wants(message.ReceiptDelivered) && asks(e.Message) { // we notify its sender, so no client is to
			c.Message.ContentType, c.Message.Body, _ = content.Unwrap(e.Message.Body)
		}
		row, err := p.copyRow(c, len(items) < room && size < maxCopied)
		if err != nil {
			p.refused(refusedCopies, c.Message.Transport, x.at, message.AsFailure(err), "transport", c.Message.Transport, "id", e.Message.ID)
			continue
		}
		size += len(row[0].Value)
		it := p.newItem(c, nil, spool.State{})
		if t.fork.owes(device) {
			it.owed, it.next = true, x.at.Add(attemptLimit)
			owing[device] = it
		} else if last != nil {
			it.next = x.at.Add(max(e.Plan.Retry.Backoff[0], last.failure.RetryAfter, plugin.MinPause))
			it.mayRepeat = unanswered(*last)
		}
		rows, items = append(rows, row...), append(items, it)
	}
	if len(items) == 0 {
		return nil, nil
	}
	p.lanes.announce(items)
	if len(owing) > 0 {
		left := t.fork.left()
		p.sending.Go(func() { p.hear(t.fork.answers, left, owing, repeatsUnknown(&e.Plan.Retry)) })
	}
	return rows, func(err error) { p.sendCopies(items, err) }
}

// copyRow is what a copy is on disk, if there is room for it.
func (p *Pipeline) copyRow(c *spool.Entry, room bool) ([]plugin.Change, error) {
	if !room {
		return nil, message.FailForNow(message.LimitReached, "too many copies wait for the devices of account %s already", c.Account)
	}
	return spool.Rows(c, spool.With{})
}

// copyOf is a message for one device, which costs nothing, is known to nobody but
// the operator, and of whose end nobody is told.
func (p *Pipeline) copyOf(e *spool.Entry, device string, instances []string, now time.Time) *spool.Entry {
	m := *e.Message
	m.ID, m.NotBefore, m.Report = p.ids.New(now), time.Time{}, message.ReportNothing
	c := &spool.Entry{Message: &m, Account: e.Account, Expiry: e.Expiry, Plan: e.Plan, Copy: spool.Copy{Device: device, Of: e.Message.ID}}
	c.Plan.Transports, c.Plan.Fallback = instances, plugin.PlanFallback{}
	return c
}

// registrars are those of some instances at which devices register.
func (p *Pipeline) registrars(instances []string) []string {
	return slices.DeleteFunc(slices.Clone(instances), p.leadsOutside)
}

// devicesOf names the devices of an account that register at some instances: those
// that are registered, and those that were.
func (p *Pipeline) devicesOf(account string, instances []string, now time.Time) (names []string) {
	add := func(name, instance string) {
		if name != "" && slices.Contains(instances, instance) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, b := range p.Locations.Of(account, now) {
		add(b.Device, b.Transport)
	}
	for _, d := range p.Locations.Devices(account) {
		add(d.Name, d.Transport)
	}
	return names
}

// roomForCopies is how many copies may be made for an account's devices, for which
// as many may wait as messages for it. Half of what may wait at all is for messages.
func (p *Pipeline) roomForCopies(account string) int {
	limits, forThem := p.bounds.Load(), 0
	for _, d := range p.Locations.Devices(account) {
		_, waiting := p.lanes.counted(deviceName(account, d.Name))
		forThem += waiting
	}
	inAll, _ := p.lanes.counted("")
	return min(limits.Messages/2-inAll-int(p.reports.held.Load()), limits.PerRecipient-forThem)
}

// heard is the last that a device has said of a message, nil: nothing; ended: it has
// it, or has refused it for good.
func (d *deliveries) heard(device string, results []result) (last *result, ended bool) {
	for i := range results {
		if r := &results[i]; r.device == device {
			last, ended = r, ended || r.failure == nil || !r.failure.Temporary
		}
	}
	noted := func(o spool.Delivery) bool { return o.Device == device && (o.Delivered || o.Refused != "") }
	return last, ended || slices.ContainsFunc(d.Deliveries, noted)
}

// announce notes copies that are on their way to the disk: what comes after them
// doesn't overtake.
func (ls *lanes) announce(items []*item) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, it := range items {
		ls.copying[it.pair]++
	}
}

// sendCopies puts copies into their lanes, once they are on disk.
func (p *Pipeline) sendCopies(items []*item, err error) {
	for _, it := range items {
		m := it.payload.Message
		rests := p.lanes.addCopy(it, err)
		if err != nil {
			continue // this node is no longer the active one
		}
		p.tell(plugin.Step{Name: plugin.StepStored, Message: m, Began: m.ID.Time()})
		if rests {
			p.tell(plugin.Step{Name: plugin.StepWaiting, Message: m})
		}
	}
}

func (ls *lanes) addCopy(it *item, err error) (rests bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.copying[it.pair]--; ls.copying[it.pair] == 0 {
		delete(ls.copying, it.pair)
	}
	return err == nil && ls.enqueue(it)
}

// hear takes the answers of devices that a message has gone on without: each is that
// to its copy.
func (p *Pipeline) hear(answers <-chan result, left int, owing map[string]*item, repeats bool) {
	for range left {
		r := <-answers
		if it := owing[r.device]; it != nil {
			p.lanes.answered(it, r, repeats)
		}
	}
}

// answered lets a copy go on. What has ended without an answer is as good as no
// attempt, if there may be another.
func (ls *lanes) answered(it *item, r result, repeats bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byPair[it.pair]
	if l != nil && l.atWork == it {
		return // it has waited too long, and goes again
	}
	it.owed, it.next = false, time.Time{}
	it.mayRepeat = unanswered(r)
	if !it.mayRepeat || !repeats {
		it.answer = &r
	}
	if l != nil && !l.active {
		ls.activate(l)
	}
}

// behindCopies leaves out devices that haven't had copies of earlier messages yet:
// they get one of this behind those. Where there are no others the message waits.
func (p *Pipeline) behindCopies(l *lane, t turn, e *spool.Entry, targets []target, now time.Time) []target {
	if !isForAll(e) || t.it.transient || targets[0].route.Binding == nil {
		return targets
	}
	var next time.Time
	via := strings.Join(p.registrars(e.Plan.Transports), " ")
	free := make([]target, 0, len(targets))
	for _, target := range targets {
		if target.device == "" {
			free = append(free, target)
			continue
		}
		until, waits := p.lanes.copiesWait(pair{e.Message.From, deviceName(e.Account, target.device), via}, now)
		switch {
		case !waits:
			free = append(free, target)
		case next.IsZero() || until.Before(next):
			next = until
		}
	}
	if len(free) == 0 {
		p.lanes.waitUntil(l, t, next)
	}
	return free
}

// waitUntil lets a message wait without being passed: its lane is held by those that
// it waits for, whose own lane passes them.
func (ls *lanes) waitUntil(l *lane, t turn, next time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.recipient.wakes == t.wakes {
		t.it.next = next
	}
}

// copiesWait tells whether there are copies in a lane that it hasn't passed, or on
// their way there, and when to look again.
func (ls *lanes) copiesWait(name pair, now time.Time) (until time.Time, waits bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	until = now.Add(copyPause)
	l := ls.byPair[name]
	switch {
	case l == nil:
		return until, ls.copying[name] > 0
	case len(l.items) == 0 && ls.copying[name] == 0:
		return until, false
	case !l.active && !l.offline && l.wakeAt.After(until):
		until = l.wakeAt
	}
	return until, true
}

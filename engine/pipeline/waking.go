package pipeline

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// keep is how long a binding sleeps after its expiry; 0: it doesn't.
func (p *Pipeline) keep() time.Duration {
	if p.Pusher == nil {
		return 0
	}
	return min(max(0, p.Pusher.Keep()), plugin.MaxKeep)
}

// awaken has the recipient's sleeping apps woken: a message waits in its lane, and
// no device that is awake has taken it. Nobody's phone is to ring for what no
// person wrote. The lanes' lock is held.
func (p *Pipeline) awaken(it *item) {
	if !it.wakes || it.transient || p.keep() == 0 {
		return
	}
	now := time.Now()
	account, device, _ := strings.Cut(it.pair.to, "\x00") // see deviceName
	instances := it.pair.via
	for _, b := range p.Locations.Sleeping(account, now) {
		if (instances == "" || slices.Contains(strings.Fields(instances), b.Transport)) && (device == "" || device == b.Device) {
			p.waker.Wake(now, plugin.Sleeper{Push: b.Push, Account: b.Account, AOR: b.AOR, Device: b.Device})
		}
	}
}

// awakenFor has apps woken for what waits in a lane, whichever of it is at work. The
// lanes' lock is held.
func (p *Pipeline) awakenFor(l *lane) {
	if p.keep() == 0 {
		return
	}
	if it := l.find(func(it *item) bool { return it.wakes && !it.transient }); it != nil {
		p.awaken(it)
	}
}

// sleeps tells whether an app is still to be woken.
func (p *Pipeline) sleeps(s plugin.Sleeper) bool {
	return p.keep() > 0 && slices.ContainsFunc(p.Locations.Sleeping(s.Account, time.Now()), func(b plugin.Binding) bool {
		return b.Push == s.Push
	})
}

// awake notes which apps have registered.
func (p *Pipeline) awake(r plugin.Registration) {
	for i := range r.Bindings {
		if push := r.Bindings[i].Push; push.Provider != "" {
			p.waker.Awake(r.Account.ID, push)
		}
	}
}

// Lost ends the bindings over a flow of a transport instance, or lets them sleep.
// What waits for the latter goes at once: to another device, or nowhere, and then
// they are woken.
func (p *Pipeline) Lost(ctx context.Context, transport, flow string) error {
	if p.Spool.Failing() {
		return message.FailForNow(message.StorageDown, "the storage fails")
	}
	var asleep []plugin.Binding
	err := written(ctx, func(done func(error)) error {
		asleep = p.Locations.Lost(transport, flow, done)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range asleep {
		p.wake(asleep[i].Account, asleep[i:i+1])
	}
	return nil
}

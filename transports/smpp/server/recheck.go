package server

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// A session lasts for weeks, and credentials come with its bind alone. So they are
// checked again while it lasts: an account that was suspended, or has another
// password now, doesn't go on for ever, and one that may do more or less needn't
// bind anew.
const recheckEvery = time.Minute

// recheckAll checks the sessions that are bound, again and again until ctx ends.
func (d *Door) recheckAll(ctx context.Context) {
	ticker := time.NewTicker(recheckEvery)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			d.recheck(ctx, now)
		case <-ctx.Done():
			return
		}
	}
}

// recheck checks each session once. Those that may not go on are unbound.
func (d *Door) recheck(ctx context.Context, now time.Time) {
	var leaving sync.WaitGroup
	defer leaving.Wait()
	for _, s := range d.table.all() {
		if ctx.Err() != nil || d.gate.Active() != nil {
			return
		}
		if why := s.recheck(now); why != nil {
			d.log.Info("ESME may not stay bound", "system_id", s.bind.Load().systemID, "peer", s.wire.RemoteAddr(), "reason", why.reason)
			leaving.Go(func() { s.unbind(ctx) })
		}
	}
}

// recheck checks a session's credentials, and puts what its account may do now in
// the place of what it could. A refusal is why it may not stay; that nobody can be
// asked is none.
func (s *session) recheck(now time.Time) *refusal {
	b := s.bind.Load()
	request := &wire.Bind{
		Mode: b.mode, SystemID: b.systemID, Password: b.password, InterfaceVersion: b.version,
		AddressRange: wire.Address{Number: b.ranges},
	}
	account, why := s.door.authenticate(request, now)
	if why == nil && account.ID != b.account.ID {
		why = &refusal{wire.RInvPaswd, "the system_id is another account's now"}
	}
	if why != nil {
		return finalOnly(why)
	}
	if reflect.DeepEqual(account, b.account) {
		return nil
	}
	changed, why := s.door.examine(s, request, account, now)
	if why != nil {
		return why
	}
	changed.bound, changed.since = b.bound, b.since
	s.bind.Store(changed)
	s.limit(changed)
	if changed.receives() {
		s.door.bindings.changed(changed) // its own address may be another one
	}
	return nil
}

// finalOnly returns a refusal that won't pass by itself.
func finalOnly(why *refusal) *refusal {
	if why.status == wire.RInvPaswd || why.status == wire.RBindFail {
		return why
	}
	return nil
}

// unbind ends a session in an orderly way.
func (s *session) unbind(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	_ = s.wire.Unbind(ctx) // it ends anyway
}

// limit tells the wire what a bind allows.
func (s *session) limit(b *bind) {
	s.wire.Limit(wire.Limits{Window: b.terms.window, InWindow: s.door.config.InWindow})
}

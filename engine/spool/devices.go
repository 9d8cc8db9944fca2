package spool

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Bounds of what is remembered of devices.
const (
	maxDevices     = 16                  // of an account: beyond that the one is forgotten that came last the longest ago
	deviceNoted    = 24 * time.Hour      // how old the time may be that is on disk: refreshes cost nothing
	deviceRemember = 30 * 24 * time.Hour // after it has registered
)

// Device is one of an account's that has named itself when it registered
// (RFC 5626 §4.1), whether it is registered now or not.
type Device struct {
	Name      string // see plugin.Binding.Device
	Transport string // the instance at which it registered last
	account   string
	seen      time.Time // when, to deviceNoted
}

// Devices returns what is known of an account's devices. The caller changes
// nothing in it.
func (l *Locations) Devices(account string) []Device {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.devices[account]
}

// noteDevices returns the rows of devices that a registration changes: those that
// are new, or weren't noted for a day, and those that it has ended all bindings of,
// so that they have logged out. The lock is held.
func (l *Locations) noteDevices(transport string, r plugin.Registration, before, after []plugin.Binding, now time.Time) (changes []plugin.Change) {
	forget := func(b plugin.Binding, wanted bool) {
		if b.Device != "" && wanted && !slices.ContainsFunc(after, func(o plugin.Binding) bool { return o.Device == b.Device }) {
			changes = append(changes, l.forgetDevice(r.Account.ID, b.Device)...)
		}
	}
	for _, b := range before {
		forget(b, b.Expires.After(now))
	}
	for _, b := range r.Bindings {
		if b.Device != "" && b.Expires.After(now) {
			changes = append(changes, l.noteDevice(Device{b.Device, transport, r.Account.ID, now})...)
		}
		forget(b, !b.Expires.After(now))
	}
	return changes
}

func (l *Locations) noteDevice(d Device) (changes []plugin.Change) {
	known := l.devices[d.account] // slices that Devices has handed out stay as they are
	i := slices.IndexFunc(known, func(o Device) bool { return o.Name == d.Name })
	switch {
	case i < 0 && len(known) >= maxDevices:
		oldest := slices.MinFunc(known, func(a, b Device) int { return a.seen.Compare(b.seen) })
		changes = l.forgetDevice(d.account, oldest.Name)
	case i >= 0 && known[i].Transport == d.Transport && d.seen.Sub(known[i].seen) < deviceNoted:
		return nil
	case i >= 0:
		l.forgetDevice(d.account, d.Name)
	}
	l.devices[d.account] = append(slices.Clip(l.devices[d.account]), d)
	return append(changes, d.row())
}

// forgetDevice forgets a device, which needn't be known.
func (l *Locations) forgetDevice(account, name string) []plugin.Change {
	known := l.devices[account]
	i := slices.IndexFunc(known, func(o Device) bool { return o.Name == name })
	if i < 0 {
		return nil
	}
	l.devices[account] = slices.Delete(slices.Clone(known), i, i+1)
	if len(known) == 1 {
		delete(l.devices, account)
	}
	return []plugin.Change{{Table: tableDevices, Key: known[i].key()}}
}

// restoreDevices fills in the devices that are on disk, and those of bindings that
// were written before devices were. It comes after restoreBindings.
func (l *Locations) restoreDevices(ctx context.Context, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := scan(ctx, l.storage, tableDevices, nil, func(_, value []byte) error {
		d, err := decodeDevice(value)
		if err == nil {
			l.devices[d.account] = append(l.devices[d.account], d)
		}
		return err
	})
	if err != nil {
		return err
	}
	l.sweepDevices(now)
	for account, bindings := range l.accounts {
		for i := range bindings {
			l.adoptDevice(account, &bindings[i], now)
		}
	}
	return nil
}

// adoptDevice notes the device of a binding, if it isn't known and there is room.
func (l *Locations) adoptDevice(account string, b *plugin.Binding, now time.Time) {
	known := l.devices[account]
	same := func(d Device) bool { return d.Name == b.Device }
	if b.Device != "" && len(known) < maxDevices && !slices.ContainsFunc(known, same) {
		l.committer.Move(l.noteDevice(Device{b.Device, b.Transport, account, now}), nil)
	}
}

// SweepDevices forgets those that haven't registered for 30 days.
func (l *Locations) SweepDevices(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweepDevices(now)
}

// sweepDevices: the lock is held.
func (l *Locations) sweepDevices(now time.Time) {
	var changes []plugin.Change
	for account, devices := range l.devices {
		for _, d := range devices {
			if now.Sub(d.seen) > deviceRemember {
				changes = append(changes, l.forgetDevice(account, d.Name)...)
			}
		}
	}
	for page := range slices.Chunk(changes, firstPage) {
		l.committer.Move(page, nil)
	}
}

func (d Device) key() []byte {
	w := &writer{}
	w.string(d.account)
	w.string(d.Name)
	sum := sha256.Sum256(w.b)
	return sum[:]
}

// deviceFormat is the version of the rows in table devices.
const deviceFormat = 1

func (d Device) row() plugin.Change {
	w := &writer{}
	w.uint(deviceFormat)
	w.string(d.account)
	w.string(d.Name)
	w.string(d.Transport)
	w.time(d.seen)
	return plugin.Change{Table: tableDevices, Key: d.key(), Value: w.b}
}

func decodeDevice(row []byte) (Device, error) {
	r := &reader{b: row}
	r.version(deviceFormat, deviceFormat)
	d := Device{account: r.string(), Name: r.string(), Transport: r.string(), seen: r.time()}
	return d, r.done()
}

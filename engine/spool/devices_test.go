package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// deviceKit is where devices register.
type deviceKit struct {
	*Locations
	storage   *writes
	committer *Committer
	now       time.Time
	cseq      uint32
}

// writes counts the rows of devices that are written.
type writes struct {
	plugin.Storage
	rows int
}

func (w *writes) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	for _, c := range changes {
		if c.Table == tableDevices {
			w.rows++
		}
	}
	return w.Storage.Apply(ctx, f, changes)
}

func newDeviceKit(t *testing.T) *deviceKit {
	storage := &writes{Storage: memory.Open(memory.NewDisk())}
	fence, err := storage.Acquire(t.Context(), "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	k := &deviceKit{storage: storage, committer: NewCommitter(storage, fence, slog.New(slog.DiscardHandler)), now: time.Unix(1_700_000_000, 0).UTC()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := k.committer.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	k.Locations = NewLocations(storage, k.committer)
	return k
}

// register binds contacts for a while: contact=device. A while of 0 ends them; no
// contacts end all.
func (k *deviceKit) register(t *testing.T, during time.Duration, contacts ...string) {
	t.Helper()
	k.cseq++
	aor := message.Address{User: "bob", Host: "example.com"}
	r := plugin.Registration{Account: plugin.Account{ID: "bob"}, AOR: aor, CallID: "c", CSeq: k.cseq, All: len(contacts) == 0}
	for _, c := range contacts {
		contact, device, _ := strings.Cut(c, "=")
		r.Bindings = append(r.Bindings, plugin.Binding{Contact: contact, Device: device, RegID: contact, Expires: k.now.Add(during)})
	}
	done := make(chan error, 1)
	if _, err := k.Register("sip", r, k.now, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// known are the devices in memory, which must be those on disk.
func (k *deviceKit) known(t *testing.T) string {
	t.Helper()
	if err := k.committer.wait(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	again := NewLocations(k.storage, k.committer)
	if err := again.Restore(t.Context(), k.now); err != nil {
		t.Fatal(err)
	}
	names := func(l *Locations) string {
		var names []string
		for _, d := range l.Devices("bob") {
			names = append(names, d.Name)
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	if memory, disk := names(k.Locations), names(again); memory != disk {
		t.Errorf("in memory %q, on disk %q", memory, disk)
	}
	return names(k.Locations)
}

func TestDevicesAreRemembered(t *testing.T) {
	k := newDeviceKit(t)
	k.register(t, time.Minute, "a1=a", "b1=b", "x=")
	k.now = k.now.Add(time.Hour) // they are gone, and haven't logged out
	if got := k.known(t); got != "a b" {
		t.Errorf("known are %q", got)
	}
	k.register(t, time.Hour, "b1=b", "b2=b")
	k.register(t, 0, "b1=b")
	if got := k.known(t); got != "a b" {
		t.Errorf("one of two flows has ended, and known are %q", got)
	}
	k.register(t, 0, "b2=b")
	if got := k.known(t); got != "a" {
		t.Errorf("b has logged out, and known are %q", got)
	}
	k.register(t, 0, "a1=a")
	if got := k.known(t); got != "" {
		t.Errorf("a has logged out when its binding had expired, and known are %q", got)
	}
	k.register(t, time.Hour, "a1=a", "b1=b")
	k.register(t, time.Hour)
	if got := k.known(t); got != "" {
		t.Errorf("all have logged out, and known are %q", got)
	}
	k.register(t, time.Hour, "a1=a")
	k.register(t, time.Hour, "a1=new")
	if got := k.known(t); got != "new" {
		t.Errorf("another device has the contact, and known are %q", got)
	}
	k.register(t, time.Hour, "a1=new")
	if len(k.Devices("nobody")) != 0 {
		t.Error("nobody has devices")
	}
}

func TestRefreshesDontWriteDevices(t *testing.T) {
	k := newDeviceKit(t)
	for range 100 { // for 30 hours
		k.register(t, time.Hour, "a1=a")
		k.now = k.now.Add(18 * time.Minute)
	}
	if k.storage.rows != 2 {
		t.Errorf("%d rows were written, want 2", k.storage.rows)
	}
}

func TestDevicesAreForgotten(t *testing.T) {
	k := newDeviceKit(t)
	for i := range maxDevices + 3 {
		k.register(t, time.Minute, fmt.Sprintf("x=%02d", i), fmt.Sprintf("y=%02d", i))
		k.now = k.now.Add(time.Hour)
	}
	if got := strings.Fields(k.known(t)); len(got) != maxDevices || got[0] != "03" {
		t.Errorf("known are %q", got)
	}
	k.now = k.now.Add(deviceRemember - 10*time.Hour)
	k.SweepDevices(k.now)
	if got := strings.Fields(k.known(t)); len(got) != 10 || got[0] != "09" {
		t.Errorf("after 30 days %q are known", got)
	}
	k.now = k.now.Add(time.Hour)
	again := NewLocations(k.storage, k.committer)
	if err := again.Restore(t.Context(), k.now); err != nil || len(again.Devices("bob")) != 9 {
		t.Errorf("%d are restored, %v", len(again.Devices("bob")), err)
	}
}

// TestDevicesOfOlderBindings: devices are known whose bindings were written before
// there was a table of devices, also once these have expired.
func TestDevicesOfOlderBindings(t *testing.T) {
	k := newDeviceKit(t)
	k.register(t, time.Hour, "x=phone", "y=pad", "z=")
	devices, err := k.storage.Scan(t.Context(), tableDevices, nil, nil, 10)
	if err != nil || len(devices) != 2 {
		t.Fatal(devices, err)
	}
	if err := k.committer.wait(t.Context(), deletions(devices)); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{k.now, k.now.Add(2 * time.Hour)} {
		k.Locations = NewLocations(k.storage, k.committer)
		if err := errors.Join(k.Restore(t.Context(), at), k.committer.wait(t.Context(), nil)); err != nil {
			t.Fatal(err)
		}
		if got := k.known(t); got != "pad phone" {
			t.Errorf("at %s %q are known", at, got)
		}
	}
}

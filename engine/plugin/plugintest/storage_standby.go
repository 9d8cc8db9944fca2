package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// standbyCases are what nodes that wait for the lease need besides.
func standbyCases() []Case[StorageHarness] {
	return []Case[StorageHarness]{
		{"once Acquire has returned nothing is written under an older fence", leaseEndsApply},
		{"calls that concern the lease are answered beside Apply", leaseBesideApply},
		{"a lease that is handed over is for the node that is named", handoverNamed},
		{"a lease that is handed over is for nobody else", handoverReserved},
		{"a reservation ends after its ttl", handoverLapses},
		{"a reservation ends when the lease is acquired", handoverDone},
		{"a lease that was handed over can't be renewed", handoverNotRenewed},
		{"an older fence can't hand over", handoverOlder},
		{"a lease that ran out can't be handed over", handoverAfterEnd},
		{"Lease tells that it was never acquired", leaseToldFree},
		{"Lease tells who holds it, and for how long", leaseToldHeld},
		{"Lease tells that it ran out", leaseToldExpired},
		{"Lease tells that it was released", leaseToldReleased},
		{"Lease tells for whom it is reserved", leaseToldReserved},
		{"Lease tells that nobody came for whom it was reserved", leaseToldLapsed},
		{"asking for the lease changes nothing", leaseOnlyTold},
		{"Attend returns what all nodes have said, by name", attendAll},
		{"Attend needs no lease", attendUnleased},
		{"what a node says takes the place of what it said before", attendAgain},
		{"Attend tells how long ago a node spoke", attendAgo},
		{"a note may be as large as the limit", attendLimit},
	}
}

// leaseEndsApply takes a newer lease while another goroutine writes under the
// older one: what is there when Acquire returns is all that ever will be. It
// looks at the second row of each Apply: that one which is refused changes
// nothing is a case of its own.
func leaseEndsApply(t T, h StorageHarness) {
	s, old := openLeased(t, h)
	writing, stop := context.WithCancel(t.Context())
	defer stop()
	begun := make(chan struct{}, 1)
	ended := inBackground(t, func() error {
		for i := 0; writing.Err() == nil; i++ {
			if i == 1 {
				begun <- struct{}{}
			}
			if err := s.Apply(t.Context(), old, []plugin.Change{aRow("early", "a", "1"), aRow("late", "a", fmt.Sprint(i))}); err != nil {
				return err
			}
		}
		return nil
	})
	select {
	case <-begun:
	case <-time.After(leaseMoment): // it is slow, and has begun by all appearances
	}
	supersedeLease(t, s, old)
	then := scanTable(t, s, "late")
	select {
	case <-ended:
	case <-time.After(leasePatience):
		return // that an older fence is refused is a case of its own
	}
	if diff := rowsDiffer(scanTable(t, s, "late"), then); diff != "" {
		t.Errorf("after Acquire had returned, an Apply under an older fence has written: %s", diff)
	}
}

// leaseBesideApply makes every call that a node makes while it waits, or holds
// the lease, for as long as another goroutine writes.
func leaseBesideApply(t T, h StorageHarness) {
	const rounds = 20
	s, f := openLeased(t, h)
	written := inBackground(t, func() error {
		for i := range rounds {
			if err := s.Apply(t.Context(), f, []plugin.Change{aRow("beside", fmt.Sprint(i), "1")}); err != nil {
				return err
			}
		}
		return nil
	})
	calls := map[string]func() error{
		"Renew": func() error { return s.Renew(t.Context(), f, leaseForever) },
		"Acquire": func() error {
			_, err := s.Acquire(t.Context(), "b", leaseForever)
			return err
		},
		"Lease": func() error {
			_, err := s.Lease(t.Context())
			return err
		},
		"Attend": func() error {
			_, err := s.Attend(t.Context(), "b", "{}")
			return err
		},
	}
	for {
		for name, call := range calls {
			// Who has the lease is for other cases.
			if err := call(); err != nil && !errors.Is(err, plugin.ErrHeld) && !errors.Is(err, plugin.ErrFenced) {
				t.Errorf("%s beside Apply: %v", name, err)
				return
			}
		}
		select {
		case <-written:
			return
		default:
		}
	}
}

func handoverNamed(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	handOver(t, s, f, "b", leaseForever)
	acquireLease(t, s, "b", leaseForever)
}

func handoverReserved(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	handOver(t, s, f, "b", leaseForever)
	for _, node := range []string{"c", "a"} {
		if _, err := s.Acquire(t.Context(), node, leaseForever); !errors.Is(err, plugin.ErrHeld) {
			t.Errorf("Acquire by node %q of a lease that is reserved for another: %v, want ErrHeld", node, err)
		}
	}
}

func handoverLapses(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	handOver(t, s, f, "b", leaseMoment/10)
	letPass(t, leaseMoment)
	acquireLease(t, s, "c", leaseForever)
}

// handoverDone ends the lease of the node that came in both ways: that each of
// them works is a case of its own.
func handoverDone(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	handOver(t, s, f, "b", leaseForever)
	f, err := s.Acquire(t.Context(), "b", leaseMoment/10)
	if err != nil {
		return // that it can is a case of its own
	}
	_ = s.Release(t.Context(), f)
	letPass(t, leaseMoment)
	acquireLease(t, s, "c", leaseForever)
}

func handoverNotRenewed(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	handOver(t, s, f, "b", leaseForever)
	leaseNotRenewed(t, s, f, "a lease that was handed over")
}

func handoverOlder(t T, h StorageHarness) {
	s, old := openLeased(t, h)
	supersedeLease(t, s, old)
	notHandedOver(t, s, old, "an older lease than the newest")
}

func handoverAfterEnd(t T, h StorageHarness) {
	s := openStorage(t, h)
	f := acquireLease(t, s, "a", leaseMoment/10)
	letPass(t, leaseMoment)
	notHandedOver(t, s, f, "a lease that ran out")
}

func handOver(t T, s plugin.Storage, f plugin.Fence, to string, ttl time.Duration) {
	t.Helper()
	if err := s.Handover(t.Context(), f, to, ttl); err != nil {
		t.Fatalf("Handover to node %q: %v", to, err)
	}
}

func notHandedOver(t T, s plugin.Storage, f plugin.Fence, what string) {
	t.Helper()
	if err := s.Handover(t.Context(), f, "c", leaseForever); !errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Handover of %s: %v, want ErrFenced", what, err)
	}
}

func leaseToldFree(t T, h StorageHarness) {
	l := askLease(t, openStorage(t, h))
	expectLease(t, l, plugin.Lease{State: plugin.LeaseFree})
}

func leaseToldHeld(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	l := askLease(t, s)
	expectLease(t, l, plugin.Lease{Node: "a", Fence: f, State: plugin.LeaseHeld})
	if l.Left <= 0 || l.Left > leaseForever {
		t.Errorf("Lease tells that %v are left of %v", l.Left, leaseForever)
	}
}

func leaseToldExpired(t T, h StorageHarness) {
	s := openStorage(t, h)
	f := acquireLease(t, s, "a", leaseMoment/10)
	letPass(t, leaseMoment)
	l := askLease(t, s)
	expectLease(t, l, plugin.Lease{Node: "a", Fence: f, State: plugin.LeaseExpired})
	expectEnded(t, l)
}

func leaseToldReleased(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	_ = s.Release(t.Context(), f)
	letPass(t, leaseMoment)
	l := askLease(t, s)
	if l.State == plugin.LeaseHeld && !canAcquireLease(t, s, "b") {
		return // that Release frees the lease is a case of its own
	}
	expectLease(t, l, plugin.Lease{Node: "a", Fence: f, State: plugin.LeaseReleased})
	expectEnded(t, l)
}

func leaseToldReserved(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	handOver(t, s, f, "b", leaseForever)
	l := askLease(t, s)
	if l.State == plugin.LeaseReleased && canAcquireLease(t, s, "c") {
		return // that it is reserved is a case of its own
	}
	expectLease(t, l, plugin.Lease{Node: "a", Fence: f, State: plugin.LeaseReserved, Next: "b"})
	if l.Left <= 0 || l.Left > leaseForever {
		t.Errorf("Lease tells that it is reserved for another %v of %v", l.Left, leaseForever)
	}
}

func leaseToldLapsed(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	handOver(t, s, f, "b", leaseMoment/10)
	letPass(t, leaseMoment)
	l := askLease(t, s)
	if l.State == plugin.LeaseReserved && !canAcquireLease(t, s, "c") {
		return // that a reservation ends is a case of its own
	}
	expectLease(t, l, plugin.Lease{Node: "a", Fence: f, State: plugin.LeaseReleased})
	expectEnded(t, l)
}

func leaseOnlyTold(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	askLease(t, s)
	if err := s.Renew(t.Context(), f, leaseForever); err != nil {
		t.Errorf("Renew after somebody has asked for the lease: %v", err)
	}
}

func askLease(t T, s plugin.Storage) plugin.Lease {
	t.Helper()
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatalf("Lease: %v", err)
	}
	return l
}

// expectLease compares all but Left.
func expectLease(t T, got, want plugin.Lease) {
	t.Helper()
	got.Left = 0
	if got != want {
		t.Errorf("Lease tells %+v, want %+v", got, want)
	}
}

func expectEnded(t T, l plugin.Lease) {
	t.Helper()
	if l.Left >= 0 {
		t.Errorf("Lease tells that %v are left of a lease that has ended", l.Left)
	}
}

func attendAll(t T, h StorageHarness) {
	s, _ := openLeased(t, h)
	attend(t, s, "b", "{}")
	attend(t, s, "c", `{"ready":true}`)
	expectNotes(t, attend(t, s, "a", "ä"), "a ä", "b {}", `c {"ready":true}`)
}

func attendUnleased(t T, h StorageHarness) {
	s := openStorage(t, h)
	if _, err := s.Attend(t.Context(), "a", "{}"); err != nil {
		t.Errorf("Attend while nobody has the lease: %v", err)
	}
}

func attendAgain(t T, h StorageHarness) {
	s, _ := openLeased(t, h)
	attend(t, s, "a", "1")
	expectNotes(t, attend(t, s, "a", "2"), "a 2")
}

// attendAgo lets a node speak twice, and then asks for itself, and for another.
func attendAgo(t T, h StorageHarness) {
	const silence = 2 * leaseMoment
	s, _ := openLeased(t, h)
	attend(t, s, "a", "1")
	letPass(t, silence)
	began := time.Now()
	attend(t, s, "a", "2")
	letPass(t, silence)
	all := attend(t, s, "b", "1")
	since := time.Since(began)
	for _, n := range all {
		if n.Node == "a" && (n.Ago < silence-leaseMoment || n.Ago > since+leaseMoment) {
			t.Errorf("a node that spoke between %v and %v ago is said to have spoken %v ago", silence, since, n.Ago)
		}
	}
}

func attendLimit(t T, h StorageHarness) {
	s, _ := openLeased(t, h)
	note := strings.Repeat("n", plugin.MaxNote)
	expectNotes(t, attend(t, s, "a", note), "a "+note)
}

func attend(t T, s plugin.Storage, node, note string) []plugin.Attendant {
	t.Helper()
	all, err := s.Attend(t.Context(), node, note)
	if err != nil {
		t.Fatalf("Attend of node %q: %v", node, err)
	}
	return all
}

// expectNotes wants each node with its note.
func expectNotes(t T, got []plugin.Attendant, want ...string) {
	t.Helper()
	said := make([]string, len(got))
	for i, n := range got {
		said[i] = n.Node + " " + n.Note
	}
	if !slices.Equal(said, want) {
		t.Errorf("Attend returns %.200q, want %.200q", said, want)
	}
}

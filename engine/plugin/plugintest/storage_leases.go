package plugintest

import (
	"errors"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	// leaseMoment is the ttl of a lease that a case waits out. A call takes
	// less, as a rule; where that matters the case measures it.
	leaseMoment = 20 * time.Millisecond
	// leasePatience is how long a case waits for what should take a moment.
	leasePatience = 100 * leaseMoment
)

func leaseCases() []Case[StorageHarness] {
	return []Case[StorageHarness]{
		{"what one node holds another can't acquire", leaseHeld},
		{"the holder acquires again", leaseAcquiredAgain},
		{"every Acquire returns a greater fence", leaseFencesGrow},
		{"fences go on growing after Close and Open", leaseFencesDurable},
		{"a lease runs out after its ttl", leaseRunsOut},
		{"Renew extends the lease", leaseRenewed},
		{"a lease that ran out can't be renewed", leaseNotRenewedAfterEnd},
		{"an older fence can't renew", leaseNotRenewedByOlder},
		{"Release frees the lease at once", leaseReleased},
		{"a lease that was released can't be renewed", leaseNotRenewedAfterRelease},
		{"Release with an older fence changes nothing", leaseOlderRelease},
		{"Apply under an older fence is refused", leaseOlderApply},
		{"Apply under a fence that nobody was given is refused", leaseUnknownApply},
	}
}

func leaseHeld(t T, h StorageHarness) {
	s := openStorage(t, h)
	acquireLease(t, s, "a", leaseForever)
	if f, err := s.Acquire(t.Context(), "b", leaseForever); !errors.Is(err, plugin.ErrHeld) {
		t.Errorf("Acquire of a lease that another node holds: fence %d, error %v; want ErrHeld", f, err)
	}
}

func leaseAcquiredAgain(t T, h StorageHarness) {
	s := openStorage(t, h)
	acquireLease(t, s, "a", leaseForever)
	acquireLease(t, s, "a", leaseForever)
}

func leaseFencesGrow(t T, h StorageHarness) {
	s := openStorage(t, h)
	last := acquireLease(t, s, "a", leaseForever)
	for _, node := range []string{"a", "b", "a"} {
		f, err := s.Acquire(t.Context(), node, leaseForever)
		if errors.Is(err, plugin.ErrHeld) {
			continue // who may acquire has cases of its own
		}
		if err != nil || f <= last {
			t.Fatalf("Acquire by node %q returned fence %d, error %v, after fence %d", node, f, err, last)
		}
		last = f
		_ = s.Release(t.Context(), f)
	}
}

func leaseFencesDurable(t T, h StorageHarness) {
	s := h.Open(t)
	before := acquireLease(t, s, "a", leaseForever)
	_ = s.Release(t.Context(), before)
	closeStorage(t, s)

	s = openStorage(t, h)
	if after := acquireLease(t, s, "a", leaseForever); after <= before {
		t.Errorf("after Close and Open Acquire returned fence %d, before it was %d", after, before)
	}
}

func leaseRunsOut(t T, h StorageHarness) {
	s := openStorage(t, h)
	acquireLease(t, s, "a", leaseMoment)
	for start := time.Now(); time.Since(start) < leasePatience; letPass(t, leaseMoment/10) {
		_, err := s.Acquire(t.Context(), "b", leaseForever)
		if err == nil {
			return
		}
		if !errors.Is(err, plugin.ErrHeld) {
			t.Fatalf("Acquire beside a lease that runs out: %v", err)
		}
	}
	t.Errorf("a lease for %v is still held after %v", leaseMoment, leasePatience)
}

// leaseRenewed renews before the lease runs out, looks again after it would
// have, and starts over with a longer ttl if the machine was too slow to renew
// in time.
func leaseRenewed(t T, h StorageHarness) {
	s := openStorage(t, h)
	for ttl := leaseMoment; ttl <= leasePatience; ttl *= 2 {
		start := time.Now()
		f := acquireLease(t, s, "a", ttl)
		err := s.Renew(t.Context(), f, leaseForever)
		if time.Since(start) >= ttl {
			_ = s.Release(t.Context(), f)
			continue
		}
		if err != nil {
			t.Fatalf("Renew of a lease that is held: %v", err)
		}
		if canAcquireLease(t, s, "b") {
			return // that what is held can't be acquired is a case of its own
		}
		letPass(t, 2*ttl)
		if canAcquireLease(t, s, "b") {
			t.Errorf("a lease that was renewed for %v ran out within %v", leaseForever, 2*ttl)
		}
		return
	}
	t.Errorf("Acquire and Renew together take longer than %v", leasePatience)
}

func leaseNotRenewedAfterEnd(t T, h StorageHarness) {
	s := openStorage(t, h)
	f := acquireLease(t, s, "a", leaseMoment/10)
	letPass(t, 2*leaseMoment)
	leaseNotRenewed(t, s, f, "a lease that ran out")
}

func leaseNotRenewedByOlder(t T, h StorageHarness) {
	s, old := openLeased(t, h)
	supersedeLease(t, s, old)
	leaseNotRenewed(t, s, old, "an older lease than the newest")
}

func leaseReleased(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	if err := s.Release(t.Context(), f); err != nil {
		t.Fatalf("Release: %v", err)
	}
	acquireLease(t, s, "b", leaseForever)
}

func leaseNotRenewedAfterRelease(t T, h StorageHarness) {
	s, f := openLeased(t, h)
	_ = s.Release(t.Context(), f)
	f, err := s.Acquire(t.Context(), "b", leaseForever)
	if err != nil {
		return // that Release frees the lease is a case of its own
	}
	_ = s.Release(t.Context(), f)
	leaseNotRenewed(t, s, f, "a lease that was released")
}

func leaseNotRenewed(t T, s plugin.Storage, f plugin.Fence, what string) {
	t.Helper()
	if err := s.Renew(t.Context(), f, leaseForever); !errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Renew of %s: %v, want ErrFenced", what, err)
	}
}

func leaseOlderRelease(t T, h StorageHarness) {
	s, old := openLeased(t, h)
	supersedeLease(t, s, old)
	if canAcquireLease(t, s, "c") {
		return // that what is held can't be acquired is a case of its own
	}
	if err := s.Release(t.Context(), old); err != nil {
		t.Errorf("Release with an older fence: %v, want nil", err)
	}
	if canAcquireLease(t, s, "c") {
		t.Errorf("Release with an older fence ended the newer lease")
	}
}

func canAcquireLease(t T, s plugin.Storage, node string) bool {
	t.Helper()
	_, err := s.Acquire(t.Context(), node, leaseForever)
	return err == nil
}

func leaseOlderApply(t T, h StorageHarness) {
	s, old := openLeased(t, h)
	newest := supersedeLease(t, s, old)
	storageFenced(t, s, old)
	applyRows(t, s, newest, aRow("spool", "a", "1"))
}

func leaseUnknownApply(t T, h StorageHarness) {
	s := openStorage(t, h)
	storageFenced(t, s, 0)
	f := acquireLease(t, s, "a", leaseForever)
	storageFenced(t, s, f+1)
}

func storageFenced(t T, s plugin.Storage, f plugin.Fence) {
	t.Helper()
	if err := s.Apply(t.Context(), f, []plugin.Change{aRow("spool", "a", "1")}); !errors.Is(err, plugin.ErrFenced) {
		t.Errorf("Apply under fence %d: %v, want ErrFenced", f, err)
	}
}

// letPass lets time pass that a storage must notice. Longer is as good.
func letPass(t T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatalf("the case took too long")
	}
}

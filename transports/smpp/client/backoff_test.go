package client

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	b := backoff{min: time.Second, max: 10 * time.Second}
	want := func(top time.Duration) {
		t.Helper()
		if got := b.pause(); got < top/2 || got > top {
			t.Errorf("the pause is %s, want between %s and %s", got, top/2, top)
		}
	}
	for _, top := range []time.Duration{1, 2, 4, 8, 10, 10} {
		want(top * time.Second)
	}
	b.reset()
	want(time.Second)
	b.patiently()
	want(10 * time.Second)
}

func TestBackoffDiffersByChance(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[(&backoff{min: time.Minute, max: time.Hour}).pause()] = true
	}
	if len(seen) < 2 {
		t.Error("every first pause is the same")
	}
}

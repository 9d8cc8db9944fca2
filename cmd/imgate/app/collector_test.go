package app

import "testing"

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 36 << 20: 200, 72 << 20: 100, 144 << 20: 50, 1 << 40: 40} {
		if got := collectorPercent(live); got != want {
			t.Errorf("collectorPercent(%d) = %d, want %d", live, got, want)
		}
	}
}

package app

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// collectorHeadroom is how many octets may be allocated between two runs of
	// the garbage collector.
	collectorHeadroom = 72 << 20
	collectorLeast    = 40  // percent: what grows that much at once is no garbage
	collectorMost     = 400 // percent
	collectorRetune   = time.Second
)

// tuneCollector sets the collector's percentage after what lives. For each
// message little is kept and much allocated, and most of what is kept (who was
// seen, finished transactions) has no pointers to follow. So a run costs about
// the same whatever lives, and a fixed headroom is better than Go's proportion:
// at first it runs seldom, later memory doesn't grow by a multiple.
func tuneCollector(ctx context.Context) {
	ticker := time.NewTicker(collectorRetune)
	defer ticker.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		metrics.Read(live)
		debug.SetGCPercent(collectorPercent(live[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func collectorPercent(live uint64) int {
	return int(min(max(100*collectorHeadroom/max(live, 1), collectorLeast), collectorMost))
}

package trunk

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/imgate/imgate/transports/sip/wire"
)

// windowOctets is how much may be under way on one connection without an answer:
// half of what may wait there to be written. Without it, all that has waited for
// a next hop that can be reached again would go at once, be more than the
// connection holds, and end it. Over UDP there is nothing to wait for.
const windowOctets = wire.MaxDialledQueue / 2

// windows are those of the connections on which something is under way.
type windows struct {
	mu    sync.Mutex
	byHop map[wire.Target]*window
}

type window struct {
	room  *semaphore.Weighted
	users int
}

func newWindows() *windows { return &windows{byHop: map[wire.Target]*window{}} }

// enter waits until a request of so many octets has its place. leave is to be
// called when it is answered.
func (ws *windows) enter(ctx context.Context, hop wire.Target, octets int) (leave func(), err error) {
	if hop.Network == "udp" {
		return func() {}, nil
	}
	w, weight := ws.use(hop), int64(min(octets, windowOctets))
	if err := w.room.Acquire(ctx, weight); err != nil {
		ws.drop(hop, w)
		return nil, err
	}
	return func() {
		w.room.Release(weight)
		ws.drop(hop, w)
	}, nil
}

func (ws *windows) use(hop wire.Target) *window {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.byHop[hop]
	if w == nil {
		w = &window{room: semaphore.NewWeighted(windowOctets)}
		ws.byHop[hop] = w
	}
	w.users++
	return w
}

func (ws *windows) drop(hop wire.Target, w *window) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.users--; w.users == 0 {
		delete(ws.byHop, hop)
	}
}

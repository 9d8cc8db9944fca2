package wire

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// pressureKind is a reason for which something was refused.
type pressureKind uint8

const (
	pressureOverflow    pressureKind = iota // a worker had too many requests
	pressureBusy                            // too many requests were being handled
	pressureConnections                     // there were too many connections
	pressureAddress                         // there were too many of one address
	pressureHandshakes                      // there were too many, or no room for strangers
	pressureMemory                          // connections held too much
	pressureSlow                            // peers didn't take what we wrote
	pressureAccept                          // the system had no connection for us
	pressureKinds
)

// pressures are the names in the metric, and what the log says.
var pressures = [pressureKinds]struct{ name, line string }{
	{"overflow", "requests dropped: a worker has too many"},
	{"busy", "requests refused: too many are being handled"},
	{"connections", "connections refused: there are too many"},
	{"address", "connections refused: one address has too many"},
	{"handshakes", "connections closed in their handshake, or before anybody was known on them: others need the room"},
	{"memory", "connections closed: all together hold too much"},
	{"slow", "connections closed: their peers don't read"},
	{"accept", "connections can't be accepted"},
}

// quiet is how long the log says nothing more of a kind of pressure.
const quiet = time.Minute

// pressure counts what was refused, and has one line a minute about each kind
// in the log: under attack it must not become a flood of its own.
type pressure struct {
	log   *slog.Logger
	kinds [pressureKinds]struct {
		count  atomic.Uint64
		logged atomic.Uint64 // how many there were at the last line
		next   atomic.Int64  // when the next line may come, in Unix nanoseconds
	}
}

// note counts one more. args go to the log, if it is time for a line.
func (p *pressure) note(kind pressureKind, now time.Time, args ...any) {
	k := &p.kinds[kind]
	count := k.count.Add(1)
	next := k.next.Load()
	if now.UnixNano() < next || !k.next.CompareAndSwap(next, now.Add(quiet).UnixNano()) {
		return
	}
	p.log.Warn(pressures[kind].line, append(args, "count", count-k.logged.Swap(count))...)
}

func (p *pressure) count(kind pressureKind) uint64 { return p.kinds[kind].count.Load() }

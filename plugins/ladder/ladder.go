// Package ladder remembers what was last said to whom and how far each message
// came, in a bounded ring in memory, and draws the ladder diagram of a message
// from it. It is an observer that tells nobody: it answers when it is asked.
//
// It must not know any protocol, and never keeps what a person wrote: of a
// packet it has the title, of a message its addresses.
package ladder

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Plugin is the plugin.
var Plugin = plugin.DefineObserver("ladder", "remembers the last packets and steps, and draws them as a ladder diagram",
	Config{Packets: 32_768, Steps: 32_768}, open).With(traceCommand())

// maxEntries bounds each ring: 256 MiB.
const maxEntries = 1 << 20

// Config is the size of the memory. An entry of either kind takes 256 octets,
// all of them from the beginning: 16 MiB by default.
type Config struct {
	Packets int `yaml:"packets" doc:"how many packets are remembered"`
	Steps   int `yaml:"steps" doc:"how many steps of messages are remembered"`
}

// Validate refuses no memory and far too much.
func (c Config) Validate() error {
	var errs []error
	for key, n := range map[string]int{"packets": c.Packets, "steps": c.Steps} {
		if n < 1 || n > maxEntries {
			errs = append(errs, &plugin.InvalidKey{Key: key, Expected: fmt.Sprintf("a number from 1 to %d", maxEntries)})
		}
	}
	return errors.Join(errs...)
}

// Ladder is the observer. Its methods may be called from any goroutine; none
// of them allocates.
type Ladder struct {
	seed    maphash.Seed
	packets *ring[packetEntry]
	steps   *ring[stepEntry]
}

// New returns an observer with an empty memory.
func New(c Config) *Ladder {
	return &Ladder{
		seed:    maphash.MakeSeed(),
		packets: newRing[packetEntry](c.Packets),
		steps:   newRing[stepEntry](c.Steps),
	}
}

func open(_ context.Context, env plugin.Env, c Config) (plugin.Observer, error) {
	l := New(c)
	if env.Admin != nil {
		env.Admin.Handle("GET /trace", l.serveTrace)
	}
	return l, nil
}

// Packet remembers a packet's title and where it went.
func (l *Ladder) Packet(p *plugin.Packet) {
	var e packetEntry
	e.fill(l.seed, p)
	l.packets.add(&e)
}

// Step remembers a step and whose message it was.
func (l *Ladder) Step(s *plugin.Step) {
	var e stepEntry
	e.fill(l.seed, s)
	l.steps.add(&e)
}

// Close has nothing to let go of: the rings are memory.
func (l *Ladder) Close() error { return nil }

// hashAddress tells addresses apart; an address of its own for none.
func hashAddress(seed maphash.Seed, a message.Address) uint64 {
	return maphash.String(seed, a.User) ^ maphash.String(seed, a.Host)*3
}

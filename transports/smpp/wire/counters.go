package wire

import (
	"sync/atomic"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// Counters count what sessions do. Many sessions may share them; they may be
// read at any time.
type Counters struct {
	Throttled   atomic.Uint64 // requests that the session answered with ESME_RTHROTTLED
	Malformed   atomic.Uint64 // PDUs that could not be read
	Unknown     atomic.Uint64 // PDUs with a command_id that we don't know
	Nacks       atomic.Uint64 // generic_nacks that came, whatever they were about
	Late        atomic.Uint64 // responses that came when nobody waited for them any more
	Unsolicited atomic.Uint64 // responses to nothing that we ever sent
	Timeouts    atomic.Uint64 // requests of ours that had no response in time
	Lost        atomic.Uint64 // answers of ours whose session had ended

	in, out [len(known)]atomic.Uint64
}

// In is how many PDUs of a kind came; of an unknown id: all unknown ones.
func (c *Counters) In(id pdu.ID) uint64 { return c.in[kindOf(id)].Load() }

// Out is how many PDUs of a kind were sent.
func (c *Counters) Out(id pdu.ID) uint64 { return c.out[kindOf(id)].Load() }

package otlp

import (
	"encoding/binary"
	"encoding/hex"
	"math"

	"github.com/imgate/imgate/engine/message"
)

type (
	traceID [16]byte
	spanID  [8]byte
)

// origin is what all spans of a message agree on. It follows from the message
// alone.
type origin struct {
	trace  traceID
	root   spanID
	parent spanID // of the root, elsewhere; zero: none
	// sampled is what the parent's owner wants; without a parent it is false
	// and says nothing.
	sampled bool
}

func originOf(m *message.Message) origin {
	o := origin{trace: traceID(m.ID), root: spanID(m.ID[8:])}
	if trace, parent, sampled, ok := parseTraceparent(m.Trace); ok {
		o.trace, o.parent, o.sampled = trace, parent, sampled
	}
	return o
}

func (o *origin) continued() bool { return o.parent != spanID{} }

// sampledFlag is the only flag that we know (W3C Trace Context §3.2.2.5.1).
const sampledFlag = 1

// parseTraceparent reads a traceparent (W3C Trace Context §3.2.2). Of a version
// that comes after 00 it reads what 00 has, as §4.3 asks. Not ok: there is none.
func parseTraceparent(s string) (trace traceID, parent spanID, sampled, ok bool) {
	const length = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return trace, parent, false, false
	}
	var version, flags [1]byte
	readable := unhex(version[:], s[:2]) && unhex(trace[:], s[3:35]) && unhex(parent[:], s[36:52]) && unhex(flags[:], s[53:55])
	longer := len(s) > length
	switch {
	case !readable, version[0] == 0xff, trace == traceID{}, parent == spanID{}:
		return trace, parent, false, false
	case longer && (version[0] == 0 || s[length] != '-'):
		return trace, parent, false, false
	}
	return trace, parent, flags[0]&sampledFlag != 0, true
}

// unhex reads hexadecimal digits, of which only those in lower case are right.
func unhex(to []byte, s string) bool {
	for _, r := range []byte(s) {
		if r >= 'A' && r <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(to, []byte(s))
	return err == nil
}

// sampler decides by the trace ID, so that all steps of a message, on all
// nodes, decide alike.
type sampler struct{ below uint64 }

// randomBits is how many bits at the end of a trace ID are random: those that
// W3C Trace Context Level 2 (§3.2.2.5.2) wants to be, and those of a message ID
// (UUIDv7) that have no fixed bits between them. The usual samplers of
// OpenTelemetry look at the 63 bits before, which for a UUID all begin alike.
const randomBits = 56

func newSampler(part float64) sampler {
	return sampler{below: uint64(math.Round(part * (1 << randomBits)))}
}

func (s sampler) wants(o origin) bool {
	if o.continued() {
		return o.sampled
	}
	return binary.BigEndian.Uint64(o.trace[8:])&(1<<randomBits-1) < s.below
}

package load

import (
	"math"
	"math/bits"
	"time"
)

// histogram counts durations in classes whose width grows with the duration:
// 64 to each power of two, so that a quantile is right to 1.6 %. Its size
// doesn't depend on how many it counts.
type histogram struct {
	classes [64 * subclasses]uint64
	count   uint64
	longest time.Duration
}

const (
	subclassBits = 6
	subclasses   = 1 << subclassBits
)

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.classes[classOf(uint64(d))]++
	h.count++
	h.longest = max(h.longest, d)
}

// quantile returns the duration that a share q (0 to 1) of all does not
// exceed; zero if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.count)))
	seen := uint64(0)
	for class, n := range h.classes {
		seen += n
		if seen > 0 && seen >= rank {
			return min(time.Duration(upperBound(class)), h.longest)
		}
	}
	return h.longest
}

func classOf(v uint64) int {
	if v < subclasses {
		return int(v)
	}
	power := bits.Len64(v) - subclassBits - 1
	return (power+1)<<subclassBits + int(v>>power) - subclasses
}

// upperBound is the greatest value of a class.
func upperBound(class int) uint64 {
	if class < subclasses {
		return uint64(class)
	}
	power := class>>subclassBits - 1
	return uint64(class&(subclasses-1)+subclasses+1)<<power - 1
}

package pipeline

import (
	"cmp"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// How many lanes to one recipient are at work at once.
const (
	devicePace  = 8   // to devices that don't say how many messages they take
	outsidePace = 256 // to nobody's devices: next hops have windows of their own
)

// pace is how many lanes to a recipient may be at work at once: as many as the
// device takes messages that takes the most.
func (p *Pipeline) pace(recipient string, now time.Time) int {
	account, _, _ := strings.Cut(recipient, "\x00") // see deviceName
	bindings := p.Locations.Of(account, now)
	if len(bindings) == 0 {
		return outsidePace
	}
	pace := 1
	for i := range bindings {
		pace = max(pace, cmp.Or(bindings[i].Window, devicePace))
	}
	return min(pace, plugin.MaxBindingWindow)
}

package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// TestFullSettlerDropsNothingThatIsOnDisk: a record in the outbox is read from
// there later; a reservation that nobody else knows of is counted, and lapses.
func TestFullSettlerDropsNothingThatIsOnDisk(t *testing.T) {
	p := &Pipeline{meter: NewMeter(nil).of(nil)}
	p.settler.init(p)
	p.settler.overflow = false
	p.settler.queue = make([]plugin.Record, maxUnsettled)
	p.settler.release(plugin.Record{})
	if p.settler.overflow || p.meter.unsettled.Value() != 1 {
		t.Errorf("a release that finds no room: overflow %t, counted %d", p.settler.overflow, p.meter.unsettled.Value())
	}
	p.settler.add(plugin.Record{})
	if !p.settler.overflow || p.meter.unsettled.Value() != 1 {
		t.Error("a record that finds no room won't be read from the outbox")
	}
	if n := p.settler.queueLength(); n != maxUnsettled {
		t.Errorf("%d records are queued", n)
	}
}

func TestStrangersAreBounded(t *testing.T) {
	var r reports
	r.init()
	for i := range maxStrangers + 1000 {
		if r.unknown(peerName{"trunk", fmt.Sprint(i)}, true, began) == nil {
			t.Fatal("a report that may be about an attempt under way isn't asked for again")
		}
	}
	if n := len(r.strangers); n > maxStrangers {
		t.Errorf("%d strangers are remembered", n)
	}
	for name := range r.strangers {
		if err := r.unknown(name, true, began.Add(attemptLimit+time.Second)); err != nil {
			t.Fatalf("when all attempts of its time have ended: %v", err)
		}
		break
	}
	if err := r.unknown(peerName{"trunk", "another"}, false, began); err != nil {
		t.Errorf("while nothing is under way: %v", err)
	}
}

func TestDurationsFindTheirBuckets(t *testing.T) {
	for i := 1; i < len(timeBounds); i++ {
		if timeBounds[i] <= timeBounds[i-1] {
			t.Errorf("bound %d isn't greater than the one before it", i)
		}
	}
}

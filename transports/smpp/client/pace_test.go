package client

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// turns reserves n turns at a time and returns when the last one is.
func turns(p *pace, now time.Time, n int) time.Duration {
	var at time.Time
	for range n {
		at, _ = p.reserve(now, now.Add(time.Hour))
	}
	return at.Sub(now)
}

func TestPaceKeepsItsRate(t *testing.T) {
	now := time.Now()
	p := newPace(100)
	if got := turns(p, now, 11); got != 0 {
		t.Errorf("what fits in the burst waits %s", got)
	}
	if got := turns(p, now, 100); got < 990*time.Millisecond || got > 1010*time.Millisecond {
		t.Errorf("the 111th of 100 a second goes after %s", got)
	}
}

func TestPaceWithoutRateNeverWaits(t *testing.T) {
	if got := turns(newPace(0), time.Now(), 100_000); got != 0 {
		t.Errorf("it waits %s", got)
	}
}

func TestPaceTurnsThatComeTooLateAreNotTaken(t *testing.T) {
	now := time.Now()
	p := newPace(1)
	turns(p, now, 5)
	if at, ok := p.reserve(now, now.Add(time.Second)); ok {
		t.Errorf("a turn after %s was taken", at.Sub(now))
	}
	first, _ := p.reserve(now, now.Add(time.Hour))
	if first.Sub(now) > 5*time.Second {
		t.Errorf("a turn that nobody took is kept: the next one is after %s", first.Sub(now))
	}
}

func TestPaceSlowsDownAndRecovers(t *testing.T) {
	now := time.Now()
	p := newPace(0)
	for range 200 {
		p.taken(now)
	}
	p.throttled(now, now)
	if got := p.now(now); got != 100 {
		t.Errorf("after 200 in a second the rate is %v, want half of that", got)
	}
	for range 10 {
		p.throttled(now, now.Add(10*time.Millisecond)) // what was under way
	}
	if got := p.now(now); got != 100 {
		t.Errorf("one complaint lowers the rate once, not to %v", got)
	}
	if at, _ := p.reserve(now, now.Add(time.Hour)); at.Sub(now) != firstPause {
		t.Errorf("after a complaint something goes after %s", at.Sub(now))
	}
	for after, want := range map[time.Duration]float64{time.Second: 110, 7 * time.Second: 195, 8273 * time.Millisecond: 400, 10273 * time.Millisecond: 1600} {
		if got := p.now(now.Add(after)); got < 0.99*want || got > 1.01*want {
			t.Errorf("%s later the rate is %v, want %v", after, got, want)
		}
	}
	if got := p.now(now.Add(time.Hour)); !math.IsInf(got, 1) {
		t.Errorf("an hour later the rate is %v, want none", got)
	}
}

func TestPaceDoesNotStopNorExceedItsLimit(t *testing.T) {
	now := time.Now()
	p := newPace(20)
	for range 20 {
		p.throttled(now, now)
		now = p.until
	}
	if got := p.until.Sub(p.slowed); got != lastPause {
		t.Errorf("the pause grows to %s, want %s", got, lastPause)
	}
	if got := p.now(now); got < slowest || got > 2*slowest {
		t.Errorf("the rate falls to %v", got)
	}
	if got := p.now(now.Add(time.Hour)); got != 20 {
		t.Errorf("the rate comes back to %v, want 20", got)
	}
	now = now.Add(time.Minute)
	p.taken(now)
	p.throttled(now, now)
	if got := p.until.Sub(now); got != firstPause {
		t.Errorf("after it took something the pause is %s", got)
	}
}

func TestPaceBelowTheSlowest(t *testing.T) {
	now := time.Now()
	p := newPace(0.5)
	p.throttled(now, now)
	if got := p.now(now); got != 0.5 {
		t.Errorf("the rate of 0.5 a second becomes %v", got)
	}
}

func TestPaceWaitsNoLongerThanThereIsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		p, began := newPace(1), time.Now()
		for i := range 3 {
			turn, ok := p.wait(ctx, 2*time.Second)
			if ok != (i < 2) {
				t.Errorf("PDU %d has its turn: %t, after %s", i+1, ok, time.Since(began))
			}
			if i == 2 && (turn < 500*time.Millisecond || turn > time.Second) {
				t.Errorf("it would have had its turn after %s", turn)
			}
		}
	})
}

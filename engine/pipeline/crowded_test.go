package pipeline

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// takingAll is a transport that takes everything.
type takingAll struct{ plugin.Transport }

func (takingAll) Send(context.Context, *message.Message, plugin.Route) (plugin.Receipt, error) {
	return plugin.Receipt{Final: true}, nil
}

// TestSlowNextHopLeavesWorkersToOthers: so many attempts are under way there that
// another one has to wait, while those at others don't.
func TestSlowNextHopLeavesWorkersToOthers(t *testing.T) {
	doors := map[string]Door{"slow": {Transport: takingAll{}}, "other": {Transport: takingAll{}}}
	p := New(t.Context(), Parts{
		Doors: doors, Spool: spool.New(nil, nil), Locations: spool.NewLocations(nil, nil), Log: slog.New(slog.DiscardHandler),
	})
	p.calls["slow"].Store(maxCalls - 1)
	for _, c := range []struct {
		instance string
		busier   int64
		taken    bool
	}{{"slow", 0, true}, {"slow", 1, false}, {"other", 0, true}, {"slow", -1, true}} {
		p.calls["slow"].Add(c.busier)
		r := p.try(t.Context(), shot{message: &message.Message{}}, target{route: plugin.Route{Transport: c.instance}, door: doors[c.instance]})
		if taken := r.failure == nil; taken != c.taken || !taken && (!throttled(r.failure) || r.failure.RetryAfter < time.Second) {
			t.Errorf("%+v: %v", c, r.failure)
		}
		if r.failure != nil && !worthwhile(&plugin.PlanRetry{Reasons: []message.Reason{message.Busy}}, r.failure) {
			t.Error("a message is given up because this node has too much to do")
		}
	}
	if n := p.calls["slow"].Load(); n != maxCalls-1 {
		t.Errorf("%d calls are counted that aren't there", n-maxCalls+1)
	}
}

// TestReportOfAnotherWay: what was taken in part before counts no more.
func TestReportOfAnotherWay(t *testing.T) {
	p := New(t.Context(), Parts{Spool: spool.New(nil, nil), Locations: spool.NewLocations(nil, nil)})
	it := &item{}
	p.lanes.setAside(it)
	told := false
	err := p.partReported(it, peerName{"a", "b"}, plugin.Status{}, func(err error) { told = err == nil })
	if err != nil || !told {
		t.Errorf("told %t, %v", told, err)
	}
}

// TestLaneIsQuiet: nothing passes what the next hop wants less of, not even what has
// been passed before.
func TestLaneIsQuiet(t *testing.T) {
	l := laneOf(3)
	first, second := l.items[0], l.items[1]
	l.hold(first, began, began.Add(time.Minute))
	now := began.Add(orderHold)
	if it, passed := l.take(now); it != second || passed != first {
		t.Fatal("it isn't passed")
	}
	until := now.Add(10 * time.Minute)
	l.throttle(second, until)
	if it, _ := l.take(until.Add(-time.Second)); it != nil {
		t.Error("a message goes while the lane is quiet")
	}
	if got := l.nextLook(); !got.Equal(until) {
		t.Errorf("looks again at %s, want %s", got, until)
	}
	if it, _ := l.take(until); it != first {
		t.Error("what was passed doesn't go first")
	}
	l.remove(first)
	if it, _ := l.take(until); it != second {
		t.Error("the order is lost")
	}
	l.hold(second, until, until.Add(time.Second))
	l.throttle(second, until.Add(time.Hour))
	if it, passed := l.take(until.Add(time.Hour)); it != second || passed != nil {
		t.Error("what holds the lane is passed")
	}
	l.hold(second, until.Add(time.Hour), until.Add(2*time.Hour))
	if it, _ := l.take(until.Add(time.Hour + orderHold - time.Second)); it != nil {
		t.Error("it has held the lane while that was quiet")
	}
	l.throttle(second, until.Add(3*time.Hour))
	l.rouse()
	if it, _ := l.take(until); it != second {
		t.Error("a lane that wakes stays quiet")
	}
}

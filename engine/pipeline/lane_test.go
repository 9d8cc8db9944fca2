package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// laneOf makes a lane of n messages that live an hour.
func laneOf(n int) *lane {
	var ids message.Generator
	l := &lane{index: -1}
	for range n {
		l.items = append(l.items, &item{id: ids.New(began), expiry: began.Add(time.Hour)})
	}
	return l
}

func TestLaneHoldsAndThenPasses(t *testing.T) {
	l := laneOf(3)
	first, second := l.items[0], l.items[1]
	retry := began.Add(5 * time.Minute)

	it, passed := l.take(began)
	if it != first || passed != nil {
		t.Fatal("the first message doesn't go first")
	}
	l.hold(first, began, retry)
	if it, _ := l.take(began.Add(orderHold - time.Second)); it != nil {
		t.Error("a message goes before the one that holds the lane")
	}
	if got, want := l.nextLook(), began.Add(orderHold); !got.Equal(want) {
		t.Errorf("looks again at %s, want %s", got, want)
	}
	it, passed = l.take(began.Add(orderHold))
	if it != second || passed != first {
		t.Fatal("the lane doesn't pass a message that holds it for too long")
	}
	l.remove(second)
	if it, _ := l.take(retry); it != first {
		t.Error("the message that was passed isn't tried again when its time comes")
	}
}

func TestLaneGivesBackPlaces(t *testing.T) {
	l := laneOf(4)
	want := slices.Clone(l.items)
	l.hold(l.items[0], began, began.Add(time.Hour))
	l.take(began.Add(orderHold)) // passes it
	l.sleep()
	if !slices.Equal(l.items, want) {
		t.Error("a lane that falls asleep doesn't restore its order")
	}
	if it, _ := l.take(began); it != nil {
		t.Error("a lane sends while its recipient is away")
	}
	l.rouse()
	if it, _ := l.take(began); it != want[0] {
		t.Error("a lane that wakes doesn't begin with its first message")
	}
}

func TestLaneEndsLives(t *testing.T) {
	l := laneOf(3)
	l.sleep()
	l.items[1].expiry = began.Add(time.Minute)
	if got := l.nextLook(); !got.Equal(began.Add(time.Minute)) {
		t.Errorf("looks again at %s", got)
	}
	if it := l.outlived(began.Add(time.Minute)); it != l.items[1] {
		t.Error("a message outlives its time")
	}
	l.items[0].transient, l.items[0].expiry = true, began
	if it := l.outlived(began); it != nil {
		t.Error("a message that must go at once gets no attempt")
	}
	if it := l.stranded(); it != l.items[0] {
		t.Error("a message that must go at once waits")
	}
}

func TestScheduleWakesInOrder(t *testing.T) {
	var s schedule
	lanes := make([]*lane, 20)
	for i := range lanes {
		lanes[i] = laneOf(1)
		lanes[i].items[0].next = began.Add(time.Duration((i*7)%20) * time.Second)
		s.rest(lanes[i])
	}
	s.remove(lanes[3])
	due, next := s.due(began.Add(9 * time.Second))
	if len(due) != 9 { // 0 to 9 seconds without lane 3, which is at 1
		t.Errorf("%d lanes are due, want 9", len(due))
	}
	if want := began.Add(10 * time.Second); !next.Equal(want) {
		t.Errorf("next at %s, want %s", next, want)
	}
	for i := 1; i < len(due); i++ {
		if due[i].wakeAt.Before(due[i-1].wakeAt) {
			t.Error("out of order")
		}
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct{ size, unit, units, want int }{
		{150, 60, 0, 3}, {60, 60, 0, 1}, {61, 60, 0, 2}, {0, 60, 0, 1}, {5000, 0, 0, 1}, {5000, -1, 0, 1},
		{150, 60, 7, 7}, {5000, 0, 2, 2},
	} {
		if got := units(c.size, plugin.PlanCharging{UnitSize: c.unit, Units: c.units}); got != c.want {
			t.Errorf("%d octets, a unit of %d, %d units: %d, want %d", c.size, c.unit, c.units, got, c.want)
		}
	}
}

func TestDeciderKeepsPairsTogether(t *testing.T) {
	used := map[int]bool{}
	for i := range 1000 {
		m := &message.Message{
			From:      message.Address{User: fmt.Sprint(i), Host: "example.com"},
			Recipient: message.Address{User: "bob", Host: "example.com"},
		}
		another := *m // the next message of the pair
		another.Body = []byte("x")
		if decider(m) != decider(&another) {
			t.Fatal("a pair's messages go to different deciders")
		}
		used[decider(m)] = true
	}
	if len(used) != deciders {
		t.Errorf("%d of %d deciders are used", len(used), deciders)
	}
}

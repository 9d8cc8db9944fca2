package plugin

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlinesAreSharedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDeadlines(t.Context(), 5*time.Second)
		first := d.Context(time.Now())
		time.Sleep(deadlineGrain / 2)
		if d.Context(time.Now()) != first {
			t.Error("two calls within the grain don't share")
		}
		time.Sleep(deadlineGrain / 2)
		second := d.Context(time.Now())
		if second == first {
			t.Error("a context is shared for longer than the grain")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if first.Err() == nil || second.Err() != nil {
			t.Errorf("first %v, second %v", first.Err(), second.Err())
		}
		time.Sleep(deadlineGrain)
		synctest.Wait()
		if second.Err() == nil {
			t.Error("a context doesn't end")
		}
	})
}

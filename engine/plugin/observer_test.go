package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// noting notes what it is told.
type noting struct {
	mu    sync.Mutex
	notes []string
}

func (n *noting) Packet(p *Packet) { n.note("packet " + p.Call) }
func (n *noting) Step(s *Step)     { n.note("step " + string(s.Name)) }
func (n *noting) Close() error     { return nil }

func (n *noting) note(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes = append(n.notes, s)
}

func TestObserversPassOn(t *testing.T) {
	var o Observers
	first, second := &noting{}, &noting{}
	o.Packet(&Packet{Call: "nobody"})
	o.Use([]Observer{first})
	o.Packet(&Packet{Call: "one"})
	o.Use([]Observer{first, second})
	o.Step(&Step{Name: StepStored})
	o.Use([]Observer{second})
	o.Packet(&Packet{Call: "two"})
	o.Use(nil)
	o.Step(&Step{Name: StepFailed})
	if want := []string{"packet one", "step stored"}; !slices.Equal(first.notes, want) {
		t.Errorf("the first was told %q, want %q", first.notes, want)
	}
	if want := []string{"step stored", "packet two"}; !slices.Equal(second.notes, want) {
		t.Errorf("the second was told %q, want %q", second.notes, want)
	}
}

func TestWatched(t *testing.T) {
	var none *Observers
	none.Packet(&Packet{})
	none.Step(&Step{})
	var zero, empty, one Observers
	empty.Use([]Observer{})
	one.Use([]Observer{&noting{}})
	for name, c := range map[string]struct {
		o    *Observers
		want bool
	}{"nil": {none, false}, "zero": {&zero, false}, "empty": {&empty, false}, "one": {&one, true}} {
		if got := c.o.Watched(); got != c.want {
			t.Errorf("%s: watched %t", name, got)
		}
	}
}

// TestObserversChangeWhileTold is for the race detector.
func TestObserversChangeWhileTold(t *testing.T) {
	var o Observers
	n := &noting{}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				o.Use([]Observer{n})
				o.Packet(&Packet{})
				o.Use(nil)
				o.Watched()
			}
		})
	}
	group.Wait()
}

func TestObserversDoNotAllocate(t *testing.T) {
	var o Observers
	p, s := &Packet{}, &Step{}
	o.Use([]Observer{silent{}})
	if n := testing.AllocsPerRun(100, func() { o.Packet(p); o.Step(s) }); n > 0 {
		t.Errorf("%g allocations", n)
	}
}

type silent struct{}

func (silent) Packet(*Packet) {}
func (silent) Step(*Step)     {}
func (silent) Close() error   { return nil }

func TestStepNamesAreDifferent(t *testing.T) {
	seen := map[StepName]bool{}
	for _, name := range StepNames {
		if name == "" || seen[name] {
			t.Errorf("%q is there twice, or empty", name)
		}
		seen[name] = true
	}
}

type observerConfig struct{ N int }

func (observerConfig) Validate() error { return nil }

func TestDefineObserver(t *testing.T) {
	d := DefineObserver("x", "", observerConfig{3}, func(_ context.Context, _ Env, c observerConfig) (Observer, error) {
		if c.N != 3 {
			return nil, fmt.Errorf("n is %d", c.N)
		}
		return silent{}, nil
	})
	if d.Kind != KindObserver {
		t.Errorf("its kind is %s", d.Kind)
	}
	if _, err := Open[Observer](t.Context(), d, Env{}, d.NewConfig()); err != nil {
		t.Error(err)
	}
	if _, err := Open[Policy](t.Context(), d, Env{}, d.NewConfig()); err == nil {
		t.Error("an observer passes for a policy")
	}
	if _, ok := errors.AsType[ErrUsage](fmt.Errorf("trace: %w", Usage("expected %s", "x"))); !ok {
		t.Error("a wrapped ErrUsage isn't found")
	}
}

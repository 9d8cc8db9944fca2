package revisions

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// soon is longer than any change needs to be noticed.
const soon = 10 * time.Second

func settle() {
	time.Sleep(soon)
	synctest.Wait()
}

// The active node takes what is good, leaves the last good in force while the
// source is broken, and says so once for each distinct trouble.
func TestEditsOnTheActiveNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := newDisk(), newFiles("r1")
		n := boot(t, "a", d, f)
		defer n.stop()
		n.mustLead()
		n.decided("r1")
		n.is("r1", true, "")
		for _, c := range []struct {
			edit, decided string
			current       bool
			trouble       string
		}{
			{"r2", "r2", true, ""},
			{"r2", "r2", true, ""},
			{"bad3", "r2", false, "a.rego:1: bad3\na.rego:2: as bad"},
			{"bad3", "r2", false, "bad3"},
			{"bad4", "r2", false, "bad4"},
			{"gone", "r2", false, "gone"},
			{"panic5", "r2", false, "compiling it panics: panic5"},
			{"no/name", "r2", false, "can't be stored"},
			{"r2", "r2", true, ""},
			{"bad6", "r2", false, "bad6"},
			{"r7", "r7", true, ""},
			{"r1", "r1", true, ""},
		} {
			f.edit(c.edit)
			settle()
			n.decided(c.decided)
			n.is(c.decided, c.current, c.trouble)
			if got := n.metric("policy_current", "") == 1; got != c.current {
				t.Errorf("%s: policy_current %t", c.edit, got)
			}
		}
		if bad := n.said("can't be taken"); bad != 6 {
			t.Errorf("trouble was told %d times:\n%s", bad, n.log)
		}
		if good := n.said("are good again"); good != 2 {
			t.Errorf("its end was told %d times:\n%s", good, n.log)
		}
		for outcome, want := range map[string]float64{"taken": 3, "unchanged": 2, "refused": 7} {
			if got := n.metric("policy_reloads_total", outcome); got != want {
				t.Errorf("%s: %v, want %v", outcome, got, want)
			}
		}
		if n.metric("policy_services", "") != 2 || n.metric("policy_in_force_timestamp_seconds", "") <= 0 {
			t.Error("metrics of what is in force")
		}
		s := n.Status()
		if s.Source != "dir ./a" || s.Node != "a" || s.Tests != 3 || s.Coverage != 50 || fmt.Sprint(s.Services, s.Warnings) != "[all r1] [careful]" {
			t.Errorf("%+v", s)
		}
		var order []string
		for _, r := range s.Revisions {
			order = append(order, r.Revision)
		}
		if fmt.Sprint(order) != "[r1 r7 r2]" || !s.Revisions[0].Until.IsZero() || s.Revisions[1].Until != s.Revisions[0].Since {
			t.Errorf("%+v", s.Revisions)
		}
	})
}

// A restart with broken policies goes on with what is stored, if that isn't too
// old; without, it is an error with all mistakes.
func TestBrokenAtTheStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		first string // that was in force; empty: none
		away  time.Duration
		age   time.Duration
		want  string // of the error; empty: none
	}{
		{"nothing stored", "", 0, 24 * time.Hour, "a.rego:1: bad\na.rego:2: as bad"},
		{"stored", "r1", 23 * time.Hour, 24 * time.Hour, ""},
		{"too old", "r1", 25 * time.Hour, 24 * time.Hour, "a.rego:1: bad\na.rego:2: as bad\nand revision r1, which is stored, can't stand in: it was last known"},
		{"never", "r1", 0, 0, "max_age is 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk()
				if c.first != "" {
					n := boot(t, "a", d, newFiles(c.first))
					n.mustLead()
					time.Sleep(100 * time.Hour) // it is confirmed all the while
					n.stop()
				}
				time.Sleep(c.away)
				f := newFiles("bad")
				f.age = c.age
				n := newNode(t, "a", d, f)
				err := n.Start(t.Context(), n.source)
				if c.want != "" {
					if err == nil || !strings.HasPrefix(err.Error(), "a.rego:1: bad") || !strings.Contains(err.Error(), c.want) {
						t.Errorf("%v, want %q", err, c.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				n.Watch(t.Context())
				n.follow()
				if err := n.Unable(time.Now()); err != nil {
					t.Error(err)
				}
				compiled := f.compiled
				n.mustLead()
				if f.compiled != compiled {
					t.Error("it was compiled only when the lease was there")
				}
				n.decided(c.first)
				n.is(c.first, false, "bad")
				if s := n.Status(); !s.StandingIn || s.Expires.IsZero() || n.said("stands in") != 1 {
					t.Errorf("%+v", s)
				}
				f.edit("r2")
				settle()
				n.decided("r2")
				n.is("r2", true, "")
				if n.Status().StandingIn {
					t.Error("it still stands in")
				}
				n.unwatch = func() {}
				n.stop()
			})
		})
	}
}

// A revision that can't be stored doesn't decide, until it can.
func TestStorageThatRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		n := boot(t, "a", d, newFiles("r1"))
		defer n.stop()
		n.mustLead()
		settle()
		d.refuse(errors.New("disk full"))
		n.files.edit("r2")
		settle()
		n.decided("r1")
		n.is("r1", false, "disk full")
		n.files.edit("r3")
		settle()
		d.refuse(nil)
		settle()
		n.decided("r3")
		n.is("r3", true, "")
		// It goes back before the edit could be stored.
		d.refuse(errors.New("disk full"))
		n.files.edit("r4")
		settle()
		n.files.edit("r3")
		settle()
		n.decided("r3")
		d.refuse(nil)
		settle()
		n.decided("r3")
		n.is("r3", true, "")
		n.rest()
		d.refuse(errors.New("disk full"))
		n.files.edit("r5")
		settle()
		if err := n.lead(); err == nil {
			t.Error("it leads with a revision that isn't stored")
		}
		d.refuse(nil)
		n.follow()
		n.files.edit("r3")
		settle()
		n.mustLead()
		n.decided("r3")
		n.is("r3", true, "")
		n.files.edit("r5")
		settle()
		n.decided("r5")
	})
}

// A source that can't be watched is read instead.
func TestSourceThatCantBeWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles("r1")
		f.deaf = errors.New("too many open files")
		n := boot(t, "a", newDisk(), f)
		defer n.stop()
		n.mustLead()
		settle()
		n.is("r1", true, "changes aren't noticed at once: too many open files")
		f.edit("r2")
		time.Sleep(2 * maxWatchPause)
		synctest.Wait()
		n.decided("r2")
		f.mu.Lock()
		f.deaf = nil
		f.mu.Unlock()
		time.Sleep(4 * maxWatchPause)
		synctest.Wait()
		n.is("r2", true, "")
		if n.said("can't be watched") != 1 {
			t.Errorf("log:\n%s", n.log)
		}
	})
}

// An operator who reloads gets what the source holds.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		together(a, b)
		a.mustLead()
		settle()
		a.files.edit("r2")
		settle()
		a.stop()
		b.mustLead()
		b.decided("r2")
		reload := func(s *Source, insists bool) func() {
			t.Helper()
			f, err := b.Prepare(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			revert, err := b.Adopt(t.Context(), f, insists)
			if err != nil {
				t.Fatal(err)
			}
			return revert
		}
		revert := reload(nil, false)
		b.decided("r1")
		b.is("r1", true, "")
		revert()
		b.decided("r2")
		settle()
		b.is("r2", false, "holds r1")
		// Between two terms: it counts when the next one begins.
		b.End()
		reload(nil, true)
		if err := b.Lead(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		b.decided("r1")

		// Another source takes the place of the first.
		other := newFiles("r4")
		s := NewSource(other, "dir ./other", b.c.Log)
		undo := reload(s, false)
		b.decided("r4")
		undo()
		b.decided("r1")
		settle()
		b.is("r1", true, "")
		reload(s, false)
		b.Watch(t.Context())
		if err := b.source.Close(); err != nil {
			t.Error(err)
		}
		other.edit("r5")
		settle()
		b.decided("r5")
		if got := b.Status().Source; got != "dir ./other" {
			t.Error(got)
		}

		other.set("bad")
		if _, err := b.Prepare(t.Context(), nil); err == nil {
			t.Error("broken policies are taken")
		}
		d.refuse(errors.New("disk full"))
		other.set("r6")
		f, err := b.Prepare(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Adopt(t.Context(), f, false); err == nil {
			t.Error("what can't be stored is taken")
		}
		b.decided("r5")
		d.refuse(nil)
		settle()
		b.is("r5", true, "")
		b.source = s
		b.stop()
	})
}

// A reading that was overtaken by a newer one changes nothing.
func TestOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := boot(t, "a", newDisk(), newFiles("r1"))
		defer n.stop()
		n.mustLead()
		n.files.set("r2")
		old, err := n.Prepare(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		n.files.edit("r3")
		settle()
		n.decided("r3")
		if _, err := n.Adopt(t.Context(), old, false); err != nil {
			t.Fatal(err)
		}
		n.decided("r3")
	})
}

// A term that begins again needs no source, whatever the age is that is allowed.
func TestLeadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles("r1")
		f.age = 0
		n := boot(t, "a", newDisk(), f)
		defer n.stop()
		n.mustLead()
		f.edit("bad")
		settle()
		n.rest()
		settle()
		n.mustLead()
		n.decided("r1")
		n.is("r1", false, "bad")
	})
}

// Many changes while it decides.
func TestDecidesWhileItChanges(t *testing.T) {
	n := boot(t, "a", newDisk(), newFiles("r1"))
	n.mustLead()
	stop, quiet := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(quiet)
		for {
			select {
			case <-stop:
				return
			default:
				if plan, err := n.Decide(t.Context(), plugin.Question{}, plugin.Given{}); err != nil || !strings.HasPrefix(plan.Service, "r") {
					t.Errorf("%+v %v", plan, err)
				}
				n.Status()
			}
		}
	}()
	for i := range 50 {
		n.files.set(fmt.Sprint("r", i))
		f, err := n.Prepare(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Adopt(t.Context(), f, false); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-quiet
	n.decided("r49")
	n.stop()
}

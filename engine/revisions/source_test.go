package revisions

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// That a change is tried is told; what takes too long is refused in words.
func TestTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := boot(t, "a", newDisk(), newFiles("r1"))
		defer n.stop()
		n.mustLead()
		settle()
		if s := n.Status(); !s.Trying.IsZero() {
			t.Errorf("before: %+v", s)
		}
		n.files.edit("slow2")
		began := time.Now().UTC()
		settle()
		if s := n.Status(); s.Trying.Before(began) || s.Trying.After(time.Now()) || s.Trouble != "" {
			t.Errorf("meanwhile: %+v", s)
		}
		n.decided("r1")
		time.Sleep(workWait)
		n.is("r1", false, "reading and trying the policies isn't done within 1m30s")
		if s := n.Status(); !s.Trying.IsZero() {
			t.Errorf("afterwards: %+v", s)
		}
		n.files.edit("r3")
		settle()
		n.is("r3", true, "")
	})
}

// A file system that hangs neither holds up who waits for longer than a while, nor
// the end of the node; and when it is back, so are the policies.
func TestReadingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := boot(t, "a", newDisk(), newFiles("r1"))
		defer n.stop()
		n.mustLead()
		release := n.files.hang()
		n.files.edit("r2")
		settle()
		n.decided("r1")
		if _, err := n.Prepare(t.Context(), nil); !errors.Is(err, errBusy) {
			t.Errorf("another reading: %v", err)
		}
		n.is("r1", false, errSlow.Error())
		release()
		settle()
		n.files.edit("r3")
		settle()
		n.is("r3", true, "")
	})
}

// A source that can't be left in peace is left behind.
func TestClosingWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "a", newDisk(), newFiles("r1"))
		release := n.files.hang()
		began := time.Now()
		if err := n.Start(t.Context(), n.source); !errors.Is(err, errSlow) {
			t.Errorf("started: %v", err)
		}
		if took := time.Since(began); took > workWait+2*lastWait {
			t.Errorf("that took %v", took)
		}
		began = time.Now()
		if err := n.source.Close(); !errors.Is(err, errHangs) || time.Since(began) > 2*closeWait {
			t.Errorf("closed: %v, after %v", err, time.Since(began))
		}
		release()
		synctest.Wait()
		if err := n.source.Close(); err != nil {
			t.Errorf("closed when it is back: %v", err)
		}
	})
}

// A revision isn't what a source holds if that one is broken, on any node.
func TestNobodyConfirmsWhatIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		defer a.stop()
		defer b.stop()
		together(a, b)
		a.mustLead()
		time.Sleep(time.Hour)
		a.files.edit("bad")
		settle()
		held := a.Status().Expires
		time.Sleep(time.Hour)
		if now := a.Status().Expires; !now.After(held) {
			t.Error("b holds it, and it isn't confirmed")
		}
		b.files.edit("bad")
		settle()
		held = a.Status().Expires
		time.Sleep(time.Hour)
		if now := a.Status().Expires; now != held {
			t.Errorf("all are broken: it stood in until %v, and now until %v", held, now)
		}
	})
}

// Whoever takes over with broken policies says so, also if it had them before.
func TestTakingOverBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		defer a.stop()
		defer b.stop()
		together(a, b)
		a.mustLead()
		b.files.edit("bad")
		settle()
		a.rest()
		b.mustLead()
		b.is("r1", false, "bad")
		if s := b.Status(); !s.StandingIn || b.said("the last good ones, which are in force, go on") != 1 {
			t.Errorf("%+v\n%s", s, b.log)
		}
		b.files.edit("r1")
		settle()
		b.is("r1", true, "")
		if b.Status().StandingIn {
			t.Error("it still stands in")
		}
	})
}

// A standby says what becomes of its own policies when it takes over, and since
// when they differ.
func TestDifference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		defer a.stop()
		defer b.stop()
		together(a, b)
		a.mustLead()
		settle()
		edit := time.Now()
		b.files.edit("r2")
		settle()
		b.is("r1", false, "the source of this node holds r2, which was edited since: it is put in force when this node takes over")
		if since := b.Status().TroubleSince; since.Before(edit) {
			t.Errorf("since %v, and it was edited at %v", since, edit)
		}
		a.files.edit("r3")
		settle()
		b.is("r3", false, "holds r2, which is older, and isn't put in force when this node takes over: edit it")
		a.rest()
		b.mustLead()
		b.is("r3", false, "holds r2, which is older: edit it, or reload this node to put it in force")
		if !strings.Contains(b.log.String(), "are older than those in force") {
			t.Errorf("%s", b.log)
		}
	})
}

// An edit that was ready on a standby, and broken when that one took over, is in
// force when it is good again; what was older is not.
func TestGoodAgainAfterATakeOver(t *testing.T) {
	for _, c := range []struct{ ready, want string }{{"r3", "r3"}, {"r1", "r2"}} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
			defer a.stop()
			defer b.stop()
			together(a, b)
			a.mustLead()
			settle()
			a.files.edit("r2")
			settle()
			b.files.edit(c.ready)
			settle()
			b.files.edit("bad")
			settle()
			a.rest()
			b.mustLead()
			b.decided("r2")
			taken, unchanged := b.metric("policy_reloads_total", "taken"), b.metric("policy_reloads_total", "unchanged")
			b.files.edit(c.ready)
			settle()
			b.decided(c.want)
			if c.want == c.ready {
				taken, unchanged = taken+1, unchanged-1
			}
			if b.metric("policy_reloads_total", "taken") != taken || b.metric("policy_reloads_total", "unchanged") != unchanged+1 {
				t.Errorf("%s isn't counted once", c.ready)
			}
		})
	}
}

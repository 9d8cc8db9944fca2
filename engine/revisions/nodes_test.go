package revisions

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What stood in is what the source holds when it is good again: no edit.
func TestGoodAgainAfterAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		together(a, b)
		a.mustLead()
		settle()
		a.files.edit("r2")
		settle()
		b.stop()
		a.stop()
		// b's files were there all the time and could not be read: they are as old.
		again := boot(t, "b", d, newFiles("gone"))
		defer again.stop()
		again.mustLead()
		again.decided("r2")
		again.files.edit("r1")
		settle()
		again.decided("r2")
		again.is("r2", false, "revision r2 is in force, which node a put in force; the source of this node holds r1")
		again.files.edit("r3")
		settle()
		again.decided("r3")
	})
}

// Two nodes that are edited one after the other.
func TestTwoNodes(t *testing.T) {
	type step struct {
		do   string // "a=r2": edited; "a leads": the other one stops leading; "a restarts"
		want string // what decides
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"the active one first", []step{{"a=r2", "r2"}, {"b leads", "r2"}, {"b=r2", "r2"}, {"a leads", "r2"}}},
		{"the standby first", []step{{"b=r2", "r1"}, {"b leads", "r2"}, {"a leads", "r2"}, {"a=r2", "r2"}, {"b leads", "r2"}}},
		{"both, and no take-over between", []step{{"b=r2", "r1"}, {"a=r2", "r2"}, {"b leads", "r2"}}},
		{"one that goes back", []step{{"a=r2", "r2"}, {"b=r2", "r2"}, {"a=r1", "r1"}, {"b leads", "r1"}, {"b=r1", "r1"}}},
		{"a standby that goes back", []step{{"a=r2", "r2"}, {"b=r2", "r2"}, {"b=r1", "r2"}, {"b leads", "r1"}}},
		{"the later of two edits", []step{{"b=r2", "r1"}, {"a=r3", "r3"}, {"b leads", "r3"}, {"a leads", "r3"}}},
		{"restarts", []step{{"a=r2", "r2"}, {"b restarts", "r2"}, {"b leads", "r2"}, {"b restarts", "r2"}, {"a restarts", "r2"}, {"a leads", "r2"}}},
		{"a restart after it went back", []step{{"a=r2", "r2"}, {"a:r1", "r2"}, {"a restarts", "r1"}, {"b leads", "r1"}}},
		{"broken for a while", []step{{"a=r2", "r2"}, {"b=bad", "r2"}, {"b leads", "r2"}, {"b=r3", "r3"}, {"a leads", "r3"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk()
				nodes := map[string]*node{"a": boot(t, "a", d, newFiles("r1")), "b": boot(t, "b", d, newFiles("r1"))}
				together(nodes["a"], nodes["b"])
				leader := "a"
				nodes["a"].mustLead()
				settle()
				for _, s := range c.steps {
					name := s.do[:1]
					n := nodes[name]
					switch s.do[1:2] {
					case "=":
						n.files.edit(s.do[2:])
					case ":":
						n.files.set(s.do[2:])
					default:
						if s.do[2:] == "restarts" {
							n.stop()
							n = boot(t, name, d, newFiles(n.files.content))
							nodes[name] = n
							together(nodes["a"], nodes["b"])
						} else {
							nodes[leader].rest()
							leader = name
						}
						if name == leader {
							n.mustLead()
						}
					}
					settle()
					if t.Failed() {
						return
					}
					nodes[leader].decided(s.want)
					for _, n := range nodes {
						if got := n.Status().Revision; got != s.want {
							t.Errorf("after %s node %s says that %s is in force, want %s", s.do, n.name, got, s.want)
						}
					}
				}
				nodes["a"].stop()
				nodes["b"].stop()
			})
		})
	}
}

// A standby has compiled what the active node put in force, and holds its own
// edit ready.
func TestTakeOverNeedsNoCompilation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		together(a, b)
		a.mustLead()
		settle()
		a.files.edit("r2 " + strings.Repeat("x", 3<<20))
		settle()
		b.is("r2", false, "the source of this node holds r1")
		compiled := b.files.compiled
		a.stop()
		b.mustLead()
		b.decided("r2 " + strings.Repeat("x", 3<<20))
		if b.files.compiled != compiled {
			t.Error("the take-over waited for a compilation")
		}
		b.rest()
		b.files.edit("r3")
		settle()
		compiled = b.files.compiled
		b.mustLead()
		b.decided("r3")
		if b.files.compiled != compiled {
			t.Error("the take-over waited for a compilation of its own edit")
		}
		b.stop()
		if d.largest > piecesAtOnce*maxPiece+4096 {
			t.Errorf("%d octets were written at once", d.largest)
		}
	})
}

// What another node put in force can't be compiled here: that is said, and the
// node's own good policies are better than none.
func TestForeignRevisionThatCantBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		together(a, b)
		b.files.refuses = "r2"
		a.mustLead()
		settle()
		a.files.edit("r2")
		settle()
		b.is("r2", false, "revision r2, which is in force, can't be used on this node")
		time.Sleep(10 * time.Minute)
		if n := b.said("should it take over"); n != 1 {
			t.Errorf("told %d times", n)
		}
		a.stop()
		b.mustLead()
		b.decided("r1")
		b.stop()
	})
}

// A node that couldn't take over says so before.
func TestUnable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		a, b := boot(t, "a", d, newFiles("r1")), boot(t, "b", d, newFiles("r1"))
		together(a, b)
		b.files.age = 0
		a.mustLead()
		a.files.edit("r2")
		settle()
		b.files.edit("bad")
		settle()
		err := b.Unable(time.Now())
		if err == nil || !strings.Contains(err.Error(), "a.rego:1: bad\n") || !strings.Contains(err.Error(), "max_age is 0") {
			t.Error(err)
		}
		a.stop()
		var unusable *UnusableError
		if err := b.lead(); !errors.As(err, &unusable) {
			t.Error(err)
		}
		b.follow()
		b.files.edit("r3")
		settle()
		b.mustLead()
		b.decided("r3")
		b.stop()
	})
}

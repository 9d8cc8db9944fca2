// Package revisions is the book of the policies' revisions: what is in force,
// what this node's source holds, and what the storage has, so that another node
// goes on with it. It puts a change of the source in force as soon as it is good,
// and leaves the last good revision in force while it isn't. It must not know
// what policies say, nor what is done with a verdict.
//
// # What is kept
//
// The active node writes the content of a revision, then, in one transaction,
// that it is the active one, and only then lets it decide: whoever takes over
// finds every revision that has decided. It notes of each node that is there
// what that one's source held at this moment, or, as soon as it does, that it
// holds the active revision. And while its own source, or another node's, holds
// the active revision, it confirms that every few minutes.
//
// # Which revision decides when a node becomes the active one
//
// The latest edit does, wherever it was made:
//
//   - The source holds the active revision: there is no question.
//   - The source can't be used: the active revision stands in for it, if it was
//     confirmed within MaxAge, or this process has had it from its own source;
//     else the node can't become the active one.
//   - The source holds another one, and held it already when the active revision
//     was put in force, as its note says: the active one is the later edit and
//     goes on. The same if there is no note (the node is new, or was never seen)
//     and the storage knows the source's revision as one that was in force before.
//   - Otherwise the source was changed since: its revision is put in force.
//
// Hence: one node whose files were edited while it was down takes the edit, also
// if that goes back to an older content, for its note says something else. Of two
// nodes that are edited one after the other, the first edit counts at once if it
// is made on the active node, and at the next take-over otherwise; the node that
// was not edited yet doesn't undo it, neither by taking over nor by being started.
// A storage that was restored from a backup has an older note, and files that
// were restored differ from theirs: both count as an edit, so that the files win.
// Who wants what a node's files say to count, whatever else is known, reloads the
// active node: that always takes them.
package revisions

import (
	"fmt"
	"time"
)

// situation is what is known when a node becomes the active one.
type situation struct {
	now       time.Time
	own       string // the newest good revision that the source held in this process; empty: none
	broken    bool   // what the source holds now can't be used
	insists   bool   // an operator wants what the source holds
	active    string // in storage; empty: none was ever in force
	confirmed time.Time
	maxAge    time.Duration
	noted     string // what the source held when active was put in force; empty: not known
	known     bool   // own is in storage, as one that was in force before active
}

// ruling is which revision decides, and why.
type ruling int

const (
	neither   ruling = iota // none can
	agreed                  // the source holds the active one
	edited                  // the source's
	stale                   // the active one: the source's is older
	standIn                 // the active one: the source can't be used
	standOver               // the active one, which the source held before it couldn't be used
)

// rule decides. See the package comment.
func (s situation) rule() ruling {
	switch {
	case s.own == "" && (s.active == "" || !s.fresh()):
		return neither
	case s.active == "":
		return edited
	case s.own == s.active && s.broken:
		return standOver
	case s.own == s.active:
		return agreed
	case s.own == "" || s.broken:
		if s.fresh() {
			return standIn
		}
		return neither
	case s.insists:
		return edited
	case s.own == s.noted, s.noted == "" && s.known:
		return stale
	}
	return edited
}

// fresh tells whether the active revision may stand in.
func (s situation) fresh() bool { return s.maxAge > 0 && s.now.Sub(s.confirmed) <= s.maxAge }

// tooOld says why no stored revision can stand in for a source that can't be used.
func (s situation) tooOld() error {
	switch {
	case s.active == "":
		return fmt.Errorf("and no revision is stored that could stand in")
	case s.maxAge == 0:
		return fmt.Errorf("and revision %s, which is stored, may not stand in: max_age is 0", s.active)
	}
	return fmt.Errorf("and revision %s, which is stored, can't stand in: it was last known to be what a source held on %s, and max_age is %v",
		s.active, s.confirmed.UTC().Format(time.RFC3339), s.maxAge)
}

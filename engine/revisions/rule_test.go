package revisions

import (
	"strings"
	"testing"
	"time"
)

// TestRule: which revision decides when a node becomes the active one.
func TestRule(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	lately := now.Add(-time.Hour)
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		is   situation
		want ruling
	}{
		{"the first start", situation{own: "r1", maxAge: day}, edited},
		{"the first start, with broken policies", situation{broken: true, maxAge: day}, neither},
		{"the first start, broken since they were read", situation{own: "r1", broken: true, maxAge: day}, edited},
		{"a restart", situation{own: "r1", active: "r1", noted: "r1", known: true, confirmed: lately, maxAge: day}, agreed},
		{"edited while it was down", situation{own: "r2", active: "r1", noted: "r1", confirmed: lately, maxAge: day}, edited},
		{"rolled back while it was down", situation{own: "r1", active: "r2", noted: "r2", known: true, confirmed: lately, maxAge: day}, edited},
		{"broken while it was down", situation{broken: true, active: "r1", noted: "r1", confirmed: lately, maxAge: day}, standIn},
		{"broken for just not too long", situation{broken: true, active: "r1", confirmed: now.Add(-day), maxAge: day}, standIn},
		{"broken for too long", situation{broken: true, active: "r1", confirmed: now.Add(-day - 1), maxAge: day}, neither},
		{"broken, and nothing may stand in", situation{broken: true, active: "r1", confirmed: now, maxAge: 0}, neither},
		{"confirmed by a clock that is ahead", situation{broken: true, active: "r1", confirmed: now.Add(time.Minute), maxAge: day}, standIn},
		{"a lease that was lost for a moment, by a node whose policies broke", situation{own: "r1", broken: true, active: "r1", maxAge: 0}, standOver},

		{"takes over from a node that was edited", situation{own: "r1", active: "r2", noted: "r1", known: true, confirmed: lately, maxAge: day}, stale},
		{"takes over with an edit of its own", situation{own: "r3", active: "r2", noted: "r1", confirmed: lately, maxAge: day}, edited},
		{"takes over with an edit that another had before", situation{own: "r1", active: "r2", noted: "r0", known: true, confirmed: lately, maxAge: day}, edited},
		{"takes over and was never seen, as old as others were", situation{own: "r1", active: "r2", known: true, confirmed: lately, maxAge: day}, stale},
		{"takes over and was never seen, with something new", situation{own: "r3", active: "r2", confirmed: lately, maxAge: day}, edited},
		{"takes over, broken since it read something else", situation{own: "r1", broken: true, active: "r2", noted: "r1", confirmed: lately, maxAge: day}, standIn},
		{"takes over, broken, and too late", situation{own: "r1", broken: true, active: "r2", noted: "r1", confirmed: now.Add(-2 * day), maxAge: day}, neither},
		{"is told to take what it holds", situation{own: "r1", insists: true, active: "r2", noted: "r1", known: true, confirmed: lately, maxAge: day}, edited},
		{"the storage is from a backup", situation{own: "r5", active: "r2", noted: "r2", confirmed: now.Add(-9 * day), maxAge: day}, edited},
		{"the files are from a backup", situation{own: "r2", active: "r5", noted: "r5", known: true, confirmed: lately, maxAge: day}, edited},
		{"both are from a backup", situation{own: "r2", active: "r2", noted: "r2", confirmed: now.Add(-9 * day), maxAge: day}, agreed},
	} {
		c.is.now = now
		if got := c.is.rule(); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestTooOld(t *testing.T) {
	confirmed := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for want, is := range map[string]situation{
		"no revision is stored": {},
		"max_age is 0":          {active: "r1", confirmed: confirmed},
		"last known to be what a source held on 2026-01-31T12:00:00Z, and max_age is 720h0m0s": {active: "r1", confirmed: confirmed, maxAge: 720 * time.Hour},
	} {
		if got := is.tooOld().Error(); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

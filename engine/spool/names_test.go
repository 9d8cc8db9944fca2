package spool

import (
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// TestNamesLeadBack: each id has a name of its own, which leads to it and to
// nothing else.
func TestNamesLeadBack(t *testing.T) {
	names, others := NewNames([32]byte{1}), NewNames([32]byte{2})
	seen := map[string]message.ID{}
	check := func(id message.ID) bool {
		name := names.Of(id)
		back, ok := names.ID(name)
		before, again := seen[name]
		seen[name] = id
		return ok && back == id && len(name) == maxName && (!again || before == id) && others.Of(id) != name &&
			strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
}

// TestNamesAreUnlike: what is received in one millisecond has names that share
// nothing.
func TestNamesAreUnlike(t *testing.T) {
	names := NewNames([32]byte{1})
	var ids message.Generator
	now := time.Now()
	const n = 2000
	var equal int
	last := names.Of(ids.New(now))
	for range n {
		next := names.Of(ids.New(now))
		for i := range len(next) - 1 {
			if next[i] == last[i] {
				equal++
			}
		}
		last = next
	}
	// Of 21 characters one in 64 is the same by chance.
	if most := n * 21 / 64 * 3 / 2; equal > most {
		t.Errorf("%d characters are the same as in the name before, at most %d are by chance", equal, most)
	}
}

func TestNamesThatAreNone(t *testing.T) {
	names := NewNames([32]byte{1})
	good := names.Of(message.ID{1})
	for _, name := range []string{"", "0a1b2c3d", good[:21], good + "A", good[:21] + "_", "ä" + good[2:], strings.Repeat("x", 1000)} {
		if id, ok := names.ID(name); ok {
			t.Errorf("%q leads to %s", name, id)
		}
	}
}

// TestNamesOfOldAreUnread: those that were made by chance lead nowhere, and do no harm.
func TestNamesOfOldAreUnread(t *testing.T) {
	names := NewNames([32]byte{1})
	if _, ok := names.ID(message.NewPublicID()); !ok {
		t.Error("it isn't even one")
	}
}

func TestNamesCostLittle(t *testing.T) {
	names := NewNames([32]byte{1})
	before := testing.AllocsPerRun(100, func() { message.NewPublicID() })
	if now := testing.AllocsPerRun(100, func() { names.Of(message.ID{1}) }); now > before {
		t.Errorf("%v allocations, a name by chance takes %v", now, before)
	}
}

func BenchmarkNames(b *testing.B) {
	names := NewNames([32]byte{1})
	var ids message.Generator
	id := ids.New(time.Now())
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			names.Of(id)
		}
	})
	b.Run("by chance", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			message.NewPublicID()
		}
	})
}

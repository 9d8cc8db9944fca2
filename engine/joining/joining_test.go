package joining

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

func TestPartsAreJoinedInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		third := arrival(7, 3, 3, "three")
		third.Message.Transport, third.Message.Peer = "other", "other"
		set, first := k.add(arrival(7, 3, 1, "one "))
		if set != nil || !first.accepted() || first.answer.ID.IsZero() || first.answer.PublicID == "" || first.answer.Within != 0 {
			t.Fatalf("%v, %+v", set, first)
		}
		time.Sleep(time.Second)
		_, second := k.add(third)
		if k.rows("parts") != 2 || !second.accepted() || second.answer != first.answer {
			t.Fatalf("%+v, and the first %+v", second, first)
		}
		if w, ok := k.Named("acme", first.answer.PublicID); !ok || w.State != spool.StateWaiting || w.Missing == 0 || w.From.User != "+447700900001" {
			t.Errorf("%+v, %t", w, ok)
		}
		if _, ok := k.Named("other", first.answer.PublicID); ok {
			t.Error("another account is told")
		}
		time.Sleep(time.Second)
		now := time.Now()
		set, last := k.add(arrival(7, 3, 2, "two "))
		if set == nil || last.times != 0 {
			t.Fatalf("%v, %+v", set, last)
		}
		a := set.Arrival()
		if m := a.Message; string(m.Body) != "one two three" || m.Missing != 0 || !m.Received.Equal(now) || m.ID != first.answer.ID ||
			m.PublicID != first.answer.PublicID || m.Transport != "esme" || a.Part != nil || a.Account.Attributes["tier"] != "gold" {
			t.Errorf("%+v, %+v", a, m)
		}
		k.accept(set)
		if !last.accepted() || last.answer != first.answer || k.rows("parts") != 0 || k.rows("messages") != 1 {
			t.Errorf("%+v; %d parts, %d messages", last, k.rows("parts"), k.rows("messages"))
		}
		k.empty()
	})
}

// TestAnyOrderAnyRepeats adds the parts of a message in every way that chance has,
// some of them again and again, some never, with restarts between: it becomes what
// is there, once.
func TestAnyOrderAnyRepeats(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { bubble(t, func(t *testing.T, k *kit) { anyOrder(t, k, seed) }) })
	}
}

func anyOrder(t *testing.T, k *kit, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	total := uint8(2 + random.IntN(8))
	bodies := make([]string, total)
	text := ""
	for i := range bodies {
		bodies[i] = fmt.Sprintf("<%d>", i+1)
	}
	var order []uint8 // with repeats
	missing := map[int]bool{}
	for i := range total {
		if random.IntN(6) == 0 && len(missing) < int(total)-1 {
			missing[int(i)] = true
			if !strings.HasSuffix(text, gap) {
				text += gap
			}
			continue
		}
		text += bodies[i]
		for range 1 + random.IntN(3) {
			order = append(order, i+1)
		}
	}
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })

	var joined []*message.Message
	name := ""
	add := func(number uint8) {
		set, s := k.add(arrival(9, total, number, bodies[number-1]))
		if set != nil {
			if random.IntN(3) == 0 { // refused for now: the peer sends it again
				k.Stay(time.Now(), set, message.FailForNow(message.PolicyFailed, "x"))
				if !s.refused(message.PolicyFailed, true) {
					t.Fatalf("%+v", s)
				}
				set, s = k.add(arrival(9, total, number, bodies[number-1]))
			}
			joined = append(joined, k.accept(set))
		}
		if !s.accepted() {
			t.Fatalf("part %d: %+v", number, s)
		}
		if name == "" {
			name = s.answer.PublicID
		}
		if s.answer.PublicID != name {
			t.Errorf("part %d is %s, the first one was %s", number, s.answer.PublicID, name)
		}
	}
	for _, number := range order {
		add(number)
		if random.IntN(5) == 0 {
			*k = *k.restarted()
		}
	}
	time.Sleep(time.Minute)
	if set, _ := k.Due(time.Now()); set != nil {
		joined = append(joined, k.accept(set))
	}
	if len(joined) != 1 || string(joined[0].Body) != text || joined[0].Missing != len(missing) || joined[0].PublicID != name {
		t.Fatalf("%d messages; %+v, want %q and %d missing", len(joined), joined, text, len(missing))
	}
	time.Sleep(8 * time.Minute)
	for _, number := range order {
		add(number)
	}
	if k.rows("parts") != 0 || k.rows("messages") != 1 || len(joined) != 1 {
		t.Errorf("%d parts and %d messages on disk", k.rows("parts"), k.rows("messages"))
	}
	k.empty()
}

// TestRepeatIsToldWithTheFirst: it comes while that is being written.
func TestRepeatIsToldWithTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		var told []*said
		for range 3 {
			_, one := k.hand(arrival(7, 2, 1, "one"))
			told = append(told, one)
		}
		synctest.Wait()
		for _, s := range told {
			if !s.accepted() || s.answer != told[0].answer || k.rows("parts") != 1 {
				t.Errorf("%+v", s)
			}
		}
		set, last := k.add(arrival(7, 2, 2, "two"))
		_, again := k.add(arrival(7, 2, 2, "two"))
		if last.times+again.times != 0 {
			t.Errorf("told %+v, %+v before it is decided", last, again)
		}
		k.accept(set)
		if !last.accepted() || !again.accepted() {
			t.Errorf("%+v, %+v", last, again)
		}
		k.empty()
	})
}

// TestReferencesWrap: a part with other content belongs to another message. What
// was there of the first one is due.
func TestReferencesWrap(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		_, first := k.add(arrival(7, 3, 1, "old"))
		_, second := k.add(arrival(7, 3, 1, "new"))
		if !second.accepted() || second.answer.PublicID == first.answer.PublicID {
			t.Fatalf("%+v, %+v", first, second)
		}
		*k = *k.restarted()
		_, third := k.add(arrival(7, 3, 2, " and more"))
		if third.answer != second.answer {
			t.Errorf("%+v, want that of %+v", third, second)
		}
		set, _ := k.Due(time.Now())
		if set == nil {
			t.Fatal("the old one isn't due")
		}
		if m := k.accept(set); string(m.Body) != "old[…]" || m.Missing != 2 || m.PublicID != first.answer.PublicID {
			t.Errorf("%q, %d missing", m.Body, m.Missing)
		}
		if set, _ := k.Due(time.Now()); set != nil {
			t.Error("the new one is due")
		}
		set, _ = k.add(arrival(7, 3, 3, "."))
		if m := k.accept(set); string(m.Body) != "new and more." {
			t.Errorf("%q", m.Body)
		}
		k.empty()
	})
}

// TestSamePartOfTheNextMessage: what is the same in two messages is no repeat as
// long as the second one lacks it.
func TestSamePartOfTheNextMessage(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		for _, text := range []string{"first", "second"} {
			k.add(arrival(1, 2, 1, text))
			set, _ := k.add(arrival(1, 2, 2, " -- ACME"))
			if set == nil {
				t.Fatalf("%s isn't complete", text)
			}
			if m := k.accept(set); string(m.Body) != text+" -- ACME" {
				t.Errorf("%q", m.Body)
			}
		}
	})
}

// TestSupersededWhileDecidedUpon: it is refused for now, and gets no other parts;
// so it is due.
func TestSupersededWhileDecidedUpon(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		k.add(arrival(7, 2, 1, "old"))
		set, last := k.add(arrival(7, 2, 2, "older"))
		if s, _ := k.add(arrival(7, 2, 1, "new")); s != nil {
			t.Fatal("it completes nothing")
		}
		k.Stay(time.Now(), set, message.FailForNow(message.Overloaded, "x"))
		if !last.refused(message.Overloaded, true) {
			t.Errorf("%+v", last)
		}
		due, _ := k.Due(time.Now())
		if due != set {
			t.Fatal("it isn't due")
		}
		if m := k.accept(due); string(m.Body) != "old[…]" {
			t.Errorf("%q", m.Body)
		}
		if set, _ := k.add(arrival(7, 2, 2, " and newer")); set == nil {
			t.Error("the new one isn't complete")
		}
	})
}

// TestRefusedForGood: the last part is refused, also when it comes again; the
// others were accepted, and are.
func TestRefusedForGood(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		_, first := k.add(arrival(7, 2, 2, "two"))
		set, last := k.add(arrival(7, 2, 1, "one"))
		k.fail(set, message.Fail(message.Rejected, "x"))
		if !last.refused(message.Rejected, false) || k.rows("parts") != 0 || k.rows("history") != 1 {
			t.Errorf("%+v; %d parts", last, k.rows("parts"))
		}
		k.empty()
		for range 2 {
			_, again := k.add(arrival(7, 2, 2, "two"))
			_, lastAgain := k.add(arrival(7, 2, 1, "one"))
			if !again.accepted() || again.answer.PublicID != first.answer.PublicID || !lastAgain.refused(message.Rejected, false) {
				t.Errorf("again: %+v, %+v", again, lastAgain)
			}
			k.empty()
			*k = *k.restarted()
		}
	})
}

// TestTriedAgain: a set that is refused for now after its time was over is due
// again after pauses that grow, and takes the parts that come late.
func TestTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		k.add(arrival(7, 3, 1, "one"))
		began := time.Now()
		if set, wait := k.Due(time.Now()); set != nil || wait != time.Minute {
			t.Fatalf("%v, %s", set, wait)
		}
		time.Sleep(time.Minute)
		var pauses []time.Duration
		for {
			set, wait := k.Due(time.Now())
			if set == nil {
				pauses = append(pauses, wait)
				time.Sleep(wait)
				continue
			}
			if _, s := k.add(arrival(7, 3, 2, "two")); !s.refused(message.LimitReached, true) {
				t.Fatalf("a part of a message that is being decided upon: %+v", s)
			}
			if set.Stale(time.Now()) {
				k.fail(set, message.FailForNow(message.PolicyFailed, "x"))
				break
			}
			k.Stay(time.Now(), set, message.FailForNow(message.PolicyFailed, "x"))
			synctest.Wait()
		}
		if fmt.Sprint(pauses[:8]) != "[5s 10s 20s 40s 1m20s 2m40s 5m0s 5m0s]" {
			t.Errorf("%v", pauses[:8])
		}
		if age := time.Since(began); age < keptFor || age > keptFor+mostPause {
			t.Errorf("it was given up after %s", age)
		}
		k.empty()
	})
}

// TestLatePartCompletes a set that is to be tried again.
func TestLatePartCompletes(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		k.add(arrival(7, 2, 1, "one"))
		time.Sleep(time.Minute)
		set, _ := k.Due(time.Now())
		k.Stay(time.Now(), set, message.FailForNow(message.PolicyFailed, "x"))
		set, last := k.add(arrival(7, 2, 2, " two"))
		if set == nil || set.Stale(time.Now().Add(time.Hour*100)) {
			t.Fatal("it isn't complete")
		}
		if m := k.accept(set); string(m.Body) != "one two" || !last.accepted() {
			t.Errorf("%q, %+v", m.Body, last)
		}
		k.empty()
	})
}

func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		bounds    bounds
		reason    message.Reason
		temporary bool
	}{
		"sets":              {bounds{sets: 1, setsEach: 9, octets: 1e6, octetsEach: 1e6, body: 1e3}, message.Overloaded, true},
		"sets of one":       {bounds{sets: 9, setsEach: 1, octets: 1e6, octetsEach: 1e6, body: 1e3}, message.LimitReached, true},
		"octets":            {bounds{sets: 9, setsEach: 9, octets: 1, octetsEach: 1e6, body: 1e3}, message.Overloaded, true},
		"octets of one":     {bounds{sets: 9, setsEach: 9, octets: 1e6, octetsEach: 1, body: 1e3}, message.LimitReached, true},
		"octets of a body":  {bounds{sets: 9, setsEach: 9, octets: 1e6, octetsEach: 1e6, body: 2}, message.TooLarge, false},
		"none of them":      {bounds{sets: 9, setsEach: 9, octets: 1e6, octetsEach: 1e6, body: 1e3}, "", false},
		"exactly that many": {bounds{sets: 2, setsEach: 2, octets: 1e6, octetsEach: 1e6, body: 3}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, k *kit) {
				if c.bounds.octets > 1 && c.bounds.octetsEach > 1 && c.bounds.body > 2 {
					k.add(arrival(1, 2, 1, "one"))
				}
				k.Sets.bounds = c.bounds
				_, s := k.add(arrival(2, 2, 1, "two"))
				if c.reason == "" && !s.accepted() || c.reason != "" && !s.refused(c.reason, c.temporary) {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestStorageRefuses: nothing is kept of what it refuses, and all of what it took.
func TestStorageRefuses(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		k.add(arrival(7, 3, 1, "one "))
		k.store.set(fmt.Errorf("%w: %w", errIll, plugin.ErrNotApplied), false)
		if _, s := k.add(arrival(7, 3, 2, "two ")); !s.refused(message.StorageDown, true) {
			t.Errorf("%+v", s)
		}
		if _, s := k.add(arrival(8, 3, 2, "two ")); !s.refused(message.StorageDown, true) {
			t.Errorf("%+v", s)
		}
		k.store.set(nil, false)
		time.Sleep(2 * time.Second)
		k.add(arrival(7, 3, 3, "three"))
		set, last := k.add(arrival(7, 3, 2, "two "))
		if m := k.accept(set); string(m.Body) != "one two three" || !last.accepted() {
			t.Errorf("%q, %+v", m.Body, last)
		}
		k.empty()
	})
}

// TestTakenBack: the storage may have the message. It is taken back, and its parts
// are on disk as they were: those that were accepted, and no others.
func TestTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		k.add(arrival(7, 3, 1, "one "))
		k.store.set(errIll, true)
		// The second one is in the same transaction as the message.
		_, second := k.hand(arrival(7, 3, 2, "two "))
		set, third := k.hand(arrival(7, 3, 3, "three"))
		k.accept(set)
		time.Sleep(6 * time.Second)
		k.store.set(nil, false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if !second.refused(message.StorageDown, true) || !third.refused(message.StorageDown, true) {
			t.Fatalf("%+v, %+v", second, third)
		}
		if k.rows("messages") != 0 || k.rows("seen") != 0 || k.rows("parts") != 1 {
			t.Errorf("%d messages, %d seen, %d parts", k.rows("messages"), k.rows("seen"), k.rows("parts"))
		}
		*k = *k.restarted()
		k.add(arrival(7, 3, 2, "two "))
		set, _ = k.add(arrival(7, 3, 3, "three"))
		if set == nil {
			t.Fatal("the first part is lost")
		}
		if m := k.accept(set); string(m.Body) != "one two three" {
			t.Errorf("%q", m.Body)
		}
		k.empty()
	})
}

// TestUnsure: this node ends before it knows.
func TestUnsure(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		k.add(arrival(7, 2, 1, "one"))
		set, last := k.add(arrival(7, 2, 2, "two"))
		k.Unsure(set)
		if !last.refused(message.StorageDown, true) {
			t.Errorf("%+v", last)
		}
	})
}

// TestOverdueInTurns: no more than maxOverdue at once.
func TestOverdueInTurns(t *testing.T) {
	bubble(t, func(t *testing.T, k *kit) {
		for i := range maxOverdue + 1 {
			k.add(arrival(uint16(i), 2, 1, "one"))
		}
		time.Sleep(time.Minute)
		var last *Set
		for range maxOverdue {
			if last, _ = k.Due(time.Now()); last == nil {
				t.Fatal("none is due")
			}
		}
		if set, _ := k.Due(time.Now()); set != nil {
			t.Fatal("too many at once")
		}
		for len(k.Changed()) > 0 {
			<-k.Changed()
		}
		k.accept(last)
		<-k.Changed()
		if set, _ := k.Due(time.Now()); set == nil {
			t.Error("the last one doesn't get its turn")
		}
	})
}

func TestJoin(t *testing.T) {
	for name, c := range map[string]struct {
		contentType string
		bodies      []string // "": missing
		want        string
	}{
		"text":                {"text/plain", []string{"a", "b"}, "ab"},
		"a gap":               {"text/plain", []string{"a", "", "", "d"}, "a[…]d"},
		"gaps everywhere":     {"text/plain", []string{"", "b", "", "d", ""}, "[…]b[…]d[…]"},
		"halves of a pair":    {"Text/Plain;charset=utf-8", []string{"a\xed\xa0\xbd", "\xed\xb8\x80b"}, "a😀b"},
		"halves with a gap":   {"text/plain", []string{"a\xed\xa0\xbd", "", "\xed\xb8\x80b"}, "a\uFFFD[…]\uFFFDb"},
		"octets":              {"application/octet-stream", []string{"\xed\xa0", "\xff"}, "\xed\xa0\xff"},
		"octets with no gaps": {"application/octet-stream", []string{"", "b", "", "d", ""}, "bd"},
	} {
		t.Run(name, func(t *testing.T) {
			var parts []*part
			for i, body := range c.bodies {
				if body != "" {
					parts = append(parts, &part{number: uint8(i + 1), body: []byte(body)})
				}
			}
			if got := join(c.contentType, parts, len(c.bodies)); string(got) != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func BenchmarkTwoParts(b *testing.B) {
	b.ReportAllocs()
	k := key{account: "acme", from: message.Address{User: "+447700900001"}, recipient: message.Address{User: "+447700900002"}}
	a := arrival(1, 2, 1, strings.Repeat("x", 150))
	var sink spool.Digest
	for b.Loop() {
		set := newSet(time.Now(), keyOf(&a), &a)
		p := newPart(time.Now(), &a, nil)
		set.parts[0], set.taken = p, []*part{p}
		sink = k.digest(1, a.Message.ContentType, a.Message.Body)
		_ = set.Arrival()
	}
	_ = sink
}

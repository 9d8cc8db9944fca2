package sip

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

var guardNow = time.Unix(1_800_000_000, 0)

func testGuard() *guard { return newGuard(time.Hour, nil, slog.New(slog.DiscardHandler)) }

// stranger is a client at an address of its own.
func stranger(address string) *origin {
	a := netip.MustParseAddrPort(address)
	return &origin{source: wire.Sharer(a.Addr()).Addr(), address: a, isClients: true, mayBeForged: true}
}

func named(name string) *plugin.Digest {
	return &plugin.Digest{Username: name, Realm: "sip.example.com"}
}

// guess is a wrong answer; it returns what the guard would have said first.
func (g *guard) guess(name string, o *origin, now time.Time) time.Duration {
	t := g.try(named(name), o)
	wait := g.wait(&t, now)
	if wait == 0 {
		g.wrong(&t, now)
	}
	return wait
}

func (g *guard) prove(name string, o *origin, now time.Time) {
	t := g.try(named(name), o)
	g.right(&t, now)
}

func TestLockout(t *testing.T) {
	g, now := testGuard(), guardNow
	thief := stranger("192.0.2.1:4000")
	for i := range freeTries + 1 {
		if wait := g.guess("ann", thief, now); wait != 0 {
			t.Fatalf("try %d waits %v", i, wait)
		}
	}
	// From then on each is twice as dear, up to five minutes.
	for i, locked := range []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		locked *= time.Second
		if wait := g.guess("ann", thief, now.Add(locked-time.Second)); wait != time.Second {
			t.Errorf("lockout %d: %v left a second before its end", i, wait)
		}
		now = now.Add(locked)
		if wait := g.guess("ann", thief, now); wait != 0 {
			t.Errorf("lockout %d: %v left at its end", i, wait)
		}
	}
	for _, other := range []struct {
		what, name string
		from       *origin
	}{
		{"another port of the thief", "ann", stranger("192.0.2.1:4001")},
		{"the name with its domain", "ann@SIP.example.com", thief},
	} {
		if g.guess(other.name, other.from, now) == 0 {
			t.Errorf("%s isn't locked out", other.what)
		}
	}
	for _, other := range []struct {
		what, name string
		from       *origin
	}{
		{"the subscriber elsewhere", "ann", stranger("192.0.2.2:5060")},
		{"another account behind the same NAT", "bob", stranger("192.0.2.1:5060")},
	} {
		if wait := g.guess(other.name, other.from, now); wait != 0 {
			t.Errorf("%s waits %v", other.what, wait)
		}
	}
	// What is forgotten begins anew.
	now = now.Add(forgetAfter + time.Second)
	for range freeTries + 1 {
		if wait := g.guess("ann", thief, now); wait != 0 {
			t.Errorf("after half an hour: %v", wait)
		}
	}
}

func TestRightAnswerResets(t *testing.T) {
	g := testGuard()
	phone := stranger("192.0.2.1:4000")
	for range 3 {
		for range freeTries {
			g.guess("ann", phone, guardNow)
		}
		g.prove("ann", phone, guardNow)
	}
	elsewhere := stranger("192.0.2.1:4001")
	if wait := g.guess("ann", elsewhere, guardNow); wait != 0 {
		t.Errorf("%v", wait)
	}
}

// TestProvedFlow: who has proved an account is never locked out of it, until
// nobody has seen him for longer than a registration lasts.
func TestProvedFlow(t *testing.T) {
	for name, own := range map[string]*origin{
		"udp": stranger("192.0.2.1:5060"),
		"tcp": {source: netip.MustParseAddr("192.0.2.1"), address: netip.MustParseAddrPort("192.0.2.1:5060"), flow: "connection", isClients: true},
	} {
		g := testGuard()
		g.prove("ann", own, guardNow)
		thief := stranger("192.0.2.1:4000")
		for range 20 {
			g.guess("ann", thief, guardNow)
		}
		for range 50 {
			if wait := g.guess("ann", own, guardNow.Add(time.Hour)); wait != 0 {
				t.Fatalf("%s: waits %v", name, wait)
			}
		}
		if wait := g.guess("bob", own, guardNow); wait != 0 {
			t.Errorf("%s: %v", name, wait)
		}
		other := *own
		other.flow += "x"
		if g.guess("ann", &other, guardNow) == 0 {
			t.Errorf("%s: another connection isn't locked out", name)
		}
		for range 9 {
			g.guess("ann", thief, guardNow.Add(2*time.Hour))
		}
		if g.guess("ann", own, guardNow.Add(2*time.Hour)) == 0 {
			t.Errorf("%s: is proved for ever", name)
		}
	}
}

// TestFlowOfAPeer: many are behind a peer that doesn't say who. What one of them
// has proved another hasn't.
func TestFlowOfAPeer(t *testing.T) {
	g := testGuard()
	edge := &origin{peer: &Peer{}, source: netip.MustParseAddr("192.0.2.1"), address: netip.MustParseAddrPort("192.0.2.1:5060")}
	g.prove("ann", edge, guardNow)
	for range freeTries + 1 {
		g.guess("ann", edge, guardNow)
	}
	if g.guess("ann", edge, guardNow) == 0 {
		t.Error("isn't locked out")
	}
	for i := range 10 * nameBurst {
		if wait := g.guess(fmt.Sprint(i), edge, guardNow); wait != 0 {
			t.Fatalf("name %d waits %v", i, wait)
		}
	}
}

// TestManyNames: a source that tries many names gets slow, but those who have
// proved themselves from there don't notice.
func TestManyNames(t *testing.T) {
	g, now := testGuard(), guardNow
	g.prove("ann", stranger("192.0.2.1:5060"), now)
	thief := stranger("192.0.2.1:4000")
	for i := range nameBurst {
		if wait := g.guess(fmt.Sprint("guess", i), thief, now); wait != 0 {
			t.Fatalf("name %d waits %v", i, wait)
		}
	}
	if wait := g.guess("one too many", thief, now); wait != namePause {
		t.Errorf("waits %v", wait)
	}
	if wait := g.guess("ann", stranger("192.0.2.1:5061"), now); wait != 0 {
		t.Errorf("ann on a new port waits %v", wait)
	}
	try := g.try(named("ann"), thief)
	if g.wrong(&try, now) == 0 {
		t.Error("a wrong answer for a name that isn't slowed down is told differently")
	}
	if wait := g.guess("other", stranger("192.0.2.2:4000"), now); wait != 0 {
		t.Errorf("another source waits %v", wait)
	}
	now = now.Add(namePause)
	if wait := g.guess("one too many", thief, now); wait != 0 {
		t.Errorf("after the pause: %v", wait)
	}
	// Good phones come back behind the same NAT: each is looked at, and costs nothing.
	now = now.Add(namePause)
	for i := range 1000 {
		phone := g.try(named(fmt.Sprint("phone", i)), stranger(fmt.Sprintf("192.0.2.1:%d", 10000+i)))
		if wait := g.wait(&phone, now); wait != 0 {
			t.Fatalf("phone %d waits %v", i, wait)
		}
		g.right(&phone, now)
	}
}

// TestAttackFromEverywhere: each source that hasn't proved a name has one try
// when many try it; who has proved it has as many as ever.
func TestAttackFromEverywhere(t *testing.T) {
	g := testGuard()
	home := stranger("198.51.100.1:5060")
	g.prove("ann", home, guardNow)
	for i := range underAttack {
		g.guess("ann", stranger(fmt.Sprintf("[2001:db8:0:%x::1]:5060", i)), guardNow)
	}
	bot := stranger("[2001:db8:1::1]:5060")
	g.guess("ann", bot, guardNow)
	if g.guess("ann", bot, guardNow) == 0 {
		t.Error("a new source has more than one try")
	}
	moved := stranger("198.51.100.1:4000")
	for i := range freeTries {
		if wait := g.guess("ann", moved, guardNow); wait != 0 {
			t.Errorf("try %d from home waits %v", i, wait)
		}
	}
}

// TestGuardIsBounded: made-up names and sources cost no memory, whatever they are.
func TestGuardIsBounded(t *testing.T) {
	g := testGuard()
	for i := range maxSuspects / 8 {
		g.guess(fmt.Sprint("name", i), stranger(fmt.Sprintf("198.51.%d.%d:5060", i>>8, i&255)), guardNow)
	}
	places := 0
	for i := range g.suspects.shards {
		places += len(g.suspects.shards[i].places)
	}
	if places != maxSuspects {
		t.Errorf("%d places", places)
	}
}

// TestLockoutIsSaid: one line for each lockout, none for a try, and not more
// than some a minute whatever happens. No more of a name than it needs.
func TestLockoutIsSaid(t *testing.T) {
	var out bytes.Buffer
	registry := plugin.NewMetrics()
	g := newGuard(time.Hour, registry, slog.New(slog.NewTextHandler(&out, nil)))
	for range freeTries + 20 {
		g.guess("ann\nlevel=ERROR", stranger("192.0.2.1:4000"), guardNow)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 1 || !strings.Contains(out.String(), `account="ann\nlevel=ERROR" source=192.0.2.1 wrong=5 for=2s lockouts_not_shown=0`) {
		t.Errorf("%s", out.String())
	}
	long := strings.Repeat("x", 500)
	for i := range 1000 {
		for range freeTries + 1 {
			g.guess(long, stranger(fmt.Sprintf("198.51.%d.%d:4000", i/250, i%250)), guardNow)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != noticeBurst {
		t.Errorf("%d lines", lines)
	}
	if strings.Contains(out.String(), long[:maxShown+1]) {
		t.Error("all of a long name is in the log")
	}
	out.Reset()
	later := guardNow.Add(time.Minute)
	g.guess(long, stranger("198.51.0.0:4000"), later)
	if !strings.Contains(out.String(), "lockouts_not_shown=") || strings.Contains(out.String(), "lockouts_not_shown=0") {
		t.Errorf("%s", out.String())
	}
	for _, s := range registry.Series() {
		if strings.HasPrefix(s.Name, "sip_lockouts_total") && s.Labels[0].Value == "account" && s.Value() < 1000 {
			t.Errorf("%v lockouts counted", s.Value())
		}
	}
}

func TestClockIsPutBack(t *testing.T) {
	g := testGuard()
	thief := stranger("192.0.2.1:4000")
	for range freeTries + 1 {
		g.guess("ann", thief, guardNow)
	}
	if wait := g.guess("ann", thief, guardNow.Add(-24*time.Hour)); wait > backOffMax {
		t.Errorf("waits %v", wait)
	}
	var b bucket
	for range 10 {
		b.take(guardNow, time.Second, 10)
	}
	if wait := b.take(guardNow.Add(-24*time.Hour), time.Second, 10); wait != time.Second {
		t.Errorf("a bucket waits %v", wait)
	}
}

// TestGuardMakesNoGarbage: a good client costs two hashes and no memory.
func TestGuardMakesNoGarbage(t *testing.T) {
	g, r := testGuard(), newRates(defaults.Limits, nil)
	phone, digest := stranger("[2001:db8::1]:5060"), named("ann@sip.example.com")
	good := func() {
		r.request(phone, guardNow)
		try := g.try(digest, phone)
		g.wait(&try, guardNow)
		g.right(&try, guardNow)
		r.excuse(phone)
		r.ofAccount("acc-1", guardNow)
	}
	good() // the tables get their memory
	if n := testing.AllocsPerRun(100, good); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGuard(b *testing.B) {
	g, r := testGuard(), newRates(defaults.Limits, nil)
	phone, digest := stranger("192.0.2.1:5060"), named("ann")
	for b.Loop() {
		r.request(phone, guardNow)
		try := g.try(digest, phone)
		g.wait(&try, guardNow)
		g.right(&try, guardNow)
		r.excuse(phone)
		r.ofAccount("acc-1", guardNow)
	}
}

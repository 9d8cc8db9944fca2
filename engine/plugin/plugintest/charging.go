package plugintest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// ChargingHarness is a charging plugin under test.
type ChargingHarness struct {
	// Tables are what Open opens the plugin on.
	Tables *Tables
	// Open opens the plugin. Opening it again without closing the first is a
	// new process after a crash; the first is not used again.
	Open func(t T) plugin.Charging
	// Fund makes an account that can pay for exactly so many units of one
	// event. Called once for an account, after Open.
	Fund func(t T, account string, units int)
	// Unlimited: everybody can always pay. Refusals are then what must not
	// happen.
	Unlimited bool
	// Paid says how many units an account has paid for, as the plugin that was
	// opened last knows it. Nil: nothing is paid for and nobody counts.
	Paid func(t T, account string) int
}

// Charging checks a plugin against the contract of plugin.Charging.
func Charging(t *testing.T, harness func(T) ChargingHarness) {
	run(t, chargingCases, harness)
}

var chargingCases = []Case[ChargingHarness]{
	{"authorizes all that the payer can pay", chargingWithinFunds},
	{"refuses for good what the payer can't pay", chargingShort},
	{"reservations count against the funds at once", chargingReserves},
	{"reservations made at the same time never exceed the funds", chargingConcurrent},
	{"a charged record is paid", chargingPaid},
	{"several units are paid together", chargingUnits},
	{"a record that is not charged is given back", chargingGivenBack},
	{"a key that comes twice in one call is paid once", chargingTwiceInOneCall},
	{"a call that is repeated pays once, whichever is committed", chargingRepeatedCall},
	{"records whose settlement was lost are paid after a restart", chargingLostSettlement},
	{"records whose settlement was kept are not paid again after a restart", chargingKeptSettlement},
	{"a reservation is as durable as its changes", chargingDurableHold},
	{"a reservation whose changes were never committed ends with the process", chargingUncommittedHold},
	{"a reservation that was paid doesn't come back after a restart", chargingPaidHoldGone},
	{"a reservation that was given back doesn't come back after a restart", chargingGivenBackHoldGone},
	{"a reservation lapses", chargingLapses},
	{"a reservation lapses over a restart", chargingLapsesOverRestart},
	{"what is settled after its reservation lapsed is paid", chargingLate},
	{"what is settled without a reservation is paid", chargingWithoutHold},
	{"Reserved is at most 1,024 octets", chargingReservedSize},
	{"the changes of Authorize only create rows of their own", chargingOwnRows},
	{"routes that are asked for name a transport", chargingRoutes},
}

// chargingBench is a case at work: a plugin and the means to drive it as the
// engine does.
type chargingBench struct {
	T
	h    ChargingHarness
	p    plugin.Charging
	keys message.Generator
	now  time.Time
}

const chargingAccount = "alice@a.example"

func newChargingBench(t T, h ChargingHarness, funds int) *chargingBench {
	b := &chargingBench{T: t, h: h, p: h.Open(t), now: time.Now()}
	t.Cleanup(func() {
		if err := b.p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	h.Fund(t, chargingAccount, funds)
	return b
}

// restart opens the plugin anew, as after a crash.
func (b *chargingBench) restart() {
	b.Helper()
	b.p = b.h.Open(b)
}

func (b *chargingBench) request(units int) plugin.Request {
	return plugin.Request{
		Key: b.keys.New(b.now), Payer: chargingAccount, Units: units,
		From:      message.Address{User: "alice", Host: "a.example"},
		Recipient: message.Address{User: "bob", Host: "b.example"},
		HoldUntil: b.now.Add(time.Hour),
	}
}

// reserve authorises a message and fails the case if that is refused. The
// changes are not committed.
func (b *chargingBench) reserve(r plugin.Request) plugin.Authorization {
	b.Helper()
	a, err := b.p.Authorize(b.Context(), r)
	if err != nil {
		b.Fatalf("Authorize of %d units: %v; want a reservation", r.Units, err)
	}
	return a
}

// keep reserves and commits the hold with the message, as the engine does.
func (b *chargingBench) keep(r plugin.Request) plugin.Record {
	b.Helper()
	a := b.reserve(r)
	b.commit(a.Changes)
	return b.record(r, a)
}

// refuse wants a request to be refused for want of funds.
func (b *chargingBench) refuse(r plugin.Request) {
	b.Helper()
	_, err := b.p.Authorize(b.Context(), r)
	if b.h.Unlimited {
		if err != nil {
			b.Errorf("Authorize where everybody can pay: %v", err)
		}
		return
	}
	var f *message.Failure
	switch {
	case err == nil:
		b.Errorf("Authorize of %d units: got a reservation, want %s", r.Units, message.InsufficientFunds)
	case !errors.As(err, &f) || f.Reason != message.InsufficientFunds:
		b.Errorf("Authorize of %d units: got %v, want a *message.Failure with %s", r.Units, err, message.InsufficientFunds)
	case f.Temporary:
		b.Errorf("Authorize of %d units: %v is temporary, want it final", r.Units, err)
	}
}

func (b *chargingBench) record(r plugin.Request, a plugin.Authorization) plugin.Record {
	return plugin.Record{
		Key: r.Key, Charged: true, Payer: r.Payer, Destination: r.Destination, Units: r.Units,
		From: r.From, Recipient: r.Recipient, Service: "default", Transport: "sip",
		Received: b.now, Settled: b.now.Add(time.Second), Reserved: a.Reserved,
	}
}

// settle settles without committing.
func (b *chargingBench) settle(records ...plugin.Record) []plugin.Change {
	b.Helper()
	changes, err := b.p.Settle(b.Context(), records)
	if err != nil {
		b.Fatalf("Settle: %v", err)
	}
	return changes
}

func (b *chargingBench) commit(changes []plugin.Change) {
	b.Helper()
	if err := b.h.Tables.Commit(changes).Wait(b.Context()); err != nil {
		b.Fatalf("the changes can't be committed: %v", err)
	}
}

func (b *chargingBench) wantPaid(units int) {
	b.Helper()
	if b.h.Paid == nil {
		return
	}
	if paid := b.h.Paid(b, chargingAccount); paid != units {
		b.Errorf("paid for %d units, want %d", paid, units)
	}
}

func chargingWithinFunds(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 7)
	b.reserve(b.request(7))
	b.wantPaid(0)
}

func chargingShort(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 0)
	b.refuse(b.request(1))
	b.wantPaid(0)
}

func chargingReserves(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 6)
	b.reserve(b.request(3))
	b.refuse(b.request(4))
	b.reserve(b.request(2))
	b.reserve(b.request(1))
	b.refuse(b.request(1))
}

func chargingConcurrent(t T, h ChargingHarness) {
	const callers, funds = 32, 10
	b := newChargingBench(t, h, funds)
	var granted atomic.Int64
	var group sync.WaitGroup
	start := make(chan struct{})
	for range callers {
		r := b.request(1)
		group.Go(func() {
			<-start
			if _, err := b.p.Authorize(t.Context(), r); err == nil {
				granted.Add(1)
			}
		})
	}
	close(start)
	group.Wait()
	want := int64(funds)
	if h.Unlimited {
		want = callers
	}
	if granted.Load() != want {
		t.Errorf("%d of %d were authorized at once with funds for %d, want %d", granted.Load(), callers, funds, want)
	}
}

func chargingUnits(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 5)
	b.commit(b.settle(b.keep(b.request(3))))
	b.wantPaid(3)
}

func chargingPaid(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 2)
	b.commit(b.settle(b.keep(b.request(1)), b.keep(b.request(1))))
	b.wantPaid(2)
	b.refuse(b.request(1))
	b.restart()
	b.wantPaid(2)
}

func chargingGivenBack(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	record := b.keep(b.request(1))
	record.Charged = false
	b.commit(b.settle(record))
	b.wantPaid(0)
	b.reserve(b.request(1))
}

func chargingTwiceInOneCall(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 3)
	record := b.keep(b.request(1))
	b.commit(b.settle(record, record))
	b.wantPaid(1)
}

func chargingRepeatedCall(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 3)
	record := b.keep(b.request(1))
	b.settle(record)
	b.commit(b.settle(record))
	b.wantPaid(1)
	b.commit(b.settle(record))
	b.wantPaid(1)
	b.restart()
	b.wantPaid(1)
}

func chargingLostSettlement(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 3)
	record := b.keep(b.request(1))
	b.settle(record)
	b.restart()
	b.wantPaid(0)
	b.commit(b.settle(record))
	b.wantPaid(1)
}

func chargingKeptSettlement(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 3)
	record := b.keep(b.request(1))
	b.commit(b.settle(record))
	b.restart()
	b.commit(b.settle(record))
	b.wantPaid(1)
}

func chargingDurableHold(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	b.keep(b.request(1))
	b.restart()
	b.refuse(b.request(1))
}

func chargingUncommittedHold(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	b.reserve(b.request(1))
	b.restart()
	b.reserve(b.request(1))
}

func chargingPaidHoldGone(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 2)
	b.commit(b.settle(b.keep(b.request(1))))
	b.restart()
	b.reserve(b.request(1))
}

func chargingGivenBackHoldGone(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	record := b.keep(b.request(1))
	record.Charged = false
	b.commit(b.settle(record))
	b.restart()
	b.reserve(b.request(1))
}

func (b *chargingBench) lapsed() plugin.Request {
	r := b.request(1)
	r.HoldUntil = b.now.Add(-time.Second)
	return r
}

func chargingLapses(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	b.keep(b.lapsed())
	b.reserve(b.request(1))
}

func chargingLapsesOverRestart(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	b.keep(b.lapsed())
	b.restart()
	b.reserve(b.request(1))
}

func chargingLate(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 2)
	record := b.keep(b.lapsed())
	b.reserve(b.request(1))
	b.commit(b.settle(record))
	b.wantPaid(1)
}

func chargingWithoutHold(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 2)
	r := b.request(1)
	record := b.record(r, b.reserve(r))
	b.restart()
	b.commit(b.settle(record))
	b.wantPaid(1)
}

func chargingReservedSize(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	r := b.request(1)
	r.Destination = "international-mobile-terminated-outside-of-any-bundle"
	if n := len(b.reserve(r).Reserved); n > 1024 {
		t.Errorf("Reserved has %d octets, the limit is 1,024", n)
	}
}

func chargingRoutes(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 1)
	r := b.request(1)
	r.Routing = true
	a, err := b.p.Authorize(t.Context(), r)
	var f *message.Failure
	if errors.As(err, &f) && f.Reason == message.UnknownRecipient && !f.Temporary {
		return // it has no route
	}
	if err != nil {
		t.Fatalf("Authorize where routes are asked for: %v, want routes, none, or %s", err, message.UnknownRecipient)
	}
	for _, route := range a.Routes {
		if route.Transport == "" || route.Binding != nil {
			t.Errorf("a route is %+v, want an instance of a transport, and no binding", route)
		}
	}
}

func chargingOwnRows(t T, h ChargingHarness) {
	b := newChargingBench(t, h, 2)
	var seen []string
	for range 2 {
		changes := b.reserve(b.request(1)).Changes
		for _, c := range changes {
			row := c.Table + "/" + string(c.Key)
			if c.Value == nil {
				t.Errorf("Authorize deletes a row of table %q", c.Table)
			}
			if slices.Contains(seen, row) || h.Tables.has(c.Table, c.Key) {
				t.Errorf("Authorize changes a row of table %q that is not this message's own", c.Table)
			}
			seen = append(seen, row)
		}
	}
}

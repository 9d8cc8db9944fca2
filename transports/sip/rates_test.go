package sip

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	var b bucket
	now := guardNow
	for i := range 3 {
		if wait := b.take(now, time.Second, 3); wait != 0 {
			t.Errorf("token %d: %v", i, wait)
		}
	}
	if wait := b.take(now.Add(400*time.Millisecond), time.Second, 3); wait != 600*time.Millisecond {
		t.Errorf("none left: %v", wait)
	}
	now = now.Add(time.Second)
	if b.take(now, time.Second, 3) != 0 || b.take(now, time.Second, 3) == 0 {
		t.Error("one comes back each second")
	}
	b.give(time.Second)
	if b.take(now, time.Second, 3) != 0 {
		t.Error("what was given back isn't there")
	}
	now = now.Add(time.Hour)
	for range 3 {
		if b.take(now, time.Second, 3) != 0 {
			t.Error("it isn't full after an hour")
		}
	}
	if b.take(now, time.Second, 3) == 0 {
		t.Error("it holds more than it may")
	}
}

func TestRatePerSource(t *testing.T) {
	r := newRates(Limits{RequestsPerSource: 10, RequestsPerAccount: 1}, nil)
	var got [verdicts]int
	ask := func(address string, now time.Time) (v verdict) {
		v, _ = r.request(stranger(address), now)
		got[v]++
		return v
	}
	for i := range 100 {
		address := "[2001:db8::1]:5060"
		if i%2 == 0 {
			address = "[2001:db8::2]:4000" // of the same customer
		}
		ask(address, guardNow)
	}
	if got[admitted] != 20 || got[refused] != 10 || got[dropped] != 70 {
		t.Errorf("%v", got)
	}
	if ask("[2001:db8:0:1::1]:5060", guardNow) != admitted {
		t.Error("another source isn't admitted")
	}
	if later := guardNow.Add(100 * time.Millisecond); ask("[2001:db8::1]:5060", later) != admitted || ask("[2001:db8::1]:5060", later) != refused {
		t.Error("it isn't one every tenth of a second")
	}
}

func TestExcused(t *testing.T) {
	r := newRates(Limits{RequestsPerSource: 1, RequestsPerAccount: 1}, nil)
	for range 100 {
		o := stranger("192.0.2.1:5060")
		if v, _ := r.request(o, guardNow); v != admitted {
			t.Fatal("what turned out to be an account's counts")
		}
		r.excuse(o)
		r.excuse(o) // once
	}
	for range burstFor {
		r.request(stranger("192.0.2.1:5060"), guardNow)
	}
	o := stranger("192.0.2.1:5060")
	if v, _ := r.request(o, guardNow); v == admitted {
		t.Error("what was excused twice is there twice")
	}
	r.excuse(o) // wasn't counted
	if v, _ := r.request(o, guardNow); v == admitted {
		t.Error("what wasn't counted was given back")
	}
}

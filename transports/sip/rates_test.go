package sip

import (
	"fmt"
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
	if got[admitted] != 20+10 || got[refused] != 10 || got[dropped] != 60 {
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
	if r.request(o, guardNow); o.counted {
		t.Error("what was excused twice is there twice")
	}
	r.excuse(o) // wasn't counted
	if r.request(o, guardNow); o.counted {
		t.Error("what wasn't counted was given back")
	}
}

// TestNewcomers: while one port asks too much, others behind the same address
// may say enough to register, as long as they aren't too many themselves.
func TestNewcomers(t *testing.T) {
	r := newRates(Limits{RequestsPerSource: 100, RequestsPerAccount: 1}, nil)
	now := guardNow
	ask := func(port int) verdict {
		v, _ := r.request(stranger(fmt.Sprintf("192.0.2.1:%d", port)), now)
		return v
	}
	for range 1000 {
		ask(4000)
	}
	if v := ask(4000); v != dropped {
		t.Errorf("the flood is %v", v)
	}
	for phone := range 10 {
		for i := range flowBurst {
			if v := ask(5000 + phone); v != admitted {
				t.Errorf("request %d of phone %d is %v", i, phone, v)
			}
		}
	}
	let := 0
	for port := range 1000 {
		if ask(6000+port) == admitted {
			let++
		}
	}
	if let > 100 {
		t.Errorf("%d new ports are let in", let)
	}
}

package pipeline_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// forAll is a plan whose messages are for all devices, for a day.
func forAll() *testPolicy {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Devices, p.Store = plugin.AllDevices, 24*time.Hour })
	return policy
}

// handsets are devices that say what they are told to.
type handsets struct {
	mu     sync.Mutex
	answer func(device, body string) (after time.Duration, err error) // nil: they take all at once
	got    map[string][]string                                        // by device
	names  map[string]map[string]bool                                 // references by device and body
}

func (h *handsets) take(_ context.Context, m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	device, body := r.Binding.Device, string(m.Body)
	h.mu.Lock()
	answer := h.answer
	if h.names[device+" "+body] == nil {
		h.names[device+" "+body] = map[string]bool{}
	}
	h.names[device+" "+body][r.Reference] = true
	h.mu.Unlock()
	var err error
	if answer != nil {
		var after time.Duration
		after, err = answer(device, body)
		time.Sleep(after)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.got[device] = append(h.got[device], body)
	}
	return plugin.Receipt{Final: err == nil}, err
}

// has lists what a device has got.
func (h *handsets) has(device string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got[device])
}

func (h *handsets) say(answer func(device, body string) (time.Duration, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

func newHandsets() *handsets {
	return &handsets{got: map[string][]string{}, names: map[string]map[string]bool{}}
}

// run runs a pipeline whose recipient has these devices.
func (h *handsets) run(t *testing.T, storage plugin.Storage, policy *testPolicy) *solo {
	return alone(t, storage, policy, func(p *pipeline.Parts) { p.Doors["door"].Transport.(*testDoor).taking = h.take })
}

// comes registers devices for a while.
func (s *solo) comes(t *testing.T, during time.Duration, devices ...string) {
	t.Helper()
	r := plugin.Registration{Account: account("bob"), AOR: address("bob"), CallID: message.NewPublicID(), CSeq: 1}
	for _, device := range devices {
		r.Bindings = append(r.Bindings, plugin.Binding{Contact: device, Device: device, Q: 1000, Expires: time.Now().Add(during)})
	}
	if _, err := s.door.gate.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func passes(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestCopies: what each device has in the end, by what it said at first.
func TestCopies(t *testing.T) {
	busy, declined := message.FailForNow(message.Busy, "x"), message.Fail(message.Declined, "x")
	silent := message.FailForNow(message.NoAnswer, "x")
	for _, c := range []struct {
		name   string
		answer func(device string) (time.Duration, error)
		again  string // which device has it once more
		never  string // which device never gets it
	}{
		{"takes it at once", func(string) (time.Duration, error) { return 0, nil }, "", ""},
		{"takes it late", func(device string) (time.Duration, error) {
			return map[string]time.Duration{"tablet": 10 * time.Second}[device], nil
		}, "", ""},
		{"is busy", func(device string) (time.Duration, error) {
			return 0, map[string]error{"tablet": busy}[device]
		}, "", ""},
		{"doesn't answer", func(device string) (time.Duration, error) {
			if device == "tablet" {
				return 32 * time.Second, silent
			}
			return 0, nil
		}, "", ""},
		{"doesn't want it", func(device string) (time.Duration, error) {
			return 0, map[string]error{"tablet": declined}[device]
		}, "", "tablet"},
		{"doesn't want it, and says so late", func(device string) (time.Duration, error) {
			if device == "tablet" {
				return 10 * time.Second, declined
			}
			return 0, nil
		}, "", "tablet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandsets()
				s := h.run(t, memory.Open(memory.NewDisk()), forAll())
				s.comes(t, time.Minute, "desk")
				passes(2 * time.Minute)
				s.comes(t, 12*time.Hour, "phone", "tablet")
				var once sync.Map
				h.say(func(device, body string) (time.Duration, error) {
					if _, again := once.LoadOrStore(device+body, true); again {
						return 0, nil
					}
					return c.answer(device)
				})
				want := []string{"1", "2", "3"}
				for _, body := range want {
					o, err := first(t, s.door.submit("alice", "bob", body))
					if err != nil || o.State != plugin.OutcomeDelivered {
						t.Errorf("%+v, %v", o, err)
					}
				}
				passes(5 * time.Minute)
				if got := h.has("desk"); got != nil {
					t.Errorf("who isn't there got %q", got)
				}
				s.comes(t, time.Hour, "desk")
				passes(5 * time.Minute)
				for _, device := range []string{"phone", "tablet", "desk"} {
					if got := h.has(device); device == c.never && len(got) > 0 || device != c.never && !slices.Equal(got, want) {
						t.Errorf("%s has %q", device, got)
					}
				}
				for what, names := range h.names {
					if len(names) != 1 {
						t.Errorf("%s was called %v", what, names)
					}
				}
				if paid := rows(t, s.storage, "test/paid"); len(paid) != 3 || len(rows(t, s.storage, "messages")) != 0 {
					t.Errorf("%d were paid, %d are left", len(paid), len(rows(t, s.storage, "messages")))
				}
			})
		})
	}
}

// TestRefusalLasts: a device that has refused a message for good gets no copy, if
// another takes it only with a later attempt.
func TestRefusalLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandsets()
		s := h.run(t, memory.Open(memory.NewDisk()), forAll())
		s.comes(t, time.Hour, "phone", "tablet")
		said := map[string]error{"phone": message.FailForNow(message.Busy, "x"), "tablet": message.Fail(message.Declined, "x")}
		var once sync.Map
		h.say(func(device, _ string) (time.Duration, error) {
			if _, again := once.LoadOrStore(device, true); again {
				return 0, nil
			}
			return 0, said[device]
		})
		if _, err := first(t, s.door.submit("alice", "bob", "hello")); err != nil {
			t.Error(err)
		}
		passes(30 * time.Minute)
		if phone, tablet := h.has("phone"), h.has("tablet"); len(phone) != 1 || tablet != nil {
			t.Errorf("the phone has %q, the tablet %q", phone, tablet)
		}
		if left := rows(t, s.storage, "messages"); len(left) != 0 {
			t.Errorf("%d are left", len(left))
		}
	})
}

// TestCopiesOfAny: devices come and go at random, and answer late, or are busy.
// Each gets each message once, and those of one sender in their order.
func TestCopiesOfAny(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { comeAndGo(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func comeAndGo(t *testing.T, random *rand.Rand) {
	h := newHandsets()
	s := h.run(t, memory.Open(memory.NewDisk()), forAll())
	devices := []string{"a", "b", "c", "d"}
	s.comes(t, time.Second, devices...)
	passes(2 * time.Second)
	var mu sync.Mutex
	h.say(func(string, string) (time.Duration, error) {
		mu.Lock()
		defer mu.Unlock()
		after := time.Duration(random.IntN(2000)) * time.Millisecond
		switch random.IntN(6) {
		case 0:
			return after, message.FailForNow(message.Busy, "x")
		case 1:
			return 10 * after, nil
		case 2:
			return after, nil
		}
		return after / 100, nil
	})
	want := map[string][]string{}
	roll := func(n int) int { mu.Lock(); defer mu.Unlock(); return random.IntN(n) }
	for i := range 60 {
		switch roll(3) {
		case 0:
			s.comes(t, time.Duration(1+roll(60))*time.Second, devices[roll(len(devices))])
		default:
			from := []string{"alice", "carol"}[roll(2)]
			body := fmt.Sprint(from, " ", i)
			want[from] = append(want[from], body)
			if _, err := s.door.submit(from, "bob", body).Accepted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		passes(time.Duration(roll(8000)) * time.Millisecond)
	}
	s.comes(t, 12*time.Hour, devices...)
	passes(3 * time.Hour)
	for _, device := range devices {
		got := h.has(device)
		for from, want := range want {
			own := slices.DeleteFunc(slices.Clone(got), func(body string) bool { return body[:len(from)] != from })
			if !slices.Equal(own, want) {
				t.Errorf("device %s has from %s\n%q, want\n%q", device, from, own, want)
			}
		}
	}
	if left, paid := len(rows(t, s.storage, "messages")), len(rows(t, s.storage, "test/paid")); left != 0 || paid != len(want["alice"])+len(want["carol"]) {
		t.Errorf("%d are left, %d were paid", left, paid)
	}
}

// TestNoCopies: where a device has logged out, the plan or the sender doesn't want
// any, or no device has taken it.
func TestNoCopies(t *testing.T) {
	plan := func(change func(*plugin.Plan)) *testPolicy {
		policy := forAll()
		policy.also(change)
		return policy
	}
	for _, c := range []struct {
		name   string
		policy *testPolicy
		change func(*plugin.Arrival)
		online string // the device that is; empty: none
		logout bool
	}{
		{"any will do", plan(func(p *plugin.Plan) { p.Devices = plugin.AnyDevice }), expires(time.Hour), "phone", false},
		{"now or not at all", forAll(), expires(0), "phone", false},
		{"a typing notice", forAll(), func(a *plugin.Arrival) { a.Message.ContentType = "application/im-iscomposing+xml" }, "phone", false},
		{"it has logged out", forAll(), expires(time.Hour), "phone", true},
		{"it went outside", plan(func(p *plugin.Plan) { p.Transports = []string{"door", "trunk"} }), expires(time.Hour), "", false},
		{"by its fallback", plan(func(p *plugin.Plan) {
			p.Transports, p.Fallback.Transports = []string{"broken"}, []string{"door"}
		}), expires(time.Hour), "phone", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandsets()
				s := alone(t, memory.Open(memory.NewDisk()), c.policy, func(p *pipeline.Parts) {
					p.Doors["door"].Transport.(*testDoor).taking = h.take
					p.Doors["broken"] = pipeline.Door{Transport: refusing{}, Plugin: "broken"}
				})
				s.comes(t, time.Minute, "desk")
				if c.logout {
					s.comes(t, 0, "desk")
				}
				passes(2 * time.Minute)
				if c.online != "" {
					s.comes(t, time.Hour, c.online)
				}
				if _, err := first(t, s.door.submit("alice", "bob", "hello", c.change)); err != nil {
					t.Error(err)
				}
				passes(time.Minute)
				if left := rows(t, s.storage, "messages"); len(left) != 0 {
					t.Errorf("%d are left", len(left))
				}
				s.comes(t, time.Hour, "desk")
				passes(time.Minute)
				if got := h.has("desk"); got != nil || c.online != "" && len(h.has(c.online)) != 1 {
					t.Errorf("who wasn't there got %q, who was %q", got, h.has(c.online))
				}
			})
		})
	}
}

// refusing is a next hop that wants nothing.
type refusing struct{ plugin.Transport }

func (refusing) Send(context.Context, *message.Message, plugin.Route) (plugin.Receipt, error) {
	return plugin.Receipt{}, message.Fail(message.Declined, "x")
}

// TestCopiesLeaveRoom: of copies no more wait for a device that never comes back than
// of messages might, and they keep no message out. The others still get all.
func TestCopiesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandsets()
		s := alone(t, memory.Open(memory.NewDisk()), forAll(), func(p *pipeline.Parts) {
			p.Doors["door"].Transport.(*testDoor).taking = h.take
			p.Limits.PerRecipient = 10
		})
		s.comes(t, time.Minute, "desk")
		passes(2 * time.Minute)
		s.comes(t, time.Hour, "phone")
		for i := range 20 {
			wantOutcome(t, s.door.submit("alice", "bob", fmt.Sprint(i)), plugin.OutcomeDelivered)
			passes(time.Second)
		}
		if left := len(rows(t, s.storage, "messages")); left != 10 || len(h.has("phone")) != 20 {
			t.Errorf("%d copies wait, %d messages were taken", left, len(h.has("phone")))
		}
	})
}

// TestCopyIsShown: with the device that it is for and the message that it is a copy
// of, while it waits and when it has ended; its sender knows of none, and can't end
// it. The operator can. It is found again after a restart.
func TestCopyIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, h := memory.NewDisk(), newHandsets()
		s := h.run(t, memory.Open(disk), forAll())
		s.comes(t, time.Minute, "desk", "tablet")
		passes(2 * time.Minute)
		s.comes(t, time.Hour, "phone")
		ticket := s.door.submit("alice", "bob", "hello")
		wantOutcome(t, ticket, plugin.OutcomeDelivered)
		original, err := ticket.Accepted(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		passes(time.Second)
		s.stop()
		s = h.run(t, memory.Open(disk), forAll())
		copies := func(state spool.StateName) map[string]pipeline.View {
			page, err := s.List(t.Context(), pipeline.Filter{State: state})
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]pipeline.View{}
			for _, v := range page.Messages {
				if v.Device != "" && v.CopyOf != original.ID || v.Device == "" && v.ID != original.ID {
					t.Errorf("%+v", v)
				}
				found[v.Device] = v
			}
			return found
		}
		waiting := copies(spool.StateWaiting)
		if len(waiting) != 2 {
			t.Errorf("%+v", waiting)
		}
		which := plugin.Which{From: address("alice"), Recipient: address("bob")}
		if n, err := s.CancelOf(t.Context(), "alice", which); n != 0 || err == nil {
			t.Errorf("its sender has ended %d, %v", n, err)
		}
		if err := s.Cancel(t.Context(), waiting["tablet"].ID); err != nil {
			t.Error(err)
		}
		s.comes(t, time.Hour, "desk", "tablet")
		passes(time.Second)
		ended := copies("")
		if len(ended) != 3 || ended["desk"].State != spool.StateDelivered || ended["tablet"].Reason != message.Cancelled || len(h.has("desk")) != 1 || len(h.has("tablet")) != 0 {
			t.Errorf("%s; desk has %q, tablet %q", asJSON(ended), h.has("desk"), h.has("tablet"))
		}
	})
}

// TestDeadDeviceHoldsUpNobody: while copies of many senders' messages are on their
// way to a device that is registered and never answers, another one gets what comes
// at once.
func TestDeadDeviceHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandsets()
		s := h.run(t, memory.Open(memory.NewDisk()), forAll())
		h.say(func(device, _ string) (time.Duration, error) {
			if device == "dead" {
				return 32 * time.Second, message.FailForNow(message.NoAnswer, "x")
			}
			return 0, nil
		})
		s.comes(t, time.Hour, "phone", "dead")
		for round := range 10 {
			for sender := range 20 {
				began := time.Now()
				wantOutcome(t, s.door.submit(fmt.Sprint("sender", sender), "bob", fmt.Sprint(round)), plugin.OutcomeDelivered)
				if took := time.Since(began); took > time.Second {
					t.Fatalf("in round %d it took %s", round, took)
				}
			}
			passes(13 * time.Second)
			s.comes(t, time.Hour, "phone")
		}
		h.say(nil)
		s.comes(t, time.Hour, "dead")
		passes(time.Hour)
		if got := len(h.has("dead")); got != 200 || len(rows(t, s.storage, "messages")) != 0 {
			t.Errorf("it has %d messages, %d are left", got, len(rows(t, s.storage, "messages")))
		}
	})
}

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

package pipeline_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// household has apps that come only when they are woken, and whose connections break,
// noticed or not. Those in plain know no message/cpim. It is a pusher, too.
type household struct {
	plain []string
	s     *solo

	mu     sync.Mutex
	random *rand.Rand
	flows  int
	flow   map[string]string   // by device: its connection; none: it has no
	got    map[string][]string // by device
	names  map[string]bool     // what it has got, as peers call it
	told   map[string]int      // by message: how many clients have notified its sender
	notes  map[string]int      // by message: how often we have
}

func (h *household) roll(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.random.IntN(n)
}

// comes registers a device over a new connection.
func (h *household) comes(device string) {
	h.mu.Lock()
	h.flows++
	flow := fmt.Sprint(device, " ", h.flows)
	h.flow[device] = flow
	s, q := h.s, 100*int(device[0]-'a')
	h.mu.Unlock()
	r := plugin.Registration{Account: account("bob"), AOR: address("bob"), CallID: message.NewPublicID(), CSeq: 1, Bindings: []plugin.Binding{{
		Contact: device, Device: device, RegID: "1", Flow: flow, Q: q, Expires: time.Now().Add(time.Hour),
		Push: plugin.Push{Provider: "fcm", ID: device},
	}}}
	_, _ = s.door.gate.Register(context.Background(), r)
}

// breaks ends a device's connection, which isn't always noticed.
func (h *household) breaks(device string) {
	noticed := h.roll(2) == 0
	h.mu.Lock()
	flow, s := h.flow[device], h.s
	delete(h.flow, device)
	h.mu.Unlock()
	if noticed && flow != "" {
		_ = s.Lost(context.Background(), "door", flow)
	}
}

// Wake is plugin.Pusher: the app comes soon.
func (h *household) Wake(_ context.Context, s plugin.Sleeper) error {
	after := time.Duration(1+h.roll(4000)) * time.Millisecond
	time.AfterFunc(after, func() { h.comes(s.Device) })
	return nil
}

func (h *household) Keep() time.Duration { return 30 * 24 * time.Hour }
func (h *household) Close() error        { return nil }

func (h *household) take(_ context.Context, m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	text, _ := content.Text(m.ContentType, m.Body)
	h.mu.Lock()
	if m.Class == message.Notification {
		_, inner, _ := content.Unwrap(m.Body)
		imdn, _ := content.ParseIMDN(inner)
		h.notes[strings.TrimPrefix(imdn.MessageID, "of ")]++
		h.mu.Unlock()
		return plugin.Receipt{Final: true}, nil
	}
	device, s := r.Binding.Device, h.s
	isThere := h.flow[device] == r.Binding.Flow
	after, kind := time.Duration(h.random.IntN(2000))*time.Millisecond, h.random.IntN(7)
	if kind == 0 && h.names[r.Reference] {
		kind = 2 // who has it says so
	}
	h.mu.Unlock()
	if !isThere {
		go func() { _ = s.Lost(context.Background(), "door", r.Binding.Flow) }()
		return plugin.Receipt{}, message.FailForNow(message.Unavailable, "its flow is gone")
	}
	switch kind {
	case 0:
		time.Sleep(after)
		return plugin.Receipt{}, message.FailForNow(message.Busy, "x")
	case 1:
		after *= 10
	case 2, 3:
		after /= 100
	}
	time.Sleep(after)
	h.mu.Lock()
	defer h.mu.Unlock()
	isEnvelope := m.ContentType == content.TypeCPIM
	receipt := plugin.Receipt{Final: true, Unwrapped: isEnvelope && slices.Contains(h.plain, device)}
	if !h.names[r.Reference] { // else it is a repeat, and the device knows
		h.names[r.Reference] = true
		h.got[device] = append(h.got[device], text)
		if isEnvelope && !receipt.Unwrapped {
			h.told[text]++
		}
	}
	if kind == 4 { // its answer is lost
		receipt.Final = false
		return receipt, message.FailForNow(message.NoAnswer, "x")
	}
	return receipt, nil
}

// TestHousehold: whatever becomes of the connections of a recipient's apps, and of the
// node, each device that is to have a message has it once and in order, if only because
// it was woken; it is paid once; and its sender is told by us once at most, and never
// besides a client.
func TestHousehold(t *testing.T) {
	for _, forking := range []plugin.Forking{plugin.ForkParallel, plugin.ForkSequential} {
		for _, devices := range []plugin.DeviceMode{plugin.AnyDevice, plugin.AllDevices} {
			for seed := range uint64(10) {
				t.Run(fmt.Sprint(forking, " ", devices, " ", seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { keepHouse(t, forking, devices, rand.New(rand.NewPCG(seed, 9))) })
				})
			}
		}
	}
}

func keepHouse(t *testing.T, forking plugin.Forking, mode plugin.DeviceMode, random *rand.Rand) {
	h := &household{
		plain: []string{"b", "d"}, random: random,
		flow: map[string]string{}, got: map[string][]string{}, names: map[string]bool{}, told: map[string]int{}, notes: map[string]int{},
	}
	policy, disk := charged(), memory.NewDisk()
	policy.also(func(p *plugin.Plan) { p.Forking, p.Devices, p.Store = forking, mode, 20*24*time.Hour })
	open := func() {
		s := alone(t, memory.Open(disk), policy, func(p *pipeline.Parts) {
			p.Doors["door"].Transport.(*testDoor).taking = h.take
			p.Pusher = h
		})
		h.mu.Lock()
		h.s, h.flow = s, map[string]string{}
		h.mu.Unlock()
	}
	open()
	_ = h.s.door.register(t.Context(), "alice", "alice's")
	devices := []string{"a", "b", "c", "d"}
	for _, device := range devices {
		h.comes(device)
	}
	want := map[string][]string{}
	for i := range 60 {
		switch n := h.roll(20); {
		case n < 5:
			h.breaks(devices[h.roll(4)])
		case n == 5:
			h.s.stop()
			open()
		default:
			from := []string{"alice", "carol"}[h.roll(2)]
			body := fmt.Sprint(from, " ", i)
			want[from] = append(want[from], body)
			if _, err := h.s.door.submit(from, "bob", body, asks(both)).Accepted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		passes(time.Duration(h.roll(8000)) * time.Millisecond)
	}
	passes(24 * time.Hour)
	for from, want := range want {
		for _, device := range devices {
			got := slices.DeleteFunc(slices.Clone(h.got[device]), func(body string) bool { return !strings.HasPrefix(body, from) })
			if mode == plugin.AllDevices && !slices.Equal(got, want) {
				t.Errorf("device %s has from %s\n%q, want\n%q", device, from, got, want)
			}
			slices.Sort(got)
			if n := len(got); n != len(slices.Compact(got)) {
				t.Errorf("device %s has something twice from %s: %q", device, from, got)
			}
		}
		for _, body := range want {
			if !slices.ContainsFunc(devices, func(device string) bool { return slices.Contains(h.got[device], body) }) {
				t.Errorf("nobody has %s", body)
			}
			if h.notes[body] > 1 || h.notes[body] > 0 && h.told[body] > 0 {
				t.Errorf("of %s we have told %d times, and clients %d", body, h.notes[body], h.told[body])
			}
		}
	}
	waiting := h.s.Snapshot()["waiting"]
	h.s.door.register(t.Context(), "carol", "carol's")
	h.s.door.register(t.Context(), "alice", "alice's")
	passes(time.Minute)
	left, paid := len(rows(t, h.s.storage, "messages")), len(rows(t, h.s.storage, "test/paid"))
	if left != 0 || paid != len(want["alice"])+len(want["carol"]) {
		t.Errorf("%d are left of %d, %d were paid", left, waiting, paid)
	}
}

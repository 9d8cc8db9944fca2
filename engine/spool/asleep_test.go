package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

const keepTime = 24 * time.Hour

// site is a table of locations with its disk, at a time that the test sets.
type site struct {
	*Locations
	t    *testing.T
	disk plugin.Storage
	now  time.Time
	cseq uint32
}

func newSite(t *testing.T, keep time.Duration) *site {
	disk := memory.Open(memory.NewDisk())
	fence, err := disk.Acquire(t.Context(), "node", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	committer := NewCommitter(disk, fence, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- committer.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
	s := &site{Locations: NewLocations(nil, committer), t: t, disk: disk, now: time.Unix(1_000_000, 0).UTC()}
	s.Keep(keep)
	return s
}

// phone is a binding of an hour whose app can be woken.
func (s *site) phone(device, flow string) plugin.Binding {
	return plugin.Binding{
		Contact: "sip:" + device, Device: device, Flow: flow, Expires: s.now.Add(time.Hour),
		Push: plugin.Push{Provider: "fcm", Param: "app", ID: "token of " + device},
	}
}

// desk is one that nobody can wake.
func (s *site) desk(device, flow string) plugin.Binding {
	b := s.phone(device, flow)
	b.Push = plugin.Push{}
	return b
}

func (s *site) register(user string, bindings ...plugin.Binding) []plugin.Binding {
	s.t.Helper()
	s.cseq++
	r := plugin.Registration{Account: plugin.Account{ID: user}, AOR: message.Address{User: user, Host: "example.com"}, CallID: "c", CSeq: s.cseq, Bindings: bindings}
	now, err := s.Register("sip", r, s.now, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return now
}

// lose loses a flow, waits until that is on disk, and tells whose bindings sleep.
func (s *site) lose(flow string) (accounts []string) {
	s.t.Helper()
	done := make(chan error, 1)
	asleep := s.Lost("sip", flow, func(err error) { done <- err })
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
	for _, b := range asleep {
		accounts = append(accounts, b.Account)
	}
	return accounts
}

// expect checks which devices of an account are awake and which sleep.
func (s *site) expect(user string, awake, asleep []string) {
	s.t.Helper()
	devices := func(bindings []plugin.Binding) (names []string) {
		for _, b := range bindings {
			names = append(names, b.Device)
		}
		slices.Sort(names)
		return names
	}
	if got := devices(s.Of(user, s.now)); !slices.Equal(got, awake) {
		s.t.Errorf("awake %v, want %v", got, awake)
	}
	if got := devices(s.Sleeping(user, s.now)); !slices.Equal(got, asleep) {
		s.t.Errorf("asleep %v, want %v", got, asleep)
	}
}

// onDisk reads what is on disk.
func (s *site) onDisk() (bindings []plugin.Binding) {
	s.t.Helper()
	rows, err := s.disk.Scan(s.t.Context(), tableBindings, nil, nil, 1000)
	for _, row := range rows {
		b, decodeErr := decodeBinding(row.Value)
		err = errors.Join(err, decodeErr)
		bindings = append(bindings, b)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return bindings
}

func TestLostFlow(t *testing.T) {
	s := newSite(t, keepTime)
	s.register("bob", s.phone("phone", "tcp 1"), s.desk("desk", "tcp 2"))
	s.register("eve", s.desk("other", "tcp 1"))
	if got := s.Lost("other", "tcp 1", func(error) {}); got != nil {
		t.Errorf("another instance's flow lets %v sleep", got)
	}
	if got := s.lose("tcp 9"); got != nil {
		t.Errorf("a flow that nobody has lets %v sleep", got)
	}
	s.expect("bob", []string{"desk", "phone"}, nil)
	if got := s.lose("tcp 1"); !slices.Equal(got, []string{"bob"}) {
		t.Errorf("%v fall asleep", got)
	}
	s.expect("bob", []string{"desk"}, []string{"phone"})
	s.expect("eve", nil, nil)
	if awake, asleep := s.Count(); awake != 1 || asleep != 1 {
		t.Errorf("%d awake, %d asleep", awake, asleep)
	}
	rows := s.onDisk()
	if i := slices.IndexFunc(rows, func(b plugin.Binding) bool { return b.Asleep }); len(rows) != 2 || i < 0 || !rows[i].Expires.Equal(s.now.Add(time.Hour+keepTime)) {
		t.Errorf("on disk: %+v", rows)
	}
	if got := s.lose("tcp 1"); got != nil {
		t.Errorf("lost again, it lets %v sleep", got)
	}
}

// TestLostWithoutPusher: where nobody wakes apps, their bindings end as others do.
func TestLostWithoutPusher(t *testing.T) {
	s := newSite(t, 0)
	s.register("bob", s.phone("phone", "tcp 1"), s.phone("pad", "tcp 2"))
	if got := s.lose("tcp 1"); got != nil {
		t.Errorf("%v fall asleep", got)
	}
	s.expect("bob", []string{"pad"}, nil)
	s.now = s.now.Add(time.Hour)
	s.expect("bob", nil, nil)
	s.Sweep(s.now, 10)
	if awake, asleep := s.Count(); awake != 0 || asleep != 0 || len(s.flows) != 0 {
		t.Errorf("%d awake, %d asleep, %d flows", awake, asleep, len(s.flows))
	}
}

// TestExpiredSleeps until its time is over, swept or not; one that was swept is so
// on disk.
func TestExpiredSleeps(t *testing.T) {
	s := newSite(t, keepTime)
	s.register("bob", s.phone("phone", "udp"), s.desk("desk", "udp"))
	s.now = s.now.Add(time.Hour)
	s.expect("bob", nil, []string{"phone"})
	s.Sweep(s.now, 10)
	s.expect("bob", nil, []string{"phone"})
	if awake, asleep := s.Count(); awake != 0 || asleep != 1 || len(s.flows) != 0 {
		t.Errorf("%d awake, %d asleep, %d flows", awake, asleep, len(s.flows))
	}
	s.now = s.now.Add(keepTime - 1)
	s.expect("bob", nil, []string{"phone"})
	s.now = s.now.Add(1)
	s.expect("bob", nil, nil)
	s.Sweep(s.now, 10)
	s.lose("udp") // its rows are behind those of the sweep
	if awake, asleep := s.Count(); awake != 0 || asleep != 0 {
		t.Errorf("%d awake, %d asleep", awake, asleep)
	}
}

func TestRegistrationWakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		device func(s *site) plugin.Binding
		awake  []string
		asleep []string
	}{
		{"the same device", func(s *site) plugin.Binding { b := s.phone("phone", "tcp 2"); b.Contact = "sip:new"; return b }, []string{"phone"}, nil},
		{"the same contact", func(s *site) plugin.Binding { b := s.phone("other", "tcp 2"); b.Contact = "sip:phone"; return b }, []string{"other"}, nil},
		{"another device", func(s *site) plugin.Binding { return s.phone("other", "tcp 2") }, []string{"other"}, []string{"phone"}},
		{"a deregistration", func(s *site) plugin.Binding { b := s.phone("phone", "tcp 2"); b.Expires = s.now; return b }, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, keepTime)
			s.register("bob", s.phone("phone", "tcp 1"))
			s.lose("tcp 1")
			s.cseq = 0 // the app was started anew, and counts anew
			if got := s.register("bob", c.device(s)); len(got) != len(c.awake) {
				t.Errorf("the answer lists %+v", got)
			}
			s.expect("bob", c.awake, c.asleep)
		})
	}
}

// TestDeregistered: what a device has given up itself doesn't sleep.
func TestDeregistered(t *testing.T) {
	s := newSite(t, keepTime)
	s.register("bob", s.phone("phone", "tcp 1"), s.phone("pad", "tcp 2"))
	gone := s.phone("phone", "tcp 1")
	gone.Expires = s.now
	s.register("bob", gone)
	s.expect("bob", []string{"pad"}, nil)
	s.lose("tcp 2")
	r := plugin.Registration{Account: plugin.Account{ID: "bob"}, AOR: message.Address{User: "bob", Host: "example.com"}, CallID: "c", CSeq: 9, All: true}
	if _, err := s.Register("sip", r, s.now, nil); err != nil {
		t.Fatal(err)
	}
	s.expect("bob", nil, nil)
}

// TestOldestSleeperGivesWay: an app that was installed anew again and again may
// register.
func TestOldestSleeperGivesWay(t *testing.T) {
	s := newSite(t, keepTime)
	s.Limit(3)
	for i := range 5 {
		flow := fmt.Sprint("tcp ", i)
		s.register("bob", s.phone(fmt.Sprint(i), flow))
		s.lose(flow)
		s.now = s.now.Add(time.Minute)
	}
	s.expect("bob", nil, []string{"2", "3", "4"})
	s.register("bob", s.desk("a", "tcp a"), s.desk("b", "tcp b"))
	s.expect("bob", []string{"a", "b"}, []string{"4"})
	s.register("bob", s.desk("c", "tcp c"))
	r := plugin.Registration{Account: plugin.Account{ID: "bob"}, AOR: message.Address{User: "bob", Host: "example.com"}, Bindings: []plugin.Binding{s.phone("d", "tcp d")}}
	if _, err := s.Register("sip", r, s.now, nil); message.AsFailure(err).Reason != message.LimitReached {
		t.Errorf("a fourth that is awake: %v", err)
	}
}

// TestRestoreKeepsAsleep: what sleeps does so after a restart, also without a
// pusher; what has expired meanwhile falls asleep.
func TestRestoreKeepsAsleep(t *testing.T) {
	for _, keep := range []time.Duration{keepTime, 0} {
		s := newSite(t, keepTime)
		s.register("bob", s.phone("phone", "tcp 1"), s.phone("pad", "tcp 2"), s.desk("desk", "tcp 3"))
		s.lose("tcp 1")
		again := NewLocations(s.disk, s.committer)
		again.Keep(keep)
		if err := again.Restore(t.Context(), s.now); err != nil {
			t.Fatal(err)
		}
		s.Locations = again
		s.expect("bob", []string{"desk", "pad"}, []string{"phone"})
		s.now = s.now.Add(2 * time.Hour)
		if err := again.Restore(t.Context(), s.now); err != nil {
			t.Fatal(err)
		}
		if keep == 0 {
			s.expect("bob", nil, []string{"phone"})
		} else {
			s.expect("bob", nil, []string{"pad", "phone"})
		}
	}
}

// TestFlowsAgreeWithScan: whatever happens, the flows lead to the accounts that
// have awake bindings over them, and memory is what is on disk.
func TestFlowsAgreeWithScan(t *testing.T) {
	const users, devices, flows, steps = 5, 3, 4, 3000
	random := rand.New(rand.NewPCG(1, 2))
	s := newSite(t, keepTime)
	flow := func() string { return fmt.Sprint("tcp ", random.IntN(flows)) }
	for step := range steps {
		switch random.IntN(10) {
		case 0:
			s.lose(flow())
		case 1:
			s.now = s.now.Add(time.Duration(random.IntN(120)) * time.Minute)
		case 2:
			s.Sweep(s.now, 2)
		case 3:
			gone := s.phone(fmt.Sprint(random.IntN(devices)), flow())
			gone.Expires = s.now
			s.register(fmt.Sprint(random.IntN(users)), gone)
		case 4:
			s.register(fmt.Sprint(random.IntN(users)), s.desk(fmt.Sprint(random.IntN(devices)), flow()))
		default:
			s.register(fmt.Sprint(random.IntN(users)), s.phone(fmt.Sprint(random.IntN(devices)), flow()), s.phone("all", ""))
		}
		s.agree(step)
	}
	s.lose("none")
	done := make(chan struct{})
	s.committer.Move(nil, func(error) { close(done) })
	<-done
	inMemory := 0
	rows := s.onDisk()
	for _, bindings := range s.accounts {
		inMemory += len(bindings)
		for _, b := range bindings {
			if !slices.Contains(rows, b) {
				t.Errorf("not on disk: %+v", b)
			}
		}
	}
	if inMemory != len(rows) {
		t.Errorf("%d in memory, %d on disk", inMemory, len(rows))
	}
}

// agree compares what is kept besides the bindings with the bindings.
func (s *site) agree(step int) {
	s.t.Helper()
	scanned := map[flowName]map[string]bool{}
	awake, asleep := 0, 0
	for account, bindings := range s.accounts {
		for _, b := range bindings {
			if b.Asleep {
				asleep++
				continue
			}
			awake++
			if b.Flow == "" {
				continue
			}
			name := flowName{b.Transport, b.Flow}
			if scanned[name] == nil {
				scanned[name] = map[string]bool{}
			}
			scanned[name][account] = true
		}
	}
	if a, n := s.Count(); a != awake || n != asleep {
		s.t.Fatalf("step %d: %d awake and %d asleep are counted, there are %d and %d", step, a, n, awake, asleep)
	}
	if len(s.flows) != len(scanned) {
		s.t.Fatalf("step %d: %d flows, %d are in use", step, len(s.flows), len(scanned))
	}
	for name, accounts := range scanned {
		got := s.flows.accounts(name)
		slices.Sort(got)
		if want := slices.Sorted(maps.Keys(accounts)); !slices.Equal(got, want) {
			s.t.Fatalf("step %d: %v leads to %v, want %v", step, name, got, want)
		}
	}
}

package ladder

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// admin is an admin API with nothing else in it.
type admin struct{ *http.ServeMux }

func (a admin) Handle(pattern string, handler http.HandlerFunc) {
	method, path, _ := strings.Cut(pattern, " ")
	a.HandleFunc(method+" /v1"+path, handler)
}

func (a admin) get(path string) (int, string) {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestContract(t *testing.T) {
	plugintest.Observer(t, func(plugintest.T) plugintest.ObserverHarness {
		a := admin{http.NewServeMux()}
		return plugintest.ObserverHarness{
			Open: func(t plugintest.T) plugin.Observer {
				o, err := plugin.Open[plugin.Observer](t.Context(), Plugin, plugin.Env{Admin: a}, Plugin.NewConfig())
				if err != nil {
					t.Fatalf("open: %v", err)
				}
				return o
			},
			Read: func(plugintest.T) string {
				_, of := a.get("/v1/trace?address=alice@a.example")
				_, afterwards := a.get("/v1/trace?address=alice@afterwards.example")
				return of + afterwards
			},
		}
	})
}

func TestEntriesAreSmallAndNothingAllocates(t *testing.T) {
	if n := unsafe.Sizeof(packetEntry{}); n > 256 {
		t.Errorf("a packet takes %d octets", n)
	}
	if n := unsafe.Sizeof(stepEntry{}); n > 256 {
		t.Errorf("a step takes %d octets", n)
	}
	l, p, s := New(Config{Packets: 10, Steps: 10}), benchPacket(), benchStep()
	if n := testing.AllocsPerRun(100, func() { l.Packet(p); l.Step(s) }); n > 0 {
		t.Errorf("%g allocations for a packet and a step", n)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{0, 1}, {1, 0}, {maxEntries + 1, 1}, {1, -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v passes", c)
		}
	}
	if err := Plugin.NewConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	const size = 3*chunk + 7
	r := newRing[int](size)
	for n := range 10 * size {
		r.add(&n)
		if n != size/2 && n != size-1 && n != 5*size {
			continue
		}
		want, seen := max(0, n-size+1), 0
		r.each(func(v *int) bool {
			if *v != want {
				t.Fatalf("after %d: %d comes when %d is due", n, *v, want)
			}
			want++
			seen++
			return true
		})
		if want != n+1 {
			t.Errorf("after %d: the last is %d", n, want-1)
		}
	}
}

// TestRingUnderWriters reads while others write: what is seen only grows.
func TestRingUnderWriters(t *testing.T) {
	r := newRing[uint64](2 * chunk)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := uint64(1); ; n++ {
			r.add(&n)
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for range 200 {
		last := uint64(0)
		r.each(func(v *uint64) bool {
			if *v != 0 && *v <= last {
				t.Errorf("%d comes behind %d", *v, last)
			}
			last = *v
			return true
		})
	}
	close(stop)
	<-stopped
}

func openOn(t *testing.T, a admin, c Config) *Ladder {
	t.Helper()
	o, err := plugin.Open[plugin.Observer](t.Context(), Plugin, plugin.Env{Admin: a}, &c)
	if err != nil {
		t.Fatal(err)
	}
	return o.(*Ladder)
}

func TestAdmin(t *testing.T) {
	a := admin{http.NewServeMux()}
	l := openOn(t, a, Config{Packets: 100, Steps: 100})
	tellTwo(l)
	first, second := storyMessage(1), storyMessage(2)
	newStory(l).step(plugin.StepReceived, 0, func(s *plugin.Step) {
		other := *storyMessage(3)
		other.From, other.Recipient = message.Address{User: "+4312345"}, message.Address{User: "x", Host: "elsewhere.example"}
		s.Message = &other
	})
	for query, want := range map[string]struct {
		status, messages, events int
		truncated                bool
	}{
		"message=" + first.ID.String():                    {200, 1, 17, false},
		"message=" + second.PublicID:                      {200, 1, 17, false},
		"address=1002@SIP.example.com":                    {200, 2, 34, false},
		"address=sip:1001@sip.example.com&limit=5":        {200, 2, 5, true},
		"address=" + url.QueryEscape("+4312345"):          {200, 1, 1, false},
		"address=nobody@sip.example.com":                  {404, 0, 0, false},
		"message=" + message.ID{9}.String():               {404, 0, 0, false},
		"message=" + strings.Repeat("x", 500):             {404, 0, 0, false},
		"":                                                {400, 0, 0, false},
		"message=x&address=y":                             {400, 0, 0, false},
		"address=" + url.QueryEscape("a b@c"):             {400, 0, 0, false},
		"message=x&limit=0":                               {400, 0, 0, false},
		"message=x&limit=5001":                            {400, 0, 0, false},
		"massage=x":                                       {400, 0, 0, false},
		"message=" + first.ID.String() + "&limit=nothing": {400, 0, 0, false},
	} {
		status, body := a.get("/v1/trace?" + query)
		if status != want.status {
			t.Errorf("%s: status %d, want %d: %s", query, status, want.status, body)
			continue
		}
		if status != http.StatusOK {
			var refusal struct{ Error string }
			if err := json.Unmarshal([]byte(body), &refusal); err != nil || refusal.Error == "" {
				t.Errorf("%s: an error without words: %s", query, body)
			}
			continue
		}
		var got trace
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Messages) != want.messages || len(got.Events) != want.events || got.Truncated != want.truncated {
			t.Errorf("%s: %d messages, %d events, truncated %t; want %+v", query, len(got.Messages), len(got.Events), got.Truncated, want)
		}
	}
}

func TestWhatIsForgottenIsSaid(t *testing.T) {
	l := New(Config{Packets: 100, Steps: 4})
	newStory(l).tell()
	found := l.find(l.withID(storyMessage(1).ID), 100)
	if len(found.Events) == 0 || !found.Truncated {
		t.Errorf("%d events, truncated %t", len(found.Events), found.Truncated)
	}
}

func TestAnAddressHasItsLastMessages(t *testing.T) {
	l := New(Config{Packets: 1000, Steps: 1000})
	s := newStory(l)
	for i := range byte(2 * maxMessages) {
		s.m = storyMessage(i)
		s.after(time.Second).step(plugin.StepReceived, 0, nil)
	}
	found := l.find(l.withAddress(s.m.From), 1000)
	if len(found.Messages) != maxMessages || !found.Truncated || found.Messages[maxMessages-1].ID != s.m.ID {
		t.Errorf("%d messages, truncated %t", len(found.Messages), found.Truncated)
	}
}

// TestOddPackets fills in what no transport should: it must only not break.
func TestOddPackets(t *testing.T) {
	l := New(Config{Packets: 10, Steps: 10})
	l.Packet(&plugin.Packet{})
	long := strings.Repeat("é", 1000)
	l.Packet(&plugin.Packet{
		Call: long, Title: [2]string{long, long}, Transport: long, Network: long, Protocol: long,
		Remote: netip.MustParseAddrPort("[fe80::1%eth0]:5060"), Data: make([]byte, 70_000),
	})
	address := message.Address{User: long, Host: long}
	m := &message.Message{ID: message.ID{1}, PublicID: long, From: address, Recipient: address}
	l.Step(&plugin.Step{Name: plugin.StepReceived, Message: m, Call: long, Peer: long, Service: long, Reason: message.Reason(long), Attempt: 1 << 20})
	found := l.find(l.withAddress(address), 10)
	if len(found.Events) != 2 || !strings.HasSuffix(found.Events[1].Call+found.Events[0].Call, "…") {
		t.Errorf("%+v", found.Events)
	}
}

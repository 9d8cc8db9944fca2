package trunk

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
)

func port(s *server, i int) uint16 { return s.endpoint.Addrs()[i].Port() }

// service is a domain with servers, the one to try first in front.
func service(t *testing.T, prefix string, ports ...uint16) string {
	t.Helper()
	records := []string{"host.b.example. 60 IN A 127.0.0.1"}
	for i, port := range ports {
		records = append(records, fmt.Sprintf("%sb.example. 60 IN SRV %d 0 %d host.b.example.", prefix, i, port))
	}
	return zone(t, records...)
}

func TestFailover(t *testing.T) {
	first, second := serve(t, always(503), "tcp"), serve(t, ok, "tcp")
	for _, test := range []struct {
		what  string
		ports []uint16
	}{
		{"503", []uint16{port(first, 0), port(second, 0)}},
		{"nobody there", []uint16{deadPort(t), port(second, 0)}},
	} {
		config := local()
		config.PrivateAddresses = true
		config.NameServers = []string{service(t, "_sip._tcp.", test.ports...)}
		trunk, _ := openTrunk(t, config)
		for range 3 {
			if _, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil {
				t.Errorf("%s: %v", test.what, err)
			}
		}
		if n := second.count("MESSAGE"); n != 3 {
			t.Errorf("%s: the second server got %d messages", test.what, n)
		}
		if n := trunk.metrics.failovers.Value(); n != 1 {
			t.Errorf("%s: %d failovers, want one: the first server is tried last from then on", test.what, n)
		}
	}
	if n := first.count("MESSAGE"); n != 1 {
		t.Errorf("the first server got %d messages", n)
	}
}

// TestFailoverOnSilence: the first server has its share of the time.
func TestFailoverOnSilence(t *testing.T) {
	first, second := serve(t, silent, "tcp"), serve(t, ok, "tcp")
	config := local()
	config.PrivateAddresses = true
	config.NameServers = []string{service(t, "_sip._tcp.", port(first, 0), port(second, 0))}
	trunk, _ := openTrunk(t, config)
	w := trunk.work.Load()
	to, err := trunk.wayOf(testMessage(), delivery())
	if err != nil {
		t.Fatal(err)
	}
	request, err := trunk.request(testMessage(), to, "reference", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := &attempt{Trunk: trunk, work: w, to: to, request: request, deadline: time.Now().Add(2 * time.Second)}
	hops, err := a.hops(t.Context())
	if err != nil || len(hops) != 2 {
		t.Fatal(hops, err)
	}
	begun := time.Now()
	_, err = a.over(t.Context(), hops[0], 2)
	if took := time.Since(begun); err == nil || took > 1900*time.Millisecond || !a.sent {
		t.Errorf("%v after %s, sent %t", err, took, a.sent)
	}
	fails(t, "silence", a.failure(err), message.NoAnswer, true)
	if hops = trunk.avoided.last(hops, time.Now()); hops[0].Address.Port() != port(second, 0) {
		t.Errorf("the silent server stays the first: %v", hops)
	}
	if _, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil {
		t.Error(err)
	}
}

// TestSilenceBefore503: somebody may have the message, so it isn't as if nobody had
// been reached.
func TestSilenceBefore503(t *testing.T) {
	rude, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer rude.Close()
	go func() {
		for conn, err := rude.Accept(); err == nil; conn, err = rude.Accept() {
			_, _ = conn.Read(make([]byte, 1))
			conn.Close() // without an answer
		}
	}()
	busy := serve(t, always(503), "tcp")
	config := local()
	config.PrivateAddresses = true
	config.NameServers = []string{service(t, "_sip._tcp.", uint16(rude.Addr().(*net.TCPAddr).Port), port(busy, 0))}
	trunk, _ := openTrunk(t, config)
	_, err = trunk.Send(t.Context(), testMessage(), delivery())
	fails(t, "503 behind silence", err, message.NoAnswer, true)
	if busy.count("MESSAGE") != 1 {
		t.Error("the second server wasn't tried")
	}
}
